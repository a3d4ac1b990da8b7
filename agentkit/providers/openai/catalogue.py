"""The list of models that an endpoint serves, in the forms that endpoints give it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentkit.providers.openai.names import is_same_model

MAX_TOKENS = 2**40


def models_in(document: Any) -> dict[str, int]:
    """Return the models of a list, each with the most tokens it takes (0: not said).

    The list stands under `data` (OpenAI), under `models`, or by itself.  Entries without an id are
    left out.  Raises ValueError for a document without a list, or with the first page of one.
    """
    listed = document
    if isinstance(document, dict):
        if document.get("has_more"):
            raise ValueError("a part of a list of models")
        listed = document.get("data") if "data" in document else document.get("models")
    if not isinstance(listed, list):
        raise ValueError("no list of models")  # noqa: TRY004
    models = {}
    for entry in listed:
        described = {"id": entry} if isinstance(entry, str) else entry
        if not isinstance(described, dict):
            continue
        name = described.get("id") or described.get("name") or described.get("model")
        if isinstance(name, str) and name:
            models[name] = _context(described)
    return models


def listed_as(model: str, models: Mapping[str, int]) -> str:
    """Return how a list spells a model's name, "" if it does not have the model."""
    if model in models:
        return model
    spelled = (name for name in models if is_same_model(model, name.removesuffix(":latest")))
    return next(spelled, "")


def _context(model: Mapping[str, Any]) -> int:
    """Return how many tokens a listed model takes, 0 where the endpoint does not say.

    Several networks call it `context_length`; vLLM calls it `max_model_len`.
    """
    given = model.get("context_length") or model.get("max_model_len")
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 14:
        given = int(given)
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int):
        return 0
    return given if 0 < given < MAX_TOKENS else 0
