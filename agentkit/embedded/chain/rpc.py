"""JSON-RPC 2.0 in front of a chain (https://www.jsonrpc.org/specification), and HTTP around it."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import math
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from aiohttp import web

from agentkit import strict_json
from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.fault import (
    INTERNAL,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LIMITED,
    MALFORMED,
    UNAUTHORIZED,
    UNKNOWN_METHOD,
    Fault,
)
from agentkit.embedded.chain.methods import METHODS
from agentkit.net.bodies import bounded_bodies
from agentkit.net.guard import guard, has_token

MAX_BATCH = 1000
MAX_SECONDS = 2.0
"""How many requests one batch may have, and after how long the rest of them are refused."""

LARGEST_BODY = 4 * 2**20
"""Bytes of the longest request that is read."""

SWITCHES = ("evm_", "hardhat_", "anvil_", "agentkit_")
"""How methods begin that no real chain has: they move time, and whoever calls them has a token."""

_log = logging.getLogger(__name__)


class RpcFront:
    """Answers decoded requests; for one thread at a time, like the chain."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def answer(self, request: object, *, trusted: bool = False) -> object:
        """Return the response to a request or a batch; None where none is due (notifications).

        `trusted`: it may use the switches of the test bench, see `SWITCHES`.
        """
        if not isinstance(request, list):
            return self._one(request, trusted=trusted)
        if not request:
            return _response(None, Fault(INVALID_REQUEST, "the batch is empty"))
        if len(request) > MAX_BATCH:
            return _response(None, Fault(LIMITED, f"a batch has {MAX_BATCH} requests at most"))
        until = time.monotonic() + MAX_SECONDS
        answers = [self._one(one, trusted=trusted, until=until) for one in request]
        return [answer for answer in answers if answer is not None] or None

    def _one(self, request: object, *, trusted: bool, until: float = math.inf) -> object:
        """Answer one request, None for a notification; `trusted` callers may use switches."""
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _response(None, Fault(INVALID_REQUEST, "not a request of JSON-RPC 2.0"))
        try:
            if request["method"].startswith(SWITCHES) and not trusted:
                why = "this is for tests: send the token in the network's file as Bearer"
                raise Fault(UNAUTHORIZED, why)
            if time.monotonic() > until:
                raise Fault(LIMITED, "this batch takes too long: send smaller ones")
            result = self._result(request["method"], request.get("params") or [])
        except Fault as fault:
            result = fault
        except Exception as error:  # noqa: BLE001 - the boundary of a request
            _log.exception("%s failed", request["method"])
            result = Fault(INTERNAL, f"{type(error).__name__}: {error}"[:300])
        return _response(request["id"], result) if "id" in request else None

    def _result(self, name: str, arguments: object) -> object:
        """Call a method with the arguments that were sent; raises Fault for wrong ones."""
        method = METHODS.get(name)
        if method is None:
            raise Fault(UNKNOWN_METHOD, f"the method {name[:80]} does not exist")
        if not isinstance(arguments, list):
            raise Fault(INVALID_PARAMS, "parameters are a list")
        try:
            bound = inspect.signature(method).bind(self._chain, *arguments)
        except TypeError as error:
            raise Fault(INVALID_PARAMS, f"{name}: {error}") from error
        return method(*bound.args)


def _response(identity: object, result: object) -> dict[str, Any]:
    said = {"error": result.encode()} if isinstance(result, Fault) else {"result": result}
    return {"jsonrpc": "2.0", "id": identity, **said}


def rpc_app(front: RpcFront, *, token: str = "") -> web.Application:
    """Return an application that answers POST / by `front`, in a thread of its own.

    `token` opens the switches of the test bench; without one they stay closed.
    """
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chain")

    async def post(request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType
        body = await request.read()
        exchange = partial(_exchange, front, body, trusted=has_token(request, token))
        said = await asyncio.get_running_loop().run_in_executor(thread, exchange)
        status = 200 if said else 204
        return web.Response(status=status, body=said, content_type="application/json")

    async def end_thread(_: web.Application) -> AsyncIterator[None]:
        yield
        thread.shutdown()

    app = web.Application(
        client_max_size=LARGEST_BODY, middlewares=[guard(), bounded_bodies(LARGEST_BODY)]
    )
    app.router.add_post("/", post)
    app.cleanup_ctx.append(end_thread)
    return app


def _exchange(front: RpcFront, body: bytes, *, trusted: bool) -> bytes:
    try:
        request = strict_json.loads(body)
    except strict_json.BadJson:
        answer: object = _response(None, Fault(MALFORMED, "the request is not JSON"))
    else:
        answer = front.answer(request, trusted=trusted)
    return b"" if answer is None else json.dumps(answer).encode()
