"""State files of every earlier version open, mean the same money, and can be gone on with."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.golden_files import (
    FILES,
    SCHEMAS,
    all_rows,
    assert_same_money,
    figures,
    made_by,
    unpacked,
)
from support.toy_market import Toy

from agentkit.journal import events as e
from agentkit.journal.journal import Journal
from agentkit.journal.migrations import copy_of
from agentkit.journal.run_state import RunState
from agentkit.journal.store import SCHEMA_VERSION
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt, JobStatus, Payment, Result
from agentkit.market.offer import Offer, charge
from agentkit.market.task import Task, TaskSpec
from agentkit.runtime import run as runs
from agentkit.testing.fakes import FakeProvider, ToyRail

MAKE = made_by()


def test_there_are_homes_of_every_schema() -> None:
    assert {folder for folder, _ in FILES} == set(SCHEMAS)
    assert max(SCHEMAS.values()) == SCHEMA_VERSION, "make the homes of this schema: README.md"


@pytest.mark.parametrize(("folder", "name"), FILES)
async def test_an_old_file_opens_means_the_same_and_goes_on(
    tmp_path: Path, folder: str, name: str
) -> None:
    then, path = figures(folder, name), unpacked(folder, name, tmp_path / "home")
    events = all_rows(path, "events")
    original = path.read_bytes()

    journal = await Journal.open(path.parent, then["wallet"])
    assert await journal.check() == then["checked"]
    assert_same_money(await journal.commit(MAKE.read), then)
    note = e.NoteAdded(topic="later", text="and it goes on")
    await journal.commit(lambda tx: tx.append(e.WALLET, note))
    assert await journal.check() == then["checked"] + 1
    await journal.close()

    assert [row for row in all_rows(path, "events") if "and it goes on" not in row[5]] == events
    copy = copy_of(path, SCHEMAS[folder])
    assert copy.exists() == (SCHEMAS[folder] < SCHEMA_VERSION)
    if copy.exists():  # whoever has to go back finds what there was
        copied = tmp_path / "copied.db"
        copied.write_bytes(original)
        for table in ("meta", "events", "records", "blobs", "outbox"):
            assert all_rows(copy, table) == all_rows(copied, table)


# -- a run that was left -------------------------------------------------------------------------


class AnyRail(ToyRail):
    """A rail without money behind it, under the name of one that was used."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    @property
    def name(self) -> str:
        return self._name


class Bound(FakeProvider):
    """A provider that still makes the offers of an old plan, and charges by them."""

    def __init__(self, name: str, folder: Path, known: Iterable[Offer]) -> None:
        super().__init__(name, folder)
        self._known = list(known)
        self._offers: dict[str, Offer] = {}

    async def offers(self, spec: TaskSpec) -> Sequence[Offer]:
        renewed = {"expires": time.time() + 600}
        return [x.model_copy(update=renewed) for x in self._known if x.node == spec.node.name]

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        self._offers[attempt.id] = offer
        return await super().submit(task, offer, attempt, payment)

    async def result(self, attempt: Attempt) -> Result:
        found, offer = await super().result(attempt), self._offers[attempt.id]
        return replace(found, price=charge(offer.price.asset, offer.rates, found.usage))


@pytest.mark.parametrize("folder", SCHEMAS)
async def test_a_run_that_an_old_version_left_is_finished_and_pays_nothing_twice(
    tmp_path: Path, folder: str
) -> None:
    then, path = figures(folder, "killed"), unpacked(folder, "killed", tmp_path / "home")
    (left,) = [run for run, about in then["runs"].items() if about["state"] == "running"]
    done = done_in(path, left)
    assert 0 < done < 12
    journal = await Journal.open(path.parent, then["wallet"])
    state = RunState.of(left, await journal.history(left))
    provider = Bound("native", tmp_path / "native", state.offers.values())
    market = Toy(tmp_path, journal, {"native": provider}, AnyRail("channel"), Allowance())
    means = replace(market.means, rails={"channel": AnyRail("channel")})
    try:
        run = await runs.resume(means, left)
        result = await run.result()
        assert len(result["said"].rows()) == 12  # type: ignore[union-attr]
        assert len(market.executions) == 12 - done
        await journal.check()
        now = await journal.commit(MAKE.read)
        assert now["runs"][left]["state"] == "done"
        paid = sum(about["paid"] for about in now["runs"].values())
        (ever,) = [units for scope, units in now["totals"].items() if scope.startswith("ever|")]
        assert ever == paid
        assert now["reserved"] == {}
        assert now["holds"] == {}
    finally:
        await journal.close()


def done_in(path: Path, run: str) -> int:
    """Return how many items of a run are done."""
    where = f"events where stream='{run}' and kind='ItemDone'"
    return len(all_rows(path, where))
