"""The names of models: one model has many spellings.

This is a table, because guessing buys the wrong model: `llama-3.1-8b` is in the name of the base
model, of the instruct model and of dozens of tunings.  The names in one group are the same weights
in the form that providers serve for chat; `providers.NAME.models` configures others.
"""

from __future__ import annotations

from functools import cache

ALIASES: tuple[tuple[str, ...], ...] = (
    (
        "llama-3.1-8b",
        "llama-3.1-8b-instruct",
        "llama3.1:8b",
        "Llama-3.1-8B-Instruct",
        "Meta-Llama-3.1-8B-Instruct",
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Meta-Llama-3.1-8B-Instruct",
    ),
    (
        "llama-3.1-70b",
        "llama-3.1-70b-instruct",
        "llama3.1:70b",
        "Meta-Llama-3.1-70B-Instruct",
        "meta-llama/Llama-3.1-70B-Instruct",
        "meta-llama/Meta-Llama-3.1-70B-Instruct",
    ),
    (
        "llama-3.2-3b",
        "llama-3.2-3b-instruct",
        "llama3.2:3b",
        "Llama-3.2-3B-Instruct",
        "meta-llama/Llama-3.2-3B-Instruct",
    ),
    (
        "llama-3.3-70b",
        "llama-3.3-70b-instruct",
        "llama3.3:70b",
        "Llama-3.3-70B-Instruct",
        "meta-llama/Llama-3.3-70B-Instruct",
    ),
    (
        "qwen-2.5-7b",
        "qwen2.5-7b-instruct",
        "qwen2.5:7b",
        "Qwen2.5-7B-Instruct",
        "Qwen/Qwen2.5-7B-Instruct",
    ),
    (
        "qwen-2.5-72b",
        "qwen2.5-72b-instruct",
        "qwen2.5:72b",
        "Qwen2.5-72B-Instruct",
        "Qwen/Qwen2.5-72B-Instruct",
    ),
    ("deepseek-v3", "DeepSeek-V3", "deepseek-ai/DeepSeek-V3"),
    ("deepseek-r1", "DeepSeek-R1", "deepseek-ai/DeepSeek-R1"),
    ("smollm2-135m", "smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ("nomic-embed", "nomic-embed-text-v1.5", "nomic-ai/nomic-embed-text-v1.5"),
    ("all-minilm-l6-v2", "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
)
"""Each group lists the names of one model."""


@cache
def names_of(model: str) -> tuple[str, ...]:
    """Return every name of a model, the given one first; only that one if the table lacks it."""
    group = next((names for names in ALIASES if model in names), ())
    return (model, *(name for name in group if name != model))
