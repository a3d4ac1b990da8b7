"""One wallet, two homes: looking changes nothing, going on is found, and the hint leads out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.timing import limit

from agentkit.agent import Agent
from agentkit.embedded import discovery
from agentkit.errors import RunPaused
from agentkit.graph.builder import JobGraph


@pytest.fixture
def own(tmp_path: Path) -> Iterator[discovery.NetworkFile]:
    """A network of this test's own: a wallet that is restored must not be used elsewhere."""
    folder = tmp_path / "network"
    yield discovery.ensure(folder)
    discovery.stop(folder)


def asking(name: str) -> JobGraph:
    graph = JobGraph(name)
    graph.infer("greet", model="smollm2-135m", prompt="Greet the sea.", max_tokens=6)
    return graph


def opened(folder: Path, home: str, **settings: Any) -> Agent:
    return Agent.from_config(home=folder / home, network_home=folder / "network", **settings)


def cli(
    folder: Path, home: str, *arguments: str, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a verb in one of the homes, as a newcomer would."""
    told = subprocess.run(
        [sys.executable, "-m", "agentkit", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=limit(120),
        cwd=folder,
        env={
            **os.environ,
            "AGENTKIT_HOME": str(folder / home),
            "AGENTKIT_NETWORK": str(folder / "network"),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "COLUMNS": "1000",
        },
    )
    assert told.returncode == code, told.stdout + told.stderr
    return told


async def test_looking_in_a_restored_home_leaves_the_first_one_alone(
    own: discovery.NetworkFile, tmp_path: Path
) -> None:
    """A status in the second home sealed an event, and the first could never buy again."""
    async with opened(tmp_path, "first") as agent:
        await agent.run(asking("before"))
    restored = cli(tmp_path, "second", "memory", "restore").stdout
    assert "before you run or resume anything here, stop every agent there" in restored
    for verb in (
        ["status"],
        ["providers"],
        ["wallet", "show"],
        ["doctor"],
        ["receipts"],
        ["memory", "verify"],
        ["memory", "ls"],
    ):
        cli(tmp_path, "second", *verb)
    async with opened(tmp_path, "first", memory={"seal_before_pay": "0.000001 USDC"}) as agent:
        result = await agent.run(asking("after"))
        assert result.paid
        assert not await agent.resume_all()
    assert "none goes on with this wallet's state" in cli(tmp_path, "first", "doctor").stdout


async def test_the_hint_of_a_fork_followed_leads_out_of_it(
    own: discovery.NetworkFile, tmp_path: Path
) -> None:
    async with opened(tmp_path, "first") as agent:
        await agent.run(asking("before"))
        home = agent.home
    cli(tmp_path, "second", "memory", "restore")
    async with opened(tmp_path, "second") as agent:
        await agent.run(asking("there"))

    async with opened(tmp_path, "first") as agent:
        with pytest.raises(RunPaused, match="another machine goes on with wallet") as raised:
            await agent.run(asking("here"))
        paused = raised.value
    assert paused.exit_code == 4
    assert paused.hint.startswith("keep one machine and stop every agent on the other for good")
    doctor = cli(tmp_path, "first", "doctor", code=1).stdout
    assert re.search(r"!! +other machines +another machine goes on with wallet", doctor)
    assert "keep one machine" in doctor

    aside = re.search(r"`(mkdir [^`]+)`", paused.hint)[1]  # type: ignore[index]
    subprocess.run(aside, shell=True, check=True)  # what a newcomer pastes
    assert not (home / "state.db").exists()
    assert list(home.glob("forked-*/state.db"))
    cli(tmp_path, "first", "memory", "restore")
    async with opened(tmp_path, "first") as agent:
        assert {row.graph for row in await agent.runs()} == {"before", "there"}
        assert (await agent.run(asking("again"))).paid
    assert "none goes on" in cli(tmp_path, "first", "doctor").stdout
