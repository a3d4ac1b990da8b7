from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import pytest
from support.pool_tasks import ANIMALS, ROWS, train

from agentkit.artifacts import Dataset, Embedding, Model, Text
from agentkit.errors import Refused
from agentkit.pool.embedding import embed
from agentkit.pool.limits import SlotLimits
from agentkit.pool.meter import Meter, TaskAllowance
from agentkit.pool.models import model_file
from agentkit.pool.pool import Pool
from agentkit.pool.slots import Slots


async def vector(pool: Pool, text: str) -> list[float]:
    params = {"model": "all-minilm-l6-v2", "prompt": text, "output": "embedding"}
    done = await pool.run(f"embed {text}", "infer", params, {})
    (embedding,) = done.outputs
    assert isinstance(embedding, Embedding)
    assert set(done.usage) == {"input"}
    assert done.usage["input"] >= 3
    (row,) = embedding.rows()
    found: list[float] = row["vector"]
    return found


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_vectors_have_unit_length_and_near_texts_lie_near(pool: Pool) -> None:
    cat, kitten, bank = [
        await vector(pool, text)
        for text in (
            "A cat sits on the mat.",
            "A kitten is sitting on a rug.",
            "Stocks fell today.",
        )
    ]
    assert len(cat) == 384
    assert math.isclose(cosine(cat, cat), 1, abs_tol=1e-5)
    assert cosine(cat, kitten) > 0.5
    assert abs(cosine(cat, bank)) < 0.2
    with pytest.raises(Refused, match="longer than the model reads"):
        await vector(pool, "word " * 600)


async def test_company_does_not_change_a_bit_of_a_vector(tmp_path: Path) -> None:
    slots = Slots(tmp_path, SlotLimits(), llamas=1, workers=1, max_queue=1)
    async with slots.llamas(model_file("all-minilm-l6-v2")).take() as llama:
        meter = Meter(TaskAllowance(60, 60))
        together, _ = await embed(llama, ANIMALS * 8, meter)  # more than one batch
        alone = [(await embed(llama, [text], meter))[0][0] for text in ANIMALS]
    assert together == alone * 8
    await slots.close()


async def test_a_head_learns_and_labels_texts_it_has_not_seen(pool: Pool, begun: list[str]) -> None:
    done = await train(pool)
    (model,) = done.outputs
    assert isinstance(model, Model)
    assert model.media_type == "application/vnd.agentkit.head+json"
    assert done.usage == {"row": 10 * 20}
    head = json.loads(model.read())
    assert head["format"] == "softmax-head/1"
    assert head["base"] == done.model == "all-minilm-l6-v2"
    assert head["labels"] == ["animal", "machine"]
    assert head["metrics"]["accuracy"] == 1.0
    assert begun == ["train"]

    for text, label in (("a hungry elephant", "animal"), ("the motorbike", "machine")):
        answer = await pool.run("label", "infer", {"prompt": text}, {"model": model})
        (said,) = answer.outputs
        assert isinstance(said, Text)
        assert said.text == label
        assert answer.usage["output"] == 1
        assert answer.usage["input"] >= 4
    assert begun == ["train", "label", "label"]


async def test_training_is_a_function_of_data_and_seed(pool: Pool) -> None:
    table = Dataset.dump(ROWS * 2)  # more than one batch: their order is what the seed decides
    first, again, *_ = await asyncio.gather(
        train(pool, "one", table),
        train(pool, "two", table),
        *(vector(pool, text) for text in ANIMALS),
    )
    other = await train(pool, "three", table, seed=1)
    assert first.outputs[0].digest == again.outputs[0].digest
    assert first.outputs[0].digest != other.outputs[0].digest


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"x", "not JSON"),
        (b"[]", "not in the format"),
        (b'{"format": "softmax-head/1"}', "not in the format"),
        (b'{"format": "softmax-head/1", "base": "gpt-9"}', "no model 'gpt-9'"),
        (b'{"format": "softmax-head/1", "base": "all-minilm-l6-v2"}', "do not fit together"),
        (
            b'{"format": "softmax-head/1", "base": "all-minilm-l6-v2", "labels": ["a", "b"],'
            b' "weights": [[1, 2], [3, 4]], "bias": [0, 0]}',
            "do not fit together",
        ),
    ],
)
async def test_a_model_that_is_no_head_is_refused(pool: Pool, head: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why):
        await pool.run("call", "infer", {"prompt": "a cat"}, {"model": Model.of(head)})
