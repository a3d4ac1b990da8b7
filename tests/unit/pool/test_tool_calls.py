"""Calls of tools by a model without a template for them: what it reads, and what it may write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agentkit.errors import BadOutput, Refused
from agentkit.graph.nodes import InferNode
from agentkit.kinds.infer import Infer
from agentkit.pool import text, tool_calls
from agentkit.pool.request import InferParams
from agentkit.pool.services import params_of

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Return the weather.\nOf one city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
TREE = {
    "type": "function",
    "function": {
        "name": "plant",
        "parameters": {
            "$defs": {
                "Node": {
                    "type": "object",
                    "properties": {"below": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
                }
            },
            "type": "object",
            "properties": {"root": {"$ref": "#/$defs/Node"}},
            "required": ["root"],
        },
    },
}


def params(**more: Any) -> InferParams:
    asked = {"model": "smollm2-135m", "prompt": "Rain in Rome?", "tools": [WEATHER, TREE], **more}
    made = params_of("infer", {**asked, "max_tokens": more.get("max_tokens", 64)})
    assert isinstance(made, InferParams)
    return made


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def call(name: str, /, **arguments: Any) -> str:
    return json.dumps({"tool": name, "arguments": arguments})


def may_write(schema: dict[str, Any], written: str) -> bool:
    return bool(Draft202012Validator(schema).is_valid(json.loads(written)))


ROUND = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Rain in Rome?"},
    {
        "role": "assistant",
        "tool_calls": [{"id": "c1", "function": {"name": "weather", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "none"},
]


def test_a_tool_is_called_unless_it_has_answered() -> None:
    assert tool_calls.are_wanted(params())
    answered = {"prompt": None, "messages": ROUND}
    assert not tool_calls.are_wanted(params(**answered))
    assert tool_calls.are_wanted(params(**answered, tool_choice="required"))
    assert tool_calls.are_wanted(params(**answered, tool_choice=named("weather")))
    assert not tool_calls.are_wanted(params(tool_choice="none"))


def test_the_model_reads_all_that_was_said() -> None:
    asked = params(prompt=None, messages=ROUND, tool_choice="required")
    read = tool_calls.prompt(asked)
    for part in ("Be brief.", "weather(city, days): Return the weather.\n", "Rain in Rome?"):
        assert part in read
    assert "Result: none" in read
    assert read.endswith("Call: ")


def test_only_the_chosen_tool_may_be_called() -> None:
    asked = params(tool_choice=named("plant"))
    assert "weather(" not in tool_calls.prompt(asked)
    schema = tool_calls.schema(asked)
    assert may_write(schema, call("plant", root={}))
    assert not may_write(schema, call("weather", city="Rome"))


def test_references_of_a_tool_lead_to_its_own_definitions() -> None:
    schema = tool_calls.schema(params())
    assert may_write(schema, call("plant", root={"below": [{"below": []}]}))
    assert not may_write(schema, call("plant", root={"below": [5]}))


def test_a_call_ends_before_its_tokens_do() -> None:
    schema = tool_calls.schema(params(max_tokens=64))
    assert may_write(schema, call("weather", city="x" * 120))
    assert not may_write(schema, call("weather", city="x" * 121))
    assert not may_write(schema, call("weather", city="x", days=10**16))
    assert not may_write(schema, call("weather", city="x", more=1))


def test_a_call_becomes_a_reply() -> None:
    reply = tool_calls.reply(params(), call("weather", city="Rome"), is_cut=False)
    (made,) = reply.tool_calls
    assert (made.name, made.arguments) == ("weather", {"city": "Rome"})
    again = tool_calls.reply(params(), call("weather", city="Rome"), is_cut=False)
    assert again == reply  # replicas are compared
    later = params(prompt=None, messages=ROUND, tool_choice="required")
    (other,) = tool_calls.reply(later, call("weather", city="Rome"), is_cut=False).tool_calls
    assert other.id != made.id


@pytest.mark.parametrize(
    ("written", "is_cut", "why"),
    [
        ('{"tool": "wea', True, "max_tokens=64 cut the call"),
        ('{"tool": "wea', False, "not JSON"),
        ("[]", False, "called no tool"),
        (call("rm"), False, "called no tool"),
        (call("weather", city=5), False, "breaks the tool's schema"),
    ],
)
def test_what_is_no_call_is_not_given_out(written: str, is_cut: bool, why: str) -> None:
    with pytest.raises(BadOutput, match=why) as raised:
        tool_calls.reply(params(), written, is_cut=is_cut)
    assert raised.value.of_task == is_cut


def test_without_a_template_a_conversation_is_text() -> None:
    path, body = text.request(params(prompt=None, messages=ROUND))
    assert path == "/v1/chat/completions"
    assert [message["role"] for message in body["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert "weather" in body["messages"][2]["content"]
    assert body["messages"][3]["content"] == "Result: none"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"messages": ROUND}, "either a prompt or messages"),
        ({"prompt": None}, "either a prompt or messages"),
        ({"style": "complete"}, "for chats"),
        ({"schema": {}}, "exclude one another"),
        ({"tool_choice": named("rm")}, "there is no tool 'rm'"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [WEATHER] * 129}, "tools"),
        ({"prompt": None, "messages": ROUND[1:2] * 1001}, "messages"),
        ({"seed": -1}, "seed"),
        ({"tools": [WEATHER, WEATHER]}, "the same name"),
        ({"max_tokens": 10**400}, "max_tokens"),
    ],
)
def test_what_cannot_be_asked_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why) as raised:
        params(**wrong)
    assert raised.value.of_task


def test_a_tools_schema_is_looked_through_before_any_work() -> None:
    bad = {"type": "function", "function": {"name": "f", "parameters": {"type": "strange"}}}
    with pytest.raises(Refused, match="not a JSON schema"):
        text.check_schemas(params(tools=[bad]))
    costly = {"name": "f", "parameters": {"properties": {"a": {"pattern": "(?=a)a"}}}}
    with pytest.raises(Refused, match="cannot be matched in linear time"):
        text.check_schemas(params(tools=[{"type": "function", "function": costly}]))


def test_many_tools_are_bounded_together() -> None:
    """Each is small; the grammar is made of all of them."""
    fields = {f"f{n}": {"type": "integer"} for n in range(50)}
    tools = [
        {"type": "function", "function": {"name": f"t{n}", "parameters": {"properties": fields}}}
        for n in range(40)
    ]
    text.check_schemas(params(tools=tools[:5]))
    with pytest.raises(Refused, match="all tools together"):
        text.check_schemas(params(tools=tools))
    text.check_schemas(params(tools=tools, tool_choice=named("t3")))


def test_no_more_is_read_than_a_load_declares() -> None:
    """Letters that JSON escapes came to three times what was declared for them."""
    city = "\u041c\u043e\u0441\u043a\u0432\u0430" * 40
    call = {"name": "weather", "arguments": json.dumps({"city": city}, ensure_ascii=False)}
    messages = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "tool_calls": [{"id": "c1", "function": call}]},
        {"role": "tool", "tool_call_id": "c1", "content": "none"},
    ]
    node = InferNode.model_validate(
        {"kind": "infer", "name": "ask", "model": "m", "messages": messages, "tools": [WEATHER]}
    )
    for choice in ("auto", "required"):
        task = Infer().task(node.model_copy(update={"tool_choice": choice}), {})
        asked = params_of("infer", {**task.params, "model": "smollm2-135m"})
        assert isinstance(asked, InferParams)
        assert len(text.read_by_model(asked).encode()) <= task.load.most["input"]


def test_numbers_are_read_as_they_were_written() -> None:
    """Written anew, 1e15 has eighteen characters for four that were declared."""
    call = {"name": "weather", "arguments": '{"a":[1e15,1e15]}'}
    message = {"role": "assistant", "tool_calls": [{"id": "c1", "function": call}]}
    read = tool_calls.prompt(params(prompt=None, messages=[*ROUND[:2], message]))
    assert '"arguments": {"a":[1e15,1e15]}' in read


PERSON = {"type": "object", "properties": {"name": {"type": "boolean"}}}
AGE = {"type": "object", "properties": {"age": {"type": "integer"}}}


@pytest.mark.parametrize(
    "parameters",
    [
        {"allOf": [PERSON, AGE]},
        {"anyOf": [PERSON, AGE]},
        {**PERSON, "oneOf": [{"required": ["age"], "properties": {"age": {"type": "number"}}}]},
        {"$defs": {"Person": PERSON}, "allOf": [{"$ref": "#/$defs/Person"}], **AGE},
        {"required": ["age"]},
        {"not": {"properties": {"age": {"const": 4}}, "required": ["age"]}},
    ],
)
def test_what_fits_a_tools_schema_may_be_written(parameters: dict[str, Any]) -> None:
    """Objects that add to one another were closed, so that no call could be written."""
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    value = {"age": 10**14} if "anyOf" in parameters else {"name": True, "age": 10**14}
    assert Draft202012Validator(parameters).is_valid(value)
    assert may_write(tool_calls.schema(params(tools=[tool])), call("f", **value))


def test_a_plain_tool_gets_no_properties_of_the_models_own() -> None:
    for parameters in ({}, {"type": "object"}, PERSON):
        tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
        assert not may_write(tool_calls.schema(params(tools=[tool])), call("f", more=1))
