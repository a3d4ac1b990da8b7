"""Reads request bodies within bounds of size, time and memory, before a handler sees them.

Its middleware stands in every server of ours.  A handler then finds the body read; one that takes
a stream names its route in `streamed` and reads it by `chunks`, within the same time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

GRACE_SECONDS = 10.0
MIN_BYTES_PER_SECOND = 32 * 1024
"""A body has to arrive at this rate at least, after `GRACE_SECONDS`."""

MAX_BYTES_AT_ONCE = 64 * 1024 * 1024
"""Memory that the bodies of all requests at one server may take, where it does not say."""


def bounded_bodies(
    default: int,
    *,
    by_route: Mapping[str, int] | None = None,
    streamed: Collection[str] = (),
    at_once: int = MAX_BYTES_AT_ONCE,
) -> Any:
    """Return a middleware that reads bodies of at most `default` bytes.

    `by_route` has other limits by the path of a route, such as `/jobs/{attempt}`.  It answers 413
    beyond the limit, 408 for a body that is too slow, 415 for one that is compressed and 429 while
    the bodies of all requests take more than `at_once` bytes.
    """
    limits = by_route or {}
    memory = _Memory(at_once)

    @web.middleware
    async def read(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Read the body before the handler runs, unless the handler streams it by itself."""
        if not request.can_read_body:
            return await handler(request)
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise web.HTTPUnsupportedMediaType(text="send the body without Content-Encoding")
        route = _route(request)
        if route in streamed:
            return await handler(request)
        limit = limits.get(route, default)
        if (request.content_length or 0) > limit:
            raise web.HTTPRequestEntityTooLarge(limit, request.content_length or 0)
        with memory.share() as share:
            # aiohttp keeps a body that was read here, and `request.read()` returns it from then on.
            request._read_bytes = await _read(request, limit, share)
            return await handler(request)

    return read


async def chunks(request: web.Request, limit: int) -> AsyncIterator[bytes]:
    """Yield a body as it arrives.

    Raises HTTPRequestEntityTooLarge beyond `limit` bytes and HTTPRequestTimeout for one that is
    too slow.
    """
    began, size = time.monotonic(), 0
    while True:
        deadline = began + GRACE_SECONDS + size / MIN_BYTES_PER_SECOND
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                chunk = await request.content.readany()
        except web.RequestPayloadError:
            raise web.HTTPBadRequest(text="the body is broken") from None
        except TimeoutError:
            raise web.HTTPRequestTimeout(
                text="the body arrives too slowly", headers={"Connection": "close"}
            ) from None
        if not chunk:
            return
        size += len(chunk)
        if size > limit:
            raise web.HTTPRequestEntityTooLarge(limit, size)
        yield chunk


async def _read(request: web.Request, limit: int, share: _Share) -> bytes:
    """Read a body within its limit and its share of memory; raises HTTP errors."""
    body = bytearray()
    async for chunk in chunks(request, limit):
        if not share.grow(len(chunk)):
            raise web.HTTPTooManyRequests(
                text="too many large requests at once", headers={"Retry-After": "1"}
            )
        body += chunk
    return bytes(body)


def _route(request: web.Request) -> str:
    """Return the path of a request's route as it was written, "" where there is none."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else ""


class _Memory:
    """Bytes that the requests at one server hold at the moment."""

    def __init__(self, most: int) -> None:
        self.left = most

    def share(self) -> _Share:
        """Return a request's share, empty yet; leaving its context gives it back."""
        return _Share(self)


class _Share:
    def __init__(self, memory: _Memory) -> None:
        self._memory, self._size = memory, 0

    def grow(self, size: int) -> bool:
        """Take further bytes, and return whether there were so many."""
        if size > self._memory.left:
            return False
        self._memory.left -= size
        self._size += size
        return True

    def __enter__(self) -> _Share:
        return self

    def __exit__(self, *error: object) -> None:
        self._memory.left += self._size
