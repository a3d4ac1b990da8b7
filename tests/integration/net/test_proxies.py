"""Providers are reached through the user's proxy, and this machine never is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agentkit.embedded import discovery
from agentkit.errors import AgentKitError
from agentkit.graph.builder import JobGraph
from agentkit.memory.artifacts.sources import Sources
from agentkit.memory.arweave.endpoint import Endpoint, NoAnswer
from agentkit.money import Money
from agentkit.payments.x402.remote import Facilitator
from agentkit.providers.http import Http
from agentkit.runtime import approve

ELSEWHERE = "http://provider.invalid"


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


@pytest.fixture
async def here() -> AsyncIterator[str]:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"jsonrpc": "2.0", "id": 0, "result": "0x1"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


async def through_a_provider(url: str) -> None:
    http = Http("p", url)
    try:
        await http.send("GET", "/x")
    finally:
        await http.close()


async def through_a_gateway(url: str) -> None:
    import aiohttp

    async with aiohttp.ClientSession() as session:
        await Endpoint(url, timeout=5.0).get(session, "/x", limit=1000)


async def through_a_source(url: str) -> None:
    await Sources(None).read(f"{url}/x.jsonl")  # type: ignore[arg-type]


async def through_a_chain(url: str) -> None:
    from agentkit.payments.rpc_endpoint import _connect

    w3 = _connect(url)
    try:
        assert await w3.eth.chain_id == 1
    finally:
        await w3.provider.disconnect()


async def through_a_facilitator(url: str) -> None:
    facilitator = Facilitator(url)
    try:
        await facilitator._request("POST", "/verify", {})
    finally:
        await facilitator.close()


WAYS = [
    through_a_provider,
    through_a_gateway,
    through_a_source,
    through_a_chain,
    through_a_facilitator,
]


@pytest.mark.parametrize("way", WAYS)
async def test_a_provider_is_asked_through_the_proxy(
    proxy: Proxy, way: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    await way(ELSEWHERE)  # type: ignore[operator]
    assert len(proxy.asked) == 1
    assert proxy.asked[0].startswith(ELSEWHERE)
    monkeypatch.setenv("NO_PROXY", "other.example,provider.invalid")
    with pytest.raises((AgentKitError, NoAnswer, OSError)):
        await way(ELSEWHERE)  # type: ignore[operator]
    assert len(proxy.asked) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_loopback_is_asked_directly(proxy: Proxy, here: str, way: object) -> None:
    await way(here)  # type: ignore[operator]
    assert proxy.asked == []


async def test_the_network_is_found_behind_a_proxy(
    proxy: Proxy, network: discovery.NetworkFile, network_folder: Path
) -> None:
    import asyncio

    found = await asyncio.to_thread(discovery.find, network_folder)
    assert found
    assert found.pid == network.pid
    assert proxy.asked == []


async def test_somebody_here_is_asked_for_consent_directly(proxy: Proxy, here: str) -> None:
    amount = Money.parse("1 USDC")
    question = approve.Question(
        run="r", graph="g", node="n", kind="infer", provider="p", amount=amount
    )
    assert await approve.webhook(f"{here}/yes").ask(question) is False  # and it was answered
    assert proxy.asked == []


async def test_an_agent_buys_of_its_own_network_behind_a_proxy(
    proxy: Proxy, open_agent: Any
) -> None:
    """Planning, paying, asking and sealing are all on loopback here."""
    graph = JobGraph("behind")
    graph.infer("greet", model="smollm2-135m", prompt="Greet the sea.", max_tokens=4)
    async with open_agent() as agent:
        result = await agent.run(graph, budget="0.05 USDC")
        assert result.paid
        assert (await agent.memory.checkpoint()).unsealed == 0
    assert proxy.asked == []
