"""What a plan is made from: the market as it is, and what the user wants."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agentkit.errors import BadAmount, ConfigError, PlanError
from agentkit.market.allowance import Allowance
from agentkit.market.chain import Network
from agentkit.market.offer import Offer
from agentkit.market.seams import Provider, Rail
from agentkit.money import Money
from agentkit.planner.estimate import Measured
from agentkit.planner.policy import Choose

if TYPE_CHECKING:  # numpy and the solver are imported when something has to be weighed
    from agentkit.planner.solver.solve import Effort


_NAMED_WEIGHTS = {"cost": 0.0, "time": 1.0}


@dataclass(frozen=True)
class Market:
    """What a plan can draw on: who can be asked for offers, and how they can be paid."""

    network: Network
    providers: Mapping[str, Provider]
    rails: Mapping[str, Rail]
    allowance: Allowance
    wallet: str
    folder: Path
    reputations: Mapping[str, float] = field(default_factory=dict)
    """The share of this agent's attempts that each provider node delivered as asked."""
    pay: Callable[[Offer], Offer] = lambda offer: offer
    """Which of the ways of paying that a provider takes is used for an offer."""
    measured: Mapping[str, Measured] = field(default_factory=dict)
    """What purchases of nodes used in an earlier run of the graph."""
    used: Mapping[str, Money] = field(default_factory=dict)
    """What was spent or set aside under `per_day` and `total`; without it, they are not planned."""
    remote: int = 2**63
    """The largest artifact, in bytes, that is stored where another machine finds it."""


@dataclass(frozen=True)
class Wish:
    """What the user wants of a plan; `deadline` in seconds from now.

    `objective`: "cost" is the least cost under the deadline, "time" the least time under the
    budget, a number between 0 and 1 a weight from the first to the second.  `risk`: the share of
    cases in which nodes take no longer than they are planned to.  `effort`: "high" spends up to a
    minute more on what can be proven.
    """

    budget: Money | None = None
    deadline: float | None = None
    policy: Choose | None = None
    objective: str | float = "cost"
    risk: float = 0.5
    effort: Effort = "normal"

    @property
    def weight(self) -> float:
        """How much a shorter run counts against a cheaper one: 0 is cost alone, 1 time alone."""
        if isinstance(self.objective, str):
            return _NAMED_WEIGHTS[self.objective]
        return float(self.objective)


def is_objective(value: object) -> bool:
    """Return whether a value names an objective, or is a weight between cost (0) and time (1)."""
    if isinstance(value, str):
        return value in _NAMED_WEIGHTS
    if isinstance(value, bool):  # which Python counts among the integers
        return False
    return isinstance(value, int | float) and 0 <= value <= 1


def checked(wish: Wish, market: Market) -> Wish:
    """Return a wish with its budget in the network's currency; raises PlanError if it cannot be."""
    if wish.deadline is not None and not (math.isfinite(wish.deadline) and wish.deadline > 0):
        raise PlanError("the deadline is in the past", hint="set a deadline that lies ahead")
    if not is_objective(wish.objective):
        raise PlanError(
            f"{wish.objective!r} is not a valid objective",
            hint='set objective to "cost", "time" or 0 to 1',
        )
    if not 0 < wish.risk < 1:
        raise PlanError(
            f"risk={wish.risk!r} is not a share between 0 and 1",
            hint="set risk=0.9 for nine in ten",
        )
    if wish.budget is None:
        return wish

    currency = market.network.currency
    try:
        return replace(wish, budget=wish.budget.bind(currency))
    except BadAmount as error:
        raise PlanError(
            f"the budget is in {wish.budget.asset.symbol}, and {market.network.name} is paid in"
            f" {currency.symbol}",
            hint=f'set budget in {currency.symbol}, for example "0.05 {currency.symbol}"',
        ) from error


def check_wish(
    deadline: object, policy: object, objective: object, risk: object, effort: object
) -> None:
    """Raise ConfigError for values that a type checker would have refused."""
    if effort not in ("normal", "high"):
        raise ConfigError(
            f"{effort!r} is not a valid effort", hint='set effort to "normal" or "high"'
        )
    if deadline is not None and not isinstance(deadline, timedelta):
        raise ConfigError(
            f"deadline={deadline!r} is not a duration", hint="pass timedelta(minutes=10)"
        )
    if policy is not None and not callable(policy):
        raise ConfigError(f"policy={policy!r} is not a policy", hint='pass ak.policy.deny("gaia")')
    if not is_objective(objective):
        raise ConfigError(
            f"{objective!r} is not a valid objective",
            hint='pass objective="cost", "time" or 0 to 1',
        )
    if not (isinstance(risk, int | float) and 0 < risk < 1):
        raise ConfigError(
            f"risk={risk!r} is not a share between 0 and 1", hint="set risk=0.9 for nine in ten"
        )
