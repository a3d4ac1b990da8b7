"""What a LangChain chat model sends to a provider, and what it makes of the answers."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, TypedDict

import pytest
from aiohttp import web
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from agentkit.agent import Agent
from agentkit.errors import RunPaused, WrongInput
from agentkit.market.receipt import Receipt
from agentkit.planner import policy
from agentkit.testing import FAULTS, Fault, FaultyNode
from agentkit.testing.nodes import ended
from agentkit.tools import ChatAgentKit

Open = Callable[..., AbstractAsyncContextManager[Agent]]

COST = "0.00015 USDC"
"""9 tokens at 10 USDC and 3 at 20 USDC for a million."""

TALK = [
    SystemMessage("Answer {briefly}."),
    HumanMessage("What is the weather in Rome?"),
    AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Rome"}, "id": "call-1"}]),
    ToolMessage("22", tool_call_id="call-1"),
]


@tool
def weather(city: str) -> str:
    """Say what the weather is."""
    return f"rain in {city}"


class Weather(BaseModel):
    """What the weather is."""

    city: str
    degrees: int


class Sea(BaseModel):
    """What the sea is like."""

    wet: bool
    colour: Literal["blue", "grey"]


class Shore(TypedDict):
    """What a shore is like."""

    sandy: bool


@pytest.fixture
async def node() -> AsyncIterator[FaultyNode]:
    async with FaultyNode() as node:
        yield node


@pytest.fixture
async def agent(node: FaultyNode, open_agent: Open) -> AsyncIterator[Agent]:
    """An agent that may buy from the endpoint, under its own account there."""
    far = {
        "adapter": "gaia",
        "url": node.url,
        "price": {"input": "10 USDC per 1M tokens", "output": "20 USDC per 1M tokens"},
        "models": {"m": "m"},
    }
    async with open_agent(providers={"far": far}) as agent:
        yield agent


def chat(agent: Agent, **fields: Any) -> ChatAgentKit:
    return ChatAgentKit(
        **{
            "model": "m",
            "agent": agent,
            "policy": policy.allow("far"),
            "max_tokens": 8,
            "max_retries": 0,
            **fields,
        }
    )


def calls(monkeypatch: pytest.MonkeyPatch, node: FaultyNode, name: str, arguments: str) -> None:
    """Have the endpoint answer with a call of a tool."""

    async def reply(request: web.Request, model: str) -> web.StreamResponse:
        function = {"name": name, "arguments": arguments}
        call = {"id": "call-9", "type": "function", "function": function}
        return web.json_response(ended(model, "tool_calls", tool_calls=[call]))

    monkeypatch.setitem(FAULTS, "calls", Fault("calls", "a call of a tool", reply))
    node.fault = "calls"


async def test_a_conversation_and_its_options_are_sent_as_they_are(
    agent: Agent, node: FaultyNode
) -> None:
    model = chat(agent, temperature=0.5, stop=["END"], seed=7, top_p=0.9)
    answer = await model.ainvoke(TALK, max_completion_tokens=6)
    assert answer.content == "Hello there."
    function = {"name": "weather", "arguments": '{"city": "Rome"}'}
    assert node.requests == [
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Answer {briefly}."},
                {"role": "user", "content": "What is the weather in Rome?"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "call-1", "type": "function", "function": function}],
                },
                {"role": "tool", "content": "22", "tool_call_id": "call-1"},
            ],
            "max_completion_tokens": 6,
            "temperature": 0.5,
            "stop": ["END"],
            "seed": 7,
            "top_p": 0.9,
            "stream": False,
        }
    ]


async def test_an_answer_says_what_answered_how_it_ended_and_what_it_cost(
    agent: Agent, node: FaultyNode
) -> None:
    node.fault = "dated model"
    answer = await chat(agent).ainvoke("Hi")
    assert answer.usage_metadata == {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
    about = answer.response_metadata
    assert about["model_name"] == "m-2024-07-18"
    assert about["finish_reason"] == "stop"
    assert about["agentkit"]["provider"] == "far"
    assert about["agentkit"]["standing"] == "billed elsewhere"
    node.fault = "truncated"
    cut = await chat(agent).ainvoke("Hi")
    assert (cut.content, cut.response_metadata["finish_reason"]) == ("Once", "length")


async def test_a_call_of_a_tool_comes_back_and_costs_once(
    agent: Agent, node: FaultyNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls(monkeypatch, node, "weather", '{"city": "Rome"}')
    model = chat(agent).bind_tools([weather], tool_choice="any")
    answer = await model.ainvoke("What is the weather in Rome?")
    assert answer.tool_calls == [
        {"name": "weather", "args": {"city": "Rome"}, "id": "call-9", "type": "tool_call"}
    ]
    assert answer.content == ""
    assert answer.response_metadata["finish_reason"] == "tool_calls"

    (request,) = node.requests
    assert request["tool_choice"] == "required"
    (sent,) = request["tools"]
    assert sent["function"]["name"] == "weather"
    assert sent["function"]["parameters"]["required"] == ["city"]
    receipt = Receipt.model_validate(answer.response_metadata["agentkit"]["receipt"])
    assert str(receipt.amount) == COST
    assert [row.state for row in await agent.runs()] == ["done"]
    assert str((await agent.balances()).spent) == COST


async def test_the_answer_of_a_tool_goes_back_to_the_model(
    agent: Agent, node: FaultyNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole round: a question, a call, the tool, its answer, and the last word."""
    calls(monkeypatch, node, "weather", '{"city": "Rome"}')
    model = chat(agent).bind_tools([weather])
    talk: list[Any] = [HumanMessage("What is the weather in Rome?")]
    asked = await model.ainvoke(talk)
    talk += [asked, await weather.ainvoke(asked.tool_calls[0])]
    node.fault = ""
    answer = await model.ainvoke(talk)
    assert answer.content == "Hello there."
    assert answer.tool_calls == []
    _, called, told = node.requests[1]["messages"]
    assert called["tool_calls"][0]["id"] == told["tool_call_id"] == "call-9"
    assert told["content"] == "rain in Rome"


async def test_a_reply_without_the_call_that_was_required_is_not_an_answer(
    agent: Agent, node: FaultyNode
) -> None:
    with pytest.raises(RunPaused, match="calls no tool"):
        await chat(agent).bind_tools([weather], tool_choice="weather").ainvoke("Hi")
    (request,) = node.requests
    assert request["tool_choice"] == {"type": "function", "function": {"name": "weather"}}


async def test_structured_output_by_a_tool(
    agent: Agent, node: FaultyNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls(monkeypatch, node, "Weather", '{"city": "Rome", "degrees": 22}')
    model = chat(agent).with_structured_output(Weather)
    assert await model.ainvoke("Rome?") == Weather(city="Rome", degrees=22)

    calls(monkeypatch, node, "Weather", '{"city": "Rome", "degrees": "many"}')
    raw = chat(agent).with_structured_output(Weather, include_raw=True)
    both: Any = await raw.ainvoke("Rome?")
    assert both["parsed"] is None
    assert "degrees" in str(both["parsing_error"])
    assert both["raw"].tool_calls[0]["args"]["degrees"] == "many"


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 5},
        {"n": 2},
        {"stop": ["\ud83d"]},
        {"tools": [{"type": "web_search"}]},
        {"tool_choice": "required"},
    ],
)
async def test_what_cannot_be_sent_is_neither_planned_nor_paid(
    agent: Agent, node: FaultyNode, options: dict[str, Any]
) -> None:
    with pytest.raises(WrongInput):
        await chat(agent).ainvoke("Hi", **options)
    picture = HumanMessage([{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}])
    with pytest.raises(WrongInput, match="image_url"):
        await chat(agent).ainvoke([picture])
    assert node.requests == []
    assert await agent.runs() == []


async def test_a_cache_gives_an_answer_to_the_same_question_only(
    agent: Agent, node: FaultyNode
) -> None:
    cache = InMemoryCache()
    model = chat(agent, cache=cache, temperature=0.0, stop=["END"])
    for _ in range(2):
        await model.ainvoke("Hi")
    assert len(node.requests) == 1
    for change in ({"temperature": 1.0}, {"stop": ["STOP"]}, {"seed": 7}):
        await chat(agent, **{"cache": cache, "stop": ["END"], **change}).ainvoke("Hi")
    await model.bind_tools([weather]).ainvoke("Hi")
    assert len(node.requests) == 5
    await model.bind_tools([weather]).ainvoke("Hi")
    assert len(node.requests) == 5


# -- at our own nodes, which hold answers to a schema --------------------------------------------

NATIVE = {"model": "smollm2-135m", "policy": policy.allow("native"), "max_tokens": 64}


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
async def test_structured_output_is_of_its_schema(open_agent: Open, method: Any) -> None:
    async with open_agent() as agent:
        model = chat(agent, **NATIVE)
        sea: Any = await model.with_structured_output(Sea, method=method).ainvoke("The sea?")
        assert isinstance(sea, Sea)
        shore: Any = await model.with_structured_output(Shore, method=method).ainvoke("A shore?")
        assert isinstance(shore["sandy"], bool)


async def test_a_raw_answer_comes_with_what_is_read_of_it(open_agent: Open) -> None:
    async with open_agent() as agent:
        model = chat(agent, **NATIVE)
        raw = model.with_structured_output(Sea, method="json_schema", include_raw=True)
        both: Any = await raw.ainvoke("The sea?")
        assert both["parsed"] == Sea.model_validate_json(both["raw"].content)
        assert both["parsing_error"] is None
        assert both["raw"].response_metadata["agentkit"]["standing"] == "paid"
