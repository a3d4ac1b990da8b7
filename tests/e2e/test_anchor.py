"""The head anchor on the embedded network, by its settings and on the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentkit.agent import Agent
from agentkit.cli.main import app
from agentkit.embedded import discovery
from agentkit.money import Money


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "network"
    discovery.ensure(folder)
    yield folder
    discovery.stop(folder)


def test_a_wallet_that_anchors_is_corroborated_by_one_gateway(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTKIT_NETWORK", str(own))
    monkeypatch.setenv("AGENTKIT_MEMORY__HEAD_ANCHOR", "evm")
    monkeypatch.setenv("AGENTKIT_HOME", str(tmp_path / "one"))
    monkeypatch.chdir(tmp_path)

    async def live() -> Money:
        async with Agent.from_config() as agent:
            await agent.memory.note("t", "one")
            await agent.memory.check_alone()
            return (await agent.balances()).coin

    left = asyncio.run(live())
    assert left < Money(10 * 10**18, left.asset)  # gas was paid
    cli = CliRunner()
    verified = cli.invoke(app, ["memory", "verify"])
    assert verified.exit_code == 0, verified.output
    assert "head corroborated" in verified.stdout
    assert "head not corroborated" not in verified.stdout

    monkeypatch.setenv("AGENTKIT_HOME", str(tmp_path / "two"))
    restored = cli.invoke(app, ["memory", "restore", "--json"])
    assert restored.exit_code == 0, restored.output
    assert json.loads(restored.stdout)["corroborated"]
