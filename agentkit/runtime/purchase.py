"""One purchase, and what a provider delivered of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agentkit.errors import ProviderError
from agentkit.graph.nodes import PaidNode
from agentkit.journal.events import ItemDone, NodeDone
from agentkit.journal.produced import Produced
from agentkit.kinds.registry import bought_kind
from agentkit.market.attempt import Attempt, Result, purchase_id
from agentkit.market.offer import Offer
from agentkit.market.plan import PlannedNode
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Verifier
from agentkit.market.task import Task


@dataclass(frozen=True)
class Purchase:
    """What is bought once: the task of a node, or of one item of a mapped node.

    `id` is the same in every process that works on the run.  `cache_key` is "" unless the outputs
    may be taken again for an equal task.
    """

    id: str
    node: PaidNode
    planned: PlannedNode
    task: Task
    item: int | None = None
    cache_key: str = ""
    verifiers: tuple[Verifier, ...] = ()

    @property
    def skips(self) -> bool:
        """Whether it is an item that may be left out when it fails for good."""
        return self.item is not None and bought_kind(self.node).skips_failed_items(self.node)

    def replica(self, run: str, number: int) -> Purchase:
        """Return the purchase of the same task that is made as replica `number`."""
        return replace(self, id=purchase_id(run, self.node.name, self.item, number))

    def done(
        self, outputs: tuple[Produced, ...], receipts: tuple[Receipt, ...]
    ) -> NodeDone | ItemDone:
        """Return the event that records its outputs; the first receipt is that of the outputs."""
        first = receipts[0] if receipts else None
        others = receipts[1:]
        name, key = self.node.name, self.cache_key
        if self.item is None:
            return NodeDone(node=name, outputs=outputs, receipt=first, others=others, task=key)
        return ItemDone(
            node=name, item=self.item, outputs=outputs, receipt=first, others=others, task=key
        )


class Hopeless(ProviderError):
    """A purchase cannot succeed, however often and wherever it is tried."""


@dataclass(frozen=True)
class CheckedResult:
    """A result that was checked and is not paid yet.

    `seconds` passed from the submission of its attempt to its result; 0 for one that was taken up
    again after a restart.
    """

    attempt: Attempt
    offer: Offer
    result: Result
    seconds: float = 0.0
