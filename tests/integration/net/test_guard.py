"""No web page works a server of this machine, whatever it may send."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from agentkit.net.guard import guard, require_token


async def answer(request: web.Request) -> web.Response:
    return web.json_response({"did": request.method})


async def secret(request: web.Request) -> web.Response:
    require_token(request, "the-token")
    return web.json_response({})


def app(*names: str) -> web.Application:
    made = web.Application(middlewares=[guard(names)])
    made.router.add_route("*", "/", answer)
    made.router.add_get("/secret", secret)
    return made


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", "10.0.0.1", ""],
)
async def test_a_name_that_is_not_ours_is_refused(host: str) -> None:
    """A page whose own name leads to 127.0.0.1 could read what is answered."""
    async with TestClient(TestServer(app())) as client:
        for method in ("GET", "POST"):
            told = await client.request(method, "/", headers={"Host": host})
            assert told.status in (400, 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},  # another server of this machine
        {"Sec-Fetch-Site": "cross-site"},  # an image or a link, which has no Origin
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_page_of_another_site_is_refused(headers: dict[str, str]) -> None:
    async with TestClient(TestServer(app())) as client:
        for method in ("GET", "POST", "OPTIONS"):
            assert (await client.request(method, "/", headers=headers)).status == 403


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "text/plain; charset=utf-8", "application/x-www-form-urlencoded", "TEXT/PLAIN"],
)
async def test_a_form_changes_nothing(kind: str) -> None:
    async with TestClient(TestServer(app())) as client:
        told = await client.post("/", data=b'{"a": 1}', headers={"Content-Type": kind})
        assert told.status == 415


async def test_programs_and_pages_of_the_door_itself_pass() -> None:
    async with TestClient(TestServer(app())) as client:
        own = f"http://127.0.0.1:{client.port}"
        for headers in ({}, {"Origin": own, "Sec-Fetch-Site": "same-origin"}):
            assert (await client.post("/", json={}, headers=headers)).status == 200
            assert (await client.get("/", headers=headers)).status == 200


async def test_a_published_name_passes_at_its_door_alone() -> None:
    headers = {"Host": "node.example", "Origin": "https://node.example"}
    async with TestClient(TestServer(app("Node.Example"))) as client:
        assert (await client.post("/", json={}, headers=headers)).status == 200
        assert (await client.get("/", headers={"Host": "evil.example"})).status == 403
    async with TestClient(TestServer(app())) as client:
        assert (await client.post("/", json={}, headers=headers)).status == 403


async def test_two_hosts_are_none() -> None:
    async with TestServer(app()) as server:
        with socket.create_connection(("127.0.0.1", server.port or 0), timeout=5) as line:
            line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
            line.setblocking(False)
            told = await asyncio.get_running_loop().sock_recv(line, 100)
    assert told.split()[1] in (b"400", b"403")


@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer x", "Bearer é", "the-token"])
async def test_only_the_token_opens_what_needs_it(given: str) -> None:
    async with TestClient(TestServer(app())) as client:
        assert (await client.get("/secret", headers={"Authorization": given})).status == 403
        told = await client.get("/secret", headers={"Authorization": "Bearer the-token"})
        assert told.status == 200
