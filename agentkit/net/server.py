"""Serves our applications over HTTP with bounds on what a stranger's connections may hold.

A client that opens connections and says nothing, or sends a request a byte at a time (slowloris),
costs it nothing and would hold a socket here for ever.  So every request's head has to arrive in
time, and where no connection is left, the one that has been silent longest makes room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

TICK_SECONDS = 0.5
"""How often the connections are looked through."""

LINGERING_SECONDS = 1.0
"""How long the rest of a body that was refused is still taken in, so that the answer is read."""

TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
NO_ROOM = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"Content-Length: 0\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of one server: connections in all and of one peer address, and seconds.

    `head_seconds` is for a request's line and headers, `idle_seconds` for the silence between two
    requests, `request_seconds` for a whole request with its answer.
    """

    connections: int = 512
    per_peer: int = 256
    head_seconds: float = 10.0
    idle_seconds: float = 75.0
    request_seconds: float = 900.0


DEFAULT_LIMITS = ConnectionLimits()


async def start_server(
    app: web.Application,
    host: str,
    port: int,
    *,
    limits: ConnectionLimits = DEFAULT_LIMITS,
    shutdown_timeout: float = 60.0,
) -> web.AppRunner:
    """Serve an application and return its runner, whose `cleanup` ends it.

    With port 0 the kernel picks one, see `runner.addresses`.  Raises OSError when the port cannot
    be had; nothing is left running then.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=shutdown_timeout)
    await runner.setup()
    try:
        await _BoundedSite(runner, host, port, limits).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


class _BoundedSite(web.BaseSite):
    """A listening address whose connections are bounded."""

    def __init__(
        self, runner: web.AppRunner, host: str, port: int, limits: ConnectionLimits
    ) -> None:
        super().__init__(runner)
        self._host, self._port = host, port
        self._connections = _Connections(limits)

    @property
    def name(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen; every connection is counted and watched from its first byte."""
        await super().start()
        manager = self._runner.server
        assert manager is not None
        _mark_requests(manager)
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(manager, self._connections), self._host, self._port
        )
        self._connections.watch()

    async def stop(self) -> None:
        self._connections.close()
        await super().stop()


def _mark_requests(manager: web.Server) -> None:
    """Have a connection know while one of its requests is answered."""
    answer = manager.request_handler

    async def marked(request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, _Connection)
        with connection.answering():
            return await answer(request)

    manager.request_handler = marked


class _Connections:
    """The open connections of a server, and which of them has to go."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._open: set[_Connection] = set()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Look through the connections, now and every little while."""
        for connection in list(self._open):
            connection.end_if_late(self.limits)
        self._timer = self._loop.call_later(TICK_SECONDS, self.watch)

    def close(self) -> None:
        """Stop looking through them."""
        if self._timer:
            self._timer.cancel()

    def add(self, connection: _Connection) -> None:
        """Count a new connection, and end one of the same peer, or of anybody, beyond the limit."""
        self._open.add(connection)
        same_peer = [other for other in self._open if other.peer == connection.peer]
        if len(same_peer) > self.limits.per_peer:
            self._end_one_of(same_peer, newest=connection)
        elif len(self._open) > self.limits.connections:
            self._end_one_of(list(self._open), newest=connection)

    def remove(self, connection: _Connection) -> None:
        """Forget a connection that has ended."""
        self._open.discard(connection)

    def _end_one_of(self, crowd: list[_Connection], *, newest: _Connection) -> None:
        """End the connection that has been silent longest; the newest where none is silent."""
        silent = [other for other in crowd if other is not newest and not other.busy]
        if silent:
            oldest = min(silent, key=lambda other: other.since)
            self.remove(oldest)
            oldest.end()
        else:
            self.remove(newest)
            newest.end(NO_ROOM)


class _Connection(web.RequestHandler):
    """One connection, which knows since when it has been waiting for a request or at one."""

    def __init__(self, manager: web.Server, connections: _Connections) -> None:
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,  # a few bytes may unpack to gigabytes
            "keepalive_timeout": connections.limits.idle_seconds,
            "lingering_time": LINGERING_SECONDS,
        }
        super().__init__(manager, loop=loop, **options)
        self._connections = connections
        self._clock = loop.time
        self.peer = ""
        self.busy = False
        self.since = loop.time()
        self._head_since: float | None = self.since  # when the head that is arriving began

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Mark the connection as busy while a request is answered."""
        self.busy = True
        self.since = self._clock()
        self._head_since = None
        try:
            yield
        finally:
            self.busy, self.since = False, self._clock()

    def end_if_late(self, limits: ConnectionLimits) -> None:
        """End the connection when it has had its time."""
        now = self._clock()
        if self.busy:
            if now - self.since > limits.request_seconds:
                self.end()
        elif self._head_since is not None and now - self._head_since > limits.head_seconds:
            self.end(TOO_LATE)

    def end(self, answer: bytes = b"") -> None:
        """End the connection, whatever it is at."""
        if self.transport is None:
            return
        if answer:
            self.transport.write(answer)
            self.transport.close()
        else:
            self.transport.abort()

    # -- what asyncio tells a protocol -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        address: Any = transport.get_extra_info("peername")
        self.peer = str(address[0]) if address else ""
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        if not self.busy and self._head_since is None:
            self._head_since = self._clock()
        super().data_received(data)

    def connection_lost(self, error: BaseException | None) -> None:
        self._connections.remove(self)
        super().connection_lost(error)
