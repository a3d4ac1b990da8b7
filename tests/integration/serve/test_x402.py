"""A provider node whose chats can be bought one by one over x402, by whoever passes by."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.chain_processes import KEYS
from support.chain_processes import Node as ChainNode
from support.channel_hand import Hand, post
from support.timing import limit
from support.x402_market import MODEL, Payer, World, chain_of, facilitator, payer_of, world_on
from support.x402_sdk_client import StockPayer
from x402.extensions.bazaar import extract_discovery_info

from agentkit.artifacts import Text
from agentkit.keys.signer import KeySigner
from agentkit.market.x402 import (
    REQUIRED,
    RESPONSE,
    SIGNATURE,
    Challenge,
    Presented,
    Proof,
    Settled,
)
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels.claiming import Claiming
from agentkit.payments.receipts import Bundle, bundle_of, proof_of, verify
from agentkit.payments.x402.remote import FEW_CLAIMS, Facilitator
from agentkit.pool.models import model_file
from agentkit.pool.pool import Pool
from agentkit.pool.request import Done
from agentkit.providers.openai import EndpointSettings
from agentkit.serve.app import node_app
from agentkit.serve.node import Node, NodeSettings
from agentkit.serve.payment_books import PaymentBooks

OWNER = KeySigner(KEYS[1])
PATH = "/v1/chat/completions"
LINE = 8190
"""The longest header line that aiohttp's clients and servers take."""


class Parrot:
    """A pool without a model: it says how often it was asked."""

    asked = 0

    def facts(self) -> dict[str, Any]:
        return {"kinds": ["infer"], "models": [MODEL]}

    async def run(
        self, name: str, kind: str, params: dict[str, Any], inputs: Any, *, declared: Any = None
    ) -> Done:
        self.asked += 1
        text = Text.of(f"{self.asked}: {params['messages'][-1]['content']}".encode())
        return Done((text,), {"input": 3, "output": 2}, MODEL, finish_reason="stop")

    async def check(self, *call: Any) -> None:
        return

    async def check_fits(self, *call: Any) -> None:
        return

    async def close(self) -> None:
        return


@pytest.fixture(scope="module")
def chain(tmp_path_factory: Any) -> Iterator[ChainNode]:
    with chain_of("embedded", tmp_path_factory.mktemp("chain")) as running:
        yield running


@pytest.fixture
async def world(chain: ChainNode) -> AsyncIterator[World]:
    async with world_on(chain) as made:
        yield made


@pytest.fixture
async def node(world: World, tmp_path: Path) -> AsyncIterator[tuple[Node, str]]:
    async with facilitator(world, tmp_path) as url:
        settings = NodeSettings(
            "lone",
            tmp_path / "node",
            api_keys=("open sesame",),
            facilitator=url,
            request_price="0.002 USDC",
        )
        made = await Node.open(settings, OWNER, Web3Chain(world.network), world.network)
        made.pool = Parrot()  # type: ignore[assignment]
        assert made.x402
        await made.x402.watch()  # by now it knows who settles `upto`
        async with TestServer(node_app(made)) as server:
            yield made, str(server.make_url("")).rstrip("/")
        await made.close()


def chat(**changes: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], **changes}


async def test_an_agent_buys_a_chat(world: World, node: tuple[Node, str], tmp_path: Path) -> None:
    made, url = node
    before = await world.balance(OWNER.address)
    key = bytes(range(32))
    await world.mint(KeySigner(key).address, 10_000)
    served = EndpointSettings(prices={}, models={MODEL: MODEL})
    async with payer_of(world.network, tmp_path, url, key, account=served) as wallet:
        result = await wallet.run()
    assert result.receipts[0].standing == "paid"
    assert result.paid.units == 2000
    assert made.pool.asked == 1  # type: ignore[attr-defined]
    assert await world.balance(OWNER.address) == before + 2000


async def test_a_watch_that_fails_keeps_no_claim_from_being_made(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a facilitator or a chain said: nothing would be claimed again until a restart."""
    claimed = asyncio.Semaphore(0)

    async def fail(self: PaymentBooks) -> None:
        raise OverflowError("cannot convert float infinity to integer")

    async def claim(self: Claiming) -> None:
        claimed.release()

    monkeypatch.setattr("agentkit.serve.node.WATCH_SECONDS", 0.01)
    monkeypatch.setattr(PaymentBooks, "watch", fail)
    monkeypatch.setattr(Claiming, "watch", claim)
    settings = NodeSettings("lone", tmp_path / "node")
    node = await Node.open(settings, OWNER, Web3Chain(world.network), world.network)
    async with asyncio.timeout(limit(10)):
        for _ in range(3):
            await claimed.acquire()
    await node.close()


@pytest.mark.parametrize("facilitator", ["", "http://127.0.0.1:1"])
async def test_a_node_that_stops_pays_no_gas_for_what_is_not_worth_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facilitator: str
) -> None:
    asked: list[str] = []

    async def claim(self: Claiming) -> None:
        asked.append("all")
        raise RuntimeError("and a defect here keeps the other ways from nothing")

    async def look(self: PaymentBooks) -> None:
        asked.append("due")

    settings = NodeSettings("lone", tmp_path / "node", facilitator=facilitator)
    node = await Node.open(settings, OWNER, Web3Chain(world.network), world.network)
    monkeypatch.setattr(Claiming, "claim_all", claim)
    monkeypatch.setattr(PaymentBooks, "watch", look)
    await node.claim_all()
    await node.close()
    assert asked[-1] == "due"
    assert ("all" in asked) == bool(facilitator)


@pytest.mark.parametrize(
    "said",
    [
        b"[" * 60_000,
        b'{"kinds": [{"extra": {"maxClaims": 1e999}}]}',
        b'{"kinds": [{"extra": {"maxClaims": NaN}}]}',
        b'{"kinds": [{"extra": {"maxClaims": {}}}]}',
        b'{"kinds": 5}',
        b"\xff",
    ],
)
async def test_what_a_facilitator_says_of_itself_stops_no_claim(said: bytes) -> None:
    async def supported(request: web.Request) -> web.Response:
        return web.Response(body=said)

    app = web.Application()
    app.router.add_get("/supported", supported)
    async with TestServer(app) as server:
        remote = Facilitator(str(server.make_url("")))
        assert await remote.most_claims() == FEW_CLAIMS
        assert await remote.upto_address("eip155:1") == ""
        await remote.close()


async def test_a_buyer_keeps_what_the_node_signed_about_a_sale(
    world: World, node: tuple[Node, str], tmp_path: Path
) -> None:
    _, url = node
    key = secrets.token_bytes(32)
    await world.mint(KeySigner(key).address, 10_000)
    served = EndpointSettings(prices={}, models={MODEL: MODEL})
    async with payer_of(world.network, tmp_path, url, key, account=served) as wallet:
        (receipt,) = (await wallet.run()).receipts
        bundle = bundle_of(world.network, wallet.signer.address, [receipt], [])
    assert verify(bundle) == []
    assert proof_of(receipt, bundle) == "the seller's offer and receipt"
    signed = receipt.statements.receipt["payload"]
    assert (signed["resourceUrl"], signed["payer"]) == (url + PATH, wallet.signer.address)
    assert signed["transaction"] == receipt.evidence.reference
    bundle.save(tmp_path / "bundle.json")
    assert verify(Bundle.load(tmp_path / "bundle.json")) == []


async def test_an_answer_that_is_given_again_has_the_same_header(
    world: World, node: tuple[Node, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, url = node
    key = secrets.token_bytes(32)
    await world.mint(KeySigner(key).address, 10_000)
    served = EndpointSettings(prices={}, models={MODEL: MODEL})
    async with (
        payer_of(world.network, tmp_path, url, key, account=served) as wallet,
        aiohttp.ClientSession() as http,
    ):
        headers = {SIGNATURE: await presented(wallet, url)}
        told = []
        for _ in range(2):
            async with http.post(url + PATH, json=chat(), headers=headers) as said:
                told.append((said.status, said.headers[RESPONSE], await said.read()))
            # A receipt that was signed anew would be of another second.
            later = time.time() + 60
            monkeypatch.setattr("agentkit.payments.x402.issuer.time.time", lambda: later)
    assert told[0] == told[1]
    assert "offer-receipt" in (Settled.read(told[0][1]).extensions or {})
    assert made.pool.asked == 1  # type: ignore[attr-defined]


async def test_the_figures_are_the_operators_and_count_what_was_sold(
    world: World, node: tuple[Node, str], tmp_path: Path
) -> None:
    made, url = node
    key = bytes(range(3, 35))
    await world.mint(KeySigner(key).address, 10_000)
    served = EndpointSettings(prices={}, models={MODEL: MODEL})
    async with payer_of(world.network, tmp_path, url, key, account=served) as wallet:
        await wallet.run()
    app = node_app(made, token="a token")
    published = node_app(made, public_metrics=True)
    async with TestServer(app) as operated, TestServer(published) as public:

        async def read(server: TestServer, **headers: str) -> tuple[int, str]:
            async with (
                aiohttp.ClientSession() as http,
                http.get(server.make_url("/metrics"), headers=headers) as said,
            ):
                return said.status, await said.text()

        for wrong in ({}, {"Authorization": "Bearer no token"}, {"Authorization": "Bearer "}):
            assert (await read(operated, **wrong))[0] == 403
        status, text = await read(operated, Authorization="Bearer a token")
        assert status == 200
        assert 'agentkit_earned_units_total{rail="exact",currency="USDC"} 2000' in text.splitlines()
        assert (await read(public))[0] == 200
    async with aiohttp.ClientSession() as http, http.get(url + "/metrics") as said:
        assert said.status == 403  # a node without a token has no operator


async def test_only_what_the_node_would_do_is_sold(node: tuple[Node, str]) -> None:
    made, url = node
    async with aiohttp.ClientSession() as http:

        async def asked(body: Any, **headers: str) -> tuple[int, bool]:
            async with http.post(url + PATH, json=body, headers=headers) as said:
                return said.status, REQUIRED in said.headers

        assert await asked(chat()) == (402, True)
        assert await asked(chat(), Authorization="Bearer open sesame") == (200, False)
        assert await asked(chat(model="unknown")) == (422, False)
        assert await asked(chat(stream=True)) == (422, False)
        assert await asked([]) == (400, False)
        async with http.post(url + PATH, json=chat()) as said:
            metered, once, flat = Challenge.read(said.headers[REQUIRED]).accepts
    assert (once["scheme"], once["amount"]) == ("upto", metered["amount"])
    assert (flat["scheme"], flat["payTo"], flat["amount"]) == ("exact", OWNER.address, "2000")
    assert (metered["scheme"], metered["payTo"]) == ("batch-settlement", OWNER.address)
    assert made.pool.asked == 1  # type: ignore[attr-defined]


async def test_a_facilitator_finds_in_a_payment_what_the_node_sells(
    world: World, node: tuple[Node, str]
) -> None:
    """The SDK's client sends back what was declared, and the SDK's facilitator reads it."""
    _, url = node
    key = secrets.token_bytes(32)
    async with aiohttp.ClientSession() as http:
        stock = StockPayer(world, key, http)
        async with http.post(url + PATH, json=chat()) as said:
            assert len(Challenge.read(said.headers[REQUIRED]).accepts) == 3
            assert len(said.headers[REQUIRED]) < LINE
            headers, payload = await stock.http.handle_402_response(
                dict(said.headers), await said.read(), url + PATH
            )
    assert len(headers[SIGNATURE]) < LINE
    found = extract_discovery_info(payload, payload.accepted)
    assert found is not None
    assert (found.method, found.resource_url) == ("POST", url + PATH)
    assert found.discovery_info.input.body["model"] == MODEL  # type: ignore[union-attr]
    assert "Chat" in (found.description or "")


REFUSED: dict[str, tuple[Any, int]] = {
    "no object": ([], 400),
    "no messages": ({"model": MODEL}, 400),
    "no message": (chat(messages=[]), 400),
    "parts": (chat(messages=[{"role": "user", "content": [{"type": "text"}]}]), 400),
    "a number": (chat(messages=5), 400),
    "another model": (chat(model="unknown"), 422),
    "a stream": (chat(stream=True), 422),
    "too much output": (chat(max_tokens=10**9), 400),
    "no output": (chat(max_tokens=0), 400),
    "text as a number": (chat(max_tokens="5"), 400),
    "cold": (chat(temperature=-1), 400),
    "not a number": (chat(temperature=float("nan")), 400),
    "a strange schema": (
        chat(response_format={"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}),
        422,
    ),
    "longer than its context": (chat(messages=[{"role": "user", "content": "a " * 20_000}]), 422),
}


async def presented(wallet: Payer, url: str) -> str:
    """Return a header that pays for a chat."""
    async with aiohttp.ClientSession() as http, http.post(url + PATH, json=chat()) as said:
        challenge = Challenge.read(said.headers[REQUIRED])
    *_, attempt, payment = await wallet.sign()
    accepted = challenge.payable_on(wallet.network)
    assert accepted
    proof = Proof.model_validate(payment.body["proof"])
    return Presented.to(challenge, accepted, proof, attempt.id).header()


async def test_what_would_be_refused_is_not_paid_for(
    world: World, node: tuple[Node, str], tmp_path: Path
) -> None:
    made, url = node
    parrot = made.pool
    made.pool = Pool(scratch=tmp_path / "scratch")
    made.pool.run = parrot.run  # type: ignore[method-assign]  # what it checks by is real
    key = bytes(range(1, 33))
    await world.mint(KeySigner(key).address, 10_000)
    before = await world.balance(OWNER.address)
    served = EndpointSettings(prices={}, models={MODEL: MODEL})
    async with (
        payer_of(world.network, tmp_path, url, key, account=served) as wallet,
        aiohttp.ClientSession() as http,
    ):
        headers = {SIGNATURE: await presented(wallet, url), "Content-Type": "application/json"}

        async def asked(body: Any) -> int:
            data = json.dumps(body).encode()
            async with http.post(url + PATH, data=data, headers=headers) as said:
                return said.status

        for why, (body, status) in REFUSED.items():
            assert (why, await asked(body)) == (why, status)
            assert await world.balance(OWNER.address) == before
        made.pool._slots._queue_limit.most = 0
        async with made.pool._slots.llamas(model_file(MODEL)).take():
            assert await asked(chat()) == 429  # a full queue
        assert await world.balance(OWNER.address) == before
        assert parrot.asked == 0  # type: ignore[attr-defined]
        assert await asked(chat()) == 200  # the same payment is still good
        assert await world.balance(OWNER.address) == before + 2000
    await made.pool.close()


async def test_for_who_cannot_pay_nothing_is_counted(
    world: World, node: tuple[Node, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To count the tokens of a long prompt is work; a channel and its vouchers cost nothing."""
    made, url = node
    counted: list[Any] = []

    async def count(*call: Any) -> None:
        counted.append(call)

    monkeypatch.setattr(made.pool, "check_fits", count)
    asked = await post(url + PATH, {}, chat())
    ways = Challenge.read(asked.headers[REQUIRED]).requirements
    most = next(int(way.amount) for way in ways if way.scheme == "batch-settlement")
    hand = Hand(world, OWNER.address)
    deposit = hand.deposit(10 * most)
    for header in (hand.header(most), hand.header(most, kind="deposit", deposit=deposit)):
        assert (await post(url + PATH, header, chat())).status_code == 402
    assert counted == []
    await world.mint(hand.signer.address, 10 * most)
    assert (await post(url + PATH, header, chat())).status_code == 200
    assert len(counted) == 1


ODD = (b"", b"{", b"[]", b"null", b"1", b"NaN", b"[" * 50_000, b'{"a":' * 9_000, b"\xff")
VALUES = (None, True, -1, 1.5, 2**300, "", "x", "0x", "9" * 400, "\x00", [], {}, [[]])


def places_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value)
    for step, inner in steps:
        yield (*path, step)
        if isinstance(inner, dict | list):
            yield from places_of(inner, (*path, step))


async def test_a_facilitator_is_not_made_to_fail_by_what_is_asked(
    world: World, node: tuple[Node, str], tmp_path: Path
) -> None:
    _, url = node
    key = bytes(range(2, 34))
    await world.mint(KeySigner(key).address, 10_000)
    served = EndpointSettings(prices={}, models={MODEL: MODEL})
    async with payer_of(world.network, tmp_path, url, key, account=served) as wallet:
        header = Presented.read(await presented(wallet, url))
    good = {
        "paymentPayload": header.document(),
        "paymentRequirements": header.document()["accepted"],
    }
    bodies = list(ODD)
    for place in places_of(good):
        for value in VALUES:
            changed = json.loads(json.dumps(good))
            inner = changed
            for step in place[:-1]:
                inner = inner[step]
            inner[place[-1]] = value
            bodies.append(json.dumps(changed).encode())
    async with facilitator(world, tmp_path / "other") as at, aiohttp.ClientSession() as http:
        for body in bodies:
            headers = {"Content-Type": "application/json"}
            async with http.post(f"{at}/verify", data=body, headers=headers) as said:
                assert said.status in (200, 400), (body, await said.text())
