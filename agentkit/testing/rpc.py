"""A way to a chain on which things go wrong: a JSON-RPC proxy with faults."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal, Self

from aiohttp import ClientSession, web

from agentkit.net.bodies import bounded_bodies
from agentkit.net.guard import guard

RpcFault = Literal[
    "", "eat", "lose", "502", "429", "html", "slow", "twice", "wrong-id", "stale", "bare"
]
"""What goes wrong, every second time that it can.

With what is sent: `eat` it before the chain has it; `lose` the answer; answer `502`, `429` (never
forwarded) or `html`; answer after the client has gone (`slow`); forward it `twice`; answer under
another request's id (`wrong-id`).  With what is read: `stale`, a node behind that knows no receipt
and one transaction less; `bare`, receipts without their logs.
"""

SENDING = "eth_sendRawTransaction"
READING: dict[str, list[str]] = {
    "stale": ["eth_getTransactionReceipt", "eth_getTransactionCount"],
    "bare": ["eth_getTransactionReceipt"],
}


class FaultyRpc:
    """Forwards JSON-RPC to `upstream` and does `fault` to it; `reached` counts how often.

    async with FaultyRpc(node.url, "lose") as rpc:
        chain = Web3Chain(network.model_copy(update={"rpc": rpc.url}))
    """

    def __init__(self, upstream: str, fault: RpcFault, *, delay: float = 2.0) -> None:
        self._upstream = upstream
        self._fault = fault
        self._delay = delay
        self._asked = 0
        self.reached = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._client = ClientSession()
        app = web.Application(middlewares=[guard(), bounded_bodies(1 << 22)])
        app.router.add_post("/", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()
        await self._client.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        method = json.loads(body)["method"]
        if self._is_due(method):
            return await self._faulty(request, body, method)
        return web.json_response(await self._forward(body))

    def _is_due(self, method: str) -> bool:
        """Whether this is the first, third, fifth request that the fault is about."""
        if not self._fault or method not in READING.get(self._fault, [SENDING]):
            return False
        self._asked += 1
        due = self._asked % 2 == 1
        self.reached += due
        return due

    async def _faulty(self, request: web.Request, body: bytes, method: str) -> web.StreamResponse:
        """Answer as the fault that is set has it; what was lost may have been done all the same."""
        if self._fault == "429":
            return web.Response(status=429, headers={"Retry-After": "1"})
        if self._fault == "eat":
            return _hung_up(request)
        answer = await self._forward(body)
        match self._fault:
            case "lose":
                return _hung_up(request)
            case "502":
                return web.Response(status=502, text="<html>Bad gateway</html>")
            case "html":
                return web.Response(text="<html>Log in</html>", content_type="text/html")
            case "slow":
                await asyncio.sleep(self._delay)
            case "twice":
                answer = await self._forward(body)
            case "wrong-id":
                answer["id"] = 987654
            case "stale":
                answer["result"] = _before(method, answer.get("result"))
            case "bare" if answer.get("result"):
                answer["result"]["logs"] = []
        return web.json_response(answer)

    async def _forward(self, body: bytes) -> dict[str, Any]:
        headers = {"content-type": "application/json"}
        async with self._client.post(self._upstream, data=body, headers=headers) as answer:
            told: dict[str, Any] = await answer.json(content_type=None)
            return told


def _hung_up(request: web.Request) -> web.StreamResponse:
    """End a connection with nothing said."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _before(method: str, result: Any) -> Any:
    """Return what a node says that lacks the newest block."""
    if method == "eth_getTransactionReceipt":
        return None
    return hex(max(0, int(result, 16) - 1))
