"""What a node has earned, as `agentkit serve --status` shows it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from agentkit.cli import output
from agentkit.config import Settings
from agentkit.errors import ConfigError
from agentkit.money import Money
from agentkit.serve.earnings import NodeFigures, RailEarnings, read_figures
from agentkit.wiring import network_of


async def show_earnings(settings: Settings, home: Path, *, as_json: bool) -> None:
    """Show the figures of the node whose books lie in `home`; raises ConfigError without any."""
    from agentkit.journal.journal import Journal
    from agentkit.journal.state_file import read_meta

    meta = read_meta(home / "state.db")
    if meta is None:
        raise ConfigError(
            f"there are no books of a node in {home}",
            hint="give the --name under which it was served, and the same settings",
        )
    network, _ = await network_of(settings)
    journal = await Journal.open(home, meta["wallet"])
    try:
        figures = await journal.commit(lambda tx: read_figures(tx, network.currency))
    finally:
        await journal.close()
    output.result(_document(figures), _text(figures), as_json=as_json)


def _document(figures: NodeFigures) -> dict[str, Any]:
    """Return the figures for programs."""
    return {
        **_sums(figures, figures.total),
        "rails": {each.rail: _sums(figures, each) for each in figures.rails},
        "jobs": dict(figures.jobs),
    }


def _sums(figures: NodeFigures, rail: RailEarnings) -> dict[str, Any]:
    def amount(units: int) -> str:
        return str(Money(units, figures.currency))

    return {
        "earned": amount(rail.earned),
        "claimed": amount(rail.claimed),
        "at_risk": amount(rail.at_risk),
        "until": rail.until,
    }


def _text(figures: NodeFigures) -> str:
    """Return the figures for people."""
    sums = _sums(figures, figures.total)
    lines = [f"earned     {sums['earned']}", f"claimed    {sums['claimed']}"]
    lines.append(f"at risk    {sums['at_risk']}")
    if figures.total.until:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(figures.total.until))
        lines.append(f"           can be taken back from {when} on: keep it serving")
    lines += [f"  by {rail.rail}: {_sums(figures, rail)['earned']}" for rail in figures.rails]
    jobs = [f"{count} {state}" for state, count in figures.jobs.items() if count]
    lines.append(f"jobs       {', '.join(jobs) or 'none'}")
    return "\n".join(lines)
