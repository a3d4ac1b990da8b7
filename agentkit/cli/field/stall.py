"""A small seller on loopback, which the canaries buy from: chats behind our own paywall.

It has a key of its own, in the home of the user, so what is paid to it is not lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from aiohttp import web

from agentkit.journal.journal import Journal
from agentkit.keys.signer import Signer
from agentkit.market.batch_settlement import MIN_DELAY
from agentkit.market.chain import ChainClient, Network
from agentkit.money import Money
from agentkit.net.guard import guard
from agentkit.net.server import start_server
from agentkit.payments.channels.claiming import Claiming, ClaimPolicy
from agentkit.payments.channels.mirror import ChannelMirror
from agentkit.payments.channels.purchase import SellerTerms
from agentkit.payments.channels.seller import ChannelSeller
from agentkit.payments.x402.paywall import CHARGE, Paywall, Price
from agentkit.payments.x402.remote import Facilitator
from agentkit.providers.openai import EndpointSettings
from agentkit.providers.x402 import X402Endpoint

MODEL = "smollm2-135m"
"""The model that is asked for; the stall answers for it without having it."""

PATH = "/v1/chat/completions"

CALL = 5_000
"""What a call costs, in base units: half a cent."""

DEPOSIT = 6 * CALL
"""The most that the first call may cost, which is what the payer then deposits.

Facilitators refuse deposits and claims that are not worth their gas, by default of a cent.
"""


@dataclass(eq=False)
class Stall:
    """A running seller.

    `at_most` is what a call may cost now.  A call waits at `gate` and sets `reached` before.
    """

    name: str
    url: str
    signer: Signer
    claiming: Claiming
    network: Network
    at_most: int = CALL
    works: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def payee(self) -> str:
        """The address that the stall is paid at."""
        return self.signer.address

    @cached_property
    def client(self) -> X402Endpoint:
        """The client by which the wallet buys here; it is closed with the stall."""
        return endpoint(self.name, self.url, self.payee, self.network)


def endpoint(name: str, url: str, payee: str, network: Network) -> X402Endpoint:
    """Return the client of a stall at an address."""
    settings = EndpointSettings(prices={}, models={MODEL: MODEL}, payee=payee)
    return X402Endpoint(name, url, network, settings)


@asynccontextmanager
async def open_stall(
    name: str, home: Path, signer: Signer, network: Network, chain: ChainClient, facilitator: str
) -> AsyncIterator[Stall]:
    """Serve a stall whose books lie in `home`, until the end of the block."""
    async with AsyncExitStack() as stack:
        journal = await Journal.open(home, signer.address)
        stack.push_async_callback(journal.close)
        settling = Facilitator(facilitator)
        stack.push_async_callback(settling.close)
        mirror = ChannelMirror(journal, chain, delay=MIN_DELAY)
        terms = SellerTerms(payee=signer.address, authorizer=signer.address, delay=MIN_DELAY)
        seller = ChannelSeller(
            journal, chain, network, settling, signer, terms=terms, mirror=mirror
        )
        claiming = Claiming(
            journal,
            chain,
            network,
            settling,
            signer,
            payee=signer.address,
            delay=MIN_DELAY,
            policy=ClaimPolicy(),
            mirror=mirror,
        )
        stall = Stall(name, "", signer, claiming, network)
        stall.gate.set()
        runner = await start_server(_app(stall, seller), "127.0.0.1", 0, shutdown_timeout=1.0)
        stack.push_async_callback(runner.cleanup)
        stall.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        stack.push_async_callback(stall.client.close)
        yield stall


def _app(stall: Stall, seller: ChannelSeller) -> web.Application:
    """Return the application of a stall: one model, one priced route."""
    currency = stall.network.currency

    async def price(_: web.Request) -> Price:
        return Price.of(Money(stall.at_most, currency))

    async def chat(request: web.Request) -> web.Response:
        stall.works += 1
        stall.reached.set()
        await stall.gate.wait()
        request[CHARGE] = Money(CALL, currency)
        return web.json_response(_answer(stall.works))

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    paywall = Paywall([seller], prices={f"POST {PATH}": price})
    app = web.Application(middlewares=[guard(), paywall.middleware])  # type: ignore[list-item]
    app.router.add_post(PATH, chat)
    app.router.add_get("/v1/models", models)
    return app


def _answer(number: int) -> dict[str, object]:
    """Return a chat's answer, which says how many there were."""
    message = {"role": "assistant", "content": f"answer {number}"}
    return {
        "id": f"field-{number}",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
