"""What a node says in its 402 of the chats that it sells, so that others can list and call them."""

from __future__ import annotations

from collections.abc import Sequence

from agentkit.payments.x402.bazaar import Declaration
from agentkit.pool.request import MAX_OUTPUT

MAX_LISTED = 8
"""The most models that are named: the header that they travel in has to stay short."""


def chat_declaration(models: Sequence[str]) -> Declaration:
    """Return what `POST /v1/chat/completions` takes and answers, by one of `models`."""
    model = models[0] if models else "a model of GET /v1/models"
    name = {"type": "string", "enum": list(models)} if 0 < len(models) <= MAX_LISTED else {}
    message = {
        "type": "object",
        "properties": {"role": {"const": "user"}, "content": {"type": "string"}},
        "required": ["role", "content"],
    }
    return Declaration(
        method="POST",
        description="Chat completions in OpenAI's format, with tools",
        body={
            "model": model,
            "messages": [{"role": "user", "content": "Greet the sea."}],
            "max_tokens": 64,
        },
        body_schema={
            "type": "object",
            "properties": {
                "model": name or {"type": "string"},
                "messages": {"type": "array", "items": message, "minItems": 1, "maxItems": 1},
                "max_tokens": {"type": "integer", "minimum": 1, "maximum": MAX_OUTPUT},
                "temperature": {"type": "number", "minimum": 0},
            },
            "required": ["model", "messages"],
        },
        answer={
            "object": "chat.completion",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello, sea."}}],
            "usage": {"prompt_tokens": 12, "completion_tokens": 4, "total_tokens": 16},
        },
    )
