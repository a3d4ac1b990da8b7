"""A plan: one offer and ranked alternates for every node, with totals and an expiry."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from agentkit.errors import PlanError
from agentkit.graph.frozen import FrozenGraph
from agentkit.market.offer import Offer, Rejection
from agentkit.market.task import TaskSpec
from agentkit.market.value import Value, digest_of
from agentkit.money import Money


class PlannedNode(Value):
    """Where one node runs.  No offer means on this machine, for nothing.

    `offer` is the choice, `alternates` the order of fail-over; `at_most` covers all items with
    the dearest of them; `rejected` is what `explain` shows.
    """

    name: str
    spec: TaskSpec | None = None
    offer: Offer | None = None
    alternates: tuple[Offer, ...] = ()
    price: Money
    at_most: Money
    eta: float
    rejected: tuple[Rejection, ...] = ()

    @property
    def offers(self) -> tuple[Offer, ...]:
        """The choice and its alternates, in the order of fail-over."""
        return (self.offer, *self.alternates) if self.offer else ()


class Fee(Value):
    """A row of the plan that is not a node: gas or uploads, in the coin it is paid in."""

    name: str
    on: str
    price: Money
    at_most: Money


class Plan(Value):
    """What would run where, at what price, before anything is spent.

    Times are unix seconds; `deadline` is absolute.  `wallet` and `network` say whose money on
    which chain the plan was made for.
    """

    graph: FrozenGraph
    nodes: tuple[PlannedNode, ...]
    fees: tuple[Fee, ...] = ()
    price: Money
    at_most: Money
    eta: float
    budget: Money | None = None
    deadline: float | None = None
    made: float
    expires: float
    network: str
    wallet: str
    balance: Money | None = None

    @property
    def id(self) -> str:
        """Digest of the whole plan; people use its first six digits."""
        return digest_of("plan", self.model_dump_json())

    def node(self, name: str) -> PlannedNode:
        """Return a node's place in the plan; raises PlanError for an unknown name."""
        for planned in self.nodes:
            if planned.name == name:
                return planned
        names = ", ".join(planned.name for planned in self.nodes)
        raise PlanError(f"the plan has no node {name!r}", hint=f"name one of: {names}")

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON, signed by its own digest."""
        document = {"plan": json.loads(self.model_dump_json()), "digest": self.id}
        Path(path).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan; raises PlanError when it is no plan or was changed."""
        again = "make it again with `agentkit plan`"
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            plan = cls.model_validate(document["plan"])
        except FileNotFoundError as missing:
            raise PlanError(f"there is no file {path}", hint="check the path") from missing
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as wrong:
            raise PlanError(f"{path} is not a plan", hint=again) from wrong
        if plan.id != document.get("digest"):
            raise PlanError(f"the plan {path} was changed after it was made", hint=again)
        return plan
