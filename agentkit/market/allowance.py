"""The allowance: what an agent may spend, on whom, and how fast."""

from __future__ import annotations

from fnmatch import fnmatchcase

from agentkit.market.value import Value
from agentkit.money import Asset, Money
from agentkit.user_values import UserValue


class Allowance(UserValue, Value):
    """What an agent may spend; a limit that is left out does not limit.

    - `per_task`, `per_run`, `per_day`, `total`: spent or set aside, in the wallet's currency.
    - `gas`: transaction fees ever, in the chain's own coin.
    - `rebuy_below`: a purchase whose outcome is unknown is bought again without asking if its at
      most is below this.
    - `providers`: the only providers that may be paid, as names or globs.
    - `payees`: the only addresses that may be paid.
    - `per_provider`: spent with one provider ever.
    - `exposure`: money that lies with one payee, in a channel, as credit or in escrow, and is not
      spent yet.
    - `per_minute`: how many tasks may be bought in one minute of the clock.
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
        """Return whether a provider may be paid."""
        if self.providers is None:
            return True
        return any(fnmatchcase(provider, pattern) for pattern in self.providers)

    def permits_payee(self, address: str) -> bool:
        """Return whether an address may be paid; "" (billed elsewhere) may."""
        if self.payees is None or not address:
            return True
        return address.lower() in {payee.lower() for payee in self.payees}

    def bind(self, asset: Asset) -> Allowance:
        """Return the allowance with its limits bound to `asset`; gas keeps the coin's symbol."""
        changes: dict[str, Money] = {}
        for name in _IN_CURRENCY:
            limit: Money | None = getattr(self, name)
            if limit is not None:
                changes[name] = limit.bind(asset)
        return self.model_copy(update=changes)


_IN_CURRENCY = (
    "per_task",
    "per_run",
    "per_day",
    "total",
    "rebuy_below",
    "per_provider",
    "exposure",
)
"""The limits in the wallet's currency; `gas` is in the chain's coin."""
