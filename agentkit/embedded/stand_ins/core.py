"""What both fronts need of the llama.cpp server behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from agentkit import strict_json
from agentkit.json_schemas import fault_of, unsupported_in
from agentkit.pool.llama import Core
from agentkit.pool.pool import Pool

MAX_BODY = 4 * 1024 * 1024
"""Bytes of the longest request that a front reads."""

MODEL = "smollm2-135m"
PASSED_ON = ("messages", "prompt", "temperature", "top_p", "n", "stop", "seed", "response_format")
KEPT = ("id", "object", "created", "choices", "usage")


class Behind:
    """The core behind a front: started with the first question, asked over loopback HTTP."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, path: str, body: dict[str, Any], limit: int) -> tuple[int, Any]:
        """Return the core's status and answer to a request; `limit` bounds the answer's tokens."""
        try:
            async with self._post(path, _inner(body, limit)) as answer:
                status, document = answer.status, await answer.json()
        except aiohttp.ClientError:
            return 503, {"error": {"message": "the model's process went away"}}
        if status == 500 and "Failed to parse" in str(document):  # what the asker sent, that is
            status = 400
        return status, document

    @asynccontextmanager
    async def stream(
        self, path: str, body: dict[str, Any], limit: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yield the lines of the core's event stream."""
        inner = {**_inner(body, limit), "stream": True, "stream_options": {"include_usage": True}}
        async with self._post(path, inner) as answer:
            yield aiter(answer.content)

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    @asynccontextmanager
    async def _post(self, path: str, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        core: Core = await self._pool.core(MODEL)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=600),
                connector=aiohttp.TCPConnector(force_close=True),  # as in `pool.llama`
            )
        headers = {"Authorization": f"Bearer {core.key}"}
        async with self._session.post(core.url + path, json=body, headers=headers) as answer:
            yield answer


def _inner(body: dict[str, Any], limit: int) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": limit, **{k: body[k] for k in PASSED_ON if k in body}}


def trimmed(answer: dict[str, Any], model: str) -> dict[str, Any]:
    """Return an answer with the fields that real endpoints have, under their model's name."""
    kept = {key: answer[key] for key in KEPT if key in answer}
    kept["usage"] = {
        key: (answer.get("usage") or {}).get(key, 0)
        for key in ("prompt_tokens", "completion_tokens", "total_tokens")
    }
    return {**kept, "model": model}


async def body_of(request: web.Request) -> dict[str, Any] | None:
    """Return a request's JSON object, None when it is none or asks for an endless grammar."""
    try:
        body = strict_json.loads(await request.read())
    except strict_json.BadJson:
        return None
    if not isinstance(body, dict) or not await asyncio.to_thread(_is_bounded, body):
        return None
    return body


def _is_bounded(body: dict[str, Any]) -> bool:
    """Whether the schema of the answer, if there is one, makes a grammar of bounded size."""
    wanted = body.get("response_format")
    described = wanted.get("json_schema") if isinstance(wanted, dict) else None
    schema = described.get("schema") if isinstance(described, dict) else None
    return schema is None or not (fault_of(schema) or unsupported_in(schema))


def whole(value: object) -> int:
    """Return a number of tokens, 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
