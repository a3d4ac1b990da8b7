"""One try at a purchase, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from agentkit.artifacts import Artifact
from agentkit.market.offer import Offer
from agentkit.market.value import Value, digest_of
from agentkit.money import Money


def purchase_id(run: str, node: str, item: int | None = None, replica: int = 0) -> str:
    """Return the id of what is wanted once."""
    return digest_of("purchase", run, node, item, replica)


def attempt_id(purchase: str, n: int, label: str, terms: str) -> str:
    """Return the key of attempt `n` of a purchase at the provider node `label` under `terms`."""
    return digest_of("attempt", purchase, n, label, terms)


MAX_REPLICAS = 9
"""How often one item is bought at most; see `graph.verifying.Redundant`."""


class Attempt(Value):
    """One try at a purchase with one provider under fixed terms; `id` is the key all sides see."""

    id: str
    purchase: str
    n: int
    run: str
    node: str
    item: int | None = None
    provider: str
    provider_node: str = ""
    rail: str
    payee: str = ""
    terms: str
    at_most: Money
    task: str

    @classmethod
    def at(
        cls,
        purchase: str,
        n: int,
        offer: Offer,
        *,
        run: str,
        item: int | None,
        task: str,
        at_most: Money,
    ) -> Attempt:
        """Return attempt `n` of `purchase` with `offer`."""
        return cls(
            id=attempt_id(purchase, n, offer.label, offer.terms),
            purchase=purchase,
            n=n,
            run=run,
            node=offer.node,
            item=item,
            provider=offer.provider,
            provider_node=offer.provider_node,
            rail=offer.rail,
            payee=offer.payee,
            terms=offer.terms,
            at_most=at_most,
            task=task,
        )

    @property
    def label(self) -> str:
        """How people tell this attempt's provider node from the others."""
        return f"{self.provider}/{self.provider_node}" if self.provider_node else self.provider

    @property
    def is_of_this_item(self) -> bool:
        """Whether the purchase is that of the run, node and item that stand here."""
        replicas = range(MAX_REPLICAS)
        named = (purchase_id(self.run, self.node, self.item, replica) for replica in replicas)
        return self.purchase in named

    @property
    def is_of_these_terms(self) -> bool:
        """Whether the id is that of the purchase, number, provider and terms that stand here."""
        return self.id == attempt_id(self.purchase, self.n, self.label, self.terms)


class Payment(Value):
    """What a rail sends along with a request; `body` is the rail's own JSON."""

    rail: str
    body: dict[str, Any] = {}


class Message(Value):
    """A rail's message to a provider node, or its answer; carried by the adapter unread."""

    rail: str
    provider: str
    provider_node: str = ""
    verb: str
    body: dict[str, Any] = {}


JobState = Literal["queued", "running", "done", "failed", "cancelled"]

TASK_FAULT = "task"
"""The fault of a job that failed because its task is wrong, whoever does it."""


class JobStatus(Value):
    """What a provider says of an attempt; `reason` explains a failure.

    `fault` is `TASK_FAULT`, or "" where somebody else may do better; others are read as "".
    """

    state: JobState
    reason: str = ""
    fault: str = ""


class Evidence(Value):
    """What backs a result: the provider's signature over (attempt, result, units).

    `reference`: the provider's own id of the answer, by which its bills can be checked.
    """

    signer: str = ""
    signature: str = ""
    reference: str = ""


@dataclass(frozen=True)
class Result:
    """What a provider delivered, what it counted, what it asks for it."""

    outputs: tuple[Artifact, ...]
    usage: dict[str, int]
    price: Money
    evidence: Evidence = Evidence()
    model: str = ""

    @property
    def digest(self) -> str:
        """The digest that the receipt names: of the one output, or over all of them."""
        return result_digest([output.digest for output in self.outputs])


def result_digest(digests: list[str]) -> str:
    """Return the digest of a result from the digests of its outputs."""
    return digests[0] if len(digests) == 1 else digest_of("result", *digests)
