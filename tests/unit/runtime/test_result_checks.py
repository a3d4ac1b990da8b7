"""What does not verify is not paid, is on record, and counts against its provider."""

import asyncio
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from support.timing import until
from support.toy_market import Toy, toy

import agentkit as ak
from agentkit.artifacts import Dataset, Json, Text
from agentkit.errors import ConfigError, NoOffer, RunPaused, WrongInput
from agentkit.graph import plugins
from agentkit.graph.builder import JobGraph
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.market.attempt import Attempt, Evidence, Result
from agentkit.market.seams import Verdict
from agentkit.market.task import Task
from agentkit.runtime import run as runs
from agentkit.runtime import verifiers
from agentkit.testing.fakes import FakeProvider


class Saying(FakeProvider):
    """Answers every question with the same words, signed in a way."""

    words = "yes"
    waits = False

    async def result(self, attempt: Attempt) -> Result:
        if self.waits:
            await asyncio.Event().wait()
        found = await super().result(attempt)
        signed = Evidence(signer="0xabc", signature="0xdef")
        return Result((Text.of(self.words.encode()),), found.usage, found.price, signed)


def saying(folder: Path, **words: str) -> dict[str, FakeProvider]:
    providers: dict[str, FakeProvider] = {}
    for factor, (name, said) in enumerate(words.items(), 1):
        provider = Saying(name, folder / name, factor=factor)
        provider.words = said
        providers[name] = provider
    return providers


def asking(verify: object) -> JobGraph:
    graph = JobGraph("asking")
    graph.infer("ask", model="m", prompt="well?", verify=verify)
    return graph


async def closed(market: Toy, run: str) -> list[e.AttemptClosed]:
    events = await market.journal.history(run)
    return [event for event in events if isinstance(event, e.AttemptClosed)]


async def test_an_output_that_a_function_refuses_is_not_paid(tmp_path: Path) -> None:
    async with toy(tmp_path, **saying(tmp_path, bad="no", good="yes")) as market:
        result = await market.run(asking(lambda text: text.text == "yes"))
        assert [receipt.attempt.provider for receipt in result.receipts] == ["good"]
        (refused,) = await closed(market, result.run_id)
        assert (refused.provider, refused.outcome, refused.refused) == ("bad", "unpaid", True)
        assert refused.result == Text.of(b"no").digest
        assert refused.evidence.signature == "0xdef"
        assert "returned False" in refused.reason


async def test_a_refusal_lowers_the_providers_standing_in_later_plans(tmp_path: Path) -> None:
    """`bad` asks half of what `good` asks; once it was refused twice it is not the first any more.

    A user would lose money and time on the same bad provider again and again.
    """
    async with toy(tmp_path, **saying(tmp_path, bad="no", good="yes")) as market:
        graph = asking(lambda text: text.text == "yes")
        for _ in range(3):
            await market.run(graph)
        known = await market.journal.commit(lambda tx: tx.every(r.Reputation))
        shares = {row.provider: row.share for row in known}
        assert shares == {"bad": pytest.approx(1 / 4), "good": 1.0}
        plan = await market.plan(graph, reputations=shares)
        assert [offer.provider for offer in plan.nodes[0].offers] == ["good", "bad"]
        assert "25% of what it delivered verified" in plan.explain("ask")


async def test_who_cannot_tell_pays_nothing_and_blames_nobody(tmp_path: Path) -> None:
    def breaks(text: Text) -> bool:
        raise ZeroDivisionError

    async with toy(tmp_path, **saying(tmp_path, one="no")) as market:
        with pytest.raises(RunPaused, match="breaks raised ZeroDivisionError"):
            await market.run(asking(breaks))
        assert await market.journal.commit(lambda tx: tx.every(r.Reputation)) == []
        totals = await market.journal.commit(lambda tx: tx.every(r.Total))
        assert not any(row.amount for row in totals if row.scope == "ever")


async def test_a_schema_is_checked_before_payment(tmp_path: Path) -> None:
    words = saying(tmp_path, bad="seven", good="7")
    async with toy(tmp_path, **words) as market:
        result = await market.run(asking(ak.verify.schema(int)))
        assert [receipt.attempt.provider for receipt in result.receipts] == ["good"]


class Signed:
    """A verifier of another package: passes what a certain key signed."""

    def __init__(self, signer: str) -> None:
        self.signer = signer

    def accepts(self, evidence: Evidence) -> bool:
        return bool(evidence.signature)

    async def verify(self, task: Task, result: Result, evidence: Evidence) -> Verdict:
        return Verdict(outcome="pass" if evidence.signer == self.signer else "fail")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(group: str, name: str) -> list[EntryPoint]:
        here = EntryPoint("signed", f"{__name__}:Signed", group)
        return [here] if (group, name) == ("agentkit.verifiers", "signed") else []

    monkeypatch.setattr(plugins, "entry_points", found)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("signer", "paid"), [("0xabc", True), ("0x123", False)])
async def test_another_package_can_bring_a_verifier(
    tmp_path: Path, signer: str, paid: bool
) -> None:
    async with toy(tmp_path, **saying(tmp_path, one="yes")) as market:
        graph = asking(ak.verify.named("signed", signer=signer))
        if paid:
            assert (await market.run(graph)).paid
            return
        with pytest.raises(RunPaused, match="did not verify"):
            await market.run(graph)


async def test_a_verifier_that_is_not_installed_is_named(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        with pytest.raises(ConfigError, match="'nobody'"):
            await market.run(asking(ak.verify.named("nobody")))
        assert await market.journal.commit(lambda tx: tx.every(r.Hold)) == []


# -- redundancy ----------------------------------------------------------------------------------


async def test_replicas_that_agree_are_paid_and_the_other_is_not(tmp_path: Path) -> None:
    words = saying(tmp_path, one="Yes  we can", two="no", three="Yes we\ncan")
    words["three"].delay = 0.2  # so that `two` has answered when two agree
    async with toy(tmp_path, **words) as market:
        graph = asking(ak.verify.redundant(2, of=3))
        plan = await market.plan(graph)
        one, two, three = (offer.price for offer in plan.nodes[0].offers)
        assert plan.price == one + two + three
        assert plan.at_most == plan.nodes[0].offers[2].at_most * 3
        result = await (await runs.start(market.means, plan)).result()
        assert {receipt.attempt.provider for receipt in result.receipts} == {"one", "three"}
        assert result.paid == one + three
        (refused,) = await closed(market, result.run_id)
        assert (refused.provider, refused.refused) == ("two", True)
        assert await market.journal.commit(lambda tx: tx.every(r.Hold)) == []


async def test_replicas_that_all_differ_are_not_paid_at_all(tmp_path: Path) -> None:
    words = saying(tmp_path, one="a", two="b", three="c")
    async with toy(tmp_path, **words) as market:
        with pytest.raises(RunPaused, match="3 of 3 replicas of 'ask' came, and no 2 of them"):
            await market.run(asking(ak.verify.redundant(2, of=3)))
        rows = await market.journal.commit(lambda tx: tx.every(r.Reservation))
        assert [row.standing for row in rows] == ["unpaid"] * 3
        assert await market.journal.commit(lambda tx: tx.every(r.Reputation)) == []


async def test_a_replica_goes_to_a_provider_that_no_other_has(tmp_path: Path) -> None:
    words = saying(tmp_path, one="a", two="a", three="a", four="a")
    words["one"].before = _refuse
    async with toy(tmp_path, **words) as market:
        result = await market.run(asking(ak.verify.redundant(3, of=3)))
        asked = [receipt.attempt.provider for receipt in result.receipts]
        assert sorted(asked) == ["four", "three", "two"]


def _refuse(task: Task, attempt: Attempt) -> ak.ProviderError:
    from agentkit.errors import Refused

    return Refused("not today", provider="one")


async def test_too_few_providers_for_redundancy_is_said_before_anything_is_spent(
    tmp_path: Path,
) -> None:
    async with toy(tmp_path, **saying(tmp_path, one="a", two="a")) as market:
        with pytest.raises(NoOffer, match="3 provider nodes are needed, and 2 made an offer"):
            await market.plan(asking(ak.verify.redundant(2, of=3)))


@pytest.mark.parametrize("make", [lambda: ak.verify.redundant(3, of=2)])
def test_more_than_come_cannot_agree(make: Callable[[], object]) -> None:
    with pytest.raises(WrongInput, match="no more agree than come"):
        make()


async def test_replicas_left_open_are_taken_up_again(tmp_path: Path) -> None:
    words = saying(tmp_path, one="a", two="a", three="a")
    last = words["three"]
    assert isinstance(last, Saying)
    last.waits = True
    async with toy(tmp_path, **words) as market:
        graph = asking(ak.verify.redundant(3, of=3))
        run = await runs.start(market.means, await market.plan(graph))
        await until(lambda: len(market.executions) == 3)
        await run.stop()
        with pytest.raises(RunPaused):
            await run.result()
        last.waits = False
        result = await (await runs.resume(market.means, run.id, graph=graph.freeze())).result()
        assert len(market.executions) == 3
        assert len(result.receipts) == 3


@pytest.mark.parametrize("data", [b"NaN", b"[" * 5000, b"\xff"], ids=["nan", "deep", "bytes"])
def test_what_cannot_be_read_agrees_with_its_own_bytes_alone(data: bytes) -> None:
    """It was an error that ended the run, where a provider sent it."""
    for kind in (Json, Dataset):
        assert verifiers.canonical(kind.of(data)) == verifiers.canonical(kind.of(data))
        assert verifiers.canonical(kind.of(data)) != verifiers.canonical(kind.of(data + b" "))


# -- functions that would end the process -------------------------------------------------------


def leaves(_: object) -> bool:
    sys.exit(0)


async def leaves_later(_: object) -> bool:
    sys.exit(0)


class Odd(BaseException):
    pass


def odd(_: object) -> bool:
    raise Odd


@pytest.mark.parametrize("function", [leaves, leaves_later, odd])
async def test_a_function_that_leaves_is_a_failure_of_its_node(
    tmp_path: Path, function: Callable[[object], bool]
) -> None:
    async with toy(tmp_path) as market:
        checked = asking(function)
        with pytest.raises(RunPaused, match="what verifies it failed"):
            await market.run(checked)
        local = JobGraph("local")
        local.local("one", function, local.infer("ask", model="m", prompt="well?"))
        with pytest.raises(RunPaused, match="the function raised"):
            await market.run(local)
        told = JobGraph("told")
        score = told.local("score", report)
        told.infer("ask", model="m", prompt="well?", when=score.holds(function))
        if function is not leaves_later:  # a condition takes no coroutine function
            with pytest.raises(RunPaused, match="the function raised"):
                await market.run(told)


def report() -> dict[str, int]:
    return {"score": 1}
