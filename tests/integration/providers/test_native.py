"""A node that says odd things of itself, and in answer to what rails tell it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agentkit.artifacts import Dataset
from agentkit.errors import ProtocolBroken, Unavailable
from agentkit.keys.messages import payable
from agentkit.market.attempt import Message
from agentkit.market.chain import SETTLEMENT
from agentkit.providers.http import MAX_BYTES
from agentkit.providers.native import MAX_OUTPUT, Native
from agentkit.providers.wire import INLINE_BYTES, WireArtifact
from agentkit.testing.fakes import NETWORK

ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"  # an example of EIP-55
FACTS: dict[str, Any] = {
    "name": "n",
    "address": ADDRESS,
    "chain_id": NETWORK.chain_id,
    "token": NETWORK.token,
    "channels": SETTLEMENT,
    "rail": "channel",
    "pays": "on_delivery",
    "kinds": ["infer"],
    "models": ["m"],
}


@asynccontextmanager
async def node(answer: dict[str, Any], **facts: object) -> AsyncIterator[Native]:
    """A node that says `facts` of itself and answers every message with `answer`."""

    async def told(request: web.Request) -> web.Response:
        return web.json_response({**FACTS, **facts})

    async def carried(request: web.Request) -> web.Response:
        return web.json_response({**(await request.json()), **answer})

    app = web.Application()
    app.add_routes([web.get("/node", told), web.post("/carry", carried)])
    async with TestServer(app) as server:
        native = Native("native", (str(server.make_url("/")),), NETWORK)
        try:
            yield native
        finally:
            await native.close()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "0x" + 40 * "0",
        ADDRESS[:-1],
        ADDRESS + "0",
        ADDRESS[2:],
        ADDRESS.swapcase(),
        ADDRESS.replace("A", "a", 1),
        "0x" + 40 * "g",
        "pay me: " + ADDRESS,
    ],
)
async def test_whoever_names_no_address_is_not_asked(address: str) -> None:
    """A broken checksum is a typo or a trick; nothing goes there."""
    assert payable(address) == ""
    async with node({}, address=address) as native:
        with pytest.raises(Unavailable):
            await native.carry(
                Message(rail="channel", provider="native", provider_node="n", verb="best")
            )


@pytest.mark.parametrize(
    "address", [ADDRESS, ADDRESS.lower(), "0x" + ADDRESS[2:].upper(), "0x" + ADDRESS[2:].lower()]
)
async def test_an_address_has_one_spelling(address: str) -> None:
    """In several, one payee would have a channel, and a limit, for each of them."""
    async with node({}, address=address) as native:
        ((_, facts),) = (await native._answering()).values()
        assert facts.address == ADDRESS


async def test_an_answer_speaks_for_the_node_that_was_asked() -> None:
    lie = {"rail": "prepaid", "provider": "far", "provider_node": "other", "verb": "best"}
    async with node(lie) as native:
        question = Message(rail="channel", provider="native", provider_node="n", verb="voucher")
        answer = await native.carry(question)
    assert (answer.rail, answer.provider, answer.provider_node) == ("channel", "native", "n")


# -- outputs that do not travel inline -----------------------------------------------------------


@asynccontextmanager
async def shelf(data: bytes, *, size: int | None = None) -> AsyncIterator[tuple[Native, Any]]:
    """A node that has one output, and says that it is of `size` bytes."""
    output = WireArtifact.of(Dataset.of(data)).model_copy(update={"data": None})

    async def stored(request: web.Request) -> web.Response:
        return web.Response(body=data)

    app = web.Application()
    app.add_routes([web.get("/artifacts/{digest}", stored)])
    async with TestServer(app) as server:
        native = Native("native", (str(server.make_url("/")),), NETWORK)
        try:
            yield native, output if size is None else output.model_copy(update={"size": size})
        finally:
            await native.close()


async def test_a_table_as_large_as_nodes_write_is_fetched() -> None:
    """A node writes results of up to 256 MiB, of which 64 could be read: it worked for nothing."""
    data = bytes(MAX_BYTES + 1)
    assert len(data) < MAX_OUTPUT
    async with shelf(data) as (native, output):
        assert len(await native._fetch(native._https[0], output)) == len(data)


async def test_no_more_is_read_than_the_node_said_there_is() -> None:
    async with shelf(bytes(4 * INLINE_BYTES), size=2 * INLINE_BYTES) as (native, output):
        with pytest.raises(ProtocolBroken, match="too large"):
            await native._fetch(native._https[0], output)


async def test_an_output_that_is_said_to_be_huge_is_not_fetched() -> None:
    async with shelf(b"", size=MAX_OUTPUT + 1) as (native, output):
        with pytest.raises(ProtocolBroken, match="too large"):
            await native._fetch(native._https[0], output)
