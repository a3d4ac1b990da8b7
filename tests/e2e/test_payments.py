"""Whole agents that pay out of escrow and over x402, summed up on the chain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from agentkit.graph.builder import JobGraph
from agentkit.journal.journal import Journal
from agentkit.keys.messages import UnsignedTransaction
from agentkit.keys.signer import KeySigner
from agentkit.payments import abi
from agentkit.payments.balance import token_balance
from agentkit.payments.chain import Web3Chain
from agentkit.payments.facilitator.app import facilitator_app
from agentkit.payments.facilitator.service import FacilitatorService
from agentkit.planner import policy
from agentkit.serve.app import node_app
from agentkit.serve.node import Node, NodeSettings

MODEL = "smollm2-135m"


def hello(**more: Any) -> JobGraph:
    graph = JobGraph("hello")
    graph.infer("greet", model=MODEL, prompt="Greet the sea in one line.", max_tokens=12, **more)
    return graph


async def test_a_dear_task_is_paid_out_of_escrow_and_the_rest_comes_back(open_agent: Any) -> None:
    async with open_agent(payments={"escrow_from": "0.000001 USDC"}) as agent:
        before = await token_balance(agent._parts.chain, agent.network, agent.address)
        plan = await agent.plan(hello(), policy=policy.allow("native"))
        assert "paid by escrow (from 0.000001 USDC on" in plan.explain("greet")
        assert any(fee.name == "gas" and "open escrow" in fee.on for fee in plan.fees)
        result = await (await agent.start(plan)).result()
        (receipt,) = result.receipts
        assert receipt.attempt.rail == "escrow"
        locked = await token_balance(agent._parts.chain, agent.network, agent.network.escrow)
        assert locked >= receipt.attempt.at_most.units > receipt.amount.units > 0
        payee = receipt.attempt.payee
        earned = await token_balance(agent._parts.chain, agent.network, payee)
        assert set((await agent.close_channels()).values()) == {"closed"}
        after = await token_balance(agent._parts.chain, agent.network, agent.address)
        assert before - after == receipt.amount.units
        assert (
            await token_balance(agent._parts.chain, agent.network, payee) == earned + before - after
        )
        assert (await agent.balances()).placed == {}
        head = await agent._parts.chain.head()
        job = bytes.fromhex(receipt.attempt.id)
        opened = await agent._parts.chain.logs(agent.network.escrow, [abi.OPENED], 0, head)
        assert [log for log in opened if log.data[32:64] == job], "opened for this attempt"
        assert await agent.check_receipts() == []


async def test_a_mapped_node_locks_each_item_for_itself(open_agent: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"text": "number {n}"}}\n' for n in range(4)))
    graph = JobGraph("many")
    data = graph.data("rows", source=str(rows))
    graph.infer("say", model=MODEL, over=data, prompt="Say {text}.", max_tokens=8)
    async with open_agent(payments={"escrow_from": "0.000001 USDC"}) as agent:
        result = await agent.run(graph, budget="0.05 USDC", policy=policy.allow("native"))
        assert len(result.receipts) == 4
        assert {receipt.attempt.rail for receipt in result.receipts} == {"escrow"}
        assert len(await agent.close_channels()) == 4
        assert (await agent.balances()).placed == {}


@pytest.mark.timeout(240)
async def test_an_agent_buys_from_an_endpoint_behind_x402(open_agent: Any, tmp_path: Path) -> None:
    """A real model behind our paywall, a facilitator of our own, found by its entry point."""
    async with open_agent() as rich:
        network, desk = rich.network, KeySigner(b"\x0d" * 32)
        fees = await rich._parts.chain.fees()
        gift = UnsignedTransaction(
            chain_id=network.chain_id,
            nonce=await rich._parts.chain.nonce(rich.address),
            to=desk.address,
            data=b"",
            gas=21_000,
            max_fee=fees.max_fee,
            max_tip=fees.max_tip,
            value=10**16,
        )
        await rich._parts.chain.send(rich._parts.signer.sign_tx(gift)[1])
    journal = await Journal.open(tmp_path / "desk", desk.address)
    settling = FacilitatorService(journal, Web3Chain(network), desk, network)
    async with TestServer(facilitator_app(settling)) as facilitator:
        settings = NodeSettings(
            "lone",
            tmp_path / "node",
            facilitator=str(facilitator.make_url("")).rstrip("/"),
            request_price="0.002 USDC",
        )
        owner = KeySigner(b"\x0e" * 32)
        node = await Node.open(settings, owner, Web3Chain(network), network)
        async with TestServer(node_app(node)) as server:
            url = str(server.make_url("/v1"))
            shop = {"adapter": "x402", "url": url, "models": {MODEL: MODEL}}
            async with open_agent(providers={"shop": shop}) as agent:
                plan = await agent.plan(hello(), policy=policy.allow("shop"))
                assert str(plan.at_most) == "0.002 USDC"
                result = await (await agent.start(plan)).result()
                (receipt,) = result.receipts
                assert (receipt.attempt.rail, str(receipt.amount)) == ("x402", "0.002 USDC")
                assert await token_balance(agent._parts.chain, network, owner.address) == 2000
        await node.close()
    await journal.close()
