"""Which of the ways of paying that a provider takes is used, and why."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from agentkit.display.text import duration
from agentkit.journal import records as r
from agentkit.market.offer import Offer
from agentkit.market.seams import Transaction
from agentkit.money import Money


@dataclass(frozen=True)
class History:
    """What a wallet knows of those it pays.

    `delivered` and `refused` count results by provider node; `channels` are the payees that it has
    an open channel with.
    """

    delivered: Mapping[str, int]
    refused: Mapping[str, int]
    channels: Collection[str]

    @classmethod
    def of(cls, tx: Transaction) -> History:
        """Read the history from the journal."""
        known = tx.every(r.Reputation)
        return cls(
            delivered={row.provider: row.delivered for row in known},
            refused={row.provider: row.refused for row in known},
            channels={row.payee for row in tx.every(r.CurrentChannel)},
        )


@dataclass(frozen=True)
class RailPlanner:
    """Chooses by price, duration and history, among the rails that are set up.

    A channel by default.  Escrow from `escrow_from` on, or for tasks that last longer than
    `escrow_after` seconds; ten times later for a provider node that has delivered
    `PROVEN` times and was refused never.  Without an arbiter nobody can refuse what was
    submitted, so above `arbiter_above` escrow is used only where `arbitrated`.
    """

    rails: Collection[str]
    escrow_from: Money
    escrow_after: float
    arbiter_above: Money
    arbitrated: bool = False

    PROVEN = 20
    TRUSTED_TIMES = 10

    def choosing(self, history: History) -> Callable[[Offer], Offer]:
        """Return a function that gives an offer its rail, and says why."""

        def chosen(offer: Offer) -> Offer:
            ways = [rail for rail in offer.rails if rail in self.rails]
            if not ways:
                return offer
            return offer.paid_by(*self.choose(offer, ways, history))

        return chosen

    def choose(self, offer: Offer, ways: list[str], history: History) -> tuple[str, str]:
        """Return (rail, why) for an offer that can be paid in any of `ways`."""
        if len(ways) == 1:
            return ways[0], "the only way that it takes and that is set up"
        if "escrow" in ways and (why := self._for_escrow(offer, history)):
            return "escrow", why
        if "channel" in ways:
            known = offer.payee in history.channels
            return "channel", "a channel is open" if known else "opens a channel"
        return ways[0], "what it likes best"

    def _for_escrow(self, offer: Offer, history: History) -> str:
        """Return why an offer's price is locked for its task, "" where it is not."""
        if offer.at_most > self.arbiter_above and not self.arbitrated:
            return ""
        times = self.TRUSTED_TIMES if self._is_proven(offer.label, history) else 1
        if offer.at_most >= self.escrow_from * times:
            return f"from {self.escrow_from * times} on a task's price is locked for it alone"
        if offer.eta >= self.escrow_after * times:
            return f"it lasts longer than {duration(self.escrow_after * times)}"
        return ""

    def _is_proven(self, label: str, history: History) -> bool:
        return history.delivered.get(label, 0) >= self.PROVEN and not history.refused.get(label)
