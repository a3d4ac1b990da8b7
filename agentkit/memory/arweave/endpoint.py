"""One gateway, or one upload service, over HTTP.

An answer is limited in size and time and is never decompressed.  Redirects are not followed,
because a gateway must not choose which host is asked next.
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
"""Bytes per second below which a transfer is given up."""
LONGEST_REST = 60.0
"""The longest pause, in seconds, that a Retry-After may ask for."""
_QUOTED_BYTES = 160  # how much of a refusal is quoted in an error


class NoAnswer(Exception):
    """One gateway failed or refused a request; `passing` says that a retry may succeed."""

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


class Endpoint:
    """The client of one base URL, which counts its failures; `timeout` is in seconds."""

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
        """The seconds that are left of a pause that it asked for with Retry-After."""
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
        """Send one request and return status and body; raises NoAnswer and counts the failure.

        `limit` is the largest body in bytes.  A status that is not in `good` is a failure.
        """
        if self.rest:
            raise self._failed(f"asked to be left alone for {self.rest:.0f} s", passing=True)
        request = session.request(
            method,
            self.url + path,
            data=body and BytesIO(body),
            headers=headers,
            allow_redirects=False,
            proxy=proxy_for(self.url),
            timeout=self._timeout_for(len(body or b"") + limit),
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
        """Read a body of at most `limit` bytes that arrives fast enough; raises NoAnswer."""
        body = bytearray()
        start = time.monotonic()
        async for part in response.content.iter_any():
            body += part
            if len(body) > limit:
                raise self._failed(f"sent more than {limit} bytes", passing=False)
            # A gateway that sends a byte now and then would pass every timeout between two reads.
            if time.monotonic() - start > self._timeout + len(body) / SLOWEST:
                raise self._failed("sends too slowly", passing=True)
        return bytes(body)

    async def _refusal(self, response: aiohttp.ClientResponse) -> NoAnswer:
        """Return the failure of an answer with a bad status, and note its Retry-After."""
        body_start = await response.content.read(_QUOTED_BYTES)
        refusal = self.refused(response.status, body_start)
        if refusal.passing:
            retry_after = response.headers.get("Retry-After", "")
            self._resting_until = time.monotonic() + _read_retry_after(retry_after)
        return refusal

    def refused(self, status: int, body: bytes) -> NoAnswer:
        """Return the failure of an answer with a bad status, and count it."""
        quoted = body[:_QUOTED_BYTES].decode("ascii", "replace").strip()
        # Timeout, Too Early, Too Many Requests, and errors of the server: a retry may succeed.
        passing = status in (408, 425, 429) or status >= 500
        return self._failed(f"answered {status} {quoted!r}", passing=passing)

    def _timeout_for(self, size: int) -> aiohttp.ClientTimeout:
        """Return the timeout for a request and answer of `size` bytes together."""
        return aiohttp.ClientTimeout(
            total=self._timeout + size / SLOWEST,
            sock_connect=self._timeout,
            sock_read=self._timeout,
        )

    def _failed(self, problem: str, *, passing: bool) -> NoAnswer:
        """Count a failure and return it; `problem` continues the sentence that the URL begins."""
        self.failures += 1
        return NoAnswer(f"{self.url} {problem}", passing=passing)


def _read_retry_after(text: str) -> float:
    """Return a Retry-After in seconds; one that is a date counts as a second."""
    if not text:
        return 0.0
    return min(float(text), LONGEST_REST) if text.isdecimal() else 1.0
