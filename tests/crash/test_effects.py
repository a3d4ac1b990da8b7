"""SIGKILL around a tool's effect: it happens once, or somebody is asked.

The scenarios are those of langchain-ai/langgraph#7417 and #8464: the effect is durable, its node
has not returned, the process is killed, and another one resumes the same thread.
"""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.memory_fixtures import Mind, mind
from support.processes import tool_caller
from support.processes.tool_caller import (
    AFTER_EFFECT,
    AFTER_RECORD,
    BEFORE_EFFECT,
    World,
    shop,
)
from support.timing import limit
from support.tool_effects import answers, thread

from agentkit.errors import EffectUncertain
from agentkit.tools.effect_journals import JOURNALS


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, tool_caller.__file__, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )


def killed_thread(folder: Path, moment: str, guard: str) -> World:
    """Let a thread die at a moment of its tool's effect; return what it did to the world."""
    world = World(folder / "world")
    child = start("thread", folder / "home", world.path, moment, guard)
    assert child.stdout
    with child.stdout:
        assert child.wait(limit(60)) == -signal.SIGKILL
    assert len(world.done) == (0 if moment == BEFORE_EFFECT else 1)
    return world


def entries(folder: Path) -> int:
    return len(World(folder / "world.entries").done)


async def resume(one: Mind, world: World, **how: Any) -> list[str]:
    return answers(await shop(one, world, **how).ainvoke(None, thread()))


@pytest.mark.parametrize("guard", ["sync", "async"])
async def test_a_kill_after_the_record_repeats_the_result(tmp_path: Path, guard: str) -> None:
    world = killed_thread(tmp_path, AFTER_RECORD, guard)
    async with mind(tmp_path / "home") as one:
        assert await resume(one, world, guard=guard) == ["did order 7"]
    assert (world.done, entries(tmp_path)) == (["order 7"], 2)


@pytest.mark.parametrize("guard", ["sync", "async"])
@pytest.mark.parametrize("moment", [BEFORE_EFFECT, AFTER_EFFECT])
async def test_a_kill_between_effect_and_record_is_asked_about(
    tmp_path: Path, moment: str, guard: str
) -> None:
    world = killed_thread(tmp_path, moment, guard)
    before = world.done
    async with mind(tmp_path / "home") as one:
        with pytest.raises(EffectUncertain, match="may have happened"):
            await resume(one, world, guard=guard)
        assert world.done == before
        told = await resume(one, world, guard=guard, on_unknown=world.find)
        assert told == ["did order 7" if moment == BEFORE_EFFECT else "found order 7"]
        await one.journal.check()
    assert (world.done, entries(tmp_path)) == (["order 7"], 3)


@pytest.mark.parametrize("moment", [AFTER_EFFECT, AFTER_RECORD])
async def test_without_once_the_same_kills_do_it_twice(tmp_path: Path, moment: str) -> None:
    world = killed_thread(tmp_path, moment, "none")
    async with mind(tmp_path / "home") as one:
        await resume(one, world, guard="none")
    assert world.done == ["order 7", "order 7"]


def killed_among_calls(folder: Path, orders: int, drawn: random.Random) -> list[str]:
    """Let a process call its tool for some orders, kill it soon after; return all it said."""
    target = drawn.randint(1, 5)
    child = start("calls", folder / "home", folder / "world", orders)
    assert child.stdout
    said: list[str] = []
    with child.stdout:
        for line in child.stdout:
            said.append(line)
            if sum(told.startswith("inside") for told in said) == target:
                break
        time.sleep(drawn.uniform(0, 0.012))
        child.send_signal(signal.SIGKILL)
        said += child.stdout.readlines()
        assert child.wait(limit(60)) in (0, -signal.SIGKILL)
    return said


async def test_kills_at_random_moments_lose_no_effect_and_double_none(tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    drawn = random.Random(7)
    orders = 15
    asked: list[str] = []  # for which orders a kill fell between beginning and record
    while True:
        said = killed_among_calls(tmp_path, orders, drawn)
        asked += [line for line in said if line.startswith("asked")]
        if "finished\n" in said:
            if len(asked) >= 3:
                break
            orders += 5
    assert sorted(world.done) == sorted(f"order {number}" for number in range(orders))
    assert await (await JOURNALS.open(tmp_path / "home")).check() > 2 * orders
    await JOURNALS.close()
