"""A shop that sells by x402 `upto` on a real chain, and stock clients that buy there."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from eth_account import Account
from x402 import SpendControlAsset, SpendControls, x402Client
from x402.http.x402_http_client import x402HTTPClient
from x402.mechanisms.evm.upto.client import UptoEvmScheme

from agentkit.journal.journal import Journal
from agentkit.keys.permit2_messages import PERMIT2
from agentkit.keys.signer import KeySigner
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt, Result
from agentkit.market.receipt import Receipt
from agentkit.market.x402 import RESPONSE, Settled
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.budget import Budget
from agentkit.payments.chain import Web3Chain
from agentkit.payments.upto.rail import UptoRail
from agentkit.payments.upto.seller import UptoSeller
from agentkit.payments.x402.issuer import Issuer
from agentkit.payments.x402.paywall import CHARGE, Paywall, Price
from agentkit.payments.x402.remote import Facilitator
from agentkit.providers.openai import EndpointSettings
from agentkit.providers.x402 import X402Endpoint
from agentkit.testing import Desk
from support.chain_processes import KEYS
from support.x402_market import MODEL, PATH, SERVED, Payer, World, answer

SHOP = KeySigner(KEYS[1])
MOST = 1000
"""The most that a request may cost, in base units."""

Work = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Meter:
    """What the shop's work comes to, and how often it was done."""

    charge: int = 250
    status: int = 200
    works: int = 0
    chats: bool = False
    during: Callable[[], Awaitable[None]] | None = None


@dataclass
class UptoShop:
    """A shop, and what is needed to look at it."""

    world: World
    url: str
    meter: Meter
    journal: Journal
    seller: UptoSeller
    payee: str = field(default="")

    async def earned(self) -> int:
        return await self.world.balance(self.payee)


@asynccontextmanager
async def upto_shop(
    world: World, folder: Path, facilitator: str | Facilitator, meter: Meter | None = None
) -> AsyncIterator[UptoShop]:
    """A shop whose work is metered, paid to a key that signs its statements."""
    meter = meter or Meter()
    key = KeySigner(secrets.token_bytes(32))
    journal = await Journal.open(folder / "shop", SHOP.address)
    chain = Web3Chain(world.network)
    remote = Facilitator(facilitator) if isinstance(facilitator, str) else facilitator
    seller = UptoSeller(journal, chain, world.network, remote, payee=key.address)
    await seller.prepare()
    currency = world.network.currency

    async def price(request: web.Request) -> Price:
        return Price(flat=Money(MOST, currency), at_most=Money(MOST, currency))

    async def work(request: web.Request) -> web.Response:
        meter.works += 1
        if meter.during:
            await meter.during()
        request[CHARGE] = Money(meter.charge, currency)
        document = answer(f"answer {meter.works}") if meter.chats else {"answer": meter.works}
        return web.json_response(document, status=meter.status)

    issuer = Issuer(key, world.network.id)
    paywall = Paywall([seller], prices={f"POST {PATH}": price}, issuer=issuer)
    middlewares: list[Any] = [paywall.middleware]  # aiohttp wants a named argument
    app = web.Application(middlewares=middlewares)
    app.router.add_post(PATH, work)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        yield UptoShop(world, url, meter, journal, seller, key.address)
    await remote.close()
    await chain.close()
    await journal.close()


@dataclass
class Bought:
    """An answer, and what its header says of the payment."""

    status: int
    body: bytes
    header: str

    @property
    def settled(self) -> Settled:
        return Settled.read(self.header)


class StockUptoPayer:
    """A client as the SDK has it, with a key of its own."""

    def __init__(self, world: World, session: aiohttp.ClientSession, key: bytes = b"") -> None:
        self.key = key or secrets.token_bytes(32)
        self.address = KeySigner(self.key).address
        client = x402Client()
        client.register(world.network.id, UptoEvmScheme(Account.from_key(self.key)))
        asset = SpendControlAsset(
            asset=world.network.token,
            network=world.network.id,
            max_amount_per_payment=str(2 * MOST),
        )
        client.set_spend_controls(SpendControls(allowed_assets=[asset]))
        self.http = x402HTTPClient(client)
        self.world = world
        self.session = session

    async def fill(self, units: int, *, approves: bool = True) -> None:
        """Own money, and let Permit2 move it."""
        await self.world.mint(self.address, units)
        if approves:
            await self.world.fund(self.address)
            await self.approve(2**256 - 1)

    async def approve(self, units: int) -> None:
        call = abi.encode("approve(address,uint256)", PERMIT2, units)
        await self.world.send_as(self.key, self.world.network.token, call)

    async def sign(self, url: str, body: Any) -> dict[str, str]:
        """Return the headers that pay for a request."""
        async with self.session.post(url + PATH, json=body) as answer:
            asked = await answer.read()
            assert answer.status == 402, asked
            headers, _ = await self.http.handle_402_response(
                dict(answer.headers), asked, url + PATH
            )
            return dict(headers)

    async def present(self, url: str, body: Any, headers: dict[str, str]) -> Bought:
        async with self.session.post(url + PATH, json=body, headers=headers) as answer:
            return Bought(answer.status, await answer.read(), answer.headers.get(RESPONSE, ""))

    async def buy(self, url: str, body: Any = None) -> Bought:
        return await self.present(url, body or {"ask": 1}, await self.sign(url, body or {"ask": 1}))


class LookingDesk(Desk):
    """Looks at the chain before it settles, as a run does when the rail asks for it."""

    async def settle(self, attempt: Attempt, result: Result) -> Receipt:
        assert isinstance(self.rail, UptoRail)
        await self.rail.lookup(attempt)
        return await super().settle(attempt, result)


@asynccontextmanager
async def upto_payer(
    world: World, folder: Path, url: str, *, units: int = 100 * MOST, approves: bool = True
) -> AsyncIterator[Payer]:
    """A new wallet of ours that owns `units`, which Permit2 may move if it `approves`."""
    key = secrets.token_bytes(32)
    signer = KeySigner(key)
    await world.mint(signer.address, units)
    if approves:
        await world.fund(signer.address)
        call = abi.encode("approve(address,uint256)", PERMIT2, 2**256 - 1)
        await world.send_as(key, world.network.token, call)
    account = EndpointSettings(prices={}, models={MODEL: SERVED})
    provider = X402Endpoint("x402", url, world.network, account)
    journal = await Journal.open(folder / "payer" / signer.address, signer.address)
    chain = Web3Chain(world.network)
    rail = UptoRail(journal, chain, signer, world.network)
    desk = LookingDesk(provider, rail, journal, Budget(Allowance()), MODEL)
    try:
        yield Payer(signer, journal, rail, provider, desk, world.network)
    finally:
        await provider.close()
        await chain.close()
        await journal.close()
