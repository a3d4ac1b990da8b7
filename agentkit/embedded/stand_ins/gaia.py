"""An OpenAI-compatible llama.cpp node, wire shape after LlamaEdge (llama-api-server 0.28).

What it imitates on purpose: a request without a key is served and a wrong key is refused;
`max_tokens` is ignored; an unknown model is answered by the one that is there, under its own
name; errors are plain text that begins with the status; no price anywhere.
"""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from agentkit.embedded.stand_ins.core import MAX_BODY, Behind, body_of, trimmed, whole
from agentkit.net.bodies import bounded_bodies
from agentkit.net.guard import guard

SERVED_MODEL = "SmolLM2-135M-Instruct-Q4_1"
CONTEXT = 2048
LABEL = "stand-in: a llama.cpp node on this machine, wire shape after LlamaEdge"


def gaia_app(behind: Behind, key: str) -> web.Application:
    """Return the front's application; `key` is the node's API key."""
    front = Gaia(behind, key)
    app = web.Application(
        client_max_size=MAX_BODY, middlewares=[guard(), bounded_bodies(MAX_BODY), front.open_to_all]
    )
    app.router.add_route("*", "/v1/models", front.models)
    app.add_routes(
        [
            web.get("/echo", front.echo),
            web.get("/v1/info", front.info),
            web.post("/v1/chat/completions", front.chat),
            web.post("/v1/completions", front.completions),
            web.post("/v1/embeddings", front.not_here),
        ]
    )
    app.router.add_route("*", "/{path:.*}", front.unknown)
    return app


class Gaia:
    """The endpoints of the front."""

    def __init__(self, behind: Behind, key: str) -> None:
        self._behind, self._key = behind, key

    @web.middleware
    async def open_to_all(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Check a key only when one is given, as the real server does."""
        given = request.headers.get("Authorization", "")
        if given and given != f"Bearer {self._key}":
            return _plain(401, "Unauthorized: the API key is invalid")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def echo(self, request: web.Request) -> web.Response:
        return web.Response(text="echo test")

    async def models(self, request: web.Request) -> web.Response:
        model = {"id": SERVED_MODEL, "created": 0, "object": "model", "owned_by": "Not specified"}
        return web.json_response({"object": "list", "data": [model]})

    async def info(self, request: web.Request) -> web.Response:
        """Describe the node as `/v1/info` of a Gaia node does."""
        chat = {
            "name": SERVED_MODEL,
            "type": "chat",
            "ctx_size": CONTEXT,
            "prompt_template": "chatml",
        }
        server = {"type": "llama", "version": "0.28.1", "port": "9068", "chat_model": chat}
        servers = {"chat-server-embedded": {**server, "extras": {}}}
        return web.json_response({"node_version": "0.5.4", "servers": servers})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        if body is None or not isinstance(body.get("messages"), list):
            return _plain(400, "Bad Request: the chat request cannot be read")
        if body.get("stream"):
            return await self._stream(request, body)
        return await self._whole("/v1/chat/completions", body)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        if body is None or not isinstance(body.get("prompt"), str):
            return _plain(400, "Bad Request: the completion request cannot be read")
        return await self._whole("/v1/completions", body)

    async def not_here(self, request: web.Request) -> web.Response:
        return _plain(501, "Not Implemented: no embedding model is loaded")

    async def unknown(self, request: web.Request) -> web.Response:
        text = f"The requested service endpoint is not found: {request.path}"
        return web.Response(status=404, text=f"404 {text}")

    async def _whole(self, path: str, body: dict[str, Any]) -> web.Response:
        status, answer = await self._behind.ask(path, body, _limit(body))
        if status != 200:
            message = answer.get("error", {}).get("message", "the model failed")
            return _plain(400 if status < 500 else status, f"Internal Server Error: {message}")
        answer = trimmed(answer, SERVED_MODEL)
        headers = {"user": str(answer["id"]), "requires-tool-call": "false"}
        return web.json_response(answer, headers=headers)

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """Stream with the role on every chunk; usage only when it was asked for."""
        wants_usage = (body.get("stream_options") or {}).get("include_usage", False)
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        async with self._behind.stream("/v1/chat/completions", body, _limit(body)) as lines:
            async for line in lines:
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line[6:])
                if not chunk.get("choices") and not wants_usage:
                    continue
                for choice in chunk.get("choices", ()):
                    choice["delta"] = {**choice.get("delta", {}), "role": "assistant"}
                kept = {**trimmed(chunk, SERVED_MODEL), "object": "chat.completion.chunk"}
                if chunk.get("choices"):
                    del kept["usage"]
                await response.write(b"data: " + json.dumps(kept).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response


def _limit(body: dict[str, Any]) -> int:
    """Return the limit on answer tokens; without `max_completion_tokens` there is none."""
    return min(whole(body.get("max_completion_tokens")) or CONTEXT, CONTEXT)


def _plain(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=f"{status} {text}")
