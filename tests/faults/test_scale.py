"""Ten thousand nodes in one graph, a kill in the middle; readers of events that do not keep up."""

import asyncio
import collections
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.fault_jobs import half_way, mapped
from support.processes import PROGRAMS
from support.processes.run_with_faults import CHAINS, LENGTH, LONG, ROW
from support.timing import limit, measured_slowness
from support.toy_market import WALLET, toy

from agentkit.journal import events as e
from agentkit.journal.journal import Journal
from agentkit.journal.run_state import RunState
from agentkit.journal.transaction import JournalTransaction
from agentkit.runtime import history
from agentkit.runtime import run as runs

pytestmark = pytest.mark.alone

CHILDREN = PROGRAMS / "run_with_faults.py"
COUNT = CHAINS * LENGTH


def child(verb: str, folder: Path, *more: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(CHILDREN), verb, str(folder), *more],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate(timeout=limit(60))
    assert process.returncode == 0
    answer: dict[str, Any] = json.loads(output)
    return answer


async def state_of(folder: Path) -> RunState:
    journal = await Journal.open(folder / "home", WALLET)
    try:
        await journal.check()
        return await history.read(journal, (folder / "run").read_text())
    finally:
        await journal.close()


def calls(folder: Path) -> collections.Counter[str]:
    log = folder / "calls.log"
    return collections.Counter(log.read_text().split() if log.exists() else [])


def test_ten_thousand_nodes_go_on_after_a_kill_in_the_middle(tmp_path: Path) -> None:
    began = time.monotonic()
    first = child("many", tmp_path)
    while sum(calls(tmp_path).values()) < COUNT // 2 and first.poll() is None:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    known = asyncio.run(state_of(tmp_path)).done
    assert COUNT // 4 < len(known) < COUNT
    last = said(child("many", tmp_path))
    often = calls(tmp_path)
    assert last["done"] == len(often) == COUNT
    assert all(often[name.removeprefix("n")] == 1 for name in known)  # none of them again
    state = asyncio.run(state_of(tmp_path))
    assert state.outcome == "done"
    assert known.items() <= state.done.items()
    took = time.monotonic() - began
    print(f"\nkilled at {len(known)} of {COUNT}; the rest in {last['seconds']:.1f} s of {took:.1f}")
    assert took < 30


async def seconds_to_resume(folder: Path, others: int) -> float:
    """Return how long a small run takes to resume in a wallet with so many other events."""
    async with toy(folder) as market:

        def write(tx: JournalTransaction) -> None:
            for n in range(others):
                tx.append(e.WALLET, e.NoteAdded(topic=f"{n % 100}", text="something else"))

        await market.journal.commit(write)
        half_way(market.providers["one"])
        half_way(market.providers["two"])
        run = await runs.start(market.means, await market.plan(mapped(folder)))
        await run.ended()
        assert run.status.outcome == "paused"
        began = time.perf_counter()
        run = await runs.resume(market.means, run.id)
        took = time.perf_counter() - began
        await run.ended()
        return took


async def test_a_resume_takes_no_longer_for_what_other_runs_did(tmp_path: Path) -> None:
    alone = await seconds_to_resume(tmp_path / "alone", 0)
    among_others = await seconds_to_resume(tmp_path / "old", 20_000)
    print(f"\nresume in {alone:.3f} s, and in {among_others:.3f} s after 20,000 other events")
    assert among_others < 3 * alone + 0.1 * measured_slowness()


def test_readers_that_do_not_keep_up_cost_neither_time_nor_memory(tmp_path: Path) -> None:
    told = {
        how: said(child("readers", tmp_path / how, how)) for how in ("nobody", "never", "slowly")
    }
    for how, facts in told.items():
        print(f"\n{how}: {facts}")
        assert facts["done"] == ROW * LONG
        assert facts["written"] > LONG
    nobody = told.pop("nobody")
    for facts in told.values():
        assert 2 <= facts["seen"] < facts["written"]  # two readers began, and none came far
        assert facts["seconds"] < 2 * nobody["seconds"] + 1
        assert facts["peak_kib"] - nobody["peak_kib"] < 24 * 1024
