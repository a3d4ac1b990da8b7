"""An attempt: one try at a purchase with one provider, and what it brought."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from agentkit.artifacts import Artifact
from agentkit.market.offer import Offer
from agentkit.market.value import Value, digest_of
from agentkit.money import Money


def purchase_id(run: str, node: str, item: int | None = None, replica: int = 0) -> str:
    """Return the id of a purchase: one node of a run, or one item or replica of it."""
    return digest_of("purchase", run, node, item, replica)


def attempt_id(purchase: str, n: int, label: str, terms: str) -> str:
    """Return the id of attempt `n` of a purchase, at the provider node `label` under `terms`."""
    return digest_of("attempt", purchase, n, label, terms)


MAX_REPLICAS = 9
"""How often one item is bought at most; see `graph.checks.Redundant`."""


class Attempt(Value):
    """One try at a purchase with one provider under fixed terms.

    `id` is the idempotency key that providers and contracts see; `at_most` the most it may cost.
    """

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
        """The name of this attempt's provider node for people."""
        return f"{self.provider}/{self.provider_node}" if self.provider_node else self.provider

    @property
    def is_of_this_item(self) -> bool:
        """Whether `purchase` is the id of this attempt's run, node and item, whatever replica."""
        # An attempt does not say which replica it is, so all possible ones are compared.
        return any(
            self.purchase == purchase_id(self.run, self.node, self.item, replica)
            for replica in range(MAX_REPLICAS)
        )

    @property
    def is_of_these_terms(self) -> bool:
        """Whether `id` is the id of this attempt's purchase, number, provider and terms."""
        return self.id == attempt_id(self.purchase, self.n, self.label, self.terms)


class Payment(Value):
    """What a rail sends along with a request; `body` is the rail's own JSON."""

    rail: str
    body: dict[str, Any] = {}


class Message(Value):
    """A rail's message to a provider node, or its answer; adapters do not look into the body."""

    rail: str
    provider: str
    provider_node: str = ""
    verb: str
    body: dict[str, Any] = {}


JobState = Literal["queued", "running", "done", "failed", "cancelled"]

TASK_FAULT = "task"
"""The fault of a job that failed because its task is wrong, whoever does it."""


class JobStatus(Value):
    """What a provider says about an attempt; `reason` explains a failure.

    `fault` is `TASK_FAULT`, or "" where another provider may succeed; other values mean "".
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


class SellerStatements(Value):
    """What a seller signed about a sale, as x402 `offer-receipt` has it, word for word.

    `offer`: how the request could be paid; `receipt`: that it was paid and served.  Empty where it
    signed nothing that stands by itself; `market.offer_receipt` reads them.
    """

    offer: dict[str, Any] = {}
    receipt: dict[str, Any] = {}


@dataclass(frozen=True)
class Result:
    """What a provider delivered: outputs, the units it counted, and the price it asks.

    `finish_reason`: why the model stopped, in the words of OpenAI's API; "" where nobody says.
    """

    outputs: tuple[Artifact, ...]
    usage: dict[str, int]
    price: Money
    evidence: Evidence = Evidence()
    model: str = ""
    statements: SellerStatements = SellerStatements()
    finish_reason: str = ""

    @property
    def digest(self) -> str:
        """The digest that the receipt names; see `result_digest`."""
        return result_digest([output.digest for output in self.outputs])


def result_digest(digests: list[str]) -> str:
    """Return the digest of a result: that of its only output, or one over all of its outputs."""
    if len(digests) == 1:
        return digests[0]
    return digest_of("result", *digests)
