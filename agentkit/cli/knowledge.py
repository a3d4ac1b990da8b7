"""memory notes | facts | search: what this wallet's agent knows."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from agentkit.agent import Agent
from agentkit.cli import output
from agentkit.cli.memory import memory
from agentkit.display.text import clock, columns
from agentkit.errors import ConfigError
from agentkit.journal import records as r
from agentkit.memory.knowledge.search import Match

__all__ = ["memory"]

T = TypeVar("T")

SHOWN = 100
"""Characters of a text in a table; `--json` has all of it."""


@memory.command()
@output.verb
def notes(
    topic: Annotated[
        str | None, typer.Argument(help="a topic, else how many notes each has")
    ] = None,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Show the notes of a topic, or the topics."""
    found = _asked(config, lambda agent: agent.memory.notes(topic))
    if topic is None:
        counts = Counter(note.topic for note in found)
        rows = [(name, f"{count} notes") for name, count in counts.items()]
        output.result(counts, columns(rows) if rows else "nothing is noted", as_json=as_json)
        return
    rows = [(clock(note.at), _short(note.text)) for note in found]
    text = columns(rows) if rows else f"nothing is noted under {topic!r}"
    output.result([_data(note) for note in found], text, as_json=as_json)


@memory.command()
@output.verb
def facts(
    prefix: Annotated[str, typer.Argument(help="how the keys begin")] = "",
    history: Annotated[bool, typer.Option(help="PREFIX is a key: every value it had")] = False,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Show facts, with the run, node and price they are from."""

    async def look(agent: Agent) -> list[r.Fact]:
        known = agent.memory
        return await (known.history(prefix) if history else known.facts(prefix))

    found = _asked(config, look)
    rows = [
        (fact.name, _short(json.dumps(fact.value, ensure_ascii=False)), _source(fact))
        for fact in found
    ]
    text = columns(rows) if rows else "no such fact is known"
    output.result([_data(fact) for fact in found], text, as_json=as_json)


@memory.command()
@output.verb
def search(
    text: Annotated[str, typer.Argument(help="what to look for")],
    most: Annotated[int, typer.Option("-k", min=1, help="how many to show")] = 5,
    model: Annotated[
        str | None, typer.Option(help="compare by this embedding model, which is paid for")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="the most that may cost")] = None,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Find notes and facts by words, or by meaning with --model and --budget."""
    if (model is None) != (budget is None):
        raise ConfigError(
            "an embedding model is paid for within a budget",
            hint='pass both, like --model all-minilm-l6-v2 --budget "0.01 USDC"',
        )

    async def look(agent: Agent) -> list[Match]:
        if model is None or budget is None:
            return await agent.memory.search(text, most)
        from agentkit.tools.embeddings import AgentKitEmbeddings

        embed = AgentKitEmbeddings(model=model, budget=budget, agent=agent)
        return await agent.memory.search(text, most, embed=embed)

    found = _asked(config, look)
    rows = [(f"{match.score:.2f}", _name(match.row), _short(match.text)) for match in found]
    data = [{"score": match.score, **_data(match.row)} for match in found]
    output.result(data, columns(rows) if rows else "nothing fits", as_json=as_json)


def _asked(config: Path | None, look: Callable[[Agent], Awaitable[T]]) -> T:
    """Return what is seen in the memory of the configured wallet's agent."""

    async def go() -> T:
        async with Agent.from_config(config) as agent:
            return await look(agent)

    return asyncio.run(go())


def _name(row: r.Note | r.Fact) -> str:
    return row.topic if isinstance(row, r.Note) else row.name


def _source(fact: r.Fact) -> str:
    """Say in words where a fact is from."""
    if not fact.run:
        return ""
    paid = f", {fact.price}" if fact.price else ""
    return f"from {fact.run}{f' {fact.node}' if fact.node else ''}{paid}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 3]}..."


def _data(row: r.Note | r.Fact) -> dict[str, Any]:
    return row.model_dump(mode="json")
