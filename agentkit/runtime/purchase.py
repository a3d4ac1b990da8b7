"""What is wanted once, and what a provider delivered of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agentkit.errors import ProviderError
from agentkit.graph.nodes import InferNode, SqlNode, TrainNode
from agentkit.journal.events import Produced
from agentkit.market.attempt import Attempt, Result
from agentkit.market.offer import Offer
from agentkit.market.plan import PlannedNode
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Event, Verifier
from agentkit.market.task import Task


@dataclass(frozen=True)
class Want:
    """One purchase: the task, where it is planned, and the event that records its delivery."""

    node: InferNode | TrainNode | SqlNode
    planned: PlannedNode
    task: Task
    purchase: str
    item: int | None
    event: Callable[[tuple[Produced, ...], tuple[Receipt, ...]], Event]
    verifiers: tuple[Verifier, ...] = ()

    @property
    def skips(self) -> bool:
        """Whether it is an item that may be left out when it fails for good."""
        return self.item is not None and is_skipping(self.node)


def is_skipping(node: InferNode | TrainNode | SqlNode) -> bool:
    """Whether items of a mapped node that fail for good are left out."""
    return isinstance(node, InferNode) and node.on_error == "skip"


class Hopeless(ProviderError):
    """A purchase cannot succeed, however often and wherever it is tried."""


@dataclass(frozen=True)
class Delivery:
    """A verified result that is not paid yet, `seconds` after its attempt was opened."""

    attempt: Attempt
    offer: Offer
    result: Result
    seconds: float = 0.0
