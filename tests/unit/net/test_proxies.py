"""Providers are reached through the user's proxy, and this machine never is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from agentkit.errors import ConfigError
from agentkit.net.proxies import proxy_for


class Proxy:
    """A real proxy for plain HTTP that answers itself, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.asked.append(str(request.url))
        return web.json_response({"jsonrpc": "2.0", "id": 0, "result": "0x1"})


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    made = Proxy()
    runner = web.ServerRunner(web.Server(made.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield made
    await runner.cleanup()


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "https://LOCALHOST"]
)
def test_this_machine_has_no_proxy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://proxy.example:3128")
    assert proxy_for(url) is None
    assert proxy_for("https://provider.example/v1") == "http://proxy.example:3128"


def test_a_proxy_that_cannot_be_used_is_not_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9050")
    with pytest.raises(ConfigError, match="not one over HTTP") as raised:
        proxy_for("https://provider.example")
    assert "HTTPS_PROXY" in raised.value.hint
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "proxy.example:3128")
    assert proxy_for("https://provider.example") == "http://proxy.example:3128"
