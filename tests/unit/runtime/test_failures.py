"""What can never succeed fails at once and says why; what may, pauses; rows may be left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.toy_market import Toy, toy

import agentkit as ak
from agentkit.errors import (
    BadOutput,
    ProviderError,
    Refused,
    RunFailed,
    RunPaused,
    Unavailable,
    WrongInput,
)
from agentkit.graph import codec
from agentkit.graph.builder import JobGraph
from agentkit.journal import events as e
from agentkit.market.attempt import Attempt
from agentkit.market.task import Task
from agentkit.runtime import run as runs
from agentkit.testing.fakes import FakeProvider

Fault = Callable[[Task, Attempt], ProviderError | None]


def asking() -> JobGraph:
    graph = JobGraph("asking")
    graph.infer("ask", model="m", prompt="hello", retries=0)
    return graph


def wrong_task(task: Task, attempt: Attempt) -> ProviderError:
    return Refused("max_tokens=4 cut the answer", provider=attempt.provider, of_task=True)


def faults(market: Toy, **by_provider: Fault) -> None:
    for name, fault in by_provider.items():
        market.providers[name].before = fault


async def test_a_task_that_every_provider_calls_wrong_fails_the_run(tmp_path: Path) -> None:
    """It paused, with a hint at a resume that could never help."""
    async with toy(tmp_path) as market:
        faults(market, one=wrong_task, two=wrong_task)
        with pytest.raises(RunFailed, match="ask: every provider asked says that the task") as why:
            await market.run(asking())
        assert why.value.exit_code == 1
        assert "max_tokens=4 cut the answer" in str(why.value)
        assert not why.value.uncertain


async def test_words_that_cannot_be_written_end_no_run(tmp_path: Path) -> None:
    """A provider's message may hold half of a surrogate pair, which failed the node."""

    def odd(task: Task, attempt: Attempt) -> ProviderError:
        return Refused("half of \ud83d", provider=attempt.provider)

    async with toy(tmp_path) as market:
        faults(market, one=odd)
        result = await market.run(asking())
        assert result.receipt("ask").attempt.provider == "two"


async def test_one_liar_does_not_fail_a_run_that_another_can_do(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        faults(market, one=wrong_task)
        result = await market.run(asking())
        assert [receipt.attempt.provider for receipt in result.receipts] == ["two"]


@pytest.mark.parametrize(
    "other",
    [
        lambda task, attempt: Unavailable("down"),
        lambda task, attempt: Refused("not today"),
        lambda task, attempt: BadOutput("nonsense"),
    ],
    ids=["unavailable", "refused", "bad"],
)
async def test_while_one_says_otherwise_the_run_waits(tmp_path: Path, other: Fault) -> None:
    async with toy(tmp_path) as market:
        faults(market, one=wrong_task, two=other)
        with pytest.raises(RunPaused) as why:
            await market.run(asking())
        faults(market, two=lambda task, attempt: None)
        result = await (await runs.resume(market.means, why.value.run_id)).result()
        assert [receipt.attempt.provider for receipt in result.receipts] == ["two"]


async def test_replicas_that_were_delivered_speak_against_a_wrong_task(tmp_path: Path) -> None:
    providers = {name: FakeProvider(name, tmp_path / name) for name in ("a", "b", "c")}
    async with toy(tmp_path, **providers) as market:
        faults(market, a=wrong_task, b=wrong_task)
        graph = JobGraph("g")
        graph.infer("ask", model="m", prompt="x", verify=ak.verify.redundant(2, of=3), retries=0)
        with pytest.raises(RunPaused, match="1 of 3 replicas of 'ask' came"):
            await market.run(graph)
        faults(market, c=wrong_task)
        with pytest.raises(RunFailed, match="says that the task is wrong"):
            await market.run(graph)


# -- rows that are left out ----------------------------------------------------------------------


def mapped(folder: Path, count: int = 6, **more: Any) -> JobGraph:
    rows = folder / "rows.jsonl"
    rows.write_text("".join(f'{{"n": "row {n}"}}\n' for n in range(count)))
    graph = JobGraph("mapped")
    table = graph.data("rows", source="rows.jsonl")
    more = {"on_error": "skip", **more}
    asked = graph.infer("ask", model="m", over=table, prompt="{n}", retries=0, **more)
    graph.local("count", lambda table: len(table.rows()), asked)
    return graph


def on_rows(*numbers: int, error: Callable[[], ProviderError]) -> Fault:
    return lambda task, attempt: error() if attempt.item in numbers else None


def refused() -> ProviderError:
    return Refused("it is against our rules")


async def test_a_row_that_fails_for_good_is_left_out_and_said(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        faults(market, one=on_rows(2, 4, error=refused), two=on_rows(2, 4, error=refused))
        result = await market.run(mapped(tmp_path))
        rows = result["ask"].rows()  # type: ignore[attr-defined]
        assert [row["n"] for row in rows] == ["row 0", "row 1", "row 3", "row 5"]
        assert all(row["ask"] == f"answer to: {row['n']}" for row in rows)
        assert result["count"].value == 4  # type: ignore[attr-defined]
        assert sorted(result.skipped_items["ask"]) == [2, 4]
        assert "against our rules" in result.skipped_items["ask"][2]
        assert result.data()["skipped_items"]["ask"].keys() == {2, 4}
        assert len(result.receipts) == 4
        from agentkit.cli.watch import result_text

        assert "ask: 2 rows were skipped (it is against our rules" in result_text(result)


async def test_without_it_such_a_row_pauses_the_run(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        faults(market, one=on_rows(2, error=refused), two=on_rows(2, error=refused))
        with pytest.raises(RunPaused):
            await market.run(mapped(tmp_path, on_error="pause"))


@pytest.mark.parametrize("unknown", [False, True])
async def test_a_row_that_may_still_succeed_is_not_left_out(tmp_path: Path, unknown: bool) -> None:
    async with toy(tmp_path) as market:
        down = on_rows(2, error=lambda: Unavailable("down", unknown=unknown))
        faults(market, one=down, two=on_rows(2, error=refused))
        with pytest.raises(RunPaused) as why:
            await market.run(mapped(tmp_path))
        faults(market, one=lambda task, attempt: None)
        result = await (
            await runs.resume(market.means, why.value.run_id, graph=mapped(tmp_path).freeze())
        ).result()
        assert len(result["ask"].rows()) == 6  # type: ignore[attr-defined]


async def test_what_was_skipped_stays_so_when_the_run_goes_on(tmp_path: Path) -> None:
    """And nothing that was paid is bought again."""
    async with toy(tmp_path) as market:
        graph = mapped(tmp_path)
        bad, down = on_rows(1, error=refused), on_rows(4, error=lambda: Unavailable("down"))
        both: Fault = lambda task, attempt: bad(task, attempt) or down(task, attempt)  # noqa: E731
        faults(market, one=both, two=both)
        with pytest.raises(RunPaused) as why:
            await market.run(graph)
        before = set(market.executions)
        nothing: Fault = lambda task, attempt: None  # noqa: E731
        faults(market, one=nothing, two=nothing)
        again = await runs.resume(market.means, why.value.run_id, graph=graph.freeze())
        result = await again.result()
        assert sorted(result.skipped_items["ask"]) == [1]
        assert len(result["ask"].rows()) == 5  # type: ignore[attr-defined]
        assert len(market.executions) == len(set(market.executions)) == 5 > len(before) > 0
        events = await market.journal.history(why.value.run_id)
        assert [x.item for x in events if isinstance(x, e.ItemSkipped)] == [1]


async def test_when_all_rows_are_left_out_the_columns_stay(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        faults(market, one=wrong_task, two=wrong_task)
        result = await market.run(mapped(tmp_path, 3))
        table = result["ask"]
        assert table.rows() == []  # type: ignore[attr-defined]
        assert list(table.columns) == ["n", "ask"]  # type: ignore[attr-defined]
        assert len(result.skipped_items["ask"]) == 3


def test_on_error_is_of_the_document_and_of_rows_alone(tmp_path: Path) -> None:
    skipping, pausing = mapped(tmp_path).freeze(), mapped(tmp_path, on_error="pause").freeze()
    assert skipping.digest != pausing.digest
    assert "on_error" not in codec.encode(pausing)["nodes"][1]
    again = codec.decode(codec.encode(skipping)).by_name["ask"]
    assert again.on_error == "skip"  # type: ignore[union-attr]
    graph = JobGraph("g")
    with pytest.raises(WrongInput, match="is for the rows of over="):
        graph.infer("ask", model="m", prompt="x", on_error="skip")


def table() -> ak.Dataset:
    return ak.Dataset.dump([{"there": 1}])
