"""What a node says of the chats that it sells, held against the x402 SDK's own validators."""

from __future__ import annotations

from typing import Any

import pytest
from x402.extensions.bazaar import (
    validate_discovery_extension,
    validate_discovery_extension_spec,
)
from x402.extensions.bazaar.types import parse_discovery_extension

from agentkit.serve.listing import MAX_LISTED, chat_declaration
from agentkit.serve.openai_wire import ChatRequest


def declared(models: list[str]) -> dict[str, Any]:
    return chat_declaration(models).document()


@pytest.mark.parametrize(
    "models", [["smollm2-135m", "qwen"], [], [f"model-{n}" for n in range(99)]]
)
def test_the_sdk_finds_what_is_declared_whole(models: list[str]) -> None:
    document = declared(models)
    assert validate_discovery_extension_spec(document).valid
    parsed = parse_discovery_extension(document)
    assert validate_discovery_extension(parsed).valid
    assert parsed.info.input.method == "POST"  # type: ignore[union-attr]


def test_the_sdk_refuses_it_with_one_thing_changed() -> None:
    for change in ({"messages": []}, {"max_tokens": 0}, {"model": 5}):
        document = declared(["smollm2-135m"])
        document["info"]["input"]["body"] |= change
        assert not validate_discovery_extension(document).valid  # type: ignore[arg-type]


def test_the_example_is_a_request_that_a_node_answers() -> None:
    document = declared(["smollm2-135m"])
    body = document["info"]["input"]["body"]
    ChatRequest.model_validate(body).params()
    properties = document["schema"]["properties"]["input"]["properties"]["body"]["properties"]
    assert set(properties) <= set(ChatRequest.model_fields)


def test_only_a_few_models_are_named() -> None:
    def names(count: int) -> Any:
        schema = declared([f"model-{n}" for n in range(count)])["schema"]
        body = schema["properties"]["input"]["properties"]["body"]
        return body["properties"]["model"].get("enum")

    assert len(names(MAX_LISTED)) == MAX_LISTED
    assert names(MAX_LISTED + 1) is None
