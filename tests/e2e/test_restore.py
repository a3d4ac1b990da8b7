"""Another machine: nothing but the key and a gateway, and a log that ends too early."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.timing import limit

from agentkit.agent import Agent
from agentkit.embedded import discovery
from agentkit.graph.builder import JobGraph
from agentkit.payments.balance import token_balance
from agentkit.planner import policy

NATIVE = policy.allow("native/thrifty", "native")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[discovery.NetworkFile]:
    """A network of this test's own: a wallet that is restored must not be used elsewhere."""
    folder = tmp_path / "network"
    yield discovery.ensure(folder)
    discovery.stop(folder)


def asking(name: str, words: int) -> JobGraph:
    graph = JobGraph(name)
    graph.infer("greet", model="smollm2-135m", prompt="Greet the sea.", max_tokens=words)
    return graph


def opened(folder: Path, home: str, **settings: Any) -> Agent:
    return Agent.from_config(home=folder / home, network_home=folder / "network", **settings)


def restore(folder: Path, own: discovery.NetworkFile, home: str) -> dict[str, Any]:
    """Restore with the command line, in a process that knows no network."""
    told = subprocess.run(
        [
            *(sys.executable, "-m", "agentkit", "memory", "restore", "--json"),
            *("--keystore", own.agent_key, "--gateway", own.gateway),
        ],
        capture_output=True,
        check=True,
        timeout=limit(60),
        env={
            **os.environ,
            "AGENTKIT_HOME": str(folder / home),
            "AGENTKIT_NETWORK": str(folder / "no-network"),
        },
    )
    assert not (folder / "no-network").exists()
    return json.loads(told.stdout)  # type: ignore[no-any-return]


async def test_what_was_paid_beyond_the_last_seal_is_not_paid_again(
    own: discovery.NetworkFile, tmp_path: Path
) -> None:
    """The log ends before the attempt, its top-up and its voucher; the node has all three."""
    async with opened(tmp_path, "old") as agent:
        before = await token_balance(agent._parts.chain, agent.network, agent.address)
        first = await agent.run(asking("first", 8), policy=NATIVE)
        run = await agent.start(await agent.plan(asking("second", 60), policy=NATIVE))
        await run.stop()
        assert run.status.outcome == "paused"
    async with opened(tmp_path, "old", memory={"gateways": ["http://127.0.0.1:1"]}) as agent:
        lost = await (await agent.resume(run.id)).result()
        assert (await agent.memory.backup_status()).unsealed > 0
    (tmp_path / "old").rename(tmp_path / "gone")

    assert restore(tmp_path, own, "new")["runs"] == 2
    async with opened(tmp_path, "new") as agent:
        assert (await agent.status(run.id)).outcome == "paused"  # it never saw the purchase
        again = await (await agent.resume(run.id)).result()
        assert again["greet"].digest == lost["greet"].digest
        assert [x.attempt.id for x in again.receipts] == [x.attempt.id for x in lost.receipts]
        logs = discovery.ask(own, "/executions")
        assert [a for log in logs.values() for a in log].count(again.receipts[0].attempt.id) == 1
        spent = (await agent.balances()).spent
        assert spent == first.paid + again.paid

        assert set((await agent.close_channels()).values()) == {"closed"}
        after = await token_balance(agent._parts.chain, agent.network, agent.address)
        assert before - after == (first.paid + again.paid).units
        assert (await agent.balances()).placed == {}


async def test_a_channel_is_closed_by_a_wallet_that_lost_its_vouchers(
    own: discovery.NetworkFile, tmp_path: Path
) -> None:
    """Nothing is bought after the restore: the end of the channel itself says what was promised."""
    async with opened(tmp_path, "old") as agent:
        before = await token_balance(agent._parts.chain, agent.network, agent.address)
        first = await agent.run(asking("first", 8), policy=NATIVE)
    async with opened(tmp_path, "old", memory={"gateways": ["http://127.0.0.1:1"]}) as agent:
        second = await agent.run(asking("second", 60), policy=NATIVE)
    (tmp_path / "old").rename(tmp_path / "gone")
    restore(tmp_path, own, "new")
    async with opened(tmp_path, "new") as agent:
        assert (await agent.balances()).spent == first.paid
        assert set((await agent.close_channels()).values()) == {"closed"}
        after = await token_balance(agent._parts.chain, agent.network, agent.address)
        assert before - after == (first.paid + second.paid).units
        assert (await agent.balances()).spent == first.paid + second.paid
        third = await agent.run(asking("third", 8), policy=NATIVE)  # on a new channel
        assert third.paid
