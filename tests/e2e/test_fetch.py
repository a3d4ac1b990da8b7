"""agent.fetch on the embedded network: an ordinary address of a node, bought and paid once."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agentkit.embedded import discovery
from agentkit.errors import NoOffer, OverBudget, RunPaused, WrongInput
from agentkit.graph.builder import JobGraph
from agentkit.journal import records as r
from agentkit.payments.balance import token_balance

CHAT = "/v1/chat/completions"
QUESTION = {
    "model": "smollm2-135m",
    "messages": [{"role": "user", "content": "Greet the sea."}],
    "max_tokens": 8,
}


@pytest.fixture
def node(network: discovery.NetworkFile) -> str:
    """The address of a native node of the embedded network."""
    return str(network.nodes["fast"])


async def test_an_address_is_paid_over_a_channel_and_what_is_left_comes_back(
    open_agent: Any, node: str
) -> None:
    async with open_agent() as agent:
        before = await token_balance(agent._parts.chain, agent.network, agent.address)
        answer = await agent.fetch(node + CHAT, method="POST", body=QUESTION, budget="0.05 USDC")
        assert (answer.status, answer.media_type) == (200, "application/json")
        assert answer.json()["choices"][0]["message"]["content"]
        (receipt,) = answer.receipts
        assert receipt.attempt.rail == "batch-settlement"
        assert 0 < receipt.amount.units < receipt.attempt.at_most.units, "metered"
        assert answer.paid == receipt.amount

        again = await agent.fetch(node + CHAT, method="POST", body=QUESTION, budget="0.05 USDC")
        lanes = await agent._parts.journal.commit(lambda tx: tx.every(r.Lane))
        assert len(lanes) == 1, "the same channel"
        assert set((await agent.close_channels()).values()) == {"closed"}
        after = await token_balance(agent._parts.chain, agent.network, agent.address)
        assert before - after == receipt.amount.units + again.receipts[0].amount.units
        assert await agent.check_receipts() == []


async def test_what_asks_for_nothing_costs_nothing(open_agent: Any, node: str) -> None:
    async with open_agent() as agent:
        answer = await agent.fetch(node + "/node", budget="0.05 USDC")
        assert (answer.status, answer.run_id, answer.paid) == (200, "", None)
        assert answer.json()["name"] == "fast"
        assert await agent.runs() == []


async def test_nothing_is_paid_above_the_budget(open_agent: Any, node: str) -> None:
    async with open_agent() as agent:
        with pytest.raises(OverBudget):
            await agent.fetch(node + CHAT, method="POST", body=QUESTION, budget="0.000001 USDC")
        assert await agent.runs() == []


async def test_a_request_is_a_node_of_a_graph(open_agent: Any, node: str) -> None:
    graph = JobGraph("page")
    page = graph.request("page", url=node + CHAT, method="POST", body=QUESTION)
    graph.local("length", lambda json: len(str(json.value)), page)
    async with open_agent() as agent:
        result = await agent.run(graph, budget="0.05 USDC")
        assert result["page"].value["status"] == 200
        assert len(result.receipts) == 1


async def test_a_server_that_takes_the_money_and_answers_nothing_is_not_paid_twice(
    open_agent: Any,
) -> None:
    """It asks for a payment on terms of its own, and never answers."""

    async def greedy(request: web.Request) -> web.Response:
        raise web.HTTPPaymentRequired

    app = web.Application()
    app.router.add_get("/", greedy)
    async with TestServer(app) as server, open_agent() as agent:
        with pytest.raises((NoOffer, RunPaused)):
            await agent.fetch(str(server.make_url("/")), budget="0.05 USDC")


@pytest.mark.parametrize(
    "url",
    ["ftp://x.example/a", "file:///etc/passwd", "https://user:secret@x.example/", "x", "http://"],
)
async def test_what_is_no_address_is_refused(open_agent: Any, url: str) -> None:
    async with open_agent() as agent:
        with pytest.raises(WrongInput):
            await agent.fetch(url, budget="0.05 USDC")


async def test_a_graph_holds_no_secret_header() -> None:
    graph = JobGraph("g")
    for name in ("Authorization", "Cookie", "PAYMENT-SIGNATURE", "X\nY"):
        with pytest.raises(WrongInput, match="header"):
            graph.request("page", url="https://x.example/", headers={name: "secret"})
