"""Code that a run may load: what was agreed to when it began, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.agreed_code import SOURCE, digest, file_in, forget, graph_of
from support.toy_market import Toy, toy

from agentkit.errors import RunPaused, UntrustedCode
from agentkit.graph import codec
from agentkit.graph.frozen import FrozenGraph
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.runtime import run as runs


def document_of(path: Path) -> FrozenGraph:
    """Return the graph as another process reads it."""
    return codec.decode(codec.encode(graph_of(path).freeze()))


async def paused(market: Toy, graph: Any, **more: Any) -> str:
    run = await runs.start(market.means, await market.plan(graph), **more)
    with pytest.raises(RunPaused):
        await run.result()
    forget()
    return run.id


async def go_on(market: Toy, run: str, **more: Any) -> Any:
    resumed = await runs.resume(market.means, run, approved=["ask"], **more)
    return await resumed.result()


async def test_a_document_starts_nothing_without_consent(tmp_path: Path) -> None:
    path = file_in(tmp_path)
    async with toy(tmp_path) as market:
        plan = await market.plan(document_of(path))
        assert f"sha256 {digest(path)}" in str(plan)
        with pytest.raises(UntrustedCode):
            await runs.start(market.means, plan)
        assert await market.journal.commit(lambda tx: tx.every(r.Hold)) == []
        assert await market.journal.commit(lambda tx: tx.every(r.Run)) == []


@pytest.mark.parametrize("own", [True, False])
async def test_a_resume_loads_what_the_run_began_with(tmp_path: Path, own: bool) -> None:
    """Of the program's own functions as of those that were agreed to."""
    path = file_in(tmp_path)
    async with toy(tmp_path) as market:
        graph = graph_of(path) if own else document_of(path)
        run = await paused(market, graph, trust_code=() if own else [digest(path)])
        started = (await market.journal.history(run))[0]
        assert isinstance(started, e.RunStarted)
        assert started.code == (digest(path),)
        path.write_text(SOURCE + "raise SystemExit\n")
        with pytest.raises(UntrustedCode):
            await go_on(market, run)
        path.write_text(SOURCE)
        assert (await go_on(market, run))["after"].value.isupper()


async def test_what_is_agreed_to_later_is_agreed_to_from_then_on(tmp_path: Path) -> None:
    path = file_in(tmp_path)
    async with toy(tmp_path) as market:
        run = await paused(market, graph_of(path))
        path.write_text(SOURCE + "# a comment\n")
        resumed = await runs.resume(market.means, run, trust_code=[digest(path)])
        with pytest.raises(RunPaused):
            await resumed.result()
        forget()
        assert (await go_on(market, run))["after"].value.isupper()


async def test_a_run_of_before_is_asked_about_once(tmp_path: Path) -> None:
    """Its `RunStarted` says nothing about code."""
    path = file_in(tmp_path)
    async with toy(tmp_path) as market:
        plan = await market.plan(document_of(path))
        old = e.RunStarted(plan=plan)
        assert '"code"' not in old.encode()
        await market.journal.commit(lambda tx: tx.append("r0", old))
        forget()
        with pytest.raises(UntrustedCode) as raised:
            await go_on(market, "r0")
        assert raised.value.digests == (digest(path),)
