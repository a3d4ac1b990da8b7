"""Whatever crashes when: an effect happens once, or somebody is asked before it does again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tool_effects import Killed

from agentkit.errors import EffectFailed, EffectUncertain, IntentMismatch
from agentkit.journal.in_memory import MemoryJournal
from agentkit.journal.records import Effect
from agentkit.memory.knowledge.effects import Effects, Intent
from agentkit.tools import NOT_HAPPENED, once

Crash = Literal["", "begin", "begun", "effect", "returned", "raises", "recorded"]
"""Where a call ends: before and after its beginning is on record, in the tool before and after the
effect, by an error of the tool, and after its end is on record."""

CRASHES: list[Crash] = ["", "begin", "begun", "effect", "returned", "raises", "recorded"]


class Step(NamedTuple):
    key: int
    argument: int
    crash: Crash
    on_unknown: Literal["raise", "again", "look"]
    is_async: bool
    remembers: bool


STEPS = st.lists(
    st.builds(
        Step,
        key=st.integers(1, 2),
        argument=st.sampled_from([1, 1, 1, 2]),
        crash=st.sampled_from(CRASHES),
        on_unknown=st.sampled_from(["raise", "look", "look", "again"]),
        is_async=st.booleans(),
        remembers=st.booleans(),
    ),
    max_size=14,
)


class Memory:
    """An agent's memory, as far as `once` needs one; it can be told to die around a commit."""

    def __init__(self, journal: MemoryJournal) -> None:
        self.journal = journal
        self.crash: Crash = ""

    @property
    def memory(self) -> Any:
        return self

    @property
    def effects(self) -> Effects:
        return DyingEffects(self)


class DyingEffects(Effects):
    def __init__(self, memory: Memory) -> None:
        super().__init__(memory.journal)
        self._memory = memory

    async def begin(self, intent: Any) -> None:
        if self._memory.crash == "begin":
            raise Killed
        await super().begin(intent)
        if self._memory.crash == "begun":
            raise Killed

    async def end(self, intent: Any, ended: Any) -> None:
        await super().end(intent, ended)
        if self._memory.crash == "recorded":
            raise Killed


class Failed(Exception):
    """What the tool raises before it has an effect."""


class Model:
    """A tool with its journal and what it did, and what should be known of each key."""

    def __init__(self, home: Path) -> None:
        self.memory = Memory(MemoryJournal(home))
        self.effects: dict[int, int] = {}  # by key: how often the effect happened
        self.allowed: dict[int, int] = {}  # and how often somebody let it happen
        self.step: Step

    def do(self, key: int, argument: int) -> str:
        """Be the tool."""
        if self.step.crash == "effect":
            raise Killed
        if self.step.crash == "raises":
            raise Failed
        self.effects[key] = self.effects.get(key, 0) + 1
        if self.step.crash == "returned":
            raise Killed
        return f"result of {key}"

    def look(self, key: int, argument: int) -> Any:
        """Be the person, or the service, that is asked what became of an effect."""
        return f"result of {key}" if self.effects.get(key) else NOT_HAPPENED

    def call(self, step: Step) -> str:
        self.step, self.memory.crash = step, step.crash
        options: dict[str, Any] = {
            "key": lambda key, argument: str(key),
            "agent": self.memory,
            "on_unknown": self.look if step.on_unknown == "look" else step.on_unknown,
            "remember_errors": step.remembers,
        }
        if not step.is_async:
            return str(once(self.do, **options)(step.key, step.argument))

        async def do(key: int, argument: int) -> str:
            return self.do(key, argument)

        do.__name__ = "do"
        guarded: Callable[..., Any] = once(do, **options)
        return str(asyncio.run(guarded(step.key, step.argument)))

    def record(self, key: int) -> Effect | None:
        async def read() -> list[Effect]:
            return await self.memory.journal.commit(lambda tx: tx.every(Effect))

        records = {record.key: record for record in asyncio.run(read())}
        return records.get(intent_of(key, 0).effect)


def intent_of(key: int, argument: int) -> Intent:
    """Return what a call of the tool wants to happen once."""
    return Intent.of("do", ("key", str(key)), {"key": key, "argument": argument})


def play(model: Model, step: Step) -> None:
    """Make one call, and check what it came to by what was known before."""
    before = model.record(step.key)
    count = model.effects.get(step.key, 0)
    is_unknown = before is not None and before.outcome == "begun"
    arguments = intent_of(step.key, step.argument).arguments
    is_mismatch = before is not None and before.arguments != arguments
    try:
        result = model.call(step)
    except IntentMismatch:
        assert is_mismatch
        assert model.effects.get(step.key, 0) == count
        return
    except EffectUncertain:
        assert is_unknown
        assert not is_mismatch
        assert step.on_unknown == "raise"
        assert model.effects.get(step.key, 0) == count
        return
    except EffectFailed:
        assert before is not None
        assert before.outcome == "failed"
        assert model.effects.get(step.key, 0) == count
        return
    except Killed:
        assert step.crash
    except Failed:
        after = model.record(step.key)
        assert (after.outcome if after else "") == ("failed" if step.remembers else "")
        assert model.effects.get(step.key, 0) == count
    else:
        assert not is_mismatch
        assert result == f"result of {step.key}"
        assert model.effects[step.key] >= 1
        after = model.record(step.key)
        assert after is not None
        assert after.outcome == "done"

    may_repeat = is_unknown and step.on_unknown == "again"
    if model.effects.get(step.key, 0) > count:
        assert count == 0 or may_repeat
        assert not (before is not None and before.outcome == "done")


@given(STEPS)
def test_an_effect_happens_once_wherever_calls_crash(steps: list[Step]) -> None:
    with TemporaryDirectory() as folder:
        model = Model(Path(folder))
        for step in steps:
            play(model, step)
        # Once somebody looks, every key comes to a result, with one effect unless it was allowed.
        asked_again = any(step.on_unknown == "again" for step in steps)
        for key in (1, 2):
            record = model.record(key)
            if record is not None and record.outcome == "failed":
                continue
            arguments = [step.argument for step in steps if step.key == key] or [1]
            for argument in dict.fromkeys(arguments):
                try:
                    play(model, Step(key, argument, "", "look", False, False))
                except IntentMismatch:
                    continue
            assert model.effects[key] == 1 or asked_again


@pytest.mark.parametrize("crash", CRASHES[1:])
def test_every_crash_is_reached(tmp_path: Path, crash: Crash) -> None:
    model = Model(tmp_path)
    with pytest.raises((Killed, Failed)):
        model.call(Step(1, 1, crash, "raise", False, False))
    record = model.record(1)
    known = {"begin": "", "raises": "", "recorded": "done"}.get(crash, "begun")
    assert (record.outcome if record else "") == known
    assert model.effects.get(1, 0) == (1 if crash in ("returned", "recorded") else 0)
