"""A shop that sells over channels by `batch-settlement`, and the x402 SDK as its client."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web
from aiohttp.test_utils import TestServer
from eth_account import Account
from x402 import SpendControlAsset, SpendControls, x402Client
from x402.http.clients.httpx import x402_httpx_transport
from x402.mechanisms.evm.batch_settlement.client import BatchSettlementEvmScheme
from x402.mechanisms.evm.batch_settlement.client.config import (
    BatchSettlementDepositPolicy,
    BatchSettlementEvmSchemeOptions,
)
from x402.mechanisms.evm.signers import EthAccountSignerWithRPC

from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.signer import KeySigner
from agentkit.money import Money
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels.claiming import Claiming, ClaimPolicy
from agentkit.payments.channels.mirror import ChannelMirror
from agentkit.payments.channels.purchase import SellerTerms
from agentkit.payments.channels.seller import ChannelSeller
from agentkit.payments.x402.paywall import CHARGE, Paywall
from agentkit.payments.x402.remote import Facilitation, Facilitator
from support.x402_market import Around, World

PATH = "/work"
PRICE = 1000
DELAY = 3600
SELLER_KEY = b"\x51" * 32


@dataclass
class Work:
    """What the shop does for a request; tests make it slow, failing or cheap."""

    done: int = 0
    charge: int | None = None
    status: int = 200
    gate: asyncio.Event | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)
    lose_answers: int = 0
    chat: Callable[[int], Any] = lambda number: {"n": number}
    around: Around | None = None

    async def handle(self, request: web.Request) -> web.Response:
        self.done += 1
        number = self.done
        self.started.set()
        if self.gate:
            await self.gate.wait()
        if self.charge is not None:
            request[CHARGE] = Money(self.charge, request.app[CURRENCY])
        return web.json_response(self.chat(number), status=self.status)


CURRENCY: web.AppKey[Any] = web.AppKey("currency", object)


@dataclass
class ChannelShop:
    """A shop, with what it knows of its channels."""

    world: World
    url: str
    signer: KeySigner
    work: Work
    journal: Journal
    claiming: Claiming
    seller: ChannelSeller
    remote: Facilitation
    chain: Web3Chain

    async def sold(self) -> list[r.SoldChannel]:
        return await self.journal.commit(lambda tx: tx.every(r.SoldChannel))


@asynccontextmanager
async def channel_shop(
    world: World,
    folder: Path,
    facilitator_url: str,
    *,
    key: bytes = SELLER_KEY,
    work: Work | None = None,
    policy: ClaimPolicy | None = None,
    terms: dict[str, Any] | None = None,
    path: str = PATH,
    prices: dict[str, int] | None = None,
    wrap: Callable[[Facilitation], Facilitation] = lambda facilitator: facilitator,
    port: int | None = None,
) -> AsyncIterator[ChannelShop]:
    """A shop that is paid over channels, and settles at a facilitator's address.

    `prices` are those of further routes, such as `GET /data`; `wrap` puts something in front of
    the facilitator.
    """
    work = work or Work()
    signer = KeySigner(key)
    journal = await Journal.open(folder / "channel-shop", signer.address)
    chain, facilitator = Web3Chain(world.network), Facilitator(facilitator_url)
    remote = wrap(facilitator)
    seller_terms = SellerTerms(
        payee=signer.address, authorizer=signer.address, delay=DELAY, **(terms or {})
    )
    mirror = ChannelMirror(journal, chain, delay=DELAY)
    seller = ChannelSeller(
        journal, chain, world.network, remote, signer, terms=seller_terms, mirror=mirror
    )
    claiming = Claiming(
        journal,
        chain,
        world.network,
        remote,
        signer,
        payee=signer.address,
        delay=DELAY,
        policy=policy or ClaimPolicy(),
        mirror=mirror,
    )
    priced = {f"POST {path}": PRICE, **(prices or {})}
    currency = world.network.currency
    paywall = Paywall(
        [seller], prices={route: Money(units, currency) for route, units in priced.items()}
    )

    @web.middleware
    async def lossy(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        answer = await (work.around(request, handler) if work.around else handler(request))
        if work.lose_answers and answer.status == 200:
            work.lose_answers -= 1
            assert request.transport is not None
            request.transport.close()  # the charge is written, and the answer gets lost
        return answer

    app = web.Application(middlewares=[lossy, paywall.middleware])  # type: ignore[list-item]
    app[CURRENCY] = currency
    for route in priced:
        method, where = route.split()
        app.router.add_route(method, where, work.handle)
    async with TestServer(app, port=port) as server:
        url = str(server.make_url(path))
        yield ChannelShop(world, url, signer, work, journal, claiming, seller, remote, chain)
    await facilitator.close()
    await chain.close()
    await journal.close()


@dataclass
class StockClient:
    """The SDK's client of one wallet: it opens a channel and pays over it."""

    key: bytes
    http: httpx.AsyncClient
    scheme: Any
    client: Any

    @property
    def address(self) -> str:
        return KeySigner(self.key).address

    async def buy(self, url: str, body: Any = None) -> httpx.Response:
        return await self.http.post(url, json=body if body is not None else {"ask": 1})


@asynccontextmanager
async def stock_client(
    world: World, key: bytes, *, multiplier: int = 30, **options: Any
) -> AsyncIterator[StockClient]:
    """The SDK's client with `key`, which deposits `multiplier` times the price at first."""
    network, token = world.network.id, world.network.token
    scheme = BatchSettlementEvmScheme(
        EthAccountSignerWithRPC(Account.from_key(key), world.network.rpc),
        BatchSettlementEvmSchemeOptions(
            deposit_policy=BatchSettlementDepositPolicy(deposit_multiplier=multiplier), **options
        ),
    )
    client = x402Client()
    client.register(network, scheme)
    allowed = SpendControlAsset(asset=token, network=network, max_amount_per_payment="10000000")
    client.set_spend_controls(SpendControls(allowed_assets=[allowed]))
    async with httpx.AsyncClient(transport=x402_httpx_transport(client), timeout=60) as http:
        yield StockClient(key, http, scheme, client)


def told(response: httpx.Response) -> dict[str, Any]:
    """Return what an answer says of its payment."""
    return dict(json.loads(base64.b64decode(response.headers["PAYMENT-RESPONSE"])))


def asked(response: httpx.Response) -> dict[str, Any]:
    """Return what a 402 asks for."""
    return dict(json.loads(base64.b64decode(response.headers["PAYMENT-REQUIRED"])))
