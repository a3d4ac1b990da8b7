"""Effects on record: what contradicts itself is refused, and results come back from Arweave."""

import asyncio
from pathlib import Path

import pytest
from support.memory_fixtures import Mind, mind

from agentkit.errors import IntentMismatch, StoreUnavailable, WrongInput
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal import snapshot
from agentkit.memory.knowledge.effects import MOST_RESULT, Ended, Intent, check_result
from agentkit.memory.sealing.backlog import artifact_digests_in

LONG = "long " * 1000


def intent(key: str = "k", arguments: object = 1) -> Intent:
    return Intent.of("do", (key,), arguments)


async def done(one: Mind, key: str, result: object) -> None:
    effects = one.memory.effects
    await effects.begin(intent(key))
    await effects.end(intent(key), Ended("done", result=result))


async def test_an_effect_is_known_from_its_beginning(tmp_path: Path) -> None:
    async with mind(tmp_path) as one:
        effects = one.memory.effects
        assert await effects.look_up(intent()) is None
        await effects.begin(intent())
        begun = await effects.look_up(intent())
        assert isinstance(begun, r.Effect)
        assert (begun.tool, begun.outcome) == ("do", "begun")
        await effects.begin(intent())  # once more, because somebody said so
        await effects.end(intent(), Ended("done", result={"n": [1, LONG]}))
        assert await effects.look_up(intent()) == Ended("done", result={"n": [1, LONG]})
        await effects.begin(intent("other"))
        await effects.forget(intent("other"))
        assert await effects.look_up(intent("other")) is None
        await effects.begin(intent("failed"))
        await effects.end(intent("failed"), Ended("failed", error="E", message="why\nmore"))
        assert await effects.look_up(intent("failed")) == Ended("failed", error="E", message="why")
        await one.journal.check()


async def test_what_contradicts_the_record_is_refused(tmp_path: Path) -> None:
    async with mind(tmp_path) as one:
        effects = one.memory.effects
        for contradiction in (
            effects.end(intent(), Ended("done")),
            effects.forget(intent()),
        ):
            with pytest.raises(IntentMismatch):
                await contradiction
        await effects.begin(intent())
        with pytest.raises(IntentMismatch, match="other arguments"):
            await effects.begin(intent(arguments=2))
        await effects.end(intent(), Ended("done", result=1))
        for contradiction in (
            effects.begin(intent()),
            effects.end(intent(), Ended("done", result=2)),
            effects.forget(intent()),
        ):
            with pytest.raises(IntentMismatch, match="on record as done"):
                await contradiction
        with pytest.raises(IntentMismatch, match="other arguments"):
            await effects.look_up(intent(arguments=2))
        assert await effects.look_up(intent()) == Ended("done", result=1)


async def test_a_call_that_is_cancelled_while_it_begins_did_not_happen(tmp_path: Path) -> None:
    async with mind(tmp_path) as one:
        beginning = asyncio.create_task(one.memory.effects.begin(intent()))
        await asyncio.sleep(0)
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        kinds = [row.kind for row in await one.journal.rows(e.WALLET)]
        assert kinds == ["EffectBegun", "EffectEnded"]  # the beginning was written all the same
        assert await one.memory.effects.look_up(intent()) is None


def test_an_intent_goes_by_digests(tmp_path: Path) -> None:
    assert intent() == intent()
    assert len({intent(), intent("other"), intent(arguments=2)}) == 3
    assert intent().effect == intent(arguments=2).effect
    # Parts of a key do not run into one another, nor into the tool's name.
    assert Intent.of("do", ("a", "b"), 1).effect != Intent.of("do", ("ab",), 1).effect
    assert Intent.of("do", ("a",), {"x": 1, "y": 2}) == Intent.of("do", ("a",), {"y": 2, "x": 1})
    # The same arguments of two effects have two digests, so that nobody can match them up.
    assert intent().arguments != intent("other").arguments
    with pytest.raises(WrongInput, match="cannot be compared"):
        intent(arguments=object())


def test_results_are_bounded() -> None:
    check_result("x" * (MOST_RESULT - 2))
    for result in ("x" * (MOST_RESULT - 1), object(), float("nan")):
        with pytest.raises(WrongInput):
            check_result(result)


async def test_results_are_sealed_and_in_snapshots(tmp_path: Path) -> None:
    async with mind(tmp_path) as one:
        await done(one, "long", LONG)
        await done(one, "short", "short")
        await done(one, "nothing", None)
        rows = await one.journal.rows(e.WALLET)
        (digest,) = [digest for row in rows for digest in artifact_digests_in(row)]
        taken = await one.journal.commit(snapshot.take)
        assert list(taken.blobs) == [digest]
        assert LONG.encode() in taken.blobs[digest]


async def test_a_result_that_was_not_restored_is_not_made_up(tmp_path: Path) -> None:
    async with mind(tmp_path / "one") as one, mind(tmp_path / "two") as two:
        await done(one, "long", LONG)
        effect = await one.journal.commit(lambda tx: tx.get(r.Effect, intent("long").effect))
        assert effect is not None
        await two.journal.commit(lambda tx: tx.put(effect))
        with pytest.raises(StoreUnavailable):
            await two.memory.effects.look_up(intent("long"))
