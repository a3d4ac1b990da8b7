"""`batch-settlement`, `upto` and `exact` by Permit2 as the SDK does them: three roles over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from aiohttp import web
from aiohttp.test_utils import TestServer
from eth_account import Account
from web3 import Web3
from x402 import (
    AssetAmount,
    SpendControlAsset,
    SpendControls,
    x402Client,
    x402FacilitatorSync,
    x402ResourceServer,
)
from x402.extensions.eip2612_gas_sponsoring import declare_eip2612_gas_sponsoring_extension
from x402.http.clients.httpx import x402_httpx_transport
from x402.http.types import HTTPRequestContext, PaymentOption, RouteConfig
from x402.http.x402_http_server import x402HTTPResourceServer
from x402.mechanisms.evm import FacilitatorWeb3Signer
from x402.mechanisms.evm.batch_settlement.abi import BATCH_SETTLEMENT_ABI
from x402.mechanisms.evm.batch_settlement.authorizer_signer import LocalAuthorizerSigner
from x402.mechanisms.evm.batch_settlement.client import BatchSettlementEvmScheme
from x402.mechanisms.evm.batch_settlement.client.config import (
    BatchSettlementEvmSchemeOptions,
)
from x402.mechanisms.evm.batch_settlement.constants import BATCH_SETTLEMENT_ADDRESS
from x402.mechanisms.evm.batch_settlement.facilitator.scheme import BatchSettlementEvmFacilitator
from x402.mechanisms.evm.batch_settlement.server.channel_manager import (
    BatchSettlementChannelManager,
)
from x402.mechanisms.evm.batch_settlement.server.channel_manager_common import (
    ChannelManagerConfig,
)
from x402.mechanisms.evm.batch_settlement.server.scheme import (
    BatchSettlementEvmScheme as BatchSettlementEvmServer,
)
from x402.mechanisms.evm.batch_settlement.server.scheme import (
    BatchSettlementEvmSchemeServerConfig,
)
from x402.mechanisms.evm.exact import (
    register_exact_evm_client,
    register_exact_evm_facilitator,
    register_exact_evm_server,
)
from x402.mechanisms.evm.signers import EthAccountSignerWithRPC
from x402.mechanisms.evm.upto import (
    UptoEvmClientScheme,
    UptoEvmFacilitatorScheme,
    UptoEvmServerScheme,
)

from support.timing import limit
from support.x402_market import World
from support.x402_sdk_client import SdkRequest

PATH = "/work"
DEPOSIT_FACTOR = 30
"""How many requests a client pays in for at once."""

Work = Callable[[], int]
"""The work of a request; returns what it is charged."""


class StockFacilitator:
    """The SDK's facilitator for all three schemes, off the event loop; it keeps what it did."""

    def __init__(self, world: World, key: bytes) -> None:
        signer = FacilitatorWeb3Signer("0x" + key.hex(), world.network.rpc)
        self.inner = x402FacilitatorSync()
        self.inner.register([world.network.id], BatchSettlementEvmFacilitator(signer))
        self.inner.register([world.network.id], UptoEvmFacilitatorScheme(signer))
        register_exact_evm_facilitator(self.inner, signer, world.network.id)
        self.settled: list[tuple[str, Any]] = []

    async def verify(self, payload: Any, requirements: Any, *_: Any) -> Any:
        return await asyncio.to_thread(self.inner.verify, payload, requirements)

    async def settle(self, payload: Any, requirements: Any, *_: Any) -> Any:
        done = await asyncio.to_thread(self.inner.settle, payload, requirements)
        self.settled.append((payload.payload.get("type", ""), done))
        return done

    def get_supported(self) -> Any:
        return self.inner.get_supported()

    def done(self, kind: str) -> list[str]:
        """Return the transactions of one kind that succeeded."""
        return [done.transaction for name, done in self.settled if name == kind and done.success]


@dataclass
class ChannelShop:
    """A shop as the SDK has it."""

    url: str
    manager: BatchSettlementChannelManager | None
    facilitator: StockFacilitator


@asynccontextmanager
async def stock_channel_shop(
    world: World,
    facilitator: StockFacilitator,
    work: Work,
    *,
    price: int,
    authorizer: bytes,
    scheme: str = "batch-settlement",
    permit2: bool = False,
) -> AsyncIterator[ChannelShop]:
    """A shop that verifies, works and charges what the work says; `price` is the most.

    With `permit2` it asks for deposits by Permit2, whose approval the facilitator brings.
    """
    server: Any = x402ResourceServer(facilitator)
    channels: Any = BatchSettlementEvmServer(
        world.payee,
        BatchSettlementEvmSchemeServerConfig(
            receiver_authorizer_signer=LocalAuthorizerSigner(Account.from_key(authorizer))
        ),
    )
    server.register(world.network.id, channels)
    upto: Any = UptoEvmServerScheme  # the SDK's server schemes do not fit their own protocol
    server.register(world.network.id, upto())
    register_exact_evm_server(server, world.network.id)
    extra = {"name": "USD Coin", "version": "1"}
    if permit2:
        extra["assetTransferMethod"] = "permit2"
    option = PaymentOption(
        scheme=scheme,
        pay_to=world.payee,
        network=world.network.id,
        max_timeout_seconds=120,
        price=AssetAmount(amount=str(price), asset=world.network.token, extra=extra),
    )
    extensions = declare_eip2612_gas_sponsoring_extension() if permit2 else None
    route = RouteConfig(accepts=[option], extensions=extensions)
    http = x402HTTPResourceServer(server, {f"GET {PATH}": route})
    http.initialize()
    manager = BatchSettlementChannelManager(
        ChannelManagerConfig(
            scheme=channels,
            facilitator=facilitator,
            receiver=world.payee,
            token=world.network.token,
            network=world.network.id,
        )
    )

    def said(told: Any) -> web.Response:
        headers = {k: v for k, v in told.headers.items() if k.lower() != "content-type"}
        return web.json_response(told.body or {}, status=told.status, headers=headers)

    async def handle(request: web.Request) -> web.Response:
        context = HTTPRequestContext(
            adapter=SdkRequest(request),
            path=request.path,
            method=request.method,
            payment_header=request.headers.get("PAYMENT-SIGNATURE"),
        )
        found = await http.process_http_request(context)
        if found.type != "payment-verified":
            return said(found.response)
        overrides: Any = {"amount": str(work())}
        settled = await http.process_settlement(
            found.payment_payload,  # type: ignore[arg-type]
            found.payment_requirements,  # type: ignore[arg-type]
            context=context,
            settlement_overrides=overrides,
        )
        if not settled.success:
            return said(settled.response)
        return web.json_response({}, headers=settled.headers)

    app = web.Application()
    app.router.add_get(PATH, handle)
    async with TestServer(app) as running:
        yield ChannelShop(str(running.make_url(PATH)), manager, facilitator)


@dataclass
class StockChannelPayer:
    """A client as the SDK has it, with a key of its own that owns no coins."""

    world: World
    key: bytes
    most: int
    salt: int = 0
    told: list[dict[str, Any]] = field(default_factory=list)
    """What each answer said of its payment."""

    def __post_init__(self) -> None:
        account = Account.from_key(self.key)
        signer = EthAccountSignerWithRPC(account, self.world.network.rpc)
        options = BatchSettlementEvmSchemeOptions(
            deposit_strategy=lambda asked: DEPOSIT_FACTOR * int(asked.request_amount),
            salt="0x" + self.salt.to_bytes(32, "big").hex(),
        )
        self.address = account.address
        self.channels = BatchSettlementEvmScheme(signer, options)
        client = x402Client()
        client.register(self.world.network.id, self.channels)
        client.register(self.world.network.id, UptoEvmClientScheme(signer))
        register_exact_evm_client(client, signer, self.world.network.id)
        asset = SpendControlAsset(
            asset=self.world.network.token,
            network=self.world.network.id,
            max_amount_per_payment=str(self.most),
        )
        client.set_spend_controls(SpendControls(allowed_assets=[asset]))
        self.http = httpx.AsyncClient(
            transport=x402_httpx_transport(client), timeout=limit(60), trust_env=False
        )

    async def get(self, url: str) -> int:
        """Buy one answer; returns the status."""
        answer = await self.http.get(url)
        self._read(answer)
        return answer.status_code

    async def post(self, url: str, body: Any) -> int:
        """Buy one answer; returns what it says was charged for it."""
        answer = await self.http.post(url, json=body)
        assert answer.status_code == 200, answer.text
        self._read(answer)
        return int(self.told[-1]["extra"]["chargedAmount"])

    def _read(self, answer: httpx.Response) -> None:
        header = answer.headers.get("payment-response")
        if header:
            self.told.append(json.loads(base64.b64decode(header)))

    async def refund(self, url: str) -> Any:
        return await asyncio.to_thread(self.channels.refund, url)

    def charged(self) -> int:
        """Return what the answers so far say was charged in all."""
        return sum(int(told["extra"]["chargedAmount"]) for told in self.told)


@asynccontextmanager
async def stock_channel_payer(
    world: World, key: bytes, units: int, *, most: int, salt: int = 0
) -> AsyncIterator[StockChannelPayer]:
    """A new client whose key is given `units` of the token."""
    payer = StockChannelPayer(world, key, most, salt)
    if units:
        await world.mint(payer.address, units)
    try:
        yield payer
    finally:
        await payer.http.aclose()


class Onlooker:
    """Reads the chain past everybody else, and sends what the SDK has no verb for."""

    def __init__(self, world: World) -> None:
        self.w3 = Web3(Web3.HTTPProvider(world.network.rpc))
        self.contract = self.w3.eth.contract(
            address=BATCH_SETTLEMENT_ADDRESS, abi=BATCH_SETTLEMENT_ABI
        )

    def coins(self, address: str) -> int:
        return int(self.w3.eth.get_balance(Web3.to_checksum_address(address)))

    def state(self, channel: str) -> tuple[int, ...]:
        """Balance and totalClaimed of a channel."""
        return tuple(self.contract.functions.channels(bytes.fromhex(channel[2:])).call())

    def send(self, key: bytes, function: Any) -> Any:
        """Send a call of the contract; returns its receipt."""
        who = Account.from_key(key)
        nonce = self.w3.eth.get_transaction_count(who.address, "pending")
        terms = {"from": who.address, "nonce": nonce, "gasPrice": 2 * self.w3.eth.gas_price}
        signed = who.sign_transaction(function.build_transaction(terms))
        sent = self.w3.eth.send_raw_transaction(signed.raw_transaction)
        return self.w3.eth.wait_for_transaction_receipt(sent, timeout=limit(20), poll_latency=0.02)
