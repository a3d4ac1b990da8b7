"""A facilitator over HTTP: whoever puts payments on the chain, for gas of its own.

Nothing it says is proof; see `payments.x402.proof`.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import aiohttp
from pydantic import ValidationError

from agentkit.errors import ProtocolBroken, StoreUnavailable
from agentkit.market.x402 import VERSION, Presented, Requirement, Settled, Verified, Wire
from agentkit.net.proxies import proxy_for

SECONDS = 90.0
MOST_ANSWER = 64 * 1024

W = TypeVar("W", bound=Wire)


class Facilitator:
    """A facilitator at an address; `POST /verify` and `POST /settle` of the x402 protocol.

    Both raise StoreUnavailable (no answer: a settlement may be under way) and ProtocolBroken.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def verify(self, presented: Presented, requirement: Requirement) -> Verified:
        """Ask whether a payment would settle."""
        return await self._ask("/verify", presented, requirement, Verified)

    async def settle(self, presented: Presented, requirement: Requirement) -> Settled:
        """Have a payment put on the chain; the same one again is the same settlement or none."""
        return await self._ask("/settle", presented, requirement, Settled)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(
        self, path: str, presented: Presented, requirement: Requirement, answer: type[W]
    ) -> W:
        body = {
            "x402Version": VERSION,
            "paymentPayload": presented.document(),
            "paymentRequirements": requirement.document(),
        }
        status, said = await self._post(path, body)
        if status >= 500 or status == 429:
            raise StoreUnavailable(f"the facilitator answers {status}")
        try:
            return answer.model_validate_json(said)
        except ValidationError as error:
            raise ProtocolBroken(f"the facilitator's answer to {path} cannot be read") from error

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
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
                return answer.status, await _bounded(answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise StoreUnavailable("the facilitator does not answer") from error


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    """Read an answer, which is small; raises ProtocolBroken for one that is not."""
    read = bytearray()
    async for part in answer.content.iter_chunked(1 << 14):
        read += part
        if len(read) > MOST_ANSWER:
            raise ProtocolBroken("the facilitator's answer is too large")
    return bytes(read)
