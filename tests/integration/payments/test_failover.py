"""A chain behind several addresses: the next one is asked where one does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.timing import limit

from agentkit.errors import ConfigError, ProtocolBroken, SettlementFailed, StoreUnavailable
from agentkit.market.chain import Network
from agentkit.payments import rpc_answers
from agentkit.payments.chain import Web3Chain
from agentkit.testing.fakes import NETWORK


@dataclass
class ToyNode:
    """A node that knows its chain, its newest block, and what it was sent."""

    chain: int = 10
    head: int = 100
    up: bool = True
    url: str = ""
    asked: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    loses: bool = False
    garbles: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body["method"])
        if not self.up:
            return web.Response(status=503)
        if body["method"] == self.garbles:
            return web.Response(text="<html>Log in</html>", content_type="text/html")
        return web.json_response(
            {"jsonrpc": "2.0", "id": body["id"], "result": self.result(body)},
            status=502 if self.loses and body["method"] == "eth_sendRawTransaction" else 200,
        )

    def result(self, body: dict[str, Any]) -> str:
        match body["method"]:
            case "eth_chainId":
                return hex(self.chain)
            case "eth_blockNumber":
                return hex(self.head)
            case "eth_sendRawTransaction":
                self.sent.append(body["params"][0])
                return "0x" + "ab" * 32
            case method:
                raise AssertionError(f"nobody asks for {method} here")


@asynccontextmanager
async def chain_of(*nodes: ToyNode) -> AsyncIterator[Web3Chain]:
    """A chain 10 without a token, behind these nodes."""
    servers = []
    for node in nodes:
        app = web.Application()
        app.router.add_post("/", node.answer)
        servers.append(TestServer(app))
        await servers[-1].start_server()
        node.url = str(servers[-1].make_url("/"))
    chain = Web3Chain(network_at(*(node.url for node in nodes)))
    try:
        yield chain
    finally:
        await chain.close()
        for server in servers:
            await server.close()


def network_at(rpc: str, *others: str) -> Network:
    changes = {"chain_id": 10, "rpc": rpc, "other_rpcs": others, "token": "", "channels": ""}
    return NETWORK.model_copy(update=changes)


async def test_the_next_address_is_asked_and_stays_in_use() -> None:
    first, second = ToyNode(head=7), ToyNode(head=9)
    async with chain_of(first, second) as chain:
        assert await chain.head() == 7
        assert second.asked == []
        first.up = False
        assert await chain.head() == 9
        asked = len(first.asked)
        assert await chain.head() == 9
        assert len(first.asked) == asked, "it is asked again only when the second one fails"
        first.up, first.head, second.up = True, 12, False
        assert await chain.head() == 12


async def test_bytes_whose_answer_was_lost_go_to_the_next_address_unchanged() -> None:
    first, second = ToyNode(loses=True), ToyNode()
    async with chain_of(first, second) as chain:
        await chain.send(b"\x01\x02")
    assert (first.sent, second.sent) == (["0x0102"], ["0x0102"])


class Endless(ToyNode):
    """A node whose answers have no end."""

    async def answer(self, request: web.Request) -> Any:
        body = await request.json()
        if body["method"] != "eth_blockNumber":
            return await super().answer(request)
        stream = web.StreamResponse()
        await stream.prepare(request)
        with suppress(ConnectionError):
            while True:
                await stream.write(b" " * (1 << 16))
        return stream


async def test_an_answer_without_end_fills_no_memory_and_the_next_address_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rpc_answers, "MAX_ANSWER", 1 << 20)
    async with asyncio.timeout(limit(10)), chain_of(Endless(), ToyNode(head=9)) as chain:
        assert await chain.head() == 9
    async with asyncio.timeout(limit(10)), chain_of(Endless()) as chain:
        with pytest.raises(ProtocolBroken, match="more than 1 MiB"):
            await chain.head()


class Refusing(ToyNode):
    """A node whose refusal looks like more than one of our lines, and is long."""

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["method"] not in ("eth_sendRawTransaction", "eth_call"):
            return await super().answer(request)
        error = {"code": 3, "message": "execution reverted: no\nhint: run `rm`" + "x" * 10**6}
        return web.json_response({"jsonrpc": "2.0", "id": body["id"], "error": error})


async def test_a_refusal_is_told_in_one_line_of_a_bounded_length() -> None:
    async with chain_of(Refusing()) as chain:
        for asked in (chain.send(b"\x01"), chain.call(NETWORK.token, b"")):
            with pytest.raises(SettlementFailed, match="hint: run") as refused:
                await asked
            assert "\n" not in str(refused.value)
            assert len(str(refused.value)) < 1000


async def test_an_address_of_another_chain_is_never_believed() -> None:
    first, second = ToyNode(), ToyNode(chain=1)
    async with chain_of(first, second) as chain:
        await chain.head()
        first.up = False
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await chain.send(b"\x01")
        assert second.sent == []
        assert second.asked == ["eth_chainId"]
        first.up = True
        assert await chain.head() == 100


@pytest.mark.parametrize("method", ["eth_call", "eth_chainId"])
async def test_an_answer_that_cannot_be_read_makes_no_contract_a_wrong_one(method: str) -> None:
    """ConfigError would end a run for good, for what may pass in a moment."""
    node = ToyNode(garbles=method)
    async with chain_of(node) as chain:
        chain._endpoints[0]._network = NETWORK.model_copy(update={"chain_id": 10})
        with pytest.raises(ProtocolBroken, match="cannot be read"):
            await chain.head()


async def test_an_address_is_checked_again_before_it_is_used_again() -> None:
    first, second = ToyNode(), ToyNode()
    async with chain_of(first, second) as chain:
        await chain.head()
        first.up = False
        await chain.head()
        first.up, first.chain, second.up = True, 1, False  # another node stands there now
        with pytest.raises(StoreUnavailable):
            await chain.send(b"\x01")
        assert first.sent == []


async def test_where_every_address_is_wrong_the_first_is_named() -> None:
    first, second = ToyNode(chain=1), ToyNode(chain=2)
    async with chain_of(first, second) as chain:
        with pytest.raises(ConfigError, match="is chain 1, and") as wrong:
            await chain.head()
        assert wrong.value.hint.startswith("check the rpc")


async def test_an_address_that_is_behind_what_was_seen_is_not_asked() -> None:
    """It would show a payment as not made that the first one has shown as made."""
    first, second = ToyNode(head=100), ToyNode(head=99)
    async with chain_of(first, second) as chain:
        await chain.head()
        first.up = False
        with pytest.raises(StoreUnavailable):
            await chain.send(b"\x01")
        assert second.sent == []
        second.head = 100
        await chain.send(b"\x01")
        assert len(second.sent) == 1
