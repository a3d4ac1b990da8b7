"""The adapter for the native GPU pool: one provider with any number of nodes, over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from agentkit import tables
from agentkit.errors import (
    BadAmount,
    LeaseLost,
    ProtocolBroken,
    RateLimited,
    Refused,
    Unavailable,
)
from agentkit.keys.messages import payable, recover, typed_digest
from agentkit.market.attempt import (
    TASK_FAULT,
    Attempt,
    JobStatus,
    Message,
    Payment,
    Result,
    result_digest,
)
from agentkit.market.chain import SETTLEMENT, Network
from agentkit.market.offer import Offer, Pays, priced
from agentkit.market.receipt import delivery_of
from agentkit.market.seams import ProviderInfo
from agentkit.market.task import Task, TaskSpec
from agentkit.money import Money
from agentkit.providers import wire
from agentkit.providers.http import Answer, Http

POLL_SECONDS = 0.05
"""Seconds between two requests for a result, where a node does not wait as it is asked to."""

WAIT_SECONDS = 10
"""Seconds for which one request waits for a job at the node (RFC 7240, `Prefer: wait`)."""

UPLOAD_SECONDS = 60.0
UPLOAD_BYTES_PER_SECOND = 256 * 1024
"""An upload may take UPLOAD_SECONDS, and beside that as long as it takes at this rate."""

FACTS_LAST = 30.0
"""Seconds for which the facts about nodes count that were read."""

MAX_LANES = 64
"""The most concurrent requests that a node may ask for."""

MAX_OUTPUT = tables.MAX_BYTES
"""The largest output that is fetched: nodes take inputs, and write tables, of so many bytes."""

RAILS: dict[str, Pays] = {"channel": "on_delivery", "escrow": "on_delivery"}
"""The rails that a node may take, and when each parts with money."""


class Native:
    """Nodes that speak our own protocol, each with its own price, speed and wallet.

    See `market.seams.Provider`, and `providers.wire` for the protocol.  Anybody may run a node.
    """

    def __init__(self, name: str, urls: Sequence[str], network: Network) -> None:
        self._name = name
        self._network = network
        self._https = [Http(name, url) for url in urls]
        self._nodes: dict[str, tuple[Http, wire.NodeFacts]] = {}  # by name
        self._nodes_read_at = 0.0

    @property
    def name(self) -> str:
        return self._name

    async def describe(self) -> ProviderInfo:
        """Return what the nodes that answer now offer together."""
        nodes = await self._answering(fresh=True)
        detail: dict[str, Any] = {name: facts.detail for name, (_, facts) in nodes.items()}
        if not nodes:
            detail["error"] = f"none of its nodes answers; check providers.{self.name}.urls"
        return ProviderInfo(
            name=self.name,
            adapter="native",
            finds=True,
            up=bool(nodes),
            url=", ".join(http.url for http in self._https),
            kinds=tuple(sorted({kind for _, facts in nodes.values() for kind in facts.kinds})),
            models=tuple(sorted({model for _, facts in nodes.values() for model in facts.models})),
            detail=detail,
        )

    async def offers(self, spec: TaskSpec) -> Sequence[Offer]:
        """Return an offer of each node that makes one.

        Raises Unavailable when no node answers, and a node's error when none makes an offer.
        """
        nodes = await self._answering()
        if not nodes:
            raise Unavailable("none of its nodes answers", provider=self.name)
        answers = await asyncio.gather(
            *(self._offer_of(http, facts, spec) for http, facts in nodes.values()),
            return_exceptions=True,
        )
        offers = [answer for answer in answers if isinstance(answer, Offer)]
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        if errors and not offers:
            raise errors[0]
        return offers

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        """Submit a job to the attempt's node, then upload the inputs that the node waits for."""
        http = await self._http_of(attempt)
        submission = wire.Submission(
            attempt=attempt.id,
            task=wire.WireTask.of(task),
            at_most=attempt.at_most,
            payment=payment.body,
        )
        answer = await http.send("POST", "/jobs", json=submission.model_dump(mode="json"))
        job: wire.Job = wire.read(wire.Job, _ok(answer, offer.label), offer.label)
        await self._upload(http, task, attempt.id, job, offer.label)
        return job.status

    async def find(self, attempt: Attempt) -> JobStatus | None:
        """Return the state of an attempt, None if its node does not know it."""
        http = await self._http_of(attempt)
        answer = await http.read(f"/jobs/{attempt.id}")
        if answer.status == 404:
            return None
        job: wire.Job = wire.read(wire.Job, _ok(answer, self.name), self.name)
        return job.status

    async def status(self, attempt: Attempt) -> JobStatus:
        """Return the state of an attempt; raises LeaseLost if its node does not know it."""
        status = await self.find(attempt)
        if status is None:
            raise LeaseLost("the node does not know this attempt", provider=self.name)
        return status

    async def result(self, attempt: Attempt) -> Result:
        """Wait for the result of an attempt, and return it with its signature checked.

        Raises LeaseLost, Refused (the job failed or was cancelled) and ProtocolBroken.
        """
        http = await self._http_of(attempt)
        while True:
            answer = await http.read(
                f"/jobs/{attempt.id}/result",
                headers={"Prefer": f"wait={WAIT_SECONDS}"},
                seconds=WAIT_SECONDS + 20,
            )
            if answer.status == 404:
                raise LeaseLost("the node does not know this attempt", provider=self.name)
            job: wire.Job = wire.read(wire.Job, _ok(answer, self.name), self.name)
            if job.status.state == "done":
                return await self._checked_result(http, attempt, job)
            if job.status.state in ("failed", "cancelled"):
                raise Refused(
                    f"the job {job.status.state}: {job.status.reason}",
                    provider=self.name,
                    of_task=job.status.fault == TASK_FAULT,
                )
            await asyncio.sleep(POLL_SECONDS)

    async def cancel(self, attempt: Attempt) -> None:
        """Ask the attempt's node to stop the job, whatever it answers."""
        http = await self._http_of(attempt)
        await http.send("POST", f"/jobs/{attempt.id}/cancel")

    async def carry(self, message: Message) -> Message:
        """Bring a rail's message to its node and return the answer; raises Refused.

        The answer is the named node's, whatever it says itself: it must not speak for another.
        """
        http = await self._http_of_node(message.provider_node)
        answer = await http.send("POST", "/carry", json=message.model_dump(mode="json"))
        returned: Message = wire.read(Message, _ok(answer, self.name), self.name)
        sender = {
            "rail": message.rail,
            "provider": message.provider,
            "provider_node": message.provider_node,
        }
        return returned.model_copy(update=sender)

    async def close(self) -> None:
        """Close the connections to all nodes."""
        for http in self._https:
            await http.close()

    # -- inside ----------------------------------------------------------------------------------

    async def _upload(
        self, http: Http, task: Task, attempt: str, job: wire.Job, label: str
    ) -> None:
        """Send the inputs that a node waits for, once it has taken the job.

        Raises the error of an upload that failed.
        """
        for artifact in task.inputs.values():
            if artifact.digest not in job.awaits:
                continue
            data = await asyncio.to_thread(artifact.read)
            seconds = UPLOAD_SECONDS + len(data) / UPLOAD_BYTES_PER_SECOND
            path = f"/artifacts/{artifact.digest}"
            answer = await http.send("PUT", path, data=data, seconds=seconds)
            # A refused upload does not matter if another job has brought the same input.
            if answer.status >= 400 and not await self._has_input(http, attempt, artifact.digest):
                _ok(answer, label)

    async def _has_input(self, http: Http, attempt: str, digest: str) -> bool:
        """Return whether a node does not wait for an input any more."""
        answer = await http.read(f"/jobs/{attempt}")
        job: wire.Job = wire.read(wire.Job, _ok(answer, self.name), self.name)
        return job.status.state != "failed" and digest not in job.awaits

    async def _answering(self, *, fresh: bool = False) -> Mapping[str, tuple[Http, wire.NodeFacts]]:
        """Return the nodes that answer and can be paid, by name.

        They are asked again after FACTS_LAST seconds, while none answers, and with `fresh`.
        """
        age = time.monotonic() - self._nodes_read_at
        if self._nodes and age <= FACTS_LAST and not fresh:
            return self._nodes
        answers = await asyncio.gather(
            *(self._facts(http) for http in self._https), return_exceptions=True
        )
        self._nodes = {
            facts.name: (http, facts)
            for http, facts in zip(self._https, answers, strict=True)
            if isinstance(facts, wire.NodeFacts)
        }
        self._nodes_read_at = time.monotonic()
        return self._nodes

    async def _facts(self, http: Http) -> wire.NodeFacts:
        """Ask a node about itself; raises Refused for one that this wallet cannot pay."""
        answer = await http.send("GET", "/node", seconds=10.0)
        facts: wire.NodeFacts = wire.read(wire.NodeFacts, _ok(answer, http.url), http.url)
        network = self._network
        is_same_network = (
            facts.chain_id == network.chain_id
            and facts.token.lower() == network.token.lower()
            and facts.channels.lower() == SETTLEMENT.lower()
        )
        if not is_same_network:
            raise Refused("it is paid on another network", provider=http.url)
        # One spelling of the address, because accounts are kept by it.
        address = payable(facts.address)
        if not address:
            raise Refused("it names no address that can be paid", provider=http.url)
        return facts.model_copy(update={"address": address})

    async def _http_of(self, attempt: Attempt) -> Http:
        return await self._http_of_node(attempt.provider_node)

    async def _http_of_node(self, name: str) -> Http:
        """Return the connection to a node; raises Unavailable for one that does not answer."""
        # A node that was just started is not among those that were read before.
        for fresh in (False, True):
            nodes = await self._answering(fresh=fresh)
            if name in nodes:
                http, _ = nodes[name]
                return http
        raise Unavailable(f"its node {name!r} does not answer", provider=self.name)

    async def _offer_of(self, http: Http, facts: wire.NodeFacts, spec: TaskSpec) -> Offer:
        """Ask a node for its rates, and return the offer that they come to.

        The price is computed here, so that a node cannot ask for more than its rates.
        """
        label = f"{self.name}/{facts.name}"
        answer = await http.send("POST", "/offers", json=wire.question(spec), seconds=15.0)
        offered: wire.WireOffer = wire.read(wire.WireOffer, _ok(answer, label), label)
        currency = self._network.currency
        try:
            price, at_most = priced(currency, offered.rates, spec.load)
        except BadAmount as error:
            raise Refused(str(error), provider=label) from error
        return Offer(
            provider=self.name,
            provider_node=facts.name,
            node=spec.node.name,
            on=offered.on,
            model=offered.model,
            price=price,
            at_most=at_most,
            eta=offered.eta,
            lanes=max(1, min(offered.lanes, MAX_LANES)),
            expires=time.time() + offered.lasts,
            rail=facts.rail,
            rails={rail: RAILS[rail] for rail in facts.rails if rail in RAILS},
            pays=facts.pays,
            payee=facts.address,
            rates={unit: rate.bind(currency) for unit, rate in offered.rates.items()},
            finds=True,
            context=offered.context,
            gpu=offered.gpu,
            vram=offered.vram,
            tuning=offered.tuning,
        )

    async def _checked_result(self, http: Http, attempt: Attempt, job: wire.Job) -> Result:
        """Return the result of a job that is done, its bytes and signature checked.

        Raises ProtocolBroken for a result that is not what the node's signature says.
        """
        outputs = []
        try:
            for output in job.outputs:
                data = None if output.data is not None else await self._fetch(http, output)
                outputs.append(output.artifact(data))
        except ProtocolBroken as error:
            raise ProtocolBroken(str(error), provider=self.name) from error
        if job.price is None:
            raise ProtocolBroken("it asks no price", provider=self.name)
        self._check_signature(attempt, job, job.price)
        return Result(
            outputs=tuple(outputs),
            usage=job.usage,
            price=job.price,
            evidence=job.evidence,
            model=job.model,
            finish_reason=job.finish_reason,
        )

    async def _fetch(self, http: Http, output: wire.WireArtifact) -> bytes:
        """Return the bytes of an output that did not travel inline.

        The node has said how many there are; more than that are not read.  Raises ProtocolBroken
        where it says more than MAX_OUTPUT.
        """
        if output.size > MAX_OUTPUT:
            raise ProtocolBroken(f"an output of {output.size} bytes is too large")
        # An error's text may be longer than a small output.
        max_bytes = max(output.size, wire.INLINE_BYTES)
        answer = await http.read(f"/artifacts/{output.digest}", seconds=120.0, max_bytes=max_bytes)
        return _ok(answer, self.name)

    def _check_signature(self, attempt: Attempt, job: wire.Job, price: Money) -> None:
        """Raise ProtocolBroken unless the attempt's payee signed what the job delivers.

        That signature is the payer's proof of what it paid for; see `payments.receipts`.
        """
        try:
            result = result_digest([output.digest for output in job.outputs])
            delivery = delivery_of(attempt.id, result, price, job.usage)
            digest = typed_digest(self._network.settlement_domain, delivery)
            signer = recover(digest, bytes.fromhex(job.evidence.signature))
        except (ValueError, OverflowError):
            signer = ""
        if not signer or signer.lower() != attempt.payee.lower():
            raise ProtocolBroken("its delivery is not signed by its payee", provider=self.name)


def _ok(answer: Answer, provider: str) -> bytes:
    """Return the body of a successful answer; raises the error that any other means."""
    if answer.status < 300:
        return answer.body
    error: Mapping[str, Any] = wire.error_of(answer.body)
    error_type = str(error.get("type"))
    message = str(error.get("message") or f"it answers {answer.status}")
    if answer.status == 429:
        raise RateLimited(message, provider=provider, retry_after=answer.retry_after)
    if answer.status in (500, 502, 503, 504):
        raise Unavailable(message, provider=provider, unknown=True)
    if error_type == wire.TASK_REFUSED:
        raise Refused(message, provider=provider, of_task=True)
    if error_type == "LeaseLost":
        raise LeaseLost(message, provider=provider)
    raise Refused(message, provider=provider)
