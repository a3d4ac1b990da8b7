from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from support.pool_tasks import ask

from agentkit.artifacts import Json, Text
from agentkit.errors import BadOutput, Refused
from agentkit.pool.limits import SlotLimits
from agentkit.pool.meter import Meter, TaskAllowance
from agentkit.pool.models import model_file
from agentkit.pool.pool import Pool
from agentkit.pool.slots import Slots

SENTIMENT = {"type": "string", "enum": ["positive", "negative"]}


async def test_text_and_values_come_out_of_the_model(pool: Pool, begun: list[str]) -> None:
    done = await ask(pool, "The capital of France is", style="complete", max_tokens=3)
    (text,) = done.outputs
    assert isinstance(text, Text)
    assert text.text.startswith("Paris")  # the model says " Paris": the space is gone
    assert text.text == text.text.strip()
    assert done.usage == {"input": 5, "output": 3}
    assert done.model == "smollm2-135m"
    assert begun == ["call"]

    (stopped,) = (await ask(pool, "1, 2, 3, 4,", style="complete", stop=["7"])).outputs
    assert isinstance(stopped, Text)
    assert stopped.text == "5, 6,"

    (chat,) = (await ask(pool, "Say hello")).outputs
    assert isinstance(chat, Text)
    assert chat.text

    for style in ("chat", "complete"):
        prompt = "Is this review positive or negative?\nI loved every minute of it.\n"
        done = await ask(pool, prompt, style=style, schema=SENTIMENT)
        (value,) = done.outputs
        assert isinstance(value, Json)
        assert value.value in SENTIMENT["enum"]
        assert done.usage["output"] >= 2


async def test_the_same_prompt_gives_the_same_text(pool: Pool) -> None:
    prompts = ["Once upon a time", "The sea is", "Once upon a time"]
    texts = [(await ask(pool, prompt, style="complete")).outputs[0].digest for prompt in prompts]
    assert texts[0] == texts[2] != texts[1]


async def test_what_was_asked_before_does_not_change_a_bit(tmp_path: Path) -> None:
    slots = Slots(tmp_path, SlotLimits(), llamas=1, workers=1, max_queue=1)
    same = "The quick brown fox jumps over the lazy dog. " * 8
    async with slots.llamas(model_file("smollm2-135m")).take() as llama:
        answers = []
        meter = Meter(TaskAllowance(60, 60))
        for end in ("Then it", "And so", "Then it"):
            body = {"prompt": same + end, "max_tokens": 4, "temperature": 0, "logprobs": 1}
            answers.append(await llama.ask("/v1/completions", body, meter))
    cold, _, warm = answers
    assert cold["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert warm["usage"]["prompt_tokens_details"]["cached_tokens"] > 40
    assert cold["choices"][0]["logprobs"] == warm["choices"][0]["logprobs"]
    await slots.close()


async def test_an_answer_that_breaks_the_schema_is_bad_output(pool: Pool) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    with pytest.raises(
        BadOutput, match="max_tokens=3 cut the answer before its JSON ended: raise it"
    ):
        await ask(pool, "x", schema=schema, max_tokens=3)
    odd = SENTIMENT | {"not": {"type": "string"}}  # no grammar says `not`: the rest still holds
    for style in ("chat", "complete"):
        with pytest.raises(BadOutput, match=r"'(posi|nega)tive' should not be valid"):
            await ask(pool, "Hi", style=style, schema=odd)


async def test_a_remote_schema_is_never_fetched(pool: Pool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        for style in ("chat", "complete"):
            with pytest.raises((Refused, BadOutput)):
                await ask(pool, "1", style=style, schema={"$ref": url}, max_tokens=2)
        await asyncio.sleep(0.1)
        with pytest.raises(BlockingIOError):
            server.accept()


async def test_a_prompt_longer_than_the_context_is_refused(pool: Pool) -> None:
    with pytest.raises(Refused, match=r"the prompt has 30\d\d tokens .* at most 2048"):
        await ask(pool, "word " * 3000)
