"""A stub of the Turbo upload service: its documented API, and nothing of how it works inside.

After the OpenAPI document of ardriveapp/turbo-upload-service: `POST /v1/tx`, `POST
/v1/x402/data-item/signed` (x402 version 1), `GET /v1/tx/{id}/status`.  Payments settle on a real
chain through our facilitator; items go on to a weave, one by one.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from agentkit.market.x402 import Presented, Proof, Requirement
from agentkit.memory.arweave.ans104 import parse_item, verify
from agentkit.payments.x402.remote import Facilitator
from support.x402_market import World

OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass
class TurboStub:
    """What the service was asked and has taken; `price` in USDC units of an item over x402.

    `credits`: how many items they still pay for.  Faults, each for so many times: `fails` answers
    503 to paid uploads after they settled, `cuts` the connection then, `keeps` whether the item
    arrives all the same; `refuses` payments; `hides` what became of an id.
    """

    world: World
    settling: str
    weave: str
    price: int = 1000
    credits: int = 0
    fails: int = 0
    cuts: int = 0
    keeps: bool = False
    refuses: int = 0
    hides: int = 0
    taken: dict[str, bytes] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    payments: list[str] = field(default_factory=list)
    url: str = ""

    async def post(self, request: web.Request) -> web.Response:
        self.asked["/v1/tx"] += 1
        raw = await request.read()
        if parse_item(raw).id in self.taken:
            return web.Response(status=202, text="Data item already exists")
        if self.credits < 1:
            return web.Response(status=402, text="Insufficient balance")
        self.credits -= 1
        return await self.take(raw)

    async def sell(self, request: web.Request) -> web.Response:
        raw = await request.read()
        if parse_item(raw).id in self.taken:
            return web.Response(status=202, text="Data item already exists")
        header = request.headers.get("X-PAYMENT")
        if header is None:
            self.asked["terms"] += 1
            return self.terms()
        self.asked["paid"] += 1
        if self.refuses:
            self.refuses -= 1
            return self.terms()
        if not await self.settle(header):
            return self.terms()
        if self.fails or self.cuts:
            return await self.fail(request, raw)
        return await self.take(raw)

    async def fail(self, request: web.Request, raw: bytes) -> web.Response:
        """Fail after the payment settled, as the service may."""
        if self.keeps:
            await self.take(raw)
        if self.fails:
            self.fails -= 1
            return web.Response(status=503, text="Service Unavailable")
        self.cuts -= 1
        assert request.transport
        request.transport.abort()
        return web.Response()

    def terms(self) -> web.Response:
        way = {
            "scheme": "exact",
            "network": self.world.network.id,  # version 1 has no name for this chain
            "maxAmountRequired": str(self.price),
            "resource": f"{self.url}/v1/x402/data-item/signed",
            "description": "upload",
            "mimeType": "application/json",
            "payTo": self.world.payee,
            "maxTimeoutSeconds": 3600,
            "asset": self.world.network.token,
            "extra": {
                "name": self.world.network.token_name,
                "version": self.world.network.token_version,
            },
        }
        elsewhere = {**way, "network": "base", "maxAmountRequired": "1"}
        return web.json_response({"x402Version": 1, "accepts": [elsewhere, way]}, status=402)

    async def settle(self, header: str) -> bool:
        document: dict[str, Any] = json.loads(base64.b64decode(header, validate=True))
        assert (document["x402Version"], document["scheme"]) == (1, "exact")
        assert document["network"] == self.world.network.id
        proof = Proof.model_validate(document["payload"])
        self.payments.append(proof.authorization.nonce)
        required = Requirement.on(self.world.network, self.world.payee, self.price, timeout=3600)
        facilitator = Facilitator(self.settling)
        try:
            told = await facilitator.settle(
                Presented(x402_version=2, accepted=required, payload=proof), required
            )
        finally:
            await facilitator.close()
        return told.success

    async def take(self, raw: bytes) -> web.Response:
        item = parse_item(raw)
        verify(item)
        self.taken[item.id] = raw
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.weave}/v1/tx", data=raw, headers=OCTETS) as answer,
        ):
            assert answer.status in (200, 202)
        receipt = {
            "id": item.id,
            "owner": item.address,
            "dataCaches": ["stub"],
            "fastFinalityIndexes": ["stub"],
            "deadlineHeight": 200,
            "timestamp": 0,
            "version": "0.2.0",
            "signature": "",
            "public": "",
            "winc": "0",
        }
        return web.json_response(receipt)

    async def status(self, request: web.Request) -> web.Response:
        self.asked["status"] += 1
        if self.hides:
            self.hides -= 1
            return web.Response(status=503)
        if request.match_info["id"] not in self.taken:
            return web.Response(status=404, text="TX doesn't exist")
        return web.json_response({"status": "CONFIRMED", "info": "new", "winc": "0"})


@asynccontextmanager
async def turbo_stub(world: World, settling: str, weave: str) -> AsyncIterator[TurboStub]:
    """Serve a stub of Turbo that settles at a facilitator and posts to a weave."""
    stub = TurboStub(world, settling, weave)
    app = web.Application()
    app.router.add_post("/v1/tx", stub.post)
    app.router.add_post("/v1/x402/data-item/signed", stub.sell)
    app.router.add_get("/v1/tx/{id}/status", stub.status)
    async with TestServer(app) as server:
        stub.url = str(server.make_url("")).rstrip("/")
        yield stub
