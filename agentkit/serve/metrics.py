"""The figures of a node in the text format of Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from agentkit.journal.journal import Journal
from agentkit.money import Asset
from agentkit.serve.earnings import NodeFigures, read_figures

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

FIGURES_LAST = 5.0
"""Seconds for which figures that were read are told again: reading them goes through all jobs."""


class Metrics:
    """Tells the figures of a node, read from its books every few seconds at most."""

    def __init__(self, journal: Journal, currency: Asset, *, lasts: float = FIGURES_LAST) -> None:
        """Read from `journal` what was earned in `currency`; figures count for `lasts` seconds."""
        self._journal = journal
        self._currency = currency
        self._lasts = lasts
        self._reading = asyncio.Lock()
        self._figures: NodeFigures | None = None
        self._read_at = 0.0

    async def figures(self) -> NodeFigures:
        """Return the figures as they were at most a few seconds ago."""
        async with self._reading:
            is_old = time.monotonic() - self._read_at >= self._lasts
            if self._figures is None or is_old:
                self._figures = await self._journal.commit(
                    lambda tx: read_figures(tx, self._currency)
                )
                self._read_at = time.monotonic()
            return self._figures


def text_of(figures: NodeFigures) -> str:
    """Return figures as Prometheus reads them; amounts are in base units of the currency."""
    currency = figures.currency.symbol
    by_rail = [({"rail": each.rail, "currency": currency}, each) for each in figures.rails]
    families = [
        _family(
            "agentkit_earned_units_total",
            "counter",
            "What payers have signed for or paid.",
            [(labels, each.earned) for labels, each in by_rail],
        ),
        _family(
            "agentkit_claimed_units_total",
            "counter",
            "What of it nobody can take back any more.",
            [(labels, each.claimed) for labels, each in by_rail],
        ),
        _family(
            "agentkit_at_risk_units",
            "gauge",
            "What is earned, is not claimed, and may be taken back by its payers.",
            [(labels, each.at_risk) for labels, each in by_rail],
        ),
        _family(
            "agentkit_at_risk_until_seconds",
            "gauge",
            "When the first of it may be taken back, in unix time.",
            [(labels, each.until) for labels, each in by_rail if each.until],
        ),
        _family(
            "agentkit_jobs",
            "gauge",
            "Jobs by their state.",
            [({"state": state}, count) for state, count in figures.jobs.items()],
        ),
    ]
    return "".join(families)


def _family(name: str, kind: str, words: str, samples: Iterable[tuple[dict[str, str], int]]) -> str:
    """Return one metric: what it means, and a line for each of its samples."""
    lines = [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        text = ",".join(f'{label}="{_escaped(of)}"' for label, of in labels.items())
        lines.append(f"{name}{{{text}}} {value}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    """Return a label's value as it stands between quotes."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
