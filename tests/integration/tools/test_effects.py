"""Effects among processes and machines: who waits, who learns of a death, what is restored."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langchain_core.tools import tool
from support.memory_fixtures import elsewhere, mind
from support.processes import tool_caller
from support.processes.tool_caller import World
from support.timing import limit
from support.tool_effects import home, tool_call

from agentkit.journal.lease import EffectLease
from agentkit.tools import once

__all__ = ["home"]


@contextmanager
def racing(folder: Path) -> Iterator[tuple[subprocess.Popen[str], subprocess.Popen[str]]]:
    """Start two processes with the same call: the first is in its tool, the second waits."""

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, tool_caller.__file__, "race", str(folder / "home"), folder / "world"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": ":".join(sys.path)},
        )

    first = start()
    second = None
    try:
        assert first.stdout
        assert first.stdout.readline() == "inside\n"
        second = start()
        assert second.stdout
        assert second.stdout.readline() == "waiting\n"
        yield first, second
    finally:
        for child in filter(None, (first, second)):
            child.kill()
            child.communicate()


def test_of_two_processes_one_acts_and_both_get_its_result(tmp_path: Path) -> None:
    """A run that is swept and given to another worker, while the first one is still at it."""
    world = World(tmp_path / "world")
    with racing(tmp_path) as (first, second):
        (tmp_path / "world.gate").touch()
        told = [child.communicate(timeout=limit(60))[0] for child in (first, second)]
    answer = f"did order 7 by {first.pid}"
    assert [text.splitlines()[-1] for text in told] == [f"answer {answer}"] * 2
    assert "inside" not in told[1]
    assert world.done == [f"order 7 by {first.pid}"]


def test_who_waits_learns_that_the_other_process_died(tmp_path: Path) -> None:
    with racing(tmp_path) as (first, second):
        first.kill()
        (tmp_path / "world.gate").touch()
        told, error = second.communicate(timeout=limit(60))
    assert "inside" not in told
    assert "EffectUncertain: the tool 'charge' began at" in error
    assert World(tmp_path / "world").done == []


async def test_an_effect_is_known_on_another_machine(tmp_path: Path) -> None:
    runs: list[str] = []

    @tool
    def do(what: str) -> str:
        """Do it."""
        runs.append(what)
        return what * 10_000

    async with mind(tmp_path / "home") as one:
        first = await once(do, agent=one).ainvoke(tool_call("do", what="a"))
        async with elsewhere(one, tmp_path) as other:
            assert await once(do, agent=other).ainvoke(tool_call("do", what="a")) == first
            await other.journal.check()
    assert runs == ["a"]


async def test_an_agent_gives_the_journal(open_agent: Any) -> None:
    runs: list[str] = []

    @tool
    def do(what: str) -> str:
        """Do it."""
        runs.append(what)
        return "done"

    async with open_agent() as agent:
        guarded = once(do, agent=agent)
        call = tool_call("do", what="a")
        assert await guarded.ainvoke(call) == await asyncio.to_thread(guarded.invoke, call)
        assert guarded.invoke(call).content == "done"  # which blocks the agent's own loop
    async with open_agent() as agent:
        assert (await once(do, agent=agent).ainvoke(call)).content == "done"
    assert runs == ["a"]


def test_a_forked_child_knows_and_does_what_is_new(home: Path) -> None:
    @tool
    def do(what: str) -> str:
        """Do it."""
        return f"{what} by {os.getpid()}"

    guarded = once(do, home=home)
    first = guarded.invoke(tool_call("do", 1, what="a"))
    child = os.fork()
    if not child:
        signal.alarm(30)  # so that it ends whatever it waits for
        code = 1
        try:
            known = guarded.invoke(tool_call("do", 1, what="a")) == first
            new = guarded.invoke(tool_call("do", 2, what="b")).content == f"b by {os.getpid()}"
            code = 0 if known and new else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert guarded.invoke(tool_call("do", 2, what="b")).content == f"b by {child}"


def test_a_forked_child_does_not_hold_on_to_a_lease(tmp_path: Path) -> None:
    """The parent dies, its child lives: who waits for the parent's effect has to notice."""
    held = EffectLease(tmp_path, "aa")
    assert held.try_take()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, b"up")  # it has closed what it inherited
        signal.pause()
    assert os.read(reading, 2) == b"up"
    assert held._file is not None
    held._file.close()  # what the kernel does for a killed process
    other = EffectLease(tmp_path, "aa")
    was_taken = other.try_take()
    other.close()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert was_taken
    os.close(reading)
    os.close(writing)
