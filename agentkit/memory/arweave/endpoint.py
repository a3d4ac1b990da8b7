"""One gateway, or one upload service, over HTTP.

An answer is bounded in size and in time and is never decompressed; a redirect is refused, since
it would let a gateway choose whom we talk to.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from io import BytesIO
from urllib.parse import urlsplit

import aiohttp

from agentkit.errors import ConfigError
from agentkit.net.proxies import proxy_for

SLOWEST = 128 * 1024
"""Bytes a second below which a transfer is given up."""
LONGEST_REST = 60.0
"""Seconds a Retry-After may ask for."""
_WORDS = 160


class NoAnswer(Exception):
    """One gateway did not do what was asked; `passing` when it may do so later."""

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


class Endpoint:
    """A base URL, and how it behaved so far; `timeout` in seconds."""

    def __init__(self, url: str, timeout: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"{url!r} is not the address of a gateway", hint="set memory.gateways"
            )
        self.url = url.rstrip("/")
        self.failures = 0
        self._timeout = timeout
        self._resting_until = 0.0

    @property
    def rest(self) -> float:
        """Seconds for which it asked to be left alone."""
        return max(0.0, self._resting_until - time.monotonic())

    async def get(self, session: aiohttp.ClientSession, path: str, *, limit: int) -> bytes:
        """Return the body of a 200; raises NoAnswer."""
        _, body = await self.look(session, path, limit=limit, good=(200,))
        return body

    async def look(
        self, session: aiohttp.ClientSession, path: str, *, limit: int, good: Collection[int]
    ) -> tuple[int, bytes]:
        """Return status and body of an answer whose status is in `good`; raises NoAnswer."""
        return await self._ask(session, "GET", path, limit=limit, good=good)

    async def post(
        self,
        session: aiohttp.ClientSession,
        path: str,
        body: bytes,
        *,
        content_type: str = "application/json",
        limit: int = 64 * 1024,
        good: Collection[int] = (200,),
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Return status and body of an answer whose status is in `good`; raises NoAnswer."""
        headers = {"Content-Type": content_type, **(headers or {})}
        return await self._ask(session, "POST", path, body, headers, limit=limit, good=good)

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        limit: int,
        good: Collection[int],
    ) -> tuple[int, bytes]:
        """Send one request and return status and body; a failure counts against the endpoint."""
        if self.rest:
            raise self._failed(f"asked to be left alone for {self.rest:.0f} s", passing=True)
        request = session.request(
            method,
            self.url + path,
            data=body and BytesIO(body),
            headers=headers,
            allow_redirects=False,
            proxy=proxy_for(self.url),
            timeout=self._patience(len(body or b"") + limit),
        )
        try:
            async with request as response:
                if response.status not in good:
                    raise await self._refusal(response)
                answer = await self._read(response, limit)
        except TimeoutError as error:
            raise self._failed("did not answer in time", passing=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._failed(f"cannot be reached ({error})", passing=True) from error
        self.failures = 0
        return response.status, answer

    async def _read(self, response: aiohttp.ClientResponse, limit: int) -> bytes:
        """Read a body within bounds of size and speed."""
        body, start = bytearray(), time.monotonic()
        async for part in response.content.iter_any():
            body += part
            if len(body) > limit:
                raise self._failed(f"sent more than {limit} bytes", passing=False)
            if time.monotonic() - start > self._timeout + len(body) / SLOWEST:
                raise self._failed("sends too slowly", passing=True)
        return bytes(body)

    async def _refusal(self, response: aiohttp.ClientResponse) -> NoAnswer:
        said = await response.content.read(_WORDS)
        refusal = self.refused(response.status, said)
        if refusal.passing:
            self._resting_until = time.monotonic() + _rest(response.headers.get("Retry-After", ""))
        return refusal

    def refused(self, status: int, said: bytes) -> NoAnswer:
        """Return the failure that an answer is."""
        words = said[:_WORDS].decode("ascii", "replace").strip()
        passing = status in (408, 425, 429) or status >= 500
        return self._failed(f"answered {status} {words!r}", passing=passing)

    def _patience(self, size: int) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=self._timeout + size / SLOWEST,
            sock_connect=self._timeout,
            sock_read=self._timeout,
        )

    def _failed(self, what: str, *, passing: bool) -> NoAnswer:
        self.failures += 1
        return NoAnswer(f"{self.url} {what}", passing=passing)


def _rest(text: str) -> float:
    """Read Retry-After in seconds; a date, which some send, counts as a second."""
    if not text:
        return 0.0
    return min(float(text), LONGEST_REST) if text.isdecimal() else 1.0
