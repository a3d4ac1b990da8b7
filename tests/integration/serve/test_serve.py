"""A provider node against payers that lie, repeat themselves or do not pay."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.parse
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.timing import limit

from agentkit import policy
from agentkit.agent import Agent
from agentkit.artifacts import Dataset
from agentkit.embedded import discovery
from agentkit.graph.builder import JobGraph
from agentkit.graph.nodes import InferNode
from agentkit.journal import records as r
from agentkit.keys import keystore
from agentkit.keys.channel_messages import ChannelVoucher, Order
from agentkit.keys.signer import KeySigner
from agentkit.market.attempt import Attempt, Payment
from agentkit.market.chain import Network
from agentkit.market.offer import Offer
from agentkit.market.task import Task
from agentkit.payments.chain import Web3Chain
from agentkit.planner.estimate import spec_of
from agentkit.providers import wire
from agentkit.serve.app import node_app
from agentkit.serve.node import Node, NodeSettings
from agentkit.serve.payment_books import PaymentBooks
from agentkit.testing.conformance import Desk

HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
ORDER = 2 * HALF_ORDER + 1


@dataclass
class Bench:
    """A funded channel with the cheap node, and one opened attempt on it."""

    agent: Agent
    desk: Desk
    url: str
    http: aiohttp.ClientSession
    task: Task
    offer: Offer
    attempt: Attempt
    payment: Payment

    async def another(self, **changes: object) -> None:
        """Open a further attempt, for a question with `changes`."""
        node = self.desk.node(**changes)
        self.task, self.attempt, self.payment = await self.desk.open(node, self.offer)

    def submission(self, **changes: object) -> dict[str, Any]:
        whole = wire.Submission(
            attempt=self.attempt.id,
            task=wire.WireTask.of(self.task),
            at_most=self.attempt.at_most,
            payment=self.payment.body,
        )
        return self.ordered({**whole.model_dump(mode="json"), **changes})

    def ordered(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return a submission with its payer's order for what it now asks for."""
        try:
            asked = wire.Submission.model_validate(document)
        except ValueError:
            return document
        if "order" in asked.payment:
            order = Order(
                channel=bytes.fromhex(asked.payment["channel"]),
                attempt=bytes.fromhex(asked.attempt),
                at_most=asked.at_most.units,
                request=bytes.fromhex(asked.task.digest),
            )
            domain = self.agent.network.settlement_domain
            signature = self.agent._parts.signer.sign_order(domain, order).hex()
            document["payment"] = {**asked.payment, "order": signature}
        return document

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        async with self.http.post(self.url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.http.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.json()

    async def done(self) -> dict[str, Any]:
        _, job = await self.get(f"/jobs/{self.attempt.id}/result", Prefer="wait=20")
        return job  # type: ignore[no-any-return]


@pytest.fixture
async def bench(open_agent: Any, network: discovery.NetworkFile) -> AsyncIterator[Bench]:
    async with open_agent() as agent, aiohttp.ClientSession() as http:
        provider, rail = (
            agent._parts.resources.providers["native"],
            agent._parts.resources.rails["channel"],
        )
        desk = Desk(provider, rail, agent._journal, agent._parts.resources.ledger, "smollm2-135m")
        node: InferNode = desk.node()
        offers = await provider.offers(spec_of(node, {}))
        offer = next(o for o in offers if o.provider_node == "thrifty")
        task, attempt, payment = await desk.open(node, offer)
        url = network.nodes["thrifty"]
        yield Bench(agent, desk, url, http, task, offer, attempt, payment)


async def test_the_same_attempt_is_the_same_job(
    bench: Bench, network: discovery.NetworkFile
) -> None:
    for _ in range(3):
        status, _ = await bench.post("/jobs", bench.submission())
        assert status == 202
    first = await bench.done()
    assert await bench.done() == first
    logs = await executions(bench.http, network)
    assert logs["thrifty"].count(bench.attempt.id) == 1


async def test_a_model_is_served_by_any_of_its_names(bench: Bench) -> None:
    await bench.another(model="HuggingFaceTB/SmolLM2-135M-Instruct", prompt="One word.")
    assert (await bench.post("/jobs", bench.submission()))[0] == 202
    job = await bench.done()
    assert (job["status"]["state"], job["model"]) == ("done", "smollm2-135m")


async def executions(
    http: aiohttp.ClientSession, network: discovery.NetworkFile
) -> dict[str, list[str]]:
    headers = {"Authorization": f"Bearer {network.token}"}
    async with http.get(f"{network.url}/executions", headers=headers) as answer:
        return await answer.json()  # type: ignore[no-any-return]


async def test_a_key_of_another_task_is_refused(bench: Bench) -> None:
    assert (await bench.post("/jobs", bench.submission()))[0] == 202
    other = bench.submission()
    other["task"]["params"]["prompt"] = "Something else."
    status, answer = await bench.post("/jobs", other)
    assert status == 422
    assert "another task" in answer["error"]["message"]


async def test_unpaid_work_is_not_begun(bench: Bench, network: discovery.NetworkFile) -> None:
    unfunded = {**bench.payment.body, "salt": "ab" * 32}
    for payment in ({}, unfunded, {**bench.payment.body, "payer": "0x" + "11" * 20}):
        status, answer = await bench.post("/jobs", bench.submission(payment=payment))
        assert status == 422, answer
        assert answer["error"]["type"] == "Refused"
    dear = bench.submission(at_most="90.00 USDC " + bench.attempt.at_most.asset.id)
    status, answer = await bench.post("/jobs", dear)
    assert status == 422
    assert "are needed" in answer["error"]["message"]
    cheap = bench.submission(at_most="0.000001 USDC " + bench.attempt.at_most.asset.id)
    status, answer = await bench.post("/jobs", cheap)
    assert "can come to" in answer["error"]["message"]
    assert (await bench.get(f"/jobs/{bench.attempt.id}"))[0] == 404
    logs = await executions(bench.http, network)
    assert bench.attempt.id not in logs["thrifty"]


async def channel_of(bench: Bench) -> r.Channel:
    channels = await bench.agent._journal.commit(lambda tx: tx.every(r.Channel))
    return next(c for c in channels if c.payee == bench.offer.payee)


def voucher_body(bench: Bench, cumulative: int, signature: bytes) -> Any:
    return {**bench.payment.body, "cumulative": cumulative, "voucher": signature.hex()}


@pytest.mark.parametrize(
    "wrong",
    ["another signer", "above the deposit", "another channel", "high s", "v 0", "66 bytes", "text"],
)
async def test_bad_vouchers_are_refused(bench: Bench, wrong: str) -> None:
    channel = await channel_of(bench)
    signer: Any = (
        KeySigner(b"\x07" * 32) if wrong == "another signer" else bench.agent._parts.signer
    )
    cumulative = channel.deposited + 1 if wrong == "above the deposit" else 5
    name = b"\x09" * 32 if wrong == "another channel" else bytes.fromhex(channel.channel)
    domain = bench.agent.network.settlement_domain
    signature = bytearray(signer.sign_channel_voucher(domain, ChannelVoucher(name, cumulative)))
    if wrong == "high s":
        s = ORDER - int.from_bytes(signature[32:64], "big")
        signature[32:64] = s.to_bytes(32, "big")
        signature[64] = 55 - signature[64]
    if wrong == "v 0":
        signature[64] = 0
    if wrong == "66 bytes":
        signature.append(1)
    body = voucher_body(bench, cumulative, bytes(signature))
    if wrong == "text":
        body["voucher"] = "not hex"
    message = {"rail": "channel", "provider": "native", "verb": "voucher", "body": body}
    status, answer = await bench.post("/carry", message)
    assert status == 422, answer
    assert answer["error"]["type"] == "Refused"


async def test_a_lower_voucher_changes_nothing(bench: Bench) -> None:
    await bench.post("/jobs", bench.submission())
    await bench.done()
    result = await bench.desk.provider.result(bench.attempt)
    await bench.desk.settle(bench.attempt, result)
    channel = await channel_of(bench)
    signature = bench.agent._parts.signer.sign_channel_voucher(
        bench.agent.network.settlement_domain, ChannelVoucher(bytes.fromhex(channel.channel), 1)
    )
    lower = {"rail": "channel", "provider": "native", "verb": "voucher"}
    lower["body"] = voucher_body(bench, 1, signature)
    assert (await bench.post("/carry", lower))[0] == 200
    ask = bench.agent._parts.resources.rails["channel"]._messages.request(channel, "best")  # type: ignore[attr-defined]
    _, best = await bench.post("/carry", ask.model_dump())
    assert best["body"]["cumulative"] == channel.cumulative > 1
    assert best["body"]["attempts"] == [bench.attempt.id]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/jobs", {}),
        ("/jobs", []),
        ("/jobs", {"attempt": "../../etc/passwd"}),
        ("/offers", []),
        ("/carry", {"verb": "close"}),
        ("/carry", {"rail": "channel", "provider": "native", "verb": "sing"}),
        ("/v1/chat/completions", {}),
    ],
)
async def test_malformed_requests_are_client_errors(bench: Bench, path: str, body: Any) -> None:
    status, answer = await bench.post(path, body)
    assert 400 <= status < 500
    assert answer["error"]["message"]


async def test_what_is_not_here_is_not_found(bench: Bench) -> None:
    async with bench.http.get(f"{bench.url}/artifacts/{'0' * 64}") as gone:
        assert gone.status == 404
    async with bench.http.get(f"{bench.url}/artifacts/..%2Fkeys") as odd:
        assert odd.status in (400, 404)


async def test_the_execution_log_is_the_operators(bench: Bench) -> None:
    async with bench.http.get(f"{bench.url}/executions") as answer:
        assert answer.status == 403


class TestOpenAI:
    CHAT = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Say hello."}]}

    async def test_models_are_listed(self, bench: Bench) -> None:
        _, answer = await bench.get("/v1/models")
        assert "smollm2-135m" in [model["id"] for model in answer["data"]]

    async def test_without_payment_it_asks_for_it(self, bench: Bench) -> None:
        status, answer = await bench.post("/v1/chat/completions", self.CHAT)
        assert status == 402
        assert "has to be paid for" in answer["error"]["message"]

    async def test_what_is_not_sold_over_x402_says_how_it_is_paid(self, bench: Bench) -> None:
        body = {"model": "all-minilm-l6-v2", "input": "the sea"}
        status, answer = await bench.post("/v1/embeddings", body)
        assert status == 402
        assert "API key" in answer["error"]["message"]

    async def test_it_does_not_stream(self, bench: Bench) -> None:
        status, answer = await bench.post("/v1/chat/completions", {**self.CHAT, "stream": True})
        assert status == 422
        assert "stream" in answer["error"]["message"]


@pytest.mark.parametrize("verb", ["best", "deposit", "close"])
async def test_only_its_payer_asks_for_a_channels_voucher_or_its_end(
    bench: Bench, verb: str
) -> None:
    """A channel's terms are on the chain for everybody to read."""
    channel = await channel_of(bench)
    message = bench.agent._parts.resources.rails["channel"]._messages.request(channel, verb)  # type: ignore[attr-defined]
    stranger = KeySigner(b"\x07" * 32)
    nothing = ChannelVoucher(bytes.fromhex(channel.channel), 0)
    forged = stranger.sign_channel_voucher(bench.agent.network.settlement_domain, nothing).hex()
    for proof in (forged, "", "not hex"):
        body = {**message.body, "proof": proof}
        status, answer = await bench.post("/carry", {**message.model_dump(), "body": body})
        assert status == 422, answer
    assert (await bench.post("/jobs", bench.submission()))[0] == 202  # it is still open
    await bench.done()


@pytest.mark.parametrize("digest", ["/dev/zero", "../../state.db", "/etc/passwd", "A" * 64, ""])
async def test_what_is_no_digest_never_becomes_a_path(bench: Bench, digest: str) -> None:
    job = bench.submission()
    job["task"]["inputs"] = {"t": {"kind": "blob", "digest": digest, "size": 1, "media_type": "x"}}
    async with asyncio.timeout(limit(5)):
        status, answer = await bench.post("/jobs", job)
    assert status == 400
    assert answer["error"]["type"] == "ProtocolBroken"
    status, _ = await bench.post("/jobs", bench.submission(attempt=digest))
    assert status == 400
    if digest:
        named = urllib.parse.quote(digest, safe="")
        for path in ("/artifacts/", "/jobs/"):
            assert (await bench.get(f"{path}{named}"))[0] == 400


@pytest.mark.parametrize(
    ("pattern", "status"), [("^(a+)+$", 202), ("(?=a)b", 422), (r"(a)\1", 422)]
)
async def test_a_pattern_never_stops_a_node(bench: Bench, pattern: str, status: int) -> None:
    await bench.another(max_tokens=64)
    job = bench.submission()
    text = "a" * 40 + "!"
    job["task"]["params"]["schema"] = {"enum": [text], "not": {"pattern": pattern}}
    given, answer = await bench.post("/jobs", bench.ordered(job))
    assert given == status, answer
    if status == 422:
        assert "linear time" in answer["error"]["message"]
        return
    done = asyncio.ensure_future(bench.done())
    while not done.done():
        async with asyncio.timeout(limit(2)):
            assert (await bench.get("/node"))[0] == 200
        await asyncio.sleep(0.05)
    assert done.result()["status"]["state"] == "done"
    (output,) = done.result()["outputs"]
    assert json.loads(base64.b64decode(output["data"])) == text


async def test_work_that_was_not_declared_is_not_begun(
    bench: Bench, network: discovery.NetworkFile
) -> None:
    for unit, count in (("output", 1), ("output", 0), ("input", -5)):
        job = bench.submission()
        job["task"]["load"]["most"][unit] = count
        status, answer = await bench.post("/jobs", job)
        assert status == 422, answer
        assert unit in answer["error"]["message"]
    logs = await executions(bench.http, network)
    assert bench.attempt.id not in logs["thrifty"]


# -- admission -----------------------------------------------------------------------------------

ROWS = Dataset.dump([{"n": number} for number in range(6)])
"""48 bytes, which the channel of the bench can pay for."""


def query(bench: Bench, table: Dataset = ROWS, **changes: Any) -> dict[str, Any]:
    """Return a job over a table that does not travel with it."""
    load = {"byte": table.size}
    about = {"digest": table.digest, "size": table.size, "media_type": table.media_type}
    task = {
        "kind": "data",
        "params": {"op": "sql", "sql": "select count(*) as n from t"},
        "load": {"expected": load, "most": load},
        "inputs": {"t": {"kind": "dataset", **about}},
    }
    return bench.submission(task=task, **changes)


async def put(bench: Bench, digest: str, data: bytes) -> int:
    headers = {"Content-Type": "application/octet-stream"}
    url = f"{bench.url}/artifacts/{digest}"
    async with bench.http.put(url, data=data, headers=headers) as answer:
        return answer.status


async def test_an_input_is_taken_once_its_job_is_admitted(bench: Bench) -> None:
    assert await put(bench, ROWS.digest, ROWS.read()) == 422  # no job waits for it
    for unpaid in ({}, {**bench.payment.body, "order": ""}):
        status, _ = await bench.post("/jobs", {**query(bench), "payment": unpaid})
        assert status == 422
    assert await put(bench, ROWS.digest, ROWS.read()) == 422
    status, job = await bench.post("/jobs", query(bench))
    assert (status, job["awaits"]) == (202, [ROWS.digest])
    assert await put(bench, ROWS.digest, b"x" * ROWS.size) == 400
    assert await put(bench, ROWS.digest, ROWS.read() + b"x") == 400
    assert await put(bench, ROWS.digest, ROWS.read()) == 201
    done = await bench.done()
    assert done["status"]["state"] == "done", done
    (output,) = done["outputs"]
    assert json.loads(base64.b64decode(output["data"])) == {"n": 6}
    assert (await bench.get(f"/artifacts/{ROWS.digest}"))[0] == 404  # nobody reads it from here


async def test_a_job_that_waits_for_its_input_can_be_called_off(bench: Bench) -> None:
    other = Dataset.dump([{"n": 5}])
    status, _ = await bench.post("/jobs", query(bench, other))
    assert status == 202
    async with asyncio.timeout(limit(10)):
        _, job = await bench.post(f"/jobs/{bench.attempt.id}/cancel", {})
    assert job["status"]["state"] == "cancelled"
    assert await put(bench, other.digest, other.read()) == 422


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"size": 2**40}, 422),
        ({"size": -1}, 400),
        ({"size": 2**70}, 422),
        ({"kind": "secret"}, 400),
        ({"data": "!"}, 400),
        ({"data": "AAAA"}, 400),
    ],
)
async def test_an_input_that_lies_is_refused(
    bench: Bench, changes: dict[str, Any], status: int
) -> None:
    job = query(bench)
    job["task"]["inputs"]["t"] |= changes
    given, answer = await bench.post("/jobs", bench.ordered(job))
    assert given == status, answer
    assert (await bench.get(f"/jobs/{bench.attempt.id}"))[0] == 404


async def test_many_inputs_of_one_job_cost_no_memory(bench: Bench) -> None:
    """A job of 6 KB named one stored artifact 64 times, and it was loaded 64 times."""
    job = query(bench)
    about = {**job["task"]["inputs"]["t"], "size": 40 << 20}
    job["task"]["inputs"] = {f"t{number}": about for number in range(64)}
    status, answer = await bench.post("/jobs", job)
    assert status == 422
    assert "together" in answer["error"]["message"]


async def test_nobody_else_gets_work_on_a_payers_channel(bench: Bench) -> None:
    whole = bench.submission()
    order = Order(
        channel=bytes.fromhex(bench.payment.body["channel"]),
        attempt=bytes.fromhex(bench.attempt.id),
        at_most=bench.attempt.at_most.units,
        request=bytes.fromhex(bench.task.digest),
    )
    domain = bench.agent.network.settlement_domain
    forged = KeySigner(b"\x07" * 32).sign_order(domain, order).hex()
    for other in ("", forged):
        payment = {**bench.payment.body, "order": other}
        status, answer = await bench.post("/jobs", {**whole, "payment": payment})
        assert status == 422, answer
    # What was ordered for one attempt buys no other one.
    status, answer = await bench.post("/jobs", {**whole, "attempt": "ab" * 32})
    assert status == 422, answer
    assert (await bench.get(f"/jobs/{bench.attempt.id}"))[0] == 404


async def test_a_job_that_is_being_admitted_is_not_unknown(
    open_agent: Any, network: discovery.NetworkFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its payer died when it had sent it, and would buy elsewhere what is delivered here."""
    reached, gate = asyncio.Event(), asyncio.Event()
    admit = PaymentBooks.admit

    async def slowly(books: PaymentBooks, submission: wire.Submission) -> str:
        reached.set()
        await gate.wait()
        return await admit(books, submission)

    monkeypatch.setattr(PaymentBooks, "admit", slowly)
    chain = Network.model_validate(network.network)
    signer = keystore.create_test_key(tmp_path / "key.json")
    settings = NodeSettings("slow", tmp_path / "node", facilitator=network.facilitator)
    node = await Node.open(settings, signer, Web3Chain(chain), chain)
    async with TestServer(node_app(node)) as server:
        urls = [str(server.make_url("")).rstrip("/")]
        async with open_agent(providers={"native": {"urls": urls}}) as agent:
            graph = JobGraph("slow")
            graph.infer("said", model="smollm2-135m", prompt="Hi.", max_tokens=2)
            plan = await agent.plan(graph, policy=policy.allow("native/slow"))
            run = await agent.start(plan)
            await asyncio.wait_for(reached.wait(), limit(30))
            (attempt,) = node.jobs._admitting
            asking = asyncio.create_task(node.jobs.find(attempt))
            await asyncio.sleep(0)
            assert not asking.done()
            gate.set()
            job = await asking
            assert job is not None
            assert job.attempt == attempt
            assert (await run.result()).receipts[0].attempt.id == attempt
    await node.close()
    assert node.jobs._admitting == {}


async def test_a_payer_waits_while_it_is_told_to_and_loses_nothing(
    open_agent: Any, network: discovery.NetworkFile, tmp_path: Path
) -> None:
    """A node that delivers nothing ahead of payment, to a payer that asks for three at once."""
    chain = Network.model_validate(network.network)
    signer = keystore.create_test_key(tmp_path / "key.json")
    settings = NodeSettings(
        "strict",
        tmp_path / "node",
        slots=3,
        window="0.00 USDC",
        facilitator=network.facilitator,
    )
    node = await Node.open(settings, signer, Web3Chain(chain), chain)
    told: list[int] = []

    async def note(request: web.Request, response: web.StreamResponse) -> None:
        if request.path == "/jobs":
            told.append(response.status)

    app = node_app(node)
    app.on_response_prepare.append(note)
    async with TestServer(app) as server:
        urls = [str(server.make_url("")).rstrip("/")]
        async with open_agent(providers={"native": {"urls": urls}}) as agent:
            graph = JobGraph("three-at-once")
            (tmp_path / "rows.jsonl").write_bytes(ROWS.read())
            rows = graph.data("rows", source=tmp_path / "rows.jsonl")
            graph.infer("said", model="smollm2-135m", over=rows, prompt="{n}", max_tokens=2)
            only = policy.allow("native/strict")
            result = await agent.run(graph, budget="0.05 USDC", policy=only)
    await node.close()
    assert len(result["said"].rows()) == 6
    assert told.count(202) == 6
    assert 429 in told  # it was reached
