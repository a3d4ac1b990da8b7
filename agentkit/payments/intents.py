"""Names of intents that more than one module has to know."""

from __future__ import annotations

from agentkit.journal import records as r


def opening_intent(escrow: r.Escrow) -> str:
    """Return the intent under which a quoted job is opened; another quote has another intent."""
    return f"escrow:{escrow.attempt}:{escrow.id}"
