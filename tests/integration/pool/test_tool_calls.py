"""Calls of tools by a real model: constrained to the tools' schemas, whatever it would say."""

from __future__ import annotations

from typing import Any

from support.pool_tasks import WEATHER

from agentkit.artifacts import Json, Reply
from agentkit.json_schemas import mismatch
from agentkit.pool.pool import Pool
from agentkit.pool.request import Done

MODEL = "smollm2-135m"
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOLS = [
    WEATHER,
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add two numbers.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "family",
            "description": "Write down a family.",
            "parameters": {
                "$defs": {"Person": PERSON},
                "type": "object",
                "properties": {
                    "people": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 3,
                        "items": {"$ref": "#/$defs/Person"},
                    }
                },
                "required": ["people"],
            },
        },
    },
]


async def ask(pool: Pool, **params: Any) -> tuple[Reply, Done]:
    asked = {"model": MODEL, "tools": TOOLS, "max_tokens": 160, **params}
    done = await pool.run("call", "infer", asked, {})
    (reply,) = done.outputs
    assert isinstance(reply, Reply)
    return reply, done


async def test_the_tool_that_helps_is_called(pool: Pool) -> None:
    for question, name, arguments in (
        ("What is the weather in Paris?", "weather", {"city": "Paris"}),
        ("What is 3 plus 5?", "add", {"a": 3, "b": 5}),
    ):
        reply, done = await ask(pool, prompt=question)
        (call,) = reply.tool_calls
        assert (call.name, call.arguments) == (name, arguments)
        assert done.finish_reason == "tool_calls"
        assert done.usage["output"] > 0


async def test_a_call_fits_its_tools_own_schema(pool: Pool) -> None:
    """A schema with references, which lead elsewhere once it stands among others."""
    choice = {"type": "function", "function": {"name": "family"}}
    reply, _ = await ask(pool, prompt="Ann is 40, and her son is 8.", tool_choice=choice)
    (call,) = reply.tool_calls
    assert call.name == "family"
    assert call.arguments["people"]
    parameters: Any = TOOLS[2]["function"]
    assert mismatch(Reply.dump(call.arguments).read(), parameters["parameters"]) == ""


async def test_what_a_tool_answered_is_told_to_the_user(pool: Pool) -> None:
    reply, done = await ask(
        pool,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is the weather in Paris?"},
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "22 degrees, sunny"},
        ],
    )
    assert not reply.tool_calls
    assert "22" in reply.text
    assert done.finish_reason == "stop"


async def test_an_answer_says_whether_it_was_cut(pool: Pool) -> None:
    cut = {"prompt": "Once upon a time", "style": "complete", "max_tokens": 5}
    done = await pool.run("call", "infer", {"model": MODEL, **cut}, {})
    assert done.finish_reason == "length"
    whole = {**cut, "prompt": "1, 2, 3, 4,", "stop": [","]}
    done = await pool.run("call", "infer", {"model": MODEL, **whole}, {})
    assert done.finish_reason == "stop"


async def test_a_seed_draws_the_same_words_again(pool: Pool) -> None:
    async def draw(seed: int) -> bytes:
        params = {"prompt": "Tell a story.", "temperature": 1.5, "seed": seed, "max_tokens": 24}
        done = await pool.run("call", "infer", {"model": MODEL, **params}, {})
        return done.outputs[0].read()

    assert await draw(1) == await draw(1)
    assert await draw(1) != await draw(2)


async def test_an_open_text_ends_before_its_tokens_and_says_that_it_was_cut(pool: Pool) -> None:
    """Without an end the model goes on until its JSON is cut, and nothing is had."""
    schema = {"type": "object", "properties": {"joke": {"type": "string"}}, "required": ["joke"]}
    params = {"model": MODEL, "prompt": "Describe the sea at length.", "schema": schema}
    done = await pool.run("call", "infer", {**params, "max_tokens": 64}, {})
    (output,) = done.outputs
    assert isinstance(output, Json)
    assert len(output.value["joke"]) == 120
    assert done.usage["output"] < 64
    assert done.finish_reason == "length"
