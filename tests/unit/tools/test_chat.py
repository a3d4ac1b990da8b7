"""What a LangChain chat model asks for, and what it refuses before anything is planned."""

import copy
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableBinding
from langchain_core.tools import tool
from pydantic import BaseModel
from support.toy_market import usdc

from agentkit.agent import Agent
from agentkit.errors import OverBudget, WrongInput
from agentkit.graph.messages import ToolFunction, ToolSpec
from agentkit.planner import policy
from agentkit.tools import ChatAgentKit
from agentkit.tools.chat_messages import to_chunk

HI = [HumanMessage("Hi")]

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "langchain.md"


class Weather(BaseModel):
    """What the weather is."""

    city: str
    days: int | None = None


class Answer(TypedDict):
    """An answer."""

    text: str


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def look(city: str) -> str:
    """Look out of a window in a city."""
    return city


def chat(**fields: Any) -> ChatAgentKit:
    return ChatAgentKit(model="m", **fields)


def node(model: Any, /, **options: Any) -> dict[str, Any]:
    """Return the node that a call of a model, or of one with options bound, is in its graph."""
    if isinstance(model, RunnableBinding):
        bound = {**model.kwargs, **options}
        bound.pop("ls_structured_output_format", None)  # which LangChain takes out
        return node(model.bound, **bound)
    stop = options.pop("stop", None)
    (asked,) = model._graph(HI, stop, **options).freeze().nodes
    return dict(asked.identity())


# -- options -------------------------------------------------------------------------------------


def test_the_fields_of_a_model_are_options_of_its_calls() -> None:
    model = chat(
        max_tokens=8,
        temperature=0.5,
        stop=["END"],
        seed=7,
        top_p=0.9,
        timeout=60,
        max_retries=1,
    )
    asked = node(model)
    assert asked == {
        "kind": "infer",
        "name": "chat",
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 8,
        "temperature": 0.5,
        "stop": ["END"],
        "seed": 7,
        "top_p": 0.9,
        "timeout": 60.0,
        "retries": 1,
    }


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("model", "model", "other"),
        ("max_tokens", "max_tokens", 9),
        ("max_completion_tokens", "max_tokens", 9),
        ("temperature", "temperature", 0.7),
        ("stop", "stop", ["STOP"]),
        ("seed", "seed", 8),
        ("top_p", "top_p", 0.5),
        ("timeout", "timeout", 5.0),
        ("max_retries", "retries", 0),
    ],
)
def test_an_option_of_a_call_wins(option: str, field: str, value: Any) -> None:
    model = chat(max_tokens=8, temperature=0.5, stop=["END"], seed=7, top_p=0.9, timeout=60)
    plain = node(model)
    assert node(model, **{option: value}) == {**plain, field: value}
    assert node(model.bind(**{option: value})) == {**plain, field: value}
    assert node(model, **{option: None}) == plain


def test_a_stop_alone_is_one_text_and_an_empty_list_is_none() -> None:
    assert node(chat(stop="END"))["stop"] == ["END"]
    assert node(chat(), stop="END")["stop"] == ["END"]
    assert "stop" not in node(chat(stop=["END"]), stop=[])


def test_the_newer_name_of_max_tokens_makes_a_model_too() -> None:
    assert chat(max_completion_tokens=9).max_tokens == 9


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"top_k": 5}, "'top_k'"),
        ({"temprature": 0.5}, "'temprature'"),
        ({"n": 2}, "n=2"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"stop": ["\ud83d"]}, "surrogate"),
        ({"tools": [3]}, "not a tool"),
        ({"tools": [{"type": "web_search"}]}, "a provider runs itself"),
        ({"tools": [{"type": "function", "function": {}}]}, "not a function"),
        ({"tools": [{"type": "function", "function": {"name": 3}}]}, "name"),
        ({"tools": [look, look]}, "same name"),
        ({"tools": [add], "tool_choice": "look"}, "'look'"),
        ({"tool_choice": "any"}, "needs tools"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"tools": [add], "response_format": {"type": "json_object"}}, "exclude"),
    ],
)
def test_what_cannot_be_sent_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(WrongInput) as raised:
        node(chat(), **options)
    assert why in str(raised.value)
    assert raised.value.hint
    with pytest.raises(WrongInput):
        chat().invoke("Hi", **options)


@pytest.mark.parametrize("options", [{"n": 1}, {"stream": False}, {"tools": []}, {"tools": None}])
def test_options_that_change_nothing_are_taken(options: dict[str, Any]) -> None:
    assert node(chat(), **options) == node(chat())


@pytest.mark.parametrize("field", [{"temprature": 0.5}, {"api_key": "k"}, {"max_tokens": "many"}])
def test_a_model_is_not_made_with_what_it_would_ignore(field: dict[str, Any]) -> None:
    with pytest.raises(WrongInput) as raised:
        chat(**field)
    assert next(iter(field)) in str(raised.value)


# -- tools ---------------------------------------------------------------------------------------


def named(asked: dict[str, Any]) -> list[str]:
    return [one["function"]["name"] for one in asked["tools"]]


def test_tools_of_every_form_are_in_the_document() -> None:
    spec = ToolSpec(function=ToolFunction(name="spec"))
    plain = {"type": "function", "function": {"name": "plain", "description": "It."}}
    model = chat().bind_tools([add, look, Weather, plain, spec])  # type: ignore[list-item]
    asked = node(model)
    assert named(asked) == ["add", "look", "Weather", "plain", "spec"]
    assert asked["tools"][0]["function"] == {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    }
    assert "tool_choice" not in asked
    assert node(chat(), tools=[add, look, Weather, plain, spec]) == asked


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        ("any", "required"),
        (True, "required"),
        ("required", "required"),
        ("none", "none"),
        ("look", "look"),
        ({"type": "function", "function": {"name": "look"}}, "look"),
        ("auto", None),
        (False, None),
        (None, None),
    ],
)
def test_what_a_model_is_told_about_its_tools(given: Any, choice: str | None) -> None:
    asked = node(chat().bind_tools([add, look], tool_choice=given))
    assert asked.get("tool_choice") == choice


@pytest.mark.parametrize(
    "given", ["sea", {"type": "function", "function": {"name": "sea"}}, {"type": "any"}, 3]
)
def test_a_choice_of_no_tool_is_refused_when_it_is_bound(given: Any) -> None:
    with pytest.raises(WrongInput, match="names none of the tools"):
        chat().bind_tools([add], tool_choice=given)


def test_no_tools_bind_none() -> None:
    assert node(chat().bind_tools([])) == node(chat())
    assert node(chat().bind_tools([], tool_choice="auto", seed=3)) == node(chat(seed=3))
    with pytest.raises(WrongInput, match="needs tools"):
        chat().bind_tools([], tool_choice="any")


def test_options_that_are_bound_with_tools_are_checked_at_once() -> None:
    for options in ({"parallel_tool_calls": False}, {"strict": True}):
        with pytest.raises(WrongInput, match=next(iter(options))):
            chat().bind_tools([add], **options)


# -- structured output ---------------------------------------------------------------------------


def first(model: Any) -> Any:
    """Return the first step of a chain."""
    return model.steps__["raw"] if hasattr(model, "steps__") else model.first


def test_structured_output_by_a_tool_requires_its_call() -> None:
    asked = node(first(chat().with_structured_output(Weather)))
    assert named(asked) == ["Weather"]
    assert asked["tool_choice"] == "required"
    assert "output" not in asked


@pytest.mark.parametrize("schema", [Weather, Weather.model_json_schema()])
def test_structured_output_by_a_schema_is_the_output_of_the_node(schema: Any) -> None:
    asked = node(first(chat().with_structured_output(schema, method="json_schema")))
    assert asked["output"]["properties"]["city"]["type"] == "string"
    assert "default" not in asked["output"]["properties"]["days"]  # null, which TOML has not
    assert "tools" not in asked


def test_structured_output_of_a_typed_dict() -> None:
    asked = node(first(chat().with_structured_output(Answer, method="json_schema")))
    assert asked["output"]["required"] == ["text"]


def test_json_mode_is_held_to_the_schema_too() -> None:
    asked = node(first(chat().with_structured_output(Weather, method="json_mode")))
    assert asked["output"]["required"] == ["city"]


def test_a_stream_is_one_chunk_of_the_whole_answer() -> None:
    call = {"name": "add", "args": {"a": 1}, "id": "c1"}
    whole = AIMessage("Hi", tool_calls=[call], response_metadata={"model_name": "m"})
    chunk = to_chunk(whole)
    assert (chunk.content, chunk.chunk_position) == ("Hi", "last")
    assert chunk.tool_calls == whole.tool_calls
    assert chunk.response_metadata == {"model_name": "m"}


@pytest.mark.parametrize(
    "options", [{"method": "magic"}, {"tools": [add]}, {"method": "json_schema", "schema": 3}]
)
def test_structured_output_refuses_what_it_has_not(options: dict[str, Any]) -> None:
    with pytest.raises(WrongInput):
        chat().with_structured_output(**{"schema": Weather, **options})


# -- identity ------------------------------------------------------------------------------------


CHANGES: list[dict[str, Any]] = [
    {"model": "other"},
    {"max_tokens": 9},
    {"temperature": 0.7},
    {"stop": ["END"]},
    {"seed": 7},
    {"top_p": 0.5},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_caches_tell_models_and_calls_apart_by_all_that_changes_an_answer(
    change: dict[str, Any],
) -> None:
    plain = chat()
    other = ChatAgentKit(**{"model": "m", **change})
    assert other._identifying_params != plain._identifying_params
    assert other._get_llm_string() != plain._get_llm_string()
    assert plain._get_llm_string(**change) != plain._get_llm_string()
    assert plain._get_llm_string(**change) == plain._get_llm_string(**change)


def test_caches_tell_tools_and_schemas_apart() -> None:
    texts = {
        chat()._get_llm_string(**options)
        for options in (
            {},
            {"tools": [add]},
            {"tools": [add], "tool_choice": "any"},
            {"tools": [look]},
            {"response_format": {"type": "json_object"}},
        )
    }
    assert len(texts) == 5
    assert not any(" at 0x" in text for text in texts)


def test_traces_say_what_is_asked() -> None:
    model = chat(temperature=0.5, max_tokens=8, stop="END")
    assert model._get_ls_params() == {
        "ls_provider": "agentkit",
        "ls_model_type": "chat",
        "ls_model_name": "m",
        "ls_temperature": 0.5,
        "ls_max_tokens": 8,
        "ls_stop": ["END"],
    }
    other = model._get_ls_params(stop=["X"], model="other", max_completion_tokens=9)
    assert (other["ls_stop"], other["ls_model_name"]) == (["X"], "other")
    assert other["ls_max_tokens"] == 9
    assert model._get_invocation_params()["stop"] == ("END",)


# -- copies --------------------------------------------------------------------------------------


class Bill:
    """The part of a plan that a budget looks at."""

    def __init__(self, at_most: Any) -> None:
        self.at_most = at_most


def spend(model: ChatAgentKit) -> None:
    """Reserve half a USDC of a model's budget for good."""
    with model._spending_limit.holding(Bill(usdc("0.5"))):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_asks_the_same_and_has_a_budget_of_its_own(
    copied: Callable[[ChatAgentKit], ChatAgentKit],
) -> None:
    model = chat(budget="0.8 USDC", temperature=0.5, stop=["END"])
    spend(model)
    other = copied(model)
    assert node(other) == node(model)
    assert other.budget == "0.8 USDC"
    spend(other)
    for one in (model, other):
        with pytest.raises(OverBudget):
            spend(one)


def test_a_shallow_copy_shares_the_budget() -> None:
    model = chat(budget="0.8 USDC")
    spend(model)
    with pytest.raises(OverBudget):
        spend(model.model_copy())


def test_a_deep_copy_has_the_same_agent_and_a_pickled_model_has_none() -> None:
    agent = Agent.from_config()
    model = chat(agent=agent)
    assert copy.deepcopy(model).agent is agent
    assert copy.deepcopy([model, model])[1].agent is agent
    assert pickle.loads(pickle.dumps(model)).agent is None
    assert model.agent is agent


def test_a_pickle_does_not_lose_its_policy_without_a_word() -> None:
    model = chat(policy=policy.allow("native"))
    assert copy.deepcopy(model).policy is not None
    with pytest.raises(WrongInput, match=r"allow\(native\)"):
        pickle.dumps(model)


# -- the page about it ---------------------------------------------------------------------------


def scripted(
    model: ChatAgentKit, messages: list[BaseMessage], stop: Any = None, **options: Any
) -> ChatResult:
    """Answer with a call of the only tool, and with text once a tool has answered."""
    (asked,) = model._graph(messages, stop, **options).freeze().nodes
    answer = AIMessage("It rains.")
    if messages[-1].type != "tool":
        called = asked.identity()["tools"][0]["function"]["name"]
        values = {"weather": {"city": "Rome"}, "City": {"name": "Rome", "people": 2_750_000}}
        answer = AIMessage("", tool_calls=[{"name": called, "args": values[called], "id": "1"}])
    return ChatResult(generations=[ChatGeneration(message=answer)])


def test_the_page_about_it_does_what_it_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ChatAgentKit, "_generate", scripted)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    known: dict[str, Any] = {}
    exec(block, known)
    assert capsys.readouterr().out == "It rains.\n"
    assert [message.type for message in known["talk"]] == ["human", "ai", "tool"]
    assert known["rome"].people == 2_750_000
