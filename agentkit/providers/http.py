"""HTTP to one provider: a session, bounded answers, and HTTP's failures as our errors.

Where no connection was made, the request was certainly not acted on.  After any later failure the
outcome is unknown.  Only reads are repeated here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import aiohttp.connector
from multidict import CIMultiDictProxy
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from agentkit.errors import ProtocolBroken, Unavailable
from agentkit.net.proxies import proxy_for
from agentkit.net.public import PublicResolver
from agentkit.providers.http_bodies import ACCEPTED, BodyTooLarge, unpacked

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.tracing import Trace

CONNECT_SECONDS = 5.0
"""Seconds in which a connection has to be made."""

MAX_BYTES = 64 * 1024 * 1024
"""The largest answer that is read."""

MAX_HEADER = 24 * 1024
"""The largest header that is read: some carry JSON (x402)."""

KEPT_SECONDS = 3.0
"""Seconds for which an unused connection is kept: less than servers keep theirs (most have 5).

A request on a connection that the server just closes is lost, and nobody knows whether it came.
"""

READ_TRIES = 3
"""How often a read is tried."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer; header names in lower case, repeated ones joined by commas."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after(self) -> float:
        """Seconds that the provider asks to wait, 0 if it does not (RFC 9110, 10.2.3).

        The header has seconds or a date.
        """
        value = self.headers.get("retry-after", "").strip()
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", value):
            return float(value)
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except (ValueError, OverflowError):  # not a date, or one that no calendar has
            return 0.0


class BodyUnreadable(ProtocolBroken):
    """An answer came whole, and what it says cannot be unpacked; `why` says so in words."""

    def __init__(self, why: str, *, provider: str) -> None:
        super().__init__(why, provider=provider, unknown=True)
        self.why = why


class Http:
    """Sends requests to a provider's address; every error names the provider.

    Connections are kept.  An answer does not name its request, so a connection serves another one
    only if the answer before was read to its end and nothing came after it; a timeout, a
    cancellation and an answer that is too large all close it.  `max_bytes` bounds an answer where
    a request sets no bound of its own, because reading JSON may take thirty times its size in
    memory.
    """

    def __init__(
        self,
        provider: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        max_bytes: int = MAX_BYTES,
        public: bool = False,
    ) -> None:
        """Send `headers` with every request; the connection is made with the first one.

        `public`: connect to no host of this machine's own network, other than a proxy.
        """
        self.url = url.rstrip("/")
        self._provider = provider
        self._headers = dict(headers or {})
        self._max_bytes = max_bytes
        # A proxy resolves names itself, and may well be on our own network.
        self._public = public and proxy_for(url) is None
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
        max_bytes: int | None = None,
        redirects: bool = True,
    ) -> Answer:
        """Send a request once, and return its complete answer, whatever the status.

        Without `redirects` one that points elsewhere is the answer.

        Raises Unavailable, with `unknown` unless no connection was made, ProtocolBroken for an
        answer of more than `max_bytes` (None stands for the bound of this object), and
        BodyUnreadable for a success that cannot be unpacked.
        """
        most = max_bytes or self._max_bytes
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
                allow_redirects=redirects,
            ) as answer:
                body = await self._body(answer, most)
                headers_in = _joined(answer.headers)
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = self._failure(error)
        else:
            return Answer(status, headers_in, self._unpacked(status, headers_in, body, most))
        # Raised outside the `except`, so that aiohttp's error is not its cause: that one holds
        # the request's headers, API keys included.
        raise failure

    def _unpacked(
        self, status: int, headers: Mapping[str, str], body: bytes, max_bytes: int
    ) -> bytes:
        """Return a body without its compression; the status of a failure says enough without."""
        try:
            return unpacked(body, headers.get("content-encoding", ""), max_bytes)
        except BodyTooLarge as error:
            raise ProtocolBroken(str(error), provider=self._provider, unknown=True) from error
        except ValueError as error:
            if status >= 300:
                return b""
            why = f"its answer cannot be read: {error}"
            raise BodyUnreadable(why, provider=self._provider) from error

    def _failure(self, error: Exception) -> Unavailable:
        """Return an error of aiohttp as ours: unknown, unless no connection was made."""
        match error:
            case aiohttp.ClientConnectorDNSError():
                message = f"cannot be reached: DNS knows no host {error.host!r}"
                return Unavailable(message, provider=self._provider, hint=self._look_at_address)
            case aiohttp.ClientConnectorCertificateError():
                why = error.certificate_error
                message = f"cannot be reached: the TLS certificate of {error.host!r} is not valid"
                told = f"{message} ({why})"
                return Unavailable(told, provider=self._provider, hint=self._look_at_address)
            case aiohttp.ClientConnectorSSLError():
                message = f"cannot be reached: {error.host}:{error.port} does not speak TLS"
                return Unavailable(message, provider=self._provider, hint=self._look_at_address)
            case aiohttp.ClientConnectorError():
                return Unavailable(f"cannot be reached: {error}", provider=self._provider)
            case aiohttp.ConnectionTimeoutError():
                return Unavailable("cannot be reached in time", provider=self._provider)
            case _:
                message = f"the answer was lost: {type(error).__name__}"
                return Unavailable(message, provider=self._provider, unknown=True)

    @property
    def _look_at_address(self) -> str:
        return f"look at the address {self.url}, such as at its scheme, host and port"

    async def read(self, path: str, *, seconds: float = 20.0, **more: Any) -> Answer:
        """GET something that changes nothing at the provider; tried READ_TRIES times.

        Raises as `send`.
        """
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
        """Return the session; the first request makes it."""
        if self._session is None:
            connector = _QuietConnections(
                limit=64,
                keepalive_timeout=KEPT_SECONDS,
                resolver=PublicResolver() if self._public else None,
            )
            self._session = aiohttp.ClientSession(
                headers={"Accept-Encoding": ACCEPTED, **self._headers},
                connector=connector,
                max_field_size=MAX_HEADER,
                auto_decompress=False,
            )
        return self._session

    async def _body(self, answer: aiohttp.ClientResponse, max_bytes: int) -> bytes:
        """Read an answer's body; raises ProtocolBroken, with `unknown`, if it is too large."""
        parts = []
        size = 0
        async for part in answer.content.iter_chunked(1 << 16):
            size += len(part)  # counted here: the header Content-Length may be absent or wrong
            if size > max_bytes:
                raise ProtocolBroken(
                    "the answer is too large", provider=self._provider, unknown=True
                )
            parts.append(part)
        return b"".join(parts)


class _QuietConnections(aiohttp.TCPConnector):
    """Gives no connection for a request on which something came that nobody had asked for.

    aiohttp looks at that when a connection is put back, and not when it is taken again; in
    between, a server may have sent a second answer, which would pass for that to the next request.
    """

    async def _get(
        self, key: ConnectionKey, traces: list[Trace]
    ) -> aiohttp.connector.Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            if protocol is not None and not protocol.should_close:
                return connection
            connection.close()
        return None


def _joined(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    """Return headers by name in lower case, repeated ones joined by commas (RFC 9110, 5.3)."""
    return {name.lower(): ", ".join(headers.getall(name)) for name in headers}
