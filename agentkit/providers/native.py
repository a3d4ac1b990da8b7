"""The native GPU pool over HTTP: one provider, any number of nodes that anybody may run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from agentkit.errors import (
    BadAmount,
    LeaseLost,
    ProtocolBroken,
    ProviderError,
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
from agentkit.market.chain import Network
from agentkit.market.offer import Offer, Pays, priced
from agentkit.market.receipt import delivery_of
from agentkit.market.seams import ProviderInfo
from agentkit.market.task import Task, TaskSpec
from agentkit.providers import wire
from agentkit.providers.http import Answer, Http

POLL_SECONDS = 0.05
WAIT_SECONDS = 10
"""How long one request waits for a job at the node (RFC 7240, `Prefer: wait`)."""

UPLOAD_SECONDS = 60.0
UPLOAD_BYTES_PER_SECOND = 256 * 1024
"""How long an upload may take: so many seconds, and as long as it takes at this rate."""

FACTS_LAST = 30.0

RAILS: dict[str, Pays] = {"channel": "on_delivery", "escrow": "on_delivery"}
"""The ways of paying that a node may say it takes, and when each parts with money."""


class Native:
    """Nodes that speak our own wire, each with a price, a speed and a wallet of its own."""

    def __init__(self, name: str, urls: Sequence[str], network: Network) -> None:
        self._name, self._network = name, network
        self._https = [Http(name, url) for url in urls]
        self._nodes: dict[str, tuple[Http, wire.NodeFacts]] = {}
        self._asked = 0.0

    @property
    def name(self) -> str:
        return self._name

    async def describe(self) -> ProviderInfo:
        nodes = await self._known(fresh=True)
        return ProviderInfo(
            name=self.name,
            adapter="native",
            finds=True,
            up=bool(nodes),
            url=", ".join(http.url for http in self._https),
            kinds=tuple(sorted({kind for _, facts in nodes.values() for kind in facts.kinds})),
            models=tuple(sorted({m for _, facts in nodes.values() for m in facts.models})),
            detail={name: facts.detail for name, (_, facts) in nodes.items()}
            or {"error": f"none of its nodes answers; check providers.{self.name}.urls"},
        )

    async def offers(self, spec: TaskSpec) -> Sequence[Offer]:
        nodes = await self._known()
        if not nodes:
            raise Unavailable("none of its nodes answers", provider=self.name)
        answers = await asyncio.gather(
            *(self._offers_of(http, facts, spec) for http, facts in nodes.values()),
            return_exceptions=True,
        )
        offers = [o for answer in answers if not isinstance(answer, BaseException) for o in answer]
        for answer in answers:
            if isinstance(answer, BaseException) and not offers:
                raise answer
        return offers

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        http = await self._at(attempt)
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
        answer = await (await self._at(attempt)).read(f"/jobs/{attempt.id}")
        if answer.status == 404:
            return None
        job: wire.Job = wire.read(wire.Job, _ok(answer, self.name), self.name)
        return job.status

    async def status(self, attempt: Attempt) -> JobStatus:
        found = await self.find(attempt)
        if found is None:
            raise LeaseLost("the node does not know this attempt", provider=self.name)
        return found

    async def result(self, attempt: Attempt) -> Result:
        http = await self._at(attempt)
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
                return await self._delivered(http, attempt, job)
            if job.status.state in ("failed", "cancelled"):
                raise Refused(
                    f"the job {job.status.state}: {job.status.reason}",
                    provider=self.name,
                    of_task=job.status.fault == TASK_FAULT,
                )
            await asyncio.sleep(POLL_SECONDS)  # it may not wait as it was asked to

    async def cancel(self, attempt: Attempt) -> None:
        await (await self._at(attempt)).send("POST", f"/jobs/{attempt.id}/cancel")

    async def carry(self, message: Message) -> Message:
        http = await self._node(message.provider_node)
        answer = await http.send("POST", "/carry", json=message.model_dump(mode="json"))
        returned: Message = wire.read(Message, _ok(answer, self.name), self.name)
        whose = {"rail": message.rail, "provider": message.provider}
        return returned.model_copy(update={**whose, "provider_node": message.provider_node})

    async def close(self) -> None:
        for http in self._https:
            await http.close()

    # -- inside ----------------------------------------------------------------------------------

    async def _upload(self, http: Http, task: Task, attempt: str, job: wire.Job, who: str) -> None:
        """Send the inputs that a node waits for, once it has taken the job."""
        for artifact in task.inputs.values():
            if artifact.digest in job.awaits:
                data = await asyncio.to_thread(artifact.read)
                seconds = UPLOAD_SECONDS + len(data) / UPLOAD_BYTES_PER_SECOND
                path = f"/artifacts/{artifact.digest}"
                answer = await http.send("PUT", path, data=data, seconds=seconds)
                if answer.status >= 400 and not await self._has(http, attempt, artifact.digest):
                    _ok(answer, who)

    async def _has(self, http: Http, attempt: str, digest: str) -> bool:
        """Whether a node waits for an input no more: another job's upload brought it."""
        answer = await http.read(f"/jobs/{attempt}")
        job: wire.Job = wire.read(wire.Job, _ok(answer, self.name), self.name)
        return job.status.state != "failed" and digest not in job.awaits

    async def _known(self, *, fresh: bool = False) -> Mapping[str, tuple[Http, wire.NodeFacts]]:
        """Return the nodes that answer, by name."""
        if fresh or not self._nodes or time.monotonic() - self._asked > FACTS_LAST:
            found = await asyncio.gather(
                *(self._facts(http) for http in self._https), return_exceptions=True
            )
            self._nodes = {
                facts.name: (http, facts)
                for http, facts in zip(self._https, found, strict=True)
                if isinstance(facts, wire.NodeFacts)
            }
            self._asked = time.monotonic()
        return self._nodes

    async def _facts(self, http: Http) -> wire.NodeFacts:
        answer = await http.send("GET", "/node", seconds=10.0)
        facts: wire.NodeFacts = wire.read(wire.NodeFacts, _ok(answer, http.url), http.url)
        ours = (self._network.chain_id, self._network.token, self._network.channels)
        theirs = (facts.chain_id, facts.token, facts.channels)
        if [str(x).lower() for x in ours] != [str(x).lower() for x in theirs]:
            raise Refused("it is paid on another network", provider=http.url)
        address = payable(facts.address)  # in one spelling, or it would have an account for each
        if not address:
            raise Refused("it names no address that can be paid", provider=http.url)
        return facts.model_copy(update={"address": address})

    async def _at(self, attempt: Attempt) -> Http:
        return await self._node(attempt.provider_node)

    async def _node(self, name: str) -> Http:
        for fresh in (False, True):
            known = await self._known(fresh=fresh)
            if name in known:
                return known[name][0]
        raise Unavailable(f"its node {name!r} does not answer", provider=self.name)

    async def _offers_of(self, http: Http, facts: wire.NodeFacts, spec: TaskSpec) -> list[Offer]:
        who = f"{self.name}/{facts.name}"
        answer = await http.send("POST", "/offers", json=wire.question(spec), seconds=15.0)
        offered: wire.WireOffer = wire.read(wire.WireOffer, _ok(answer, who), who)
        currency = self._network.currency
        try:
            price, at_most = priced(currency, offered.rates, spec.load)
        except BadAmount as error:
            raise Refused(str(error), provider=who) from error
        return [
            Offer(
                provider=self.name,
                provider_node=facts.name,
                node=spec.node.name,
                on=offered.on,
                model=offered.model,
                price=price,
                at_most=at_most,
                eta=offered.eta,
                lanes=max(1, min(offered.lanes, 64)),
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
        ]

    async def _delivered(self, http: Http, attempt: Attempt, job: wire.Job) -> Result:
        """Return a result whose bytes and signature were checked."""
        outputs = []
        try:
            for output in job.outputs:
                data = None if output.data is not None else await self._fetch(http, output)
                outputs.append(output.artifact(data))
        except ProtocolBroken as error:
            raise ProtocolBroken(str(error), provider=self.name) from error
        if job.price is None:
            raise ProtocolBroken("it asks no price", provider=self.name)
        self._check_signature(attempt, job)
        return Result(tuple(outputs), job.usage, job.price, job.evidence, job.model)

    async def _fetch(self, http: Http, output: wire.WireArtifact) -> bytes:
        return _ok(await http.read(f"/artifacts/{output.digest}", seconds=120.0), self.name)

    def _check_signature(self, attempt: Attempt, job: wire.Job) -> None:
        with suppress(ValueError, OverflowError):
            result = result_digest([output.digest for output in job.outputs])
            price = job.price or self._network.currency.zero()
            said = delivery_of(attempt.id, result, price, job.usage)
            signature = bytes.fromhex(job.evidence.signature)
            signer = recover(typed_digest(self._network.channels_domain, said), signature)
            if signer.lower() == attempt.payee.lower():
                return
        raise ProtocolBroken("its delivery is not signed by its payee", provider=self.name)


def _ok(answer: Answer, who: str) -> bytes:
    """Return the body of a good answer; raises what a bad one means."""
    if answer.status < 300:
        return answer.body
    error: Mapping[str, Any] = wire.error_of(answer.body)
    message = str(error.get("message") or f"it answers {answer.status}")
    if answer.status == 429:
        raise RateLimited(message, provider=who, retry_after=answer.retry_after)
    if answer.status in (500, 502, 503, 504):
        raise Unavailable(message, provider=who, unknown=True)
    if error.get("type") == wire.TASK_REFUSED:
        raise Refused(message, provider=who, of_task=True)
    raise _REFUSALS.get(str(error.get("type")), Refused)(message, provider=who)


_REFUSALS: dict[str, type[ProviderError]] = {"LeaseLost": LeaseLost, "Refused": Refused}
