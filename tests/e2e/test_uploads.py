"""The paths to Arweave as the settings of an agent choose them, on the embedded network."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from support.arweave_wallet import arweave_key
from support.timing import limit

from agentkit.agent import Agent
from agentkit.embedded import discovery
from agentkit.errors import ConfigError, StoreUnavailable
from agentkit.graph.builder import JobGraph
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.arweave.jwk import JwkWallet
from agentkit.memory.arweave.unbundling import find_bundled_items
from agentkit.memory.memory import MemoryPace

Open = Callable[..., AbstractAsyncContextManager[Agent]]
FEE = 212_037_686


def ask(network: discovery.NetworkFile, path: str) -> str:
    headers = {"Authorization": f"Bearer {network.token}"}
    request = urllib.request.Request(network.gateway + path, headers=headers)
    with urllib.request.urlopen(request, timeout=limit(10)) as answer:  # loopback
        return str(answer.read().decode())


async def test_an_agent_uploads_with_an_ar_wallet(
    open_agent: Open, network: discovery.NetworkFile, tmp_path: Path
) -> None:
    """Its plans show the fee, its limits hold, and its log is in bundles of its own."""
    (tmp_path / "wallet.json").write_text(json.dumps(arweave_key()))
    wallet = JwkWallet.load(tmp_path / "wallet.json")
    memory = {
        "upload": "l1",
        "jwk": tmp_path / "wallet.json",
        "per_upload": "0.001 AR",
        "total": "0.01 AR",
    }
    async with open_agent(memory=memory) as agent:
        graph = JobGraph("hello")
        graph.infer("greet", model="smollm2-135m", prompt="Greet the sea.", max_tokens=4)
        plan = await agent.plan(graph, budget="0.05 USDC")
        (row,) = [fee for fee in plan.fees if fee.name == "uploads"]
        assert (row.price.units, str(row.at_most)) == (FEE, "0.01 AR")
        await agent.memory.note("t", "kept for good")
        with pytest.raises(StoreUnavailable):
            await agent.memory.checkpoint()
        found = await agent.status()
        assert found.memory.trouble == (
            "Arweave upload paused: needs 0.000212 AR, wallet has 0; state is safe locally only"
        )
        ask(network, f"/mint/{wallet.address}/{FEE}")
        assert (await agent.memory.checkpoint()).unsealed == 0
        assert ask(network, f"/wallet/{wallet.address}/balance") == "0"
        ask(network, "/mine")
        async with Gateways([network.gateway]) as gateways:
            carried = await find_bundled_items(gateways, agent.memory.address)
            assert {(await gateways.status(one.carrier)).known for one in carried.items} == {True}
        assert (await agent.memory.confirm()).segments == {"mined": 1}


@pytest.mark.parametrize(
    ("memory", "hint"),
    [
        ({"upload": "l1"}, "set memory.jwk"),
        ({"upload": "turbo", "pay": "x402"}, "set memory.per_upload"),
        ({"upload": "carrier pigeon"}, "memory.upload"),
        ({"gateways": ["arweave.net"]}, "memory.gateways"),
    ],
)
async def test_settings_that_cannot_upload_are_refused_at_once(
    open_agent: Open, memory: dict[str, Any], hint: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        async with open_agent(memory=memory):
            raise AssertionError("it opened")
    assert hint in refused.value.hint


async def test_a_dear_purchase_waits_until_the_log_is_there_for_good(
    open_agent: Open, network: discovery.NetworkFile
) -> None:
    async def mine() -> None:
        while True:
            await asyncio.to_thread(ask, network, "/mine")
            await asyncio.sleep(0.05)

    async with open_agent(memory={"stable_before_pay": "0.000001 USDC"}) as agent:
        agent.memory._pace = MemoryPace(look=0.2)
        mining = asyncio.create_task(mine())
        graph = JobGraph("dear")
        graph.infer("greet", model="smollm2-135m", prompt="Greet the sea.", max_tokens=4)
        result = await agent.run(graph, budget="0.05 USDC")
        mining.cancel()
        assert result.receipts
        states = (await agent.status()).memory.segments
        assert states.get("read back", 0) >= 1
