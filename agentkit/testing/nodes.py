"""An OpenAI-compatible endpoint that misbehaves, for tests of whatever talks to one.

    async with FaultyNode(model="m") as node:
        node.fault = "html"
        ...  # ask `node.url` for a chat: it answers with a page
        assert node.bites["html"] == 1

It lists its one model at `/v1/models` and answers every `POST` with `Hello there.`, counted as nine
tokens of question and three of answer, until `fault` names another answer.  `FAULTS` has all of
them by name, with what each answers in words; `bites` counts how often each was given, so that a
test can see that its fault was reached.  `requests` are the bodies that came, and `lists` counts
how often the list of models was asked for.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from agentkit.net.guard import guard

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}

Reply = Callable[[web.Request, str], Awaitable[web.StreamResponse]]
"""Answers a request for a model."""


@dataclass(frozen=True)
class Fault:
    """One way to misbehave: `answers` says it in words, `reply` does it."""

    name: str
    answers: str
    reply: Reply = field(repr=False)


def good(model: str, content: Any = "Hello there.", **changes: Any) -> dict[str, Any]:
    """Return a good answer, or one with `changes` to its fields."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": "stop",
    }
    whole = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [choice],
        "usage": USAGE,
    }
    return {**whole, **changes}


def ended(model: str, reason: str, **message: Any) -> dict[str, Any]:
    """Return an answer that ended for a reason, with other fields of its message."""
    choice = {"index": 0, "message": {"content": None, **message}, "finish_reason": reason}
    return good(model, choices=[choice])


@dataclass
class FaultyNode:
    """A server on this machine; used with `async with`, which opens a port of its own."""

    model: str = "m"
    fault: str = ""
    bites: Counter[str] = field(default_factory=Counter)
    requests: list[dict[str, Any]] = field(default_factory=list)
    lists: int = 0
    url: str = ""
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[guard()])
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/{path:.*}", self._work)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *raised: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        self.lists += 1
        return web.json_response({"object": "list", "data": [{"id": self.model}]})

    async def _work(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        if not self.fault:
            return web.json_response(good(self.model))
        self.bites[self.fault] += 1
        return await FAULTS[self.fault].reply(request, self.model)


# -- the table -----------------------------------------------------------------------------------

FAULTS: dict[str, Fault] = {}
"""Every fault by its name."""


def _add(name: str, answers: str, reply: Reply) -> None:
    FAULTS[name] = Fault(name, answers, reply)


def _json(
    name: str,
    answers: str,
    document: Callable[[str], Any],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Add a fault that is a complete JSON answer."""

    async def reply(request: web.Request, model: str) -> web.StreamResponse:
        body = json.dumps(document(model)).encode()
        kind = "application/json"
        return web.Response(body=body, status=status, headers=headers, content_type=kind)

    _add(name, answers, reply)


def _bytes(
    name: str, answers: str, body: Callable[[bytes], bytes], headers: Mapping[str, str]
) -> None:
    """Add a fault that changes the bytes of a good answer."""

    async def reply(request: web.Request, model: str) -> web.StreamResponse:
        sent = json.dumps(good(model, "Grüße"), ensure_ascii=False).encode()
        return web.Response(body=body(sent), headers=headers)

    _add(name, answers, reply)


def _raw_deflate(content: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-15)
    return packing.compress(content) + packing.flush()


async def _cut(request: web.Request, model: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"id": "chatcmpl-1", "choices": [')
    assert request.transport
    request.transport.close()
    return response


async def _twice(request: web.Request, model: str) -> web.StreamResponse:
    response = web.json_response(good(model))
    await response.prepare(request)
    await response.write_eof()
    late = json.dumps(good(model, "An answer that nobody asked for.")).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(late)}\r\n\r\n"
    assert isinstance(request.transport, asyncio.Transport)
    # A moment later, so that the first answer was read to its end before.
    loop = asyncio.get_running_loop()
    loop.call_later(0.01, request.transport.write, head.encode() + late)
    return response


def _events(*chunks: dict[str, Any], end: str = "data: [DONE]\n\n") -> Reply:
    async def reply(request: web.Request, model: str) -> web.StreamResponse:
        named = [{"id": "chatcmpl-1", "model": model, **chunk} for chunk in chunks]
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in named]
        text = ": keep-alive\n\n" + "".join(lines) + end
        return web.Response(text=text, content_type="text/event-stream")

    return reply


def _delta(text: str, finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}]}


_PART = {"type": "text", "text": "Hello "}
_THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
_OVERLOADED = {"message": "Upstream error: overloaded", "code": 502}
_PLAIN = {"Content-Type": "application/json"}

_json("other model", "the name of another model", lambda m: good("theirs/other"))
_json("dated model", "the name with a date", lambda m: good(f"{m}-2024-07-18"))
_json("prefixed model", "the name with an organisation", lambda m: good(f"openai/{m.upper()}"))
_json("no model", "no name of a model", lambda m: {**good(m), "model": None})
_json("empty", "an empty text", lambda m: good(m, ""))
_json("null", "null as text", lambda m: good(m, None))
_json("blanks", "blanks as text", lambda m: good(m, " \n "))
_json("number", "a number as text", lambda m: good(m, 42))
_json("object", "an object as text", lambda m: good(m, {"answer": 42}))
_json("parts", "text in parts, with a thought", lambda m: good(m, [_THOUGHT, _PART, _PART]))
_json("picture", "a part that is a picture", lambda m: good(m, [{"type": "image_url"}]))
_json("no choices", "an empty list of choices", lambda m: good(m, choices=[]))
_json("half character", "half a surrogate pair", lambda m: good(m, "bad \ud83d end"))
_json("tool call", "a call of a tool", lambda m: ended(m, "tool_calls", tool_calls=[{"id": "1"}]))
_json("refusal", "a refusal", lambda m: ended(m, "stop", refusal="I cannot help."))
_json("filtered", "half a text, filtered", lambda m: ended(m, "content_filter", content="You"))
_json("failed", "half a text, failed", lambda m: ended(m, "error", content="The transfer"))
_json("truncated", "a text cut at its limit", lambda m: ended(m, "length", content="Once"))
_json("only thoughts", "nothing but reasoning", lambda m: ended(m, "length", reasoning="I think"))
_json("busy 200", "429 in a success", lambda m: {"error": {"message": "slow", "code": 429}})
_json("overloaded 200", "502 in a success", lambda m: {"error": _OVERLOADED})
_json("loading 200", "a detail in a success", lambda m: {"detail": "Model is loading, wait"})
_json("error 200", "another error in a success", lambda m: {"error": {"message": "no memory"}})
_json("billed error", "an error and its bill", lambda m: good(m, choices=None, error=_OVERLOADED))
_json("no usage", "no counts", lambda m: good(m, usage=None))
_json("below zero", "counts below zero", lambda m: good(m, usage={"prompt_tokens": -(10**6)}))
_json("NaN", "counts that are none", lambda m: good(m, usage={"prompt_tokens": float("nan")}))
_json(
    "long prompt",
    "the counts of a system prompt of its own",
    lambda m: good(m, usage={"prompt_tokens": 1450, "completion_tokens": 3}),
)
_json("overloaded", "529", lambda m: {"error": {"message": "Overloaded"}}, 529)
_json("no credit", "402", lambda m: {"error": {"message": "Insufficient credits"}}, 402)
_json("listed error", "400 in a list", lambda m: [{"error": {"message": "key not valid"}}], 400)
_json("moved", "a redirect", lambda m: {}, 307, {"Location": "https://moved.example/v1"})

_bytes("mark", "a byte order mark", lambda sent: b"\xef\xbb\xbf" + sent, _PLAIN)
_bytes("blank lines", "blank lines to keep alive", lambda sent: b"\n\n \n" + sent, _PLAIN)
_bytes(
    "UTF-16",
    "UTF-16",
    lambda sent: sent.decode().encode("utf-16"),
    {"Content-Type": "application/json; charset=utf-16"},
)
_bytes(
    "latin-1",
    "latin-1",
    lambda sent: sent.decode().encode("latin-1"),
    {"Content-Type": "application/json; charset=iso-8859-1"},
)
_bytes("gzip", "gzip", gzip.compress, {"Content-Encoding": "gzip"})
_bytes("deflate", "deflate in zlib's frame", zlib.compress, {"Content-Encoding": "deflate"})
_bytes("raw deflate", "deflate without a frame", _raw_deflate, {"Content-Encoding": "deflate"})
_bytes("brotli", "a coding nobody asked for", lambda sent: b"\x0b\x02", {"Content-Encoding": "br"})
_bytes("half gzip", "half of a gzip", lambda s: gzip.compress(s)[:-9], {"Content-Encoding": "gzip"})
_bytes("trailing comma", "a trailing comma", lambda sent: sent[:-1] + b",}", _PLAIN)
_bytes("nothing", "an empty body", lambda sent: b"", _PLAIN)
_bytes(
    "html",
    "a page",
    lambda sent: b"<html><body>Just a moment...</body></html>",
    {"Content-Type": "text/html"},
)
_add("events", "a stream of events", _events(_delta("Hello "), _delta("there.", "stop")))
_add("half events", "a stream without its end", _events(_delta("Hello"), end=""))
_add("cut", "half of a body", _cut)
_add("twice", "a second answer that nobody asked for", _twice)
