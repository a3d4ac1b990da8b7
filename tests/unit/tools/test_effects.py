"""A tool's effect happens once: what is repeated, what is refused, and what is asked."""

import asyncio
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import (
    BaseTool,
    InjectedToolCallId,
    StructuredTool,
    Tool,
    ToolException,
    tool,
)
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import InjectedState, ToolRuntime
from langgraph.types import Command, RetryPolicy, interrupt
from pydantic import BaseModel
from support.memory_fixtures import mind
from support.timing import until
from support.tool_effects import Killed, Talk, answers, home, talking, thread, tool_call

from agentkit.errors import (
    AgentKitError,
    ConfigError,
    EffectFailed,
    EffectUncertain,
    IntentMismatch,
    WrongInput,
)
from agentkit.journal.journal import Journal
from agentkit.memory.knowledge.effects import MOST_RESULT
from agentkit.tools import NOT_HAPPENED, once
from agentkit.tools.effect_journals import JOURNALS

__all__ = ["home"]

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "once.md"


class World:
    """What tools did: a line for each effect."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fails_with: BaseException | None = None

    def do(self, what: str) -> str:
        """Have an effect, and then fail if that is asked for."""
        self.done.append(what)
        if self.fails_with is not None:
            raise self.fails_with
        return f"did {what}, number {len(self.done)}"


@pytest.fixture
def world() -> World:
    return World()


def doing(world: World) -> BaseTool:
    @tool
    def do(what: str) -> str:
        """Do something that cannot be undone."""
        return world.do(what)

    return do


def adoing(world: World) -> BaseTool:
    @tool
    async def do(what: str) -> str:
        """Do something that cannot be undone."""
        await asyncio.sleep(0)
        return world.do(what)

    return do


class Doing(BaseTool):
    """A tool of a class of its own, which calls its synchronous half from the other one."""

    name: str = "do"
    description: str = "Do something that cannot be undone."
    world: Any = None

    def _run(self, what: str) -> str:
        return str(self.world.do(what))

    async def _arun(self, what: str) -> str:
        return self._run(what)


KINDS = {
    "function": doing,
    "coroutine": adoing,
    "class": lambda world: Doing(world=world),
    "simple": lambda world: Tool(name="do", func=world.do, description="Do something."),
}


# -- a repeated call -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_repeated_call_returns_the_result_of_the_first(
    home: Path, world: World, kind: str
) -> None:
    do = once(KINDS[kind](world), home=home)
    argument = {"__arg1": "a"} if kind == "simple" else {"what": "a"}
    first = await do.ainvoke(tool_call("do", **argument))
    again = await do.ainvoke(tool_call("do", **argument))
    assert first == again
    assert isinstance(first, ToolMessage)
    assert first.content == "did a, number 1"
    other = await do.ainvoke(tool_call("do", 2, **argument))
    assert other.content == "did a, number 2"


@pytest.mark.parametrize("kind", ["function", "class", "simple"])
def test_synchronous_code_has_the_same(home: Path, world: World, kind: str) -> None:
    do = once(KINDS[kind](world), home=home)
    argument = {"__arg1": "a"} if kind == "simple" else {"what": "a"}
    assert do.invoke(tool_call("do", **argument)) == do.invoke(tool_call("do", **argument))
    assert asyncio.run(do.ainvoke(tool_call("do", **argument))).content == "did a, number 1"
    assert world.done == ["a"]


async def test_another_journal_on_the_same_folder_knows_it(home: Path, world: World) -> None:
    await once(doing(world), home=home).ainvoke(tool_call("do", what="a"))
    await JOURNALS.close()
    await once(doing(world), home=home).ainvoke(tool_call("do", what="a"))
    assert world.done == ["a"]
    assert list((home / "leases").iterdir()) == []


async def test_an_agents_journal_keeps_effects_too(tmp_path: Path, world: World) -> None:
    async with mind(tmp_path) as one:
        do = once(doing(world), agent=one)
        assert do.invoke(tool_call("do", what="a")) == do.invoke(tool_call("do", what="a"))
        assert world.done == ["a"]
        await one.journal.check()


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_goes_by_its_key(home: Path, world: World, is_async: bool) -> None:
    async def ado(what: str, times: int = 1) -> str:
        """Do it."""
        return world.do(what * times)

    def do(what: str, times: int = 1) -> str:
        """Do it."""
        return world.do(what * times)

    function: Any = ado if is_async else do
    guarded = once(function, key=lambda what, times=1: f"order {what}", home=home)
    assert (guarded.__name__, guarded.__doc__) == (function.__name__, "Do it.")
    calls = [guarded("a"), guarded(what="a", times=1), guarded("b")]
    results = [await call if is_async else call for call in calls]
    assert results == ["did a, number 1", "did a, number 1", "did b, number 2"]
    with pytest.raises(IntentMismatch, match="other arguments"):
        _ = await guarded("a", 2) if is_async else guarded("a", 2)
    assert world.done == ["a", "b"]


class Receipt(BaseModel):
    number: int


@pytest.mark.parametrize(
    "result",
    [
        None,
        ["a", 1, None],
        ("content", {"artifact": [1.5, "x"]}),
        HumanMessage("a message"),
        Command(update={"messages": [ToolMessage("done", tool_call_id="call-1")]}),
        "x" * 100_000,
        Receipt(number=7),
    ],
    ids=lambda result: type(result).__name__,
)
async def test_results_of_many_kinds_are_returned_again(home: Path, result: Any) -> None:
    runs: list[str] = []

    async def do(what: str) -> Any:
        runs.append(what)
        return result

    guarded = once(do, key="k", home=home, allow=[Receipt])
    assert await guarded("a") == result
    assert await guarded("a") == result
    assert runs == ["a"]


async def test_content_and_artifact_of_a_message_are_both_repeated(home: Path) -> None:
    runs: list[str] = []

    @tool(response_format="content_and_artifact")
    def do(what: str) -> tuple[str, dict[str, Any]]:
        """Do it."""
        runs.append(what)
        return f"did {what}", {"rows": [1, 2], "of": what}

    guarded = once(do, home=home)
    first = await guarded.ainvoke(tool_call("do", what="a"))
    again = await guarded.ainvoke(tool_call("do", what="a"))
    assert first == again
    assert (again.content, again.artifact) == ("did a", {"rows": [1, 2], "of": "a"})
    assert runs == ["a"]


@pytest.mark.parametrize("result", [object(), "x" * MOST_RESULT], ids=["class", "size"])
async def test_what_cannot_be_stored_is_not_done_twice_for_that(
    home: Path, result: Any, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[str] = []

    def do(what: str) -> Any:
        runs.append(what)
        return result

    guarded = once(do, key="k", home=home)
    assert guarded("a") is result
    assert "cannot be returned to a repeated call" in caplog.text
    for on_unknown in ("raise", "again"):
        with pytest.raises(EffectUncertain, match="happened before, but"):
            once(do, key="k", home=home, on_unknown=on_unknown)("a")
    assert runs == ["a"]


# -- what a call goes by -------------------------------------------------------------------------


async def test_a_call_with_other_arguments_is_refused(home: Path, world: World) -> None:
    do = once(doing(world), home=home)
    await do.ainvoke(tool_call("do", what="a"))
    with pytest.raises(IntentMismatch, match="'do' was called before under this key"):
        await do.ainvoke(tool_call("do", what="b"))
    assert world.done == ["a"]


async def test_threads_and_tools_have_calls_of_their_own(home: Path, world: World) -> None:
    do, call = once(doing(world), home=home), tool_call("do", what="a")
    for name in ("one", "two", "one"):
        await do.ainvoke(call, thread(name))
    assert len(world.done) == 2
    renamed = doing(world)
    renamed.name = "redo"
    await once(renamed, home=home).ainvoke(tool_call("redo", what="a"), thread("one"))
    assert len(world.done) == 3


async def test_a_key_of_ones_own_holds_in_every_thread(home: Path, world: World) -> None:
    do = once(doing(world), home=home, key=lambda what: f"order {what}")
    for number, name in enumerate(("one", "two")):
        await do.ainvoke(tool_call("do", number, what="a"), thread(name))
        await do.ainvoke({"what": "a"})
    assert world.done == ["a"]
    always = once(doing(world), home=home, key="the one time")
    await always.ainvoke({"what": "b"})
    await always.ainvoke({"what": "b"})
    assert world.done == ["a", "b"]


async def test_what_nothing_identifies_is_not_run(home: Path, world: World) -> None:
    do = once(doing(world), home=home)
    for call in ({"what": "a"}, tool_call("do", what="a") | {"id": None}):
        with pytest.raises(WrongInput, match="has no id"):
            await do.ainvoke(call)
    with pytest.raises(WrongInput, match="called past LangChain"):
        do._run(what="a")
    for key in ("", lambda what: 7):
        with pytest.raises(WrongInput, match="not a text"):
            await once(doing(world), key=key, home=home).ainvoke(tool_call("do", what="a"))
    with pytest.raises(WrongInput, match="cannot be compared"):
        once(lambda what: world.do("a"), key="k", home=home)(object())
    assert world.done == []


def test_what_cannot_be_once_is_refused_at_once(tmp_path: Path, world: World) -> None:
    with pytest.raises(ConfigError, match="has no id") as refused:
        once(world.do, home=tmp_path)  # type: ignore[call-overload]  # a function needs a key
    assert "pass key=" in refused.value.hint
    with pytest.raises(ConfigError, match="one journal"):
        once(doing(world), agent=object(), home=tmp_path)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="not a choice"):
        once(doing(world), home=tmp_path, on_unknown="never")  # type: ignore[call-overload]
    for guarded in (once(doing(world), home=tmp_path), once(world.do, key="k", home=tmp_path)):
        with pytest.raises(ConfigError, match="once already"):
            once(guarded, key="k", home=tmp_path)


async def test_the_folder_of_an_agent_is_not_taken(tmp_path: Path, world: World) -> None:
    async with mind(tmp_path):
        with pytest.raises(ConfigError, match="is an agent's"):
            await once(doing(world), home=tmp_path).ainvoke(tool_call("do", what="a"))
    assert world.done == []


# -- the tool stays the same to others -----------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_shown_the_same_tool(home: Path, world: World, kind: str) -> None:
    plain = KINDS[kind](world)
    plain.tags, plain.metadata, plain.return_direct = ["t"], {"m": 1}, True
    guarded = once(plain, home=home)
    assert isinstance(guarded, type(plain))
    assert convert_to_openai_tool(guarded) == convert_to_openai_tool(plain)
    for name in type(plain).model_fields:
        assert getattr(guarded, name) == getattr(plain, name), name


async def test_what_langgraph_injects_is_no_argument(home: Path) -> None:
    seen: list[Any] = []

    @tool
    def do(
        what: str,
        state: Annotated[dict[str, Any], InjectedState],
        call: Annotated[str, InjectedToolCallId],
        runtime: ToolRuntime,
    ) -> str:
        """Do it."""
        seen.append((what, len(state["messages"]), call, runtime.tool_call_id))
        return "done"

    guarded = once(do, home=home)
    app = talking([guarded], [tool_call("do", what="a")], checkpointer=InMemorySaver())
    for text in ("hello", "hello again"):  # the state differs, and the call is the same
        assert answers(await app.ainvoke({"messages": [text]}, thread()))[-1] == "done"
    assert seen == [("a", 2, "call-1", "call-1")]


async def test_a_schema_in_json_is_compared_by_its_properties(home: Path, world: World) -> None:
    async def run(runtime: Any = None, **arguments: Any) -> str:
        return world.do(arguments["what"])

    schema = {"type": "object", "properties": {"what": {"type": "string"}}}
    remote = StructuredTool(name="do", description="d", args_schema=schema, coroutine=run)
    do = once(remote, home=home)
    for runtime in (object(), object()):
        await do.ainvoke(tool_call("do", what="a", runtime=runtime))
    with pytest.raises(IntentMismatch):
        await do.ainvoke(tool_call("do", what="b"))
    assert world.done == ["a"]


# -- errors --------------------------------------------------------------------------------------


async def test_what_a_tool_raises_counts_as_not_happened(home: Path, world: World) -> None:
    do = once(adoing(world), home=home)
    world.fails_with = ValueError("no")
    with pytest.raises(ValueError, match=r"^no$"):
        await do.ainvoke(tool_call("do", what="a"))
    world.fails_with = None
    assert (await do.ainvoke(tool_call("do", what="a"))).content == "did a, number 2"
    assert (await do.ainvoke(tool_call("do", what="a"))).content == "did a, number 2"


async def test_an_error_that_is_remembered_is_raised_again(home: Path, world: World) -> None:
    do = once(doing(world), home=home, remember_errors=True)
    world.fails_with = ValueError("no funds")
    with pytest.raises(ValueError, match=r"^no funds$"):
        await do.ainvoke(tool_call("do", what="a"))
    world.fails_with = None
    with pytest.raises(EffectFailed, match="'do' raised ValueError before: no funds") as told:
        await do.ainvoke(tool_call("do", what="a"))
    assert told.value.error == "ValueError"
    assert world.done == ["a"]


async def test_a_remembered_error_is_handled_by_the_tool_as_at_first(
    home: Path, world: World
) -> None:
    plain = doing(world)
    plain.handle_tool_error = True
    do = once(plain, home=home, remember_errors=True)
    world.fails_with = ToolException("no funds")
    messages = [await do.ainvoke(tool_call("do", what="a")) for _ in range(2)]
    assert messages[0] == messages[1]
    assert (messages[1].status, messages[1].content) == ("error", "no funds")
    assert world.done == ["a"]


@pytest.mark.parametrize("error", [TimeoutError("late"), EffectUncertain("lost", tool="", hint="")])
async def test_an_error_may_leave_the_outcome_unknown(
    home: Path, world: World, error: Exception
) -> None:
    do = once(adoing(world), home=home, unknown_errors=[TimeoutError])
    world.fails_with = error
    with pytest.raises(type(error)):
        await do.ainvoke(tool_call("do", what="a"))
    with pytest.raises(EffectUncertain, match="may have happened"):
        await do.ainvoke(tool_call("do", what="a"))
    assert world.done == ["a"]


# -- nobody knows --------------------------------------------------------------------------------


@pytest.fixture(params=["function", "coroutine"])
def killed(home: Path, world: World, request: pytest.FixtureRequest) -> BaseTool:
    """A tool that was killed once after its effect, in the call `call-1`."""
    plain = KINDS[request.param](world)
    world.fails_with = Killed()
    with pytest.raises(Killed):
        asyncio.run(once(plain, home=home).ainvoke(tool_call("do", what="a")))
    world.fails_with = None
    assert world.done == ["a"]
    return plain


def call_again(killed: BaseTool, home: Path, **how: Any) -> str:
    do = once(killed, home=home, **how)
    return str(asyncio.run(do.ainvoke(tool_call("do", what="a"))).content)


def test_an_unknown_outcome_is_an_error(killed: BaseTool, home: Path, world: World) -> None:
    for _ in range(2):
        with pytest.raises(EffectUncertain, match=r"'do' began at 20.*happened or not") as told:
            call_again(killed, home)
        assert not told.value.running
        assert told.value.exit_code == 5
        assert "on_unknown" in told.value.hint
    assert world.done == ["a"]


def test_an_unknown_outcome_may_be_done_again(killed: BaseTool, home: Path, world: World) -> None:
    assert call_again(killed, home, on_unknown="again") == "did a, number 2"
    assert call_again(killed, home, on_unknown="again") == "did a, number 2"
    assert call_again(killed, home) == "did a, number 2"
    assert world.done == ["a", "a"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_function_may_say_what_became_of_it(
    killed: BaseTool, home: Path, world: World, is_async: bool
) -> None:
    asked: list[str] = []

    async def afind(what: str) -> str:
        asked.append(what)
        return "found"

    def find(what: str) -> str:
        asked.append(what)
        return "found"

    on_unknown: Any = afind if is_async else find
    if is_async and killed.coroutine is None:
        with pytest.raises(ConfigError, match="on_unknown of the tool 'do' is async"):
            call_again(killed, home, on_unknown=on_unknown)
        assert world.done == ["a"]
        return
    assert call_again(killed, home, on_unknown=on_unknown) == "found"
    assert call_again(killed, home) == "found"
    assert asked == ["a"]
    assert world.done == ["a"]


def test_a_function_may_say_that_it_did_not_happen(
    killed: BaseTool, home: Path, world: World
) -> None:
    def cannot_say(what: str) -> str:
        raise AgentKitError("the shop does not answer")

    with pytest.raises(AgentKitError, match="does not answer"):
        call_again(killed, home, on_unknown=cannot_say)
    assert world.done == ["a"]
    assert call_again(killed, home, on_unknown=lambda what: NOT_HAPPENED) == "did a, number 2"
    assert call_again(killed, home) == "did a, number 2"
    assert repr(NOT_HAPPENED) == "NOT_HAPPENED"


def test_an_unknown_effect_has_its_arguments_too(
    killed: BaseTool, home: Path, world: World
) -> None:
    do = once(killed, home=home, on_unknown="again")
    with pytest.raises(IntentMismatch):
        asyncio.run(do.ainvoke(tool_call("do", what="b")))
    assert world.done == ["a"]


async def test_a_cancelled_tool_has_an_unknown_outcome(home: Path) -> None:
    inside = asyncio.Event()

    @tool
    async def do(what: str) -> str:
        """Do it."""
        inside.set()
        await asyncio.sleep(3600)
        return "never"

    guarded = once(do, home=home)
    call = asyncio.create_task(guarded.ainvoke(tool_call("do", what="a")))
    await inside.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(EffectUncertain, match="may have happened"):
        await guarded.ainvoke(tool_call("do", what="a"))


@pytest.mark.parametrize("entry", ["ainvoke", "arun"])
async def test_a_cancelled_call_does_not_lose_what_a_thread_went_on_to_do(
    home: Path, entry: str
) -> None:
    inside, go_on, runs = threading.Event(), threading.Event(), []

    @tool
    def do(what: str) -> str:
        """Do it."""
        inside.set()
        go_on.wait(30)
        runs.append(what)
        return "done"

    guarded = once(do, home=home)
    starting = (
        guarded.ainvoke(tool_call("do", what="a"))
        if entry == "ainvoke"
        else guarded.arun({"what": "a"}, tool_call_id="call-1")
    )
    call = asyncio.create_task(starting)
    await asyncio.to_thread(inside.wait, 30)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go_on.set()
    assert (await guarded.ainvoke(tool_call("do", what="a"))).content == "done"
    assert runs == ["a"]


# -- at the same time ----------------------------------------------------------------------------


async def test_of_two_calls_at_once_one_runs_and_the_other_gets_its_result(
    home: Path, world: World
) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    @tool
    async def do(what: str) -> str:
        """Do it."""
        inside.set()
        await go_on.wait()
        return world.do(what)

    guarded = once(do, home=home)
    calls = [asyncio.create_task(guarded.ainvoke(tool_call("do", what="a"))) for _ in range(5)]
    await inside.wait()
    hurried = once(do, home=home, patience=0.0)
    with pytest.raises(EffectUncertain, match="still at work") as told:
        await hurried.ainvoke(tool_call("do", what="a"))
    assert told.value.running
    go_on.set()
    assert {message.content for message in await asyncio.gather(*calls)} == {"did a, number 1"}
    assert world.done == ["a"]


def test_threads_do_not_run_it_twice_either(home: Path, world: World) -> None:
    do = once(doing(world), home=home)
    with ThreadPoolExecutor(8) as threads:
        jobs = [threads.submit(do.invoke, tool_call("do", what="a")) for _ in range(8)]
        assert {job.result().content for job in jobs} == {"did a, number 1"}
    assert world.done == ["a"]
    hurried = once(doing(world), home=home, patience=0.0)
    assert hurried.invoke(tool_call("do", what="a")).content == "did a, number 1"


# -- what nobody reads ---------------------------------------------------------------------------


async def test_neither_arguments_nor_keys_are_stored_or_logged(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "s3cr3t-argument"

    def do(token: str) -> object:
        return object()

    caplog.set_level(0)
    guarded = once(do, key=lambda token: f"key of {token}", home=home)
    guarded(secret)
    with pytest.raises(EffectUncertain) as lost:
        guarded(secret)
    with pytest.raises(IntentMismatch) as mismatch:
        once(do, key=f"key of {secret}", home=home)("other")
    told = [caplog.text, str(lost.value), str(mismatch.value)]
    assert not [text for text in told if secret in text]
    await JOURNALS.close()
    for path in home.rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes()


# -- LangGraph, as in langchain-ai/langgraph#7417 and #8464 ---------------------------------------


async def resumed(world: World, tools: list[BaseTool], calls: list[Any]) -> list[str]:
    """Run a thread of which one tool asks a person, and go on with its answer."""

    @tool
    def ask(question: str) -> str:
        """Ask a person."""
        return f"they said {interrupt(question)}"

    asking = [*calls, tool_call("ask", 9, question="may I?")]
    app = talking([*tools, ask], asking, checkpointer=InMemorySaver())
    paused = await app.ainvoke({"messages": ["go"]}, thread())
    assert paused["__interrupt__"]
    await until(lambda: len(world.done) == len(calls))
    return answers(await app.ainvoke(Command(resume="yes"), thread()))


async def test_a_tool_beside_one_that_interrupts_is_not_run_again(home: Path, world: World) -> None:
    calls = [tool_call("do", 1, what="a"), tool_call("do", 2, what="b")]
    told = await resumed(world, [once(doing(world), home=home)], calls)
    # The calls of one message run in threads of their own: either may be the first.
    assert [text.split(",")[0] for text in told[:2]] == ["did a", "did b"]
    assert told[2] == "they said yes"
    assert sorted(world.done) == ["a", "b"]

    naive = World()  # the control: without `once` both happen twice
    await resumed(naive, [doing(naive)], calls)
    assert sorted(naive.done) == ["a", "a", "b", "b"]


@pytest.mark.parametrize("remember_errors", [False, True])
async def test_an_interrupt_inside_the_tool_is_no_outcome(
    home: Path, world: World, remember_errors: bool
) -> None:
    @tool
    def do(what: str) -> str:
        """Do it if a person lets us."""
        return world.do(what) if interrupt("may I?") == "yes" else "refused"

    guarded = once(do, home=home, remember_errors=remember_errors)
    app = talking([guarded], [tool_call("do", what="a")], checkpointer=InMemorySaver())
    await app.ainvoke({"messages": ["go"]}, thread())
    assert world.done == []
    assert answers(await app.ainvoke(Command(resume="yes"), thread())) == ["did a, number 1"]
    assert world.done == ["a"]


async def test_of_parallel_calls_only_the_one_that_crashed_runs_again(
    home: Path, world: World
) -> None:
    class ShopDown(Exception):
        pass

    tries: list[str] = []

    @tool
    def flaky(what: str) -> str:
        """Fail once."""
        tries.append(what)
        if len(tries) == 1:
            raise ShopDown
        return "at last"

    calls = [tool_call("do", 1, what="a"), tool_call("flaky", 2, what="b")]
    tools = [once(doing(world), home=home), once(flaky, home=home)]
    app = talking(tools, calls, checkpointer=InMemorySaver())
    with pytest.raises(ShopDown):
        await app.ainvoke({"messages": ["go"]}, thread())
    await until(lambda: world.done == ["a"])
    assert answers(await app.ainvoke(None, thread())) == ["did a, number 1", "at last"]
    assert (world.done, tries) == (["a"], ["b", "b"])


async def test_a_node_that_is_tried_again_does_nothing_twice(home: Path, world: World) -> None:
    do = once(doing(world), home=home)
    tries: list[int] = []

    async def node(state: Talk) -> Any:
        message = await do.ainvoke(tool_call("do", what="a"), thread())
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("after the effect, before the checkpoint")
        return {"messages": [message]}

    graph = StateGraph(Talk)
    policy = RetryPolicy(initial_interval=0.001, max_attempts=3, jitter=False)
    graph.add_node("node", node, retry_policy=policy)
    graph.add_edge(START, "node")
    state = await graph.compile().ainvoke({"messages": ["go"]})
    assert answers(state) == ["did a, number 1"]
    assert (world.done, len(tries)) == (["a"], 3)


async def test_what_stays_unknown_stops_the_graph(home: Path, world: World) -> None:
    app = talking(
        [once(adoing(world), home=home)],
        [tool_call("do", what="a")],
        checkpointer=InMemorySaver(),
    )
    world.fails_with = Killed()
    with pytest.raises(Killed):
        await app.ainvoke({"messages": ["go"]}, thread())
    world.fails_with = None
    with pytest.raises(EffectUncertain):
        await app.ainvoke(None, thread())
    assert world.done == ["a"]


async def test_a_lost_result_is_found_by_the_second_resume(home: Path, world: World) -> None:
    """The receipt is hidden at first: the first resume fails closed, the second one returns it."""
    receipts: dict[str, str] = {}

    def find(what: str) -> str:
        if what not in receipts:
            raise EffectUncertain("the bank does not say", tool="do", hint="ask later")
        return receipts[what]

    app = talking(
        [once(adoing(world), home=home, on_unknown=find)],
        [tool_call("do", what="a")],
        checkpointer=InMemorySaver(),
    )
    world.fails_with = Killed()
    with pytest.raises(Killed):
        await app.ainvoke({"messages": ["go"]}, thread())
    with pytest.raises(EffectUncertain, match="bank"):
        await app.ainvoke(None, thread())
    receipts["a"] = "receipt 7"
    assert answers(await app.ainvoke(None, thread())) == ["receipt 7"]
    assert world.done == ["a"]


def test_the_page_about_it_does_what_it_says(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    known: dict[str, Any] = {}
    for block in blocks:
        exec(block, known)
    assert known["sent"] == ["Ada", "7"]
    for name in ("send_or_find", "careful"):
        assert known[name].invoke(known["call"]) == known["first"]
    assert len(blocks) == 4


async def test_the_journal_of_effects_is_whole(home: Path, world: World) -> None:
    do = once(doing(world), home=home)
    for number in range(5):
        await do.ainvoke(tool_call("do", number, what="a"))
    journal: Journal = await JOURNALS.open(home)
    assert await journal.check() == 10
