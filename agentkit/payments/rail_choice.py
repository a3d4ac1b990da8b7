"""Chooses by which rail an offer is paid, of those that its provider takes, and says why."""

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
    """What a wallet remembers of the providers it pays.

    `delivered` and `refused` count results by provider node; `channels` are the payees that it has
    an open channel with.
    """

    delivered: Mapping[str, int]
    refused: Mapping[str, int]
    channels: Collection[str]

    @classmethod
    def of(cls, tx: Transaction) -> History:
        """Read the history from the journal."""
        reputations = tx.every(r.Reputation)
        return cls(
            delivered={row.provider: row.delivered for row in reputations},
            refused={row.provider: row.refused for row in reputations},
            channels={row.payee for row in tx.every(r.CurrentChannel)},
        )


@dataclass(frozen=True)
class RailPlanner:
    """Chooses by price, duration and history, among the rails that are set up.

    A channel by default.  Escrow for tasks that cost `escrow_from` or more, or last `escrow_after`
    seconds or longer; both limits are `TRUSTED_TIMES` higher for a provider node that has
    delivered `PROVEN` times and was refused never.  Without an arbiter nobody can refuse what was
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
        """Return a function that returns an offer with its rail and the reason for it."""

        def with_rail(offer: Offer) -> Offer:
            usable = [rail for rail in offer.rails if rail in self.rails]
            if not usable:
                return offer
            rail, reason = self.choose(offer, usable, history)
            return offer.paid_by(rail, reason)

        return with_rail

    def choose(self, offer: Offer, usable: list[str], history: History) -> tuple[str, str]:
        """Return (rail, reason) for an offer that can be paid by any of the `usable` rails.

        A provider lists its rails in the order of its preference.
        """
        if len(usable) == 1:
            return usable[0], "the only rail that it takes and that is set up"
        if "escrow" in usable:
            reason = self._reason_for_escrow(offer, history)
            if reason:
                return "escrow", reason
        if "channel" in usable:
            is_open = offer.payee in history.channels
            return "channel", "a channel is open" if is_open else "opens a channel"
        return usable[0], "the provider prefers it"

    def _reason_for_escrow(self, offer: Offer, history: History) -> str:
        """Return why an offer's price is locked for its task, "" where it is not."""
        # Without an arbiter a submitted result is paid, so a large price is not locked.
        if offer.at_most > self.arbiter_above and not self.arbitrated:
            return ""
        times = self.TRUSTED_TIMES if self._is_proven(offer.label, history) else 1
        if offer.at_most >= self.escrow_from * times:
            return f"from {self.escrow_from * times} on a task's price is locked for it alone"
        if offer.eta >= self.escrow_after * times:
            return f"it lasts longer than {duration(self.escrow_after * times)}"
        return ""

    def _is_proven(self, label: str, history: History) -> bool:
        """Return whether a provider node has delivered often, and was never refused."""
        return history.delivered.get(label, 0) >= self.PROVEN and not history.refused.get(label)
