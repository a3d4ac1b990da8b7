"""A run as its journal tells it."""

from __future__ import annotations

from collections.abc import Sequence

from agentkit.errors import RunNotFound
from agentkit.journal.journal import Journal
from agentkit.journal.run_state import RunState
from agentkit.market.seams import Event


async def read(journal: Journal, run: str) -> RunState:
    """Fold a run's stream; raises RunNotFound, JournalDamaged."""
    return _folded(journal, run, await journal.history(run))


async def read_checked(journal: Journal, run: str) -> RunState:
    """Fold a run's stream as `read` does, after everything that money depends on was checked."""
    return _folded(journal, run, await journal.checked(run))


def _folded(journal: Journal, run: str, events: Sequence[Event]) -> RunState:
    if not events:
        raise RunNotFound(f"there is no run {run!r} in {journal.path}")
    return RunState.of(run, events)
