"""Two processes resume one run at the same moment: one has it, the other is told who."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.fault_jobs import mapped
from support.processes import PROGRAMS
from support.timing import limit
from support.toy_market import toy

from agentkit.errors import Refused
from agentkit.journal import events as e
from agentkit.runtime import run as runs
from agentkit.testing.fakes import FakeProvider

CHILDREN = PROGRAMS / "run_with_faults.py"
TIMES = 30


class Process:
    """One of the two."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(CHILDREN), "both", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def tell(self, word: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> int:
        self._process.communicate(timeout=limit(30))
        return self._process.returncode


@contextmanager
def two(folder: Path) -> Iterator[list[Process]]:
    both = [Process(folder) for _ in range(2)]
    try:
        yield both
    finally:
        ends = [process.end() for process in both]
    assert ends == [0, 0]


async def stopped(folder: Path) -> str:
    """Leave a run that is paused with nothing bought."""
    one = FakeProvider("one", folder / "one")
    one.before = lambda task, attempt: Refused("shut for today")
    async with toy(folder, one=one) as market:
        run = await runs.start(market.means, await market.plan(mapped(folder, 1)))
        await run.ended()
        assert run.status.outcome == "paused"
        return run.id


async def resumed(folder: Path, run: str) -> int:
    async with toy(folder) as market:
        rows = await market.journal.rows(run)
        return sum(row.kind == e.RunResumed.stored_name for row in rows)


def rounds(folder: Path, run: str) -> list[tuple[int, dict[str, Any]]]:
    """Let both resume a run again and again; returns each owner's pid and what the other heard."""
    told = []
    with two(folder) as both:
        pids = [process.hear()["pid"] for process in both]
        for _ in range(TIMES):
            for process in both:
                process.tell(run)
            heard = [process.hear() for process in both]
            (owner,) = (n for n, facts in enumerate(heard) if facts["owner"])
            told.append((pids[owner], heard[1 - owner]))
            for process in both:
                process.tell("go on")
            assert both[owner].hear()["stopped"]
    assert len({pid for pid, _ in told}) == 2  # now one was quicker, now the other
    return told


def test_of_two_processes_that_resume_a_run_one_has_it(tmp_path: Path) -> None:
    run = asyncio.run(stopped(tmp_path))
    for _, refused in rounds(tmp_path, run):
        assert refused["error"] == "RunPaused"
        assert "is working on it" in refused["says"]
        assert f"agentkit status {run}" in refused["hint"]
    assert asyncio.run(resumed(tmp_path, run)) == TIMES  # nobody who was refused wrote anything
    assert len(FakeProvider("one", tmp_path / "one").executions) == 1


def test_who_is_refused_is_told_by_whom(tmp_path: Path) -> None:
    run = asyncio.run(stopped(tmp_path))
    told = rounds(tmp_path, run)
    assert [pid for pid, refused in told if f"process {pid} is" not in refused["says"]] == []
