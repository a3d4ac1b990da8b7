"""A facilitator behind HTTP: GET /supported, POST /verify, POST /settle (x402 v2)."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from agentkit import strict_json
from agentkit.errors import (
    InsufficientFunds,
    OverBudget,
    ProtocolBroken,
    RateLimited,
    StateError,
)
from agentkit.market.x402 import Requirement, Wire
from agentkit.net.bodies import bounded_bodies
from agentkit.net.guard import guard
from agentkit.net.loopback import is_loopback
from agentkit.payments.facilitator.service import FacilitatorService

MAX_BODY = 256 * 1024
"""The most bytes of a request that are read: a hundred claims have about 120,000."""

PER_MINUTE = 600
"""How many payments one caller elsewhere may have checked or settled in a minute."""

MAX_CALLERS = 10_000
"""The most callers whose requests are counted at a time."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


def facilitator_app(
    service: FacilitatorService, *, per_minute: int = PER_MINUTE
) -> web.Application:
    """Return the application of a facilitator; a caller may ask `per_minute` times in a minute.

    Callers on this machine are not counted: they are the operator's own, or a proxy that counts.
    """
    calls = _Calls(per_minute)

    async def supported(request: web.Request) -> web.Response:
        return web.json_response(service.supported())

    async def verify(request: web.Request) -> web.Response:
        calls.count(request.remote or "")
        return _answer(await service.verify(*await _read(request)))

    async def settle(request: web.Request) -> web.Response:
        calls.count(request.remote or "")
        return _answer(await service.settle(*await _read(request)))

    middlewares = [guard(), bounded_bodies(MAX_BODY), _answer_errors]
    app = web.Application(client_max_size=MAX_BODY, middlewares=middlewares)
    app.add_routes([web.get("/supported", supported), web.post("/verify", verify)])
    app.add_routes([web.post("/settle", settle)])
    return app


class _Calls:
    """Counts the requests of each caller in this minute of the clock."""

    def __init__(self, per_minute: int) -> None:
        self._limit = per_minute
        self._minute = 0
        self._counts: OrderedDict[str, int] = OrderedDict()

    def count(self, caller: str) -> None:
        """Count a request; raises RateLimited for one too many."""
        if is_loopback(caller):
            return
        minute = int(time.time() // 60)
        if minute != self._minute:
            self._minute = minute
            self._counts.clear()
        number = self._counts.get(caller, 0) + 1
        if number > self._limit:
            raise RateLimited("this is one request too many in this minute", retry_after=60.0)
        self._counts[caller] = number
        if len(self._counts) > MAX_CALLERS:
            self._counts.popitem(last=False)


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn our errors into answers: 400 for a bad request, 429 and 503 for what may pass."""
    try:
        return await handler(request)
    except ProtocolBroken as error:
        return web.json_response({"error": str(error)}, status=400)
    except RateLimited as error:
        headers = {"Retry-After": str(round(error.retry_after))}
        return web.json_response({"error": str(error)}, status=429, headers=headers)
    except (StateError, InsufficientFunds, OverBudget) as error:
        log.warning("the facilitator cannot settle now: %s", error)
        return web.json_response({"error": "it cannot settle now"}, status=503)


async def _read(request: web.Request) -> tuple[dict[str, Any], Requirement]:
    """Return the payment and what it has to pay; raises ProtocolBroken for anything else."""
    try:
        body = strict_json.loads(await request.read())
        payment = body["paymentPayload"]
        if not isinstance(payment, dict):
            raise TypeError("a payment is an object")
        return payment, Requirement.model_validate(body["paymentRequirements"])
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise ProtocolBroken("this is not a payment with its requirements") from error


def _answer(value: Wire) -> web.Response:
    return web.json_response(value.document())
