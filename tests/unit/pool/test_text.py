from __future__ import annotations

from typing import Any

import pytest
from support.pool_tasks import ask

from agentkit.errors import Refused
from agentkit.pool.pool import Pool


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"model": "gpt-9"}, "no model 'gpt-9'"),
        ({"model": "all-minilm-l6-v2"}, "makes embeddings"),
        ({"output": "embedding"}, "use all-minilm-l6-v2"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": 5}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": float("nan")}, "temperature"),
        ({"schema": {"type": "strange"}}, "not a JSON schema"),
        ({"schema": {"pattern": "("}}, "not a JSON schema"),
    ],
)
async def test_what_is_not_offered_is_refused_before_any_work(
    pool: Pool, begun: list[str], params: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        await ask(pool, "Hi", **params)
    assert begun == []
    assert pool.facts()["loaded"] == []


async def test_an_unknown_kind_is_refused(pool: Pool) -> None:
    with pytest.raises(Refused, match="only infer, train, data"):
        await pool.run("call", "dance", {}, {})
    assert pool.running() == []
