"""A node that says odd things of itself, and in answer to what rails tell it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agentkit.errors import Unavailable
from agentkit.keys.messages import payable
from agentkit.market.attempt import Message
from agentkit.providers.native import Native
from agentkit.testing.fakes import NETWORK

ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"  # an example of EIP-55
FACTS: dict[str, Any] = {
    "name": "n",
    "address": ADDRESS,
    "chain_id": NETWORK.chain_id,
    "token": NETWORK.token,
    "channels": NETWORK.channels,
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
