"""x402 as its own SDK does it, over aiohttp: the oracle, and the control that pays twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from eth_account import Account
from x402 import (
    AssetAmount,
    SpendControlAsset,
    SpendControls,
    x402Client,
    x402FacilitatorSync,
    x402ResourceServer,
)
from x402.extensions.payment_identifier import declare_payment_identifier_extension
from x402.http.types import HTTPRequestContext, PaymentOption, RouteConfig
from x402.http.x402_http_client import x402HTTPClient
from x402.http.x402_http_server import x402HTTPResourceServer
from x402.mechanisms.evm import FacilitatorWeb3Signer
from x402.mechanisms.evm.batch_settlement.authorizer_signer import LocalAuthorizerSigner
from x402.mechanisms.evm.batch_settlement.facilitator.scheme import BatchSettlementEvmFacilitator
from x402.mechanisms.evm.batch_settlement.server.scheme import (
    BatchSettlementEvmScheme as BatchSettlementServerScheme,
)
from x402.mechanisms.evm.batch_settlement.server.scheme import BatchSettlementEvmSchemeServerConfig
from x402.mechanisms.evm.exact import (
    register_exact_evm_client,
    register_exact_evm_facilitator,
    register_exact_evm_server,
)
from x402.mechanisms.evm.upto.facilitator import UptoEvmScheme as UptoFacilitatorScheme
from x402.mechanisms.evm.upto.server import UptoEvmScheme as UptoServerScheme

from support.x402_market import PATH, PRICE, World

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CHARGE_HEADER = "X-Test-Charge"
"""The header in which the work of a shop says what it came to, if not to the whole price."""


class InThreads:
    """The SDK's facilitator, which blocks, off the event loop."""

    def __init__(self, world: World, key: bytes) -> None:
        signer = FacilitatorWeb3Signer("0x" + key.hex(), world.network.rpc, gas_limit=500_000)
        self.inner = x402FacilitatorSync()
        register_exact_evm_facilitator(self.inner, signer, world.network.id)
        self.inner.register([world.network.id], BatchSettlementEvmFacilitator(signer))
        self.inner.register([world.network.id], UptoFacilitatorScheme(signer))

    async def verify(self, payload: Any, requirements: Any, *_: Any) -> Any:
        return await asyncio.to_thread(self.inner.verify, payload, requirements)

    async def settle(self, payload: Any, requirements: Any, *_: Any) -> Any:
        return await asyncio.to_thread(self.inner.settle, payload, requirements)

    def get_supported(self) -> Any:
        return self.inner.get_supported()


@dataclass
class SdkRequest:
    """What the SDK asks of a web framework's request."""

    request: web.Request

    def get_header(self, name: str) -> str | None:
        return self.request.headers.get(name)

    def get_method(self) -> str:
        return self.request.method

    def get_path(self) -> str:
        return self.request.path

    def get_url(self) -> str:
        return str(self.request.url)

    def get_accept_header(self) -> str:
        return self.request.headers.get("accept", "")

    def get_user_agent(self) -> str:
        return self.request.headers.get("user-agent", "")

    def get_query_params(self) -> dict[str, str | list[str]]:
        return dict(self.request.query)

    def get_query_param(self, name: str) -> str | None:
        return self.request.query.get(name)

    def get_body(self) -> None:
        return None


@asynccontextmanager
async def stock_shop(
    world: World,
    facilitator: InThreads,
    work: Handler,
    *,
    identifies: bool = False,
    channels: bytes = b"",
    metered: bool = False,
    loses: Callable[[], bool] = lambda: False,
) -> AsyncIterator[str]:
    """A shop as the SDK has it: verify, work, settle; and its address.

    With `channels`, the key of its claims, it is paid over channels instead of by `exact`, and by
    `upto` where it is `metered`.  An answer that it `loses` is charged, and never reaches the
    client.
    """
    server = x402ResourceServer(facilitator)
    if channels:
        authorizer = LocalAuthorizerSigner(Account.from_key(channels))
        config = BatchSettlementEvmSchemeServerConfig(receiver_authorizer_signer=authorizer)
        scheme: Any = BatchSettlementServerScheme(world.payee, config)
        server.register(world.network.id, scheme)
    elif metered:
        untyped: Any = UptoServerScheme
        server.register(world.network.id, untyped())
    else:
        register_exact_evm_server(server, world.network.id)
    price = AssetAmount(
        amount=str(PRICE),
        asset=world.network.token,
        extra={"name": "USD Coin", "version": "1"},
    )
    option = PaymentOption(
        scheme="batch-settlement" if channels else "upto" if metered else "exact",
        pay_to=world.payee,
        price=price,
        network=world.network.id,
        max_timeout_seconds=120,
    )
    extensions = {"payment-identifier": declare_payment_identifier_extension()}
    route = RouteConfig(accepts=[option], extensions=extensions if identifies else None)
    http = x402HTTPResourceServer(server, {f"POST {PATH}": route})
    http.initialize()

    def said(told: Any) -> web.Response:
        headers = {k: v for k, v in told.headers.items() if k.lower() != "content-type"}
        return web.json_response(told.body or {}, status=told.status, headers=headers)

    @web.middleware
    async def paid(request: web.Request, handler: Handler) -> web.StreamResponse:
        header = request.headers.get("PAYMENT-SIGNATURE")
        context = HTTPRequestContext(
            adapter=SdkRequest(request),
            path=request.path,
            method=request.method,
            payment_header=header,
        )
        found = await http.process_http_request(context)
        if found.type != "payment-verified":
            return said(found.response)
        response = await handler(request)
        assert found.payment_payload
        assert found.payment_requirements
        charge = response.headers.get(CHARGE_HEADER)
        settled = await http.process_settlement(
            found.payment_payload,
            found.payment_requirements,
            context=context,
            settlement_overrides={"amount": charge} if charge else None,
        )
        if not settled.success:
            return said(settled.response)
        if loses():
            assert request.transport is not None
            request.transport.close()
        response.headers.update(settled.headers)
        return response

    app = web.Application(middlewares=[paid])
    app.router.add_post(PATH, work)
    async with TestServer(app) as running:
        yield str(running.make_url("")).rstrip("/")


class StockPayer:
    """A client as the SDK has it: a fresh random nonce for each 402."""

    def __init__(self, world: World, key: bytes, session: aiohttp.ClientSession) -> None:
        client = x402Client()
        register_exact_evm_client(client, Account.from_key(key), world.network.id)
        most = SpendControlAsset(
            asset=world.network.token,
            network=world.network.id,
            max_amount_per_payment=str(2 * PRICE),
        )
        client.set_spend_controls(SpendControls(allowed_assets=[most]))
        self.http, self.session = x402HTTPClient(client), session

    async def post(self, url: str, body: Any) -> tuple[int, Any, Any]:
        """Return (status, body, what the SDK reads of the settlement)."""
        async with self.session.post(url, json=body) as answer:
            asked = await answer.read()
            assert answer.status == 402, asked
            headers, payload = await self.http.handle_402_response(dict(answer.headers), asked, url)
        async with self.session.post(url, json=body, headers=headers) as answer:
            told = await answer.read()
            done = await self.http.process_payment_result(
                payload, answer.headers.get, answer.status
            )
            return answer.status, told, done.settle_response
