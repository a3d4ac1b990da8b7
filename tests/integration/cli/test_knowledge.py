"""memory notes, facts and search, as a person and as a program reads them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from agentkit.agent import Agent
from agentkit.cli.main import app


@pytest.fixture
def cli(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["memory", *arguments])

    return run


async def learn() -> None:
    async with Agent.from_config() as agent:
        await agent.memory.note("seen", "a cat\non the roof")
        await agent.memory.note("seen", "x" * 200)
        await agent.memory.note("heard", "a dog")
        for value in (1, {"usd": "0.02"}):
            await agent.memory.remember("price", value)


def test_what_is_known_is_shown(cli: Any) -> None:
    assert cli("facts").stdout == "no such fact is known\n"
    asyncio.run(learn())
    assert cli("notes").stdout.split() == ["heard", "1", "notes", "seen", "2", "notes"]
    assert json.loads(cli("notes", "--json").stdout) == {"heard": 1, "seen": 2}
    shown = cli("notes", "seen").stdout.splitlines()
    assert shown[0].endswith("a cat on the roof")
    assert shown[1].endswith("x...")
    told = json.loads(cli("notes", "seen", "--json").stdout)
    assert [note["text"] for note in told] == ["a cat\non the roof", "x" * 200]
    assert cli("facts", "pri").stdout.split() == ["price", '{"usd":', '"0.02"}']
    values = json.loads(cli("facts", "price", "--history", "--json").stdout)
    assert [fact["value"] for fact in values] == [1, {"usd": "0.02"}]
    (best,) = json.loads(cli("search", "CAT", "--json").stdout)
    assert best["text"] == "a cat\non the roof"
    assert cli("search", "zebra").stdout == "nothing fits\n"
    assert cli("search", "the price", "-k", "1").stdout.split()[1] == "price"


def test_a_model_without_a_budget_is_refused(cli: Any) -> None:
    result = cli("search", "cat", "--model", "all-minilm-l6-v2")
    assert result.exit_code == 2
    assert "--budget" in result.stderr
