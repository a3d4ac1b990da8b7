"""The limits of an agent over time."""

from __future__ import annotations

from fnmatch import fnmatchcase

from agentkit.market.value import Value
from agentkit.money import Asset, Money
from agentkit.user_values import UserValue


class Allowance(UserValue, Value):
    """What an agent may spend; a limit left out does not limit.

    `rebuy_below`: a purchase whose outcome is unknown is bought again without asking when its at
    most is below this.  `providers`: the only ones that may be paid, as names or globs.  `gas`:
    limit on transaction fees ever, in the chain's own coin.  `payees`: the only addresses that may
    be paid.  `per_provider`: what may be spent with one provider ever.  `exposure`: what may lie
    with one payee, in a channel, as credit or in escrow, and is not spent yet.  `per_minute`: how
    many tasks may be bought in one minute of the clock.
    """

    per_task: Money | None = None
    per_run: Money | None = None
    per_day: Money | None = None
    total: Money | None = None
    gas: Money | None = None
    rebuy_below: Money | None = None
    providers: tuple[str, ...] | None = None
    payees: tuple[str, ...] | None = None
    per_provider: Money | None = None
    exposure: Money | None = None
    per_minute: int | None = None

    def permits(self, provider: str) -> bool:
        """Whether a provider may be paid."""
        return self.providers is None or any(fnmatchcase(provider, p) for p in self.providers)

    def permits_payee(self, address: str) -> bool:
        """Whether an address may be paid; what is billed elsewhere has none."""
        if self.payees is None or not address:
            return True
        return address.lower() in {payee.lower() for payee in self.payees}

    def bind(self, asset: Asset) -> Allowance:
        """Return the allowance with its limits bound to `asset`; gas keeps the coin's symbol."""
        names = (
            *("per_task", "per_run", "per_day", "total", "rebuy_below"),
            *("per_provider", "exposure"),
        )
        bound = {n: getattr(self, n).bind(asset) for n in names if getattr(self, n) is not None}
        return self.model_copy(update=bound)
