"""The stand-ins keep the quirks of what they stand in for."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from support.timing import limit

from agentkit.embedded import discovery

HELLO = {"messages": [{"role": "user", "content": "Say hello."}]}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"User-Agent": "test/1"}) as session:
        yield session


async def post(http: aiohttp.ClientSession, url: str, body: Any, **headers: str) -> Any:
    async with http.post(url, json=body, headers=headers) as answer:
        return answer.status, dict(answer.headers), await answer.read()


class TestGaia:
    @pytest.fixture
    def url(self, network: discovery.NetworkFile) -> str:
        return str(network.providers["gaia"]["url"])

    @pytest.fixture
    def key(self, network: discovery.NetworkFile) -> str:
        return str(network.providers["gaia"]["api_key"])

    async def test_no_key_is_served_and_a_wrong_one_is_not(
        self, http: aiohttp.ClientSession, url: str, key: str
    ) -> None:
        body = {**HELLO, "model": "x", "max_completion_tokens": 2}
        assert (await post(http, f"{url}/chat/completions", body))[0] == 200
        good = {"Authorization": f"Bearer {key}"}
        assert (await post(http, f"{url}/chat/completions", body, **good))[0] == 200
        bad = {"Authorization": "Bearer wrong"}
        status, headers, text = await post(http, f"{url}/chat/completions", body, **bad)
        assert status == 401
        assert headers["Content-Type"].startswith("text/plain")
        assert text.startswith(b"401 Unauthorized")

    async def test_a_grammar_without_end_is_not_begun(
        self, http: aiohttp.ClientSession, url: str
    ) -> None:
        doubling = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
        schema = {"$defs": doubling | {"d40": {"type": "string"}}, "$ref": "#/$defs/d0"}
        shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        body = {**HELLO, "model": "x", "response_format": shape, "max_completion_tokens": 2}
        async with asyncio.timeout(limit(10)):
            assert (await post(http, f"{url}/chat/completions", body))[0] >= 400

    async def test_only_the_new_limit_counts(self, http: aiohttp.ClientSession, url: str) -> None:
        story = {"messages": [{"role": "user", "content": "Tell a story."}], "model": "x"}
        for field, most in (("max_completion_tokens", 3), ("max_tokens", None)):
            _, _, text = await post(http, f"{url}/chat/completions", {**story, field: 3})
            tokens = json.loads(text)["usage"]["completion_tokens"]
            assert tokens == most if most else tokens > 3

    async def test_an_unknown_model_is_answered_by_the_one_there_is(
        self, http: aiohttp.ClientSession, url: str
    ) -> None:
        body = {**HELLO, "model": "no-such-model", "max_completion_tokens": 2}
        status, headers, text = await post(http, f"{url}/chat/completions", body)
        answer = json.loads(text)
        assert status == 200
        assert answer["model"] == "SmolLM2-135M-Instruct-Q4_1"
        assert set(answer) == {"id", "object", "created", "model", "choices", "usage"}
        assert headers["user"] == answer["id"]
        assert headers["requires-tool-call"] == "false"

    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_models_come_by_get_and_post_and_without_a_price(
        self, http: aiohttp.ClientSession, url: str, method: str
    ) -> None:
        async with http.request(method, f"{url}/models") as answer:
            (model,) = (await answer.json())["data"]
        assert set(model) == {"id", "created", "object", "owned_by"}

    async def test_an_unknown_path_is_plain_text(
        self, http: aiohttp.ClientSession, url: str
    ) -> None:
        async with http.get(f"{url}/nothing") as answer:
            assert answer.status == 404
            text = await answer.text()
        assert text == "404 The requested service endpoint is not found: /v1/nothing"

    async def test_a_stream_has_the_role_on_each_chunk_and_usage_on_request(
        self, http: aiohttp.ClientSession, url: str
    ) -> None:
        for wants in (False, True):
            body = {**HELLO, "model": "x", "max_completion_tokens": 4, "stream": True}
            if wants:
                body["stream_options"] = {"include_usage": True}
            _, headers, text = await post(http, f"{url}/chat/completions", body)
            lines = [line[6:] for line in text.decode().splitlines() if line]
            assert headers["Content-Type"] == "text/event-stream"
            assert lines[-1] == "[DONE]"
            chunks = [json.loads(line) for line in lines[:-1]]
            deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
            assert all(delta["role"] == "assistant" for delta in deltas)
            assert any("usage" in chunk for chunk in chunks) == wants


class TestHyperbolic:
    @pytest.fixture
    def url(self, network: discovery.NetworkFile) -> str:
        return str(network.providers["hyperbolic"]["url"])

    @pytest.fixture
    def key(self, network: discovery.NetworkFile) -> dict[str, str]:
        return {"Authorization": f"Bearer {network.providers['hyperbolic']['api_key']}"}

    async def test_a_client_without_a_name_is_refused(self, url: str, key: dict[str, str]) -> None:
        async with (
            aiohttp.ClientSession() as nameless,  # says Python/3… aiohttp/3…
            nameless.get(f"{url}/models", headers=key) as answer,
        ):
            assert answer.status == 403
            assert "1010" in await answer.text()

    async def test_a_key_is_required(self, http: aiohttp.ClientSession, url: str) -> None:
        async with http.get(f"{url}/models") as answer:
            assert answer.status == 401

    async def test_a_missing_field_is_a_list_of_details(
        self, http: aiohttp.ClientSession, url: str, key: dict[str, str]
    ) -> None:
        status, _, text = await post(http, f"{url}/chat/completions", {"model": "x"}, **key)
        assert status == 422
        assert json.loads(text)["detail"][0]["loc"] == ["body", "messages"]

    async def test_a_model_error_has_a_number_for_a_code(
        self, http: aiohttp.ClientSession, url: str, key: dict[str, str]
    ) -> None:
        body = {**HELLO, "model": "gone"}
        status, _, text = await post(http, f"{url}/chat/completions", body, **key)
        assert status == 404
        assert json.loads(text)["code"] == 404
        assert json.loads(text)["object"] == "error"

    async def test_what_was_retired_is_not_there(
        self, http: aiohttp.ClientSession, url: str, key: dict[str, str]
    ) -> None:
        status, _, _ = await post(http, f"{url}/marketplace", {}, **key)
        assert status == 404

    async def test_without_credit_nothing_is_done(
        self, http: aiohttp.ClientSession, url: str, key: dict[str, str]
    ) -> None:
        body = {**HELLO, "model": "HuggingFaceTB/SmolLM2-135M-Instruct", "max_tokens": 10**7}
        status, _, text = await post(http, f"{url}/chat/completions", body, **key)
        assert status == 402
        assert json.loads(text)["error_code"] == 102
