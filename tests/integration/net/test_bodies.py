"""Bodies that are too long, too slow, compressed or never end."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from support.timing import limit

from agentkit.net import bodies
from agentkit.net.bodies import bounded_bodies, chunks
from agentkit.net.server import start_server


async def size(request: web.Request) -> web.Response:
    return web.json_response(len(await request.read()))


async def stream(request: web.Request) -> web.Response:
    return web.json_response(sum([len(chunk) async for chunk in chunks(request, 5000)]))


def app(**options: object) -> web.Application:
    middleware = bounded_bodies(1000, by_route={"/long/{x}": 2000}, streamed=["/stream"], **options)  # type: ignore[arg-type]
    made = web.Application(middlewares=[middleware])
    made.router.add_post("/", size)
    made.router.add_post("/long/{x}", size)
    made.router.add_post("/stream", stream)
    return made


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 500
        await asyncio.sleep(0)


LENGTHS = [("/", 0, 200), ("/", 1000, 200), ("/", 1001, 413)]
LENGTHS += [("/long/1", 2000, 200), ("/long/1", 2001, 413)]
LENGTHS += [("/stream", 5000, 200), ("/stream", 5001, 413)]


@pytest.mark.parametrize(("path", "length", "status"), LENGTHS)
async def test_a_body_is_as_long_as_its_route_allows(path: str, length: int, status: int) -> None:
    async with TestClient(TestServer(app())) as client:
        told = await client.post(path, data=b"x" * length)
        assert told.status == status
        if status == 200:
            assert await told.json() == length


@pytest.mark.parametrize("path", ["/", "/stream"])
async def test_a_body_in_chunks_that_never_ends_is_refused(path: str) -> None:
    async with TestClient(TestServer(app())) as client:
        assert (await client.post(path, data=endless())).status == 413


@pytest.mark.parametrize("path", ["/", "/stream"])
async def test_a_compressed_body_is_not_unpacked(path: str) -> None:
    bomb = gzip.compress(b"\0" * 10**6)
    assert len(bomb) < 2000
    runner = await start_server(app(), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
    async with aiohttp.ClientSession() as http:
        for coding in ("gzip", "deflate", "br", "identity, gzip"):
            headers = {"Content-Encoding": coding}
            async with http.post(url, data=bomb[:900], headers=headers) as told:
                assert told.status == 415
    await runner.cleanup()


@pytest.mark.parametrize("path", ["/", "/stream"])
async def test_a_body_that_is_too_slow_is_given_up(path: str, monkeypatch: object) -> None:
    monkeypatch.setattr(bodies, "GRACE_SECONDS", 0.2)  # type: ignore[attr-defined]
    async with TestServer(app()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900\r\n\r\n"
        writer.write(head.encode() + b"x" * 10)
        async with asyncio.timeout(limit(10)):
            assert b"408" in await reader.readline()
        writer.close()


async def test_the_bodies_of_all_requests_share_the_memory() -> None:
    async with TestClient(TestServer(app(at_once=1500))) as client:
        gate = asyncio.Event()

        async def held() -> AsyncIterator[bytes]:
            yield b"x" * 900
            await gate.wait()

        first = asyncio.create_task(client.post("/", data=held()))
        async with asyncio.timeout(limit(10)):
            while (told := await client.post("/", data=b"x" * 900)).status == 200:
                await asyncio.sleep(0.01)
        assert told.status == 429
        assert told.headers["Retry-After"] == "1"
        gate.set()
        assert (await first).status == 200
        assert (await client.post("/", data=b"x" * 900)).status == 200
