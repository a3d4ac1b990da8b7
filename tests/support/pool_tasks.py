"""Tasks for the pool that several tests give it, small and larger than they say."""

from __future__ import annotations

from typing import Any

from agentkit.artifacts import Dataset, Table
from agentkit.pool.pool import Pool
from agentkit.pool.request import Done

CHAT = {"model": "smollm2-135m", "prompt": "Hi"}

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Return the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
"""A tool that is offered to a model."""

DOUBLING = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
LADDER = {"$defs": DOUBLING | {"d40": {"type": "string"}}, "$ref": "#/$defs/d0"}
"""A schema whose references double forty times."""

ANIMALS = ["a sleepy cat", "a wild dog", "the horse ran", "birds that sing", "a small fish"]
MACHINES = ["a fast car", "a loud engine", "the old tractor", "a jet aircraft", "a steel crane"]
ROWS = [{"says": text, "is": "animal"} for text in ANIMALS] + [
    {"says": text, "is": "machine"} for text in MACHINES
]
DATASET = Dataset.dump(ROWS)


async def train(pool: Pool, key: str = "train", table: Table = DATASET, **params: Any) -> Done:
    """Train a head that tells animals from machines."""
    asked = {"base": "all-minilm-l6-v2", "method": "head", "text": "says", "label": "is"}
    return await pool.run(
        key, "train", asked | {"epochs": 20, "seed": 0} | params, {"dataset": table}
    )


async def ask(pool: Pool, prompt: str, **params: Any) -> Done:
    """Have a small model answer in sixteen tokens at most."""
    params = {"model": "smollm2-135m", "prompt": prompt, "max_tokens": 16} | params
    return await pool.run("call", "infer", params, {})
