"""Answers of chat endpoints that came: what is taken, what is refused, and what it costs."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.openai_endpoint import KEY, PRICES
from support.toy_market import WALLET, usdc

from agentkit.artifacts import Text
from agentkit.errors import (
    BadOutput,
    ProviderError,
    RateLimited,
    Refused,
    RunPaused,
    Unavailable,
)
from agentkit.graph.builder import JobGraph
from agentkit.graph.nodes import InferNode
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.kinds.infer import Infer, infer_load
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt, Payment, Result, purchase_id
from agentkit.market.offer import charge
from agentkit.market.task import TaskSpec
from agentkit.memory.artifacts.local import LocalStore
from agentkit.payments.billed_elsewhere import ElsewhereRail
from agentkit.payments.budget import Budget
from agentkit.planner.planner import make_plan
from agentkit.planner.request import Market, Wish
from agentkit.providers.http import Http
from agentkit.providers.openai import GAIA, EndpointSettings, OpenAI
from agentkit.runtime import run as runs
from agentkit.runtime.context import Resources
from agentkit.runtime.result import RunResult
from agentkit.testing import FAULTS, FaultyNode
from agentkit.testing.fakes import NETWORK, USDC

SETTINGS = EndpointSettings(prices=PRICES, models={"m": "m"}, key=KEY)
BILLED = usdc("0.00015")  # 9 x 10 and 3 x 20 millionths

USED = {
    "dated model": "Hello there.",
    "prefixed model": "Hello there.",
    "parts": "Hello Hello",
    "truncated": "Once",
    "no usage": "Hello there.",
    "below zero": "Hello there.",
    "NaN": "Hello there.",
    "mark": "Grüße",
    "blank lines": "Grüße",
    "UTF-16": "Grüße",
    "latin-1": "Grüße",
    "gzip": "Grüße",
    "deflate": "Grüße",
    "raw deflate": "Grüße",
    "events": "Hello there.",
    "twice": "Hello there.",
}
"""The faults whose answers are taken, and the text that is."""

BILLED_BY_COUNT = {
    "other model": "theirs/other",
    "no model": "does not say which model",
    "empty": "no text",
    "null": "no text",
    "blanks": "no text",
    "number": "int",
    "object": "dict",
    "picture": "image_url",
    "no choices": "without a choice",
    "half character": "half a character",
    "tool call": "called a tool",
    "refusal": "I cannot help.",
    "filtered": "filter",
    "failed": "The transfer",
    "only thoughts": "reasoning",
    "billed error": "Upstream error",
}
"""The faults whose answers are refused and say what they cost, and a part of why."""

UNCOUNTED = {
    "error 200": "no memory",
    "brotli": "'br'",
    "half gzip": "no end",
    "trailing comma": "not JSON",
    "nothing": "empty",
    "html": "Just a moment",
}
"""The faults whose answers are refused and do not say what they cost."""

NOT_DONE: dict[str, type[ProviderError]] = {
    "busy 200": RateLimited,
    "overloaded 200": Unavailable,
    "loading 200": Unavailable,
    "overloaded": Unavailable,
    "no credit": Refused,
    "listed error": Refused,
    "moved": Refused,
}
"""The faults that say that nothing was done."""

LOST = ("half events", "cut")
"""The faults after which nobody can say."""


@pytest.fixture
async def node() -> AsyncIterator[FaultyNode]:
    async with FaultyNode() as node:
        yield node


def question(**changes: object) -> InferNode:
    fields = {"kind": "infer", "name": "ask", "model": "m", "prompt": "Hi", "max_tokens": 8}
    return InferNode.model_validate({**fields, **changes})


async def buy(adapter: OpenAI) -> Result:
    """Ask the question and return the answer, as a run does up to the moment of paying."""
    asked = question()
    (offer,) = await adapter.offers(TaskSpec(node=asked, load=infer_load(2, asked)))
    task = Infer().task(asked, {})
    attempt = Attempt.at(
        purchase_id("r1", "ask"),
        0,
        offer,
        run="r1",
        item=None,
        task=task.digest,
        at_most=charge(USDC, offer.rates, offer.most(task.load)),
    )
    await adapter.submit(task, offer, attempt, Payment(rail=offer.rail))
    return await adapter.result(attempt)


async def ask(node: FaultyNode, fault: str = "", **changes: Any) -> Result:
    """Buy one answer of a node that shows a fault, and see that the fault was reached."""
    adapter = OpenAI("far", node.url, NETWORK, GAIA, replace(SETTINGS, **changes))
    node.fault = fault
    try:
        return await buy(adapter)
    finally:
        await adapter.close()
        assert not fault or node.bites[fault] == 1


async def fails(node: FaultyNode, fault: str, **changes: Any) -> ProviderError:
    with pytest.raises(ProviderError) as raised:
        await ask(node, fault, **changes)
    assert KEY not in str(raised.value)
    return raised.value


def test_every_fault_of_the_kit_is_expected_here() -> None:
    expected = {*USED, *BILLED_BY_COUNT, *UNCOUNTED, *NOT_DONE, *LOST, "long prompt"}
    assert expected == set(FAULTS)


@pytest.mark.parametrize("fault", USED)
async def test_an_answer_is_taken_however_it_is_written(node: FaultyNode, fault: str) -> None:
    result = await ask(node, fault)
    (output,) = result.outputs
    assert isinstance(output, Text) and output.text == USED[fault]
    assert result.finish_reason == ("length" if fault == "truncated" else "stop")


@pytest.mark.parametrize("fault", BILLED_BY_COUNT)
async def test_an_answer_that_cannot_be_used_says_why_and_what_it_is_billed(
    node: FaultyNode, fault: str
) -> None:
    error = await fails(node, fault)
    assert isinstance(error, BadOutput)
    assert BILLED_BY_COUNT[fault] in str(error)
    assert (error.unknown, error.billed) == (False, BILLED)


@pytest.mark.parametrize("fault", UNCOUNTED)
async def test_one_that_does_not_say_what_it_is_billed_is_known_too(
    node: FaultyNode, fault: str
) -> None:
    error = await fails(node, fault)
    assert isinstance(error, BadOutput)
    assert UNCOUNTED[fault] in str(error)
    assert (error.unknown, error.billed) == (False, None)


@pytest.mark.parametrize("fault", NOT_DONE)
async def test_what_says_that_nothing_was_done_is_believed(node: FaultyNode, fault: str) -> None:
    error = await fails(node, fault)
    assert type(error) is NOT_DONE[fault]
    assert not error.unknown


@pytest.mark.parametrize("fault", LOST)
async def test_after_half_an_answer_nobody_can_say(node: FaultyNode, fault: str) -> None:
    assert (await fails(node, fault)).unknown


# -- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["m", "theirs"])
async def test_the_user_can_accept_another_name(node: FaultyNode, key: str) -> None:
    node.model = "theirs"
    error = await fails(node, "other model", models={"m": "theirs"})
    assert 'providers.far.accepts."theirs" = ["theirs/other"]' in str(error)
    node.bites.clear()
    names = {"models": {"m": "theirs"}, "accepts": {key: ("theirs/other",)}}
    assert (await ask(node, "other model", **names)).model == "theirs/other"


async def test_a_prompt_of_the_endpoints_own_is_priced_once_the_user_says_so(
    node: FaultyNode,
) -> None:
    error = await fails(node, "long prompt")
    assert isinstance(error, BadOutput) and error.billed is not None
    most = infer_load(2, question()).most["input"]
    assert f"providers.far.overhead_tokens = {1450 - most} " in str(error)

    node.bites.clear()
    result = await ask(node, "long prompt", overhead_tokens=1450 - most)
    assert result.usage["input"] == 1450

    node.bites.clear()
    assert "overhead_tokens = " in str(await fails(node, "long prompt", overhead_tokens=100))


async def test_what_was_not_counted_may_have_had_the_overhead(node: FaultyNode) -> None:
    most = infer_load(2, question()).most
    result = await ask(node, "no usage", overhead_tokens=100, reasoning_tokens=50)
    assert result.usage["input"] == most["input"] + 100
    assert result.usage["output"] == 58


# -- connections ---------------------------------------------------------------------------------


async def test_an_answer_that_nobody_asked_for_is_nobodys(node: FaultyNode) -> None:
    adapter = OpenAI("far", node.url, NETWORK, GAIA, SETTINGS)
    node.fault = "twice"
    try:
        for _ in range(3):
            (output,) = (await buy(adapter)).outputs
            assert isinstance(output, Text) and output.text == "Hello there."
            await asyncio.sleep(0.05)  # until what came late is there
    finally:
        await adapter.close()
    assert node.bites["twice"] == 3


# -- connections that cannot be made -------------------------------------------------------------


async def test_who_asks_for_offers_at_once_reads_one_list(node: FaultyNode) -> None:
    """A graph of twelve nodes made twelve requests for the same list."""
    adapter = OpenAI("far", node.url, NETWORK, GAIA, SETTINGS)
    nodes = [question(max_tokens=tokens) for tokens in range(8, 20)]
    specs = [TaskSpec(node=asked, load=infer_load(2, asked)) for asked in nodes]
    given_up = asyncio.create_task(adapter.offers(specs[0]))
    await asyncio.sleep(0)  # by now it waits for the list
    others = [asyncio.create_task(adapter.offers(spec)) for spec in specs]
    await asyncio.sleep(0)
    given_up.cancel()
    assert all([await other for other in others])
    assert given_up.cancelled()
    assert node.lists == 1
    await adapter.describe()  # which looks again
    assert node.lists == 2
    await adapter.close()


async def test_a_list_that_cannot_be_read_is_asked_for_again(node: FaultyNode) -> None:
    adapter = OpenAI("far", "http://127.0.0.1:9/v1", NETWORK, GAIA, SETTINGS)
    asked = question()
    spec = TaskSpec(node=asked, load=infer_load(2, asked))
    with pytest.raises(Unavailable):
        await adapter.offers(spec)
    adapter._http.url = node.url.removesuffix("/v1")
    assert await adapter.offers(spec)
    await adapter.close()


async def test_a_host_that_nobody_knows_is_told_as_that() -> None:
    http = Http("far", "http://no-such-host.invalid")
    with pytest.raises(Unavailable, match=r"DNS knows no host 'no-such-host\.invalid'") as raised:
        await http.send("GET", "/")
    assert not raised.value.unknown
    assert "http://no-such-host.invalid" in raised.value.hint
    await http.close()


async def test_a_server_that_speaks_no_tls_is_told_as_that() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    http = Http("far", f"https://127.0.0.1:{port}")
    with pytest.raises(Unavailable, match="does not speak TLS") as raised:
        await http.send("POST", "/", json={})
    assert not raised.value.unknown
    await http.close()
    server.close()


# -- runs ----------------------------------------------------------------------------------------


async def run(journal: Journal, folder: Path, *nodes: FaultyNode) -> RunResult:
    """Run one question with providers `p0`, `p1`, ..., dearer from one to the next."""
    graph = JobGraph("hello")
    graph.infer("greet", model="m", prompt="hello", max_tokens=8)
    providers = {}
    for number, node in enumerate(nodes):
        rates = {
            unit: replace(rate, amount=rate.amount * (1 + number)) for unit, rate in PRICES.items()
        }
        settings = EndpointSettings(prices=rates, models={"m": "m"})
        providers[f"p{number}"] = OpenAI(f"p{number}", node.url, NETWORK, GAIA, settings)
    rails, allowance = {"elsewhere": ElsewhereRail()}, Allowance()
    market = Market(NETWORK, providers, rails, allowance, WALLET, folder)
    plan = await make_plan(graph.freeze(), market, Wish(budget=usdc("1")))
    store = LocalStore(folder / "artifacts")
    means = Resources(journal, providers, rails, Budget(allowance), allowance, store, folder)
    try:
        return await (await runs.start(means, plan)).result()
    finally:
        for provider in providers.values():
            await provider.close()


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    journal = await Journal.open(tmp_path / "home", WALLET)
    yield journal
    await journal.close()


async def test_a_bill_above_the_at_most_counts_up_to_it(
    journal: Journal, tmp_path: Path, node: FaultyNode
) -> None:
    node.fault = "long prompt"
    async with FaultyNode() as other:
        await run(journal, tmp_path, node, other)
    attempts = await journal.commit(lambda tx: tx.every(r.Reservation))
    (refused,) = [attempt for attempt in attempts if attempt.provider == "p0"]
    assert (refused.standing, refused.spent) == ("charged, not received", refused.amount)


@pytest.mark.parametrize("fault", [*BILLED_BY_COUNT, *UNCOUNTED, "no credit", "moved"])
async def test_the_next_provider_is_asked_and_both_bills_count(
    journal: Journal, tmp_path: Path, node: FaultyNode, fault: str
) -> None:
    node.fault = fault
    async with FaultyNode() as other:
        result = await run(journal, tmp_path, node, other)
    assert result.artifacts["greet"][0].open().read() == b"Hello there."
    assert (node.bites[fault], len(other.requests)) == (1, 1)

    attempts = await journal.commit(lambda tx: tx.every(r.Reservation))
    (refused,) = [attempt for attempt in attempts if attempt.provider == "p0"]
    if fault in BILLED_BY_COUNT:
        assert (refused.standing, refused.spent) == ("charged, not received", BILLED)
    elif fault in UNCOUNTED:
        assert (refused.standing, refused.spent) == ("uncertain", refused.amount)
    else:
        assert (refused.standing, refused.spent) == ("unpaid", None)


@pytest.mark.parametrize("fault", LOST)
async def test_after_half_an_answer_no_other_is_asked(
    journal: Journal, tmp_path: Path, node: FaultyNode, fault: str
) -> None:
    node.fault = fault
    async with FaultyNode() as other:
        with pytest.raises(RunPaused) as paused:
            await run(journal, tmp_path, node, other)
    assert paused.value.uncertain
    assert "no end" in paused.value.why or "lost" in paused.value.why
    assert not other.requests
