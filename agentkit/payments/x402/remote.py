"""Client of an x402 facilitator, which puts payments on the chain and pays for their gas.

Nothing it says is proof; see `payments.x402.proof`.
"""

from __future__ import annotations

import json
from typing import Any, Protocol, TypeVar

import aiohttp
from pydantic import ValidationError

from agentkit import strict_json
from agentkit.errors import ProtocolBroken, StoreUnavailable
from agentkit.market import upto
from agentkit.market.batch_settlement import MAX_ROWS
from agentkit.market.x402 import (
    VERSION,
    Payment402,
    Requirement,
    Settled,
    Verified,
    Wire,
    is_address,
)
from agentkit.net.proxies import proxy_for

SECONDS = 90.0
"""Seconds in which a facilitator has to answer; settling waits for a block."""

FEW_CLAIMS = 25
"""How many claims any facilitator takes in one call."""

MOST_CLAIMS = "maxClaims"
"""Where our facilitator says how many claims it takes; an addition of ours to `extra`."""

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

    async def most_claims(self) -> int:
        """Return how many claims it takes in one call."""

    async def close(self) -> None:
        """Close the connections."""


class Facilitator:
    """A facilitator at an address; `POST /verify` and `POST /settle` of the x402 protocol.

    Both raise StoreUnavailable (no answer: a settlement may be under way) and ProtocolBroken.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None
        self._most_claims: int | None = None

    async def verify(self, payment: Payment402, requirement: Requirement) -> Verified:
        """Ask whether a payment would settle."""
        return await self._ask("/verify", payment, requirement, Verified)

    async def settle(self, payment: Payment402, requirement: Requirement) -> Settled:
        """Have a payment put on the chain; the same one again is the same settlement or none."""
        return await self._ask("/settle", payment, requirement, Settled)

    async def most_claims(self) -> int:
        """Return how many claims it takes in one call: what it says, as ours does, or few.

        The gas that the x402 SDK's facilitator sets by default is enough for about 28.
        """
        if self._most_claims is None:
            status, content = await self._request("GET", "/supported", None)
            self._most_claims = _most_claims(content) if status == 200 else FEW_CLAIMS
        return self._most_claims

    async def upto_address(self, network: str) -> str:
        """Return by which address it settles `upto` on a network, "" where it does not.

        Raises StoreUnavailable.
        """
        status, content = await self._request("GET", "/supported", None)
        return _upto_address(content, network) if status == 200 else ""

    async def settles(self, scheme: str, network: str) -> bool:
        """Return whether it settles a scheme on a network.

        Raises StoreUnavailable and ProtocolBroken.
        """
        status, content = await self._request("GET", "/supported", None)
        return status == 200 and bool(_kinds(content, scheme, network))

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
        status, content = await self._request("POST", path, body)
        if status >= 500 or status == 429:
            raise StoreUnavailable(f"the facilitator answers {status}")
        try:
            return answer.model_validate_json(content)
        except ValidationError as error:
            raise ProtocolBroken(f"the facilitator's answer to {path} cannot be read") from error

    async def _request(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[int, bytes]:
        """Return (status, content) of an answer; raises StoreUnavailable without one."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=SECONDS, sock_connect=5.0)
            connector = aiohttp.TCPConnector(limit=64)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.request(
                method,
                self._url + path,
                data=None if body is None else json.dumps(body),
                headers=headers,
                proxy=proxy_for(self._url),
            ) as answer:
                return answer.status, await _read_bounded(answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise StoreUnavailable("the facilitator does not answer") from error


def _most_claims(content: bytes) -> int:
    """Return how many claims a facilitator's list of kinds says that it takes in one call."""
    try:
        kinds = strict_json.loads(content)["kinds"]
        named = [
            kind["extra"][MOST_CLAIMS] for kind in kinds if MOST_CLAIMS in kind.get("extra", {})
        ]
        return max(1, min(MAX_ROWS, int(named[0])))
    except (ValueError, TypeError, LookupError, AttributeError):
        return FEW_CLAIMS


def _upto_address(content: bytes, network: str) -> str:
    """Return who settles `upto` on a network, by a facilitator's list of kinds."""
    try:
        named = [kind["extra"][upto.FACILITATOR] for kind in _kinds(content, upto.SCHEME, network)]
    except (TypeError, LookupError):
        return ""
    return named[0] if named and is_address(named[0]) else ""


def _kinds(content: bytes, scheme: str, network: str) -> list[dict[str, Any]]:
    """Return what a facilitator's list of kinds says of a scheme on a network."""
    try:
        kinds = strict_json.loads(content)["kinds"]
        return [kind for kind in kinds if (kind["scheme"], kind["network"]) == (scheme, network)]
    except (ValueError, TypeError, LookupError):
        return []


async def _read_bounded(answer: aiohttp.ClientResponse) -> bytes:
    """Read an answer of at most MAX_ANSWER bytes; raises ProtocolBroken for a larger one."""
    content = bytearray()
    async for part in answer.content.iter_chunked(1 << 14):
        content += part
        if len(content) > MAX_ANSWER:
            raise ProtocolBroken("the facilitator's answer is too large")
    return bytes(content)
