"""A name that points elsewhere when it is connected to than when it was looked at."""

import asyncio
import socket
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.x402_market import network_at

from agentkit.errors import Refused, Unavailable
from agentkit.kinds.kind import WebRequest
from agentkit.providers.web import Web

PUBLIC, OWN = "93.184.216.34", "127.0.0.1"


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


async def test_a_name_that_moves_to_our_own_network_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def secret(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response({"secret": 1})

    app = web.Application()
    app.router.add_get("/", secret)
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo
    answers = iter([PUBLIC])

    async def moving(host: Any, port: Any, **more: Any) -> Any:
        if host != "moves.example":
            return await real(host, port, **more)
        address = next(answers, OWN)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0))]

    monkeypatch.setattr(loop, "getaddrinfo", moving)
    network = network_at("http://127.0.0.1:1", "0x" + "11" * 20).model_copy(update={"test": False})
    provider = Web("web", network)
    async with TestServer(app) as server:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await provider.look(WebRequest(url=f"http://moves.example:{server.port}/"))
        assert asked == []
        for host in (OWN, "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"):
            with pytest.raises(Refused, match="not a host of the public internet"):
                await provider.look(WebRequest(url=f"http://{host}:{server.port}/"))
        assert asked == []
    await provider.close()
