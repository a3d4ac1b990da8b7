"""One HTTP session for each provider, and the one place where HTTP's failures become ours.

A connection that was never made is a failure known not to have been acted on; anything that
breaks later leaves the outcome unknown.  Only reads are repeated here, by tenacity.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from agentkit.errors import ProtocolBroken, Unavailable
from agentkit.net.proxies import proxy_for

CONNECT_SECONDS = 5.0
MOST_BYTES = 64 * 1024 * 1024
"""The largest answer that is read."""

MOST_FIELD = 24 * 1024
"""The largest header that is read: some carry documents."""

READ_TRIES = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer; header names in lower case, repeated ones joined by commas."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after(self) -> float:
        """Seconds the provider asks to wait, 0 when it does not say."""
        value = self.headers.get("retry-after", "").strip()
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", value):
            return float(value)
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except (ValueError, OverflowError):  # no date, or a year or zone beyond all calendars
            return 0.0


class Http:
    """A provider's address: requests to it, and its name in every error.

    `reuse=False` takes a new connection for each request: where answers do not say what they
    answer, one that came unasked would be taken for that of the next.  `max_bytes` bounds an
    answer: reading JSON may take thirty times its size in memory.
    """

    def __init__(
        self,
        provider: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        reuse: bool = True,
        max_bytes: int = MOST_BYTES,
    ) -> None:
        self._provider, self.url = provider, url.rstrip("/")
        self._max_bytes = max_bytes
        self._headers, self._reuse = dict(headers or {}), reuse
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = 60.0,
    ) -> Answer:
        """Make one request, once; raises Unavailable, `unknown` unless it was never sent."""
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        try:
            async with self._open().request(
                method,
                self.url + path,
                json=json,
                data=data,
                headers=headers,
                timeout=timeout,
                proxy=proxy_for(self.url),
            ) as answer:
                body = await self._body(answer)
                return Answer(answer.status, _joined(answer.headers), body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            lost = self._lost(error)
        raise lost  # out here, because aiohttp's error holds the request's headers, keys included

    def _lost(self, wrong: Exception) -> Unavailable:
        match wrong:
            case aiohttp.ClientConnectorError():
                return Unavailable(f"cannot be reached: {wrong}", provider=self._provider)
            case aiohttp.ConnectionTimeoutError():
                return Unavailable("cannot be reached in time", provider=self._provider)
            case _:
                what = f"the answer was lost: {type(wrong).__name__}"
                return Unavailable(what, provider=self._provider, unknown=True)

    async def read(self, path: str, *, seconds: float = 20.0, **more: Any) -> Answer:
        """GET something that may be asked for again, a few times if need be."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_attempt(READ_TRIES),
            wait=wait_random_exponential(multiplier=0.1, max=1.0),
            reraise=True,
        ):
            with attempt:
                return await self.send("GET", path, seconds=seconds, **more)
        raise Unavailable(provider=self._provider)

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    # -- inside ----------------------------------------------------------------------------------

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=64, force_close=not self._reuse)
            self._session = aiohttp.ClientSession(
                headers=self._headers, connector=connector, max_field_size=MOST_FIELD
            )
        return self._session

    async def _body(self, answer: aiohttp.ClientResponse) -> bytes:
        parts, size = [], 0
        async for part in answer.content.iter_chunked(1 << 16):
            size += len(part)
            if size > self._max_bytes:
                raise ProtocolBroken(
                    "the answer is too large", provider=self._provider, unknown=True
                )
            parts.append(part)
        return b"".join(parts)


def _joined(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    """Return headers by name, all values of a repeated one in it (RFC 9110, 5.3)."""
    return {name.lower(): ", ".join(headers.getall(name)) for name in headers}
