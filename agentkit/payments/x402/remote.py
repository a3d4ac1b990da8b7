"""Client of an x402 facilitator, which puts payments on the chain and pays for their gas.

Nothing it says is proof; see `payments.x402.proof`.
"""

from __future__ import annotations

import json
from typing import Any, Protocol, TypeVar

import aiohttp
from pydantic import ValidationError

from agentkit.errors import ProtocolBroken, StoreUnavailable
from agentkit.market.x402 import VERSION, Payment402, Requirement, Settled, Verified, Wire
from agentkit.net.proxies import proxy_for

SECONDS = 90.0
"""Seconds in which a facilitator has to answer; settling waits for a block."""

MAX_ANSWER = 64 * 1024
"""The most bytes of an answer that are read."""

W = TypeVar("W", bound=Wire)


class Facilitation(Protocol):
    """Whoever puts signed payments on the chain: a facilitator elsewhere, or one in this process.

    Both verbs raise StoreUnavailable (no answer: it may be under way) and ProtocolBroken.
    """

    async def verify(self, payment: Payment402, requirement: Requirement) -> Verified:
        """Return whether a payment would settle."""

    async def settle(self, payment: Payment402, requirement: Requirement) -> Settled:
        """Put a payment on the chain; the same one again is the same settlement or none."""


class Facilitator:
    """A facilitator at an address; `POST /verify` and `POST /settle` of the x402 protocol.

    Both raise StoreUnavailable (no answer: a settlement may be under way) and ProtocolBroken.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def verify(self, payment: Payment402, requirement: Requirement) -> Verified:
        """Ask whether a payment would settle."""
        return await self._ask("/verify", payment, requirement, Verified)

    async def settle(self, payment: Payment402, requirement: Requirement) -> Settled:
        """Have a payment put on the chain; the same one again is the same settlement or none."""
        return await self._ask("/settle", payment, requirement, Settled)

    async def close(self) -> None:
        """Close the connections; the next question opens new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(
        self, path: str, payment: Payment402, requirement: Requirement, answer: type[W]
    ) -> W:
        """Post a payment and what it has to pay, and return the answer of type `answer`.

        An answer below 500 is read whatever its status: a refusal has the same form.
        """
        body = {
            "x402Version": VERSION,
            "paymentPayload": payment.document(),
            "paymentRequirements": requirement.document(),
        }
        status, content = await self._post(path, body)
        if status >= 500 or status == 429:
            raise StoreUnavailable(f"the facilitator answers {status}")
        try:
            return answer.model_validate_json(content)
        except ValidationError as error:
            raise ProtocolBroken(f"the facilitator's answer to {path} cannot be read") from error

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Return (status, content) of an answer; raises StoreUnavailable without one."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=SECONDS, sock_connect=5.0)
            connector = aiohttp.TCPConnector(limit=64)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.post(
                self._url + path,
                data=json.dumps(body),
                headers=headers,
                proxy=proxy_for(self._url),
            ) as answer:
                return answer.status, await _read_bounded(answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise StoreUnavailable("the facilitator does not answer") from error


async def _read_bounded(answer: aiohttp.ClientResponse) -> bytes:
    """Read an answer of at most MAX_ANSWER bytes; raises ProtocolBroken for a larger one."""
    content = bytearray()
    async for part in answer.content.iter_chunked(1 << 14):
        content += part
        if len(content) > MAX_ANSWER:
            raise ProtocolBroken("the facilitator's answer is too large")
    return bytes(content)
