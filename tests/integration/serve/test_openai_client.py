"""OpenAI's own client asks a provider node, with an API key of its operator."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp.test_utils import TestServer
from support.chain_processes import KEYS
from support.chain_processes import Node as ChainNode
from support.pool_tasks import WEATHER
from support.x402_market import chain_of, world_on

from agentkit.keys.signer import KeySigner
from agentkit.payments.chain import Web3Chain
from agentkit.serve.app import node_app
from agentkit.serve.node import Node, NodeSettings

MODEL = "smollm2-135m"
KEY = "open sesame"
TOOLS: Any = [WEATHER]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: Any) -> Iterator[ChainNode]:
    with chain_of("embedded", tmp_path_factory.mktemp("chain")) as running:
        yield running


@pytest.fixture
async def client(chain: ChainNode, tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    async with world_on(chain) as world:
        settings = NodeSettings("lone", tmp_path / "node", api_keys=(KEY,))
        eyes = Web3Chain(world.network)
        node = await Node.open(settings, KeySigner(KEYS[1]), eyes, world.network)
        async with TestServer(node_app(node)) as server:
            url = str(server.make_url("/v1"))
            async with openai.AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0) as asking:
                yield asking
        await node.close()


async def test_a_conversation_with_a_tool(client: openai.AsyncOpenAI) -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "What is the weather in Paris?"},
    ]
    asked = await client.chat.completions.create(
        model=MODEL, messages=messages, tools=TOOLS, tool_choice="required", max_tokens=64
    )
    (choice,) = asked.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Paris"}

    messages += [
        choice.message,
        {"role": "tool", "tool_call_id": call.id, "content": "22 degrees, sunny"},
    ]
    told = await client.chat.completions.create(
        model=MODEL, messages=messages, tools=TOOLS, max_tokens=64, seed=1, top_p=0.9
    )
    assert "22" in (told.choices[0].message.content or "")
    assert told.choices[0].finish_reason == "stop"
    assert told.usage and told.usage.completion_tokens > 0


async def test_an_answer_says_that_it_was_cut(client: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Tell a long story."}]
    cut = await client.chat.completions.create(model=MODEL, messages=messages, max_tokens=5)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage and cut.usage.completion_tokens == 5


async def test_an_answer_fits_a_schema(client: openai.AsyncOpenAI) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "o", "schema": schema}}
    messages: Any = [{"role": "user", "content": "Is water wet?"}]
    said = await client.chat.completions.create(
        model=MODEL, messages=messages, response_format=form, max_tokens=64
    )
    assert isinstance(json.loads(said.choices[0].message.content or "")["ok"], bool)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "is not text"),
        ({"n": 2}, "n has to be 1"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "tokens"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
        ({"model": "gpt-9"}, "gpt-9"),
    ],
)
async def test_what_it_cannot_do_is_told(
    client: openai.AsyncOpenAI, changes: Any, why: str
) -> None:
    asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], **changes}
    with pytest.raises(openai.APIStatusError, match=why) as raised:
        await client.chat.completions.create(**asked)
    assert raised.value.status_code in (400, 422)


async def test_without_a_key_it_has_to_be_paid(client: openai.AsyncOpenAI) -> None:
    stranger = client.with_options(api_key="guessed")
    messages: Any = [{"role": "user", "content": "Hi"}]
    with pytest.raises(openai.APIStatusError) as raised:
        await stranger.chat.completions.create(model=MODEL, messages=messages)
    assert raised.value.status_code == 402
