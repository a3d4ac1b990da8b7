"""Embeds texts with a llama.cpp server, in batches."""

from __future__ import annotations

from collections.abc import Sequence

from agentkit.pool.llama import Llama
from agentkit.pool.meter import Meter

_BATCH = 32


async def embed(llama: Llama, texts: Sequence[str], meter: Meter) -> tuple[list[list[float]], int]:
    """Return a vector of unit length for each text, in order, and the number of tokens read.

    Raises Refused for a text longer than the model reads, and LeaseLost.
    """
    vectors: list[list[float]] = []
    tokens = 0
    for start in range(0, len(texts), _BATCH):
        body = {"model": llama.model.name, "input": list(texts[start : start + _BATCH])}
        answer = await llama.ask("/v1/embeddings", body, meter)
        in_order = sorted(answer["data"], key=lambda entry: int(entry["index"]))
        vectors += [entry["embedding"] for entry in in_order]
        tokens += answer["usage"]["prompt_tokens"]
    return vectors, tokens
