from __future__ import annotations

from typing import Any

import pytest
from support.pool_tasks import train

from agentkit.artifacts import Blob, Dataset
from agentkit.errors import Refused
from agentkit.pool.head import examples
from agentkit.pool.pool import Pool


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "no rows"),
        ([{"says": "a", "is": "x"}, {"says": "b", "is": "x"}], "one label only, 'x'"),
        ([{"says": "a", "is": "x"}, {"says": "b"}], r"row 2 .* no column 'is', only \['says'\]"),
        ([{"says": 1.5, "is": "x"}], "row 1 .* no text in column 'says'"),
        ([{"says": " ", "is": "x"}], "row 1 .* no text in column 'says'"),
        ([{"says": "a", "is": None}], "row 1 .* no text in column 'is'"),
    ],
)
async def test_what_cannot_be_trained_on_is_refused(
    pool: Pool, begun: list[str], rows: list[dict[str, Any]], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        await train(pool, table=Dataset.dump(rows))
    assert begun == []


def test_numbers_serve_as_labels() -> None:
    assert examples([{"t": "a", "l": 1}, {"t": "b", "l": 0}], "t", "l") == (["a", "b"], ["1", "0"])


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"base": "smollm2-135m"}, "use all-minilm-l6-v2"),
        ({"base": "gpt-9"}, "no model 'gpt-9'"),
        ({"method": "lora"}, "no method 'lora' here, only 'head'"),
        ({"epochs": 0}, "epochs"),
        ({"seed": -1}, "seed"),
    ],
)
async def test_training_that_is_not_offered_is_refused(
    pool: Pool, params: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        await train(pool, **params)


async def test_training_needs_a_table(pool: Pool) -> None:
    params = {"base": "all-minilm-l6-v2"}
    with pytest.raises(Refused, match="needs the input 'dataset'"):
        await pool.run("call", "train", params, {})
    with pytest.raises(Refused, match="is a blob, not a table"):
        await pool.run("call", "train", params, {"dataset": Blob.of(b"x")})
    with pytest.raises(Refused, match="not JSON Lines"):
        await pool.run("call", "train", params, {"dataset": Dataset.of(b"x")})
