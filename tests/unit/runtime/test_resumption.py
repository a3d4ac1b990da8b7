"""What a person can mend pauses a run: what was bought stays bought, and goes on with new code."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.toy_market import Toy, toy, usdc

import agentkit as ak
from agentkit.artifacts import Text
from agentkit.errors import ProtocolBroken, RunPaused, UntrustedCode, WrongInput
from agentkit.graph import codec
from agentkit.graph.builder import JobGraph
from agentkit.graph.callables import load_file
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.kinds.infer import Infer
from agentkit.money import Money
from agentkit.runtime import history
from agentkit.runtime import run as runs
from agentkit.testing.fakes import FakeProvider

NAME = "code_to_mend"
BROKEN = "def shout(text):\n    raise ValueError('not yet')\n"
MENDED = "def shout(text):\n    return text.text.upper()\n"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def reporting(report: Callable[..., Any], first: Callable[..., Any] = str) -> JobGraph:
    """Return a graph whose purchase stands between two functions."""
    graph = JobGraph("reporting")
    begun = graph.local("begin", lambda: first("begun"), retries=0)
    asked = graph.infer("ask", model="m", prompt="{begun}", inputs={"begun": begun})
    graph.local("report", report, asked, retries=0)
    return graph


def broken(text: Text) -> str:
    raise ZeroDivisionError("oh no")


def good(text: Text) -> str:
    return text.text.upper()


async def paused(market: Toy, graph: Any, **more: Any) -> RunPaused:
    run = await runs.start(market.means, await market.plan(graph), **more)
    with pytest.raises(RunPaused) as raised:
        await run.result()
    return raised.value


async def held(market: Toy) -> int:
    totals = await market.journal.commit(lambda tx: tx.every(r.Total, "held|"))
    return sum(row.amount.units for row in totals)


async def test_a_mended_function_goes_on_with_what_was_bought(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        why = await paused(market, reporting(broken))
        assert (why.exit_code, why.mend) == (4, "report")
        assert why.why.startswith("report: ZeroDivisionError: oh no (test_resumption.py:")
        assert len(market.executions) == 1
        mended = reporting(good).freeze()
        run = await runs.resume(market.means, why.run_id, graph=mended)
        result = await run.result()
        assert result["report"].value == 'ANSWER TO: "BEGUN"'  # type: ignore[attr-defined]
        assert len(market.executions) == len(result.receipts) == 1
        assert (await history.read(market.journal, run.id)).planned.graph.digest == mended.digest


@pytest.mark.parametrize("where", ["file", "here"])
async def test_the_hint_says_what_to_do_about_such_a_pause(tmp_path: Path, where: str) -> None:
    path = tmp_path / f"{NAME}.py"
    path.write_text(BROKEN)
    graph = reporting(load_file(path, NAME).shout if where == "file" else lambda text: text / 0)
    async with toy(tmp_path) as market:
        why = await paused(market, graph)
    assert why.hint.startswith("mend the function of 'report'")
    assert f"ak.resume('{why.run_id}', graph=graph)" in why.hint
    assert (f"in {path}, then go on with `agentkit resume {why.run_id}`" in why.hint) == (
        where == "file"
    )
    sys.modules.pop(NAME, None)


async def test_the_code_of_nodes_that_are_done_does_not_change(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = JobGraph("two")
        one = graph.local("one", good, graph.infer("ask", model="m", prompt="hello"))
        graph.local("two", broken, one, retries=0)
        why = await paused(market, graph)
        other = JobGraph("two")
        one = other.local("one", broken, other.infer("ask", model="m", prompt="hello"))
        other.local("two", good, one, retries=0)
        with pytest.raises(WrongInput, match=r"node 'one' of run r[0-9a-f]+ is done") as raised:
            await runs.resume(market.means, why.run_id, graph=other.freeze())
        assert raised.value.hint.startswith("put back the function of 'one'")
        assert (await history.read(market.journal, why.run_id)).outcome == "paused"


async def test_a_file_that_was_mended_needs_consent_and_is_journalled(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.py"
    path.write_text(BROKEN)
    graph = JobGraph("g")
    asked = graph.infer("ask", model="m", prompt="hello")
    graph.local("report", load_file(path, NAME).shout, asked, retries=0)
    sys.modules.pop(NAME)
    document = codec.decode(codec.encode(graph.freeze()))
    async with toy(tmp_path) as market:
        why = await paused(market, document, trust_code=[digest(path)])
        path.write_text(MENDED)
        sys.modules.pop(NAME)
        with pytest.raises(UntrustedCode) as raised:
            await runs.resume(market.means, why.run_id)
        assert raised.value.digests == (digest(path),)
        run = await runs.resume(market.means, why.run_id, trust_code=raised.value.digests)
        assert (await run.result())["report"].value == "ANSWER TO: HELLO"  # type: ignore[attr-defined]
        assert len(market.executions) == 1
        resumed = (await market.journal.history(why.run_id))[-3:]
        (event,) = [event for event in resumed if isinstance(event, e.RunResumed)]
        assert event.plan
        spec = event.plan.graph.by_name["report"].callables()["fn"]
        assert spec.sha256 == hashlib.sha256(MENDED.encode()).hexdigest()
        assert event.code == (digest(path),)
    sys.modules.pop(NAME, None)


async def test_consent_of_before_does_not_cover_a_function_that_changed(tmp_path: Path) -> None:
    """Two versions of a file ran: going back to the first is a change that somebody agrees to."""
    path = tmp_path / f"{NAME}.py"
    path.write_text(BROKEN)
    graph = JobGraph("g")
    graph.local("report", load_file(path, NAME).shout, graph.infer("a", model="m", prompt="a"))
    sys.modules.pop(NAME)
    document = codec.decode(codec.encode(graph.freeze()))
    async with toy(tmp_path) as market:
        why = await paused(market, document, trust_code=[digest(path)])
        path.write_text(BROKEN.replace("not yet", "still not"))
        sys.modules.pop(NAME)
        again = await runs.resume(market.means, why.run_id, trust_code=[digest(path)])
        with pytest.raises(RunPaused, match="still not"):
            await again.result()
        path.write_text(BROKEN)
        sys.modules.pop(NAME)
        with pytest.raises(WrongInput, match="has changed since the run began"):
            await runs.resume(market.means, why.run_id)
    sys.modules.pop(NAME, None)


async def test_the_hold_shrinks_to_what_is_left_to_buy(tmp_path: Path) -> None:
    """A wallet with a limit could start nothing else while a function waits to be mended."""
    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        asked = graph.infer("first", model="m", prompt="a" * 400)
        told = graph.local("report", broken, asked, retries=0)
        graph.infer("second", model="m", prompt="{told}", inputs={"told": told})
        plan = await market.plan(graph)
        run = await runs.start(market.means, plan)
        with pytest.raises(RunPaused):
            await run.result()
        second = plan.node("second").at_most
        assert second
        assert await held(market) == second.units < plan.at_most.units
        mended = JobGraph.thaw(graph.freeze())
        mended._functions["report", "fn"] = good
        result = await (await runs.resume(market.means, run.id, graph=mended.freeze())).result()
        assert len(result.receipts) == 2
        assert await held(market) == 0
        assert result.paid <= usdc("1")


async def test_what_failed_to_verify_is_found_again_and_paid_once(tmp_path: Path) -> None:
    """The verifier is broken, not the delivery: nobody is asked for another one."""

    def asking(verify: Callable[[Text], bool]) -> JobGraph:
        graph = JobGraph("asking")
        graph.infer("ask", model="m", prompt="hello", verify=verify)
        return graph

    def breaks(text: Text) -> bool:
        raise KeyError("language")

    def fits(text: Text) -> bool:
        return "hello" in text.text

    async with toy(tmp_path) as market:
        why = await paused(market, asking(breaks))
        assert why.mend == "ask"
        assert "breaks raised KeyError('language')" in why.why
        run = await runs.resume(market.means, why.run_id, graph=asking(fits).freeze())
        result = await run.result()
        assert len(market.executions) == 1
        assert [receipt.standing for receipt in result.receipts] == ["paid"]


# -- a kind with a defect: kinds may be other packages' ------------------------------------------

CHECKS = ["outputs", "is_quick_to_check", "fault_in"]


def break_kind(monkeypatch: pytest.MonkeyPatch, method: str, error: BaseException) -> None:
    def breaks(*_: object) -> Any:
        raise error

    monkeypatch.setattr(Infer, method, breaks)


async def blamed(market: Toy, run: str) -> list[e.AttemptClosed]:
    """Return the attempts of a run that count against their provider."""
    events = await market.journal.history(run)
    return [event for event in events if isinstance(event, e.AttemptClosed) and event.refused]


@pytest.mark.parametrize("method", CHECKS)
@pytest.mark.parametrize("error", [KeyError("language"), ProtocolBroken("odd"), SystemExit(3)])
async def test_a_kind_that_cannot_check_a_result_pauses_and_blames_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, error: BaseException
) -> None:
    async with toy(tmp_path) as market:
        graph = JobGraph("asking")
        graph.infer("ask", model="m", prompt="hello")
        with monkeypatch.context() as patch:
            break_kind(patch, method, error)
            why = await paused(market, graph)
        assert why.mend == "ask"
        assert why.why.startswith("ask: the kind 'infer' failed to check the result: ")
        assert why.hint.startswith("mend or upgrade the package 'agentkit'")
        assert f"`agentkit resume {why.run_id}`" in why.hint
        assert not await blamed(market, why.run_id)

        result = await (await runs.resume(market.means, why.run_id)).result()
        assert len(market.executions) == 1, "the same delivery is judged again"
        assert [receipt.standing for receipt in result.receipts] == ["paid"]


@pytest.mark.parametrize("method", CHECKS)
async def test_a_provider_that_cannot_be_asked_again_is_not_blamed_for_a_kind_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    blind = FakeProvider("blind", tmp_path / "blind", finds=False)
    two = FakeProvider("two", tmp_path / "two", factor=2)
    async with toy(tmp_path, blind=blind, two=two) as market:
        graph = JobGraph("asking")
        graph.infer("ask", model="m", prompt="hello")
        break_kind(monkeypatch, method, KeyError("language"))
        why = await paused(market, graph)
        events = await market.journal.history(why.run_id)
        closed = [event for event in events if isinstance(event, e.AttemptClosed)]
        assert [(event.outcome, event.refused) for event in closed] == [("unpaid", False)]
        assert len(market.executions) == 1, "no other provider would do better"


async def test_a_kind_with_a_defect_is_no_disagreement_of_replicas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with toy(tmp_path) as market:
        graph = JobGraph("asking")
        graph.infer("ask", model="m", prompt="hello", verify=ak.verify.redundant(2, of=2))
        break_kind(monkeypatch, "fault_in", KeyError("language"))
        why = await paused(market, graph)
        assert why.mend == "ask"
        assert not await blamed(market, why.run_id)


async def test_a_condition_that_raises_pauses_and_can_be_mended(tmp_path: Path) -> None:
    def judged(test: Callable[[Any], bool]) -> JobGraph:
        graph = JobGraph("judged")
        first = graph.infer("first", model="m", prompt="hello", output=int)
        graph.infer("second", model="m", prompt="more", when=first.holds(test))
        return graph

    def breaks(value: int) -> bool:
        raise IndexError

    async with toy(tmp_path) as market:
        why = await paused(market, judged(breaks))
        assert why.mend == "second"
        mended = judged(lambda value: value == 1).freeze()
        result = await (await runs.resume(market.means, why.run_id, graph=mended)).result()
        assert len(result.receipts) == 2


async def test_a_file_that_is_gone_can_be_put_back(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"n": 1}\n')
    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        graph.infer("ask", model="m", over=graph.data("rows", source="rows.jsonl"), prompt="{n}")
        plan = await market.plan(graph)
        source.unlink()
        run = await runs.start(market.means, plan)
        with pytest.raises(RunPaused, match="there is no file") as raised:
            await run.result()
        assert raised.value.hint.startswith("mend rows.jsonl, then go on with `agentkit resume")
        source.write_text('{"n": 1}\n')
        assert (await (await runs.resume(market.means, run.id)).result()).paid > Money(
            0, run.plan.price.asset
        )


async def test_another_purchase_that_is_uncertain_comes_first(tmp_path: Path) -> None:
    """Exit code 5 asks for a look at money, and a broken function must not hide it."""
    blind = FakeProvider("blind", tmp_path / "b", finds=False, pays="with_request", delay=0.2)
    blind.after = lambda task, attempt: _lost()

    async def raises() -> None:
        await asyncio.sleep(0.05)
        raise ZeroDivisionError

    async with toy(tmp_path, blind=blind) as market:
        graph = JobGraph("g")
        graph.infer("ask", model="m", prompt="hello", retries=0)
        graph.local("raises", raises, retries=0)
        why = await paused(market, graph)
        assert why.exit_code == 5


def _lost() -> Any:
    from agentkit.errors import Unavailable

    return Unavailable("reset", unknown=True)
