"""Clients that open connections and say nothing, or say it slowly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from support.timing import limit

from agentkit.net.server import ConnectionLimits, start_server

SOON = ConnectionLimits(connections=4, per_peer=3, head_seconds=0.3, request_seconds=2.0)


async def answer(request: web.Request) -> web.Response:
    return web.Response(text="here")


@asynccontextmanager
async def server(limits: ConnectionLimits, handler: object = answer) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/", handler)  # type: ignore[arg-type]
    runner = await start_server(app, "127.0.0.1", 0, limits=limits)
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def connection(
    port: int, source: str = "127.0.0.1"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        yield reader, writer
    finally:
        writer.close()


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(limit(10)):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def test_a_request_that_never_ends_is_ended() -> None:
    async with server(SOON) as port, connection(port) as (reader, writer):

        async def drip() -> None:
            for byte in b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 1000:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        try:
            assert (await until_closed(reader)).startswith(b"HTTP/1.1 408")
        finally:
            dripping.cancel()
            await asyncio.wait([dripping])


async def test_a_connection_that_says_nothing_is_ended() -> None:
    async with server(SOON) as port, connection(port) as (reader, _):
        assert (await until_closed(reader)).startswith(b"HTTP/1.1 408")


async def test_a_silent_connection_may_stay_after_a_request() -> None:
    """What keeps alive is no half request: the next one may come later than a head's time."""
    async with server(SOON) as port, connection(port) as (reader, writer):
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert b"200 OK" in await reader.readuntil(b"here")
            await asyncio.sleep(1.2)


async def test_nine_hundred_half_open_requests_keep_nobody_out() -> None:
    limits = ConnectionLimits(connections=64, per_peer=48)
    async with server(limits) as port, aiohttp.ClientSession() as http:
        opened = []
        for number in range(900):
            half = await asyncio.open_connection("127.0.0.1", port)
            half[1].write(b"POST / HTTP/1.1\r\nHost: ")
            opened.append(half)
            if number % 300 == 299:
                async with http.get(f"http://127.0.0.1:{port}/") as answered:
                    assert await answered.text() == "here"
        ended = 0
        for reader, writer in opened[:800]:
            ended += await until_closed(reader) == b""
            writer.close()
        assert ended == 800
        for _, writer in opened[800:]:
            writer.close()


async def test_where_all_are_at_work_the_newest_waits_outside() -> None:
    busy, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        busy.release()
        await go_on.wait()
        return web.Response(text="here")

    async with (
        server(SOON, slow) as port,
        connection(port) as a,
        connection(port) as b,
        connection(port) as c,
    ):
        for _, writer in (a, b, c):
            writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await busy.acquire()
        async with connection(port) as (reader, _):  # the fourth of this address
            told = await until_closed(reader)
            assert told.startswith(b"HTTP/1.1 503")
            assert b"Retry-After: 1" in told
        async with connection(port, "127.0.0.2") as (reader, writer):  # another's has room
            writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await busy.acquire()
            go_on.set()
            assert b"200 OK" in await reader.readuntil(b"here")


async def test_a_request_that_is_answered_for_too_long_is_ended() -> None:
    given_up = asyncio.Event()

    async def endless(request: web.Request) -> web.Response:
        await given_up.wait()
        return web.Response()

    limits = ConnectionLimits(request_seconds=0.3)
    async with server(limits, endless) as port, connection(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert await until_closed(reader) == b""
        given_up.set()
