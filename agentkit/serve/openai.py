"""The OpenAI-compatible front of a provider node: the same jobs, asked for in another wire.

Paid by the header `Agentkit-Payment` (base64 of {"attempt", "at_most", "payment"}), the answer
stored under that attempt; or opened by an API key that the operator gave out; chats also one by
one over x402, where the operator has a facilitator.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import time
from typing import Any

from aiohttp import web

from agentkit.artifacts import Artifact, Table
from agentkit.errors import AgentKitError, ProtocolBroken, Refused
from agentkit.market.task import Load
from agentkit.net.guard import has_token
from agentkit.payments.x402.middleware import PAID
from agentkit.planner.estimate import TEMPLATE_TOKENS
from agentkit.providers import wire
from agentkit.serve.node import NODE, Node

WAIT_SECONDS = 300.0


async def models(request: web.Request) -> web.Response:
    """List the node's models."""
    node = request.app[NODE]
    listed = [
        {"id": name, "object": "model", "created": 0, "owned_by": node.settings.name}
        for name in node.facts().models
    ]
    return web.json_response({"object": "list", "data": listed})


async def chat(request: web.Request) -> web.Response:
    """Answer a chat; the messages' texts become one prompt, the last one the question."""
    body = await _body(request)
    messages = body.get("messages")
    if not isinstance(messages, list) or len(messages) != 1:
        raise Refused("this node answers one user message at a time")
    prompt = messages[0].get("content") if isinstance(messages[0], dict) else None
    output, usage = await _infer(request, body, prompt, "chat")
    message = {"role": "assistant", "content": output.read().decode()}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return _completion("chat.completion", "chatcmpl", body, choice, usage)


async def completions(request: web.Request) -> web.Response:
    """Continue a text."""
    body = await _body(request)
    output, usage = await _infer(request, body, body.get("prompt"), "complete")
    choice = {"index": 0, "text": output.read().decode(), "finish_reason": "stop"}
    return _completion("text_completion", "cmpl", body, choice, usage)


async def embeddings(request: web.Request) -> web.Response:
    """Embed one text."""
    body = await _body(request)
    params = {"model": body.get("model"), "prompt": body.get("input"), "output": "embedding"}
    output, usage = await _do(request, params, output=False)
    vector = output.rows()[0]["vector"] if isinstance(output, Table) else []
    data = [{"object": "embedding", "index": 0, "embedding": vector}]
    spent = {"prompt_tokens": usage.get("input", 0), "total_tokens": usage.get("input", 0)}
    answer = {"object": "list", "model": body.get("model"), "data": data, "usage": spent}
    return web.json_response(answer)


async def is_free(request: web.Request) -> bool:
    """Whether a chat is not sold by itself: opened by a key, paid by voucher, or to be refused."""
    node = request.app[NODE]
    if "Agentkit-Payment" in request.headers or _has_key(request, node):
        return True
    try:
        body = await _body(request)
        node.charged("infer", {"model": body["model"]}, {})
    except AgentKitError:
        return True
    return False


# -- inside --------------------------------------------------------------------------------------


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError as wrong:
        raise ProtocolBroken("the body is not JSON") from wrong
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise ProtocolBroken("the body names no model")
    if body.get("stream"):
        raise Refused("this node does not stream")
    return body


async def _infer(
    request: web.Request, body: dict[str, Any], prompt: object, style: str
) -> tuple[Artifact, dict[str, int]]:
    stop = body.get("stop") or []
    params = {
        "model": body["model"],
        "prompt": prompt,
        "style": style,
        "max_tokens": body.get("max_completion_tokens") or body.get("max_tokens") or 64,
        "temperature": body.get("temperature", 0.0),
        "stop": [stop] if isinstance(stop, str) else stop,
        "schema": _schema(body.get("response_format")),
    }
    return await _do(request, params, output=True)


def _schema(wanted: object) -> object:
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return None
    described = wanted.get("json_schema")
    return described.get("schema") if isinstance(described, dict) else None


async def _do(
    request: web.Request, params: dict[str, Any], *, output: bool
) -> tuple[Artifact, dict[str, int]]:
    """Have the pool do it: as a paid job, or at once for an operator's key or a paid request."""
    node = request.app[NODE]
    if not isinstance(params.get("prompt"), str):
        raise ProtocolBroken("the prompt is not a text")
    if _has_key(request, node) or PAID in request:
        declared = None if _has_key(request, node) else _most(params, output=output)
        key = f"open-{secrets.token_hex(8)}"
        done = await node.pool.run(key, "infer", params, {}, declared=declared)
        return done.outputs[0], done.usage
    submission = _submission(request, params, output=output)
    await node.jobs.take(submission, node.charged("infer", params, {}), {})
    job = await node.jobs.wait(submission.attempt, WAIT_SECONDS)
    if job is None or job.state != "done":
        raise Refused(f"the job {job.state}: {job.reason}" if job else "the job is gone")
    return (await node.jobs.outputs(job))[0], job.usage


def _has_key(request: web.Request, node: Node) -> bool:
    return any(has_token(request, key) for key in node.settings.api_keys)


def _submission(request: web.Request, params: dict[str, Any], *, output: bool) -> wire.Submission:
    """Return the paid job that a request's payment header makes of it; 402 without one."""
    header = request.headers.get("Agentkit-Payment")
    if not header:
        message = "pay with the Agentkit-Payment header, or give an API key of this node"
        error = {"error": {"type": "PaymentRequired", "message": message, "code": 402}}
        raise web.HTTPPaymentRequired(text=json.dumps(error), content_type="application/json")
    try:
        paid = json.loads(base64.b64decode(header, validate=True))
    except (binascii.Error, ValueError) as wrong:
        raise ProtocolBroken("the Agentkit-Payment header is not base64 of JSON") from wrong
    most = _most(params, output=output)
    load = Load(expected=most, most=most)
    task = wire.WireTask(kind="infer", params=params, load=load)
    document = {**paid, "task": task.model_dump(mode="json")} if isinstance(paid, dict) else {}
    submission: wire.Submission = wire.read(
        wire.Submission, json.dumps(document).encode(), "the payment"
    )
    return submission


def _most(params: dict[str, Any], *, output: bool) -> dict[str, int]:
    """Return what a request can come to: a token is a byte of its prompt at least."""
    most = {"request": 1, "input": len(str(params["prompt"]).encode()) + TEMPLATE_TOKENS}
    if output and isinstance(params["max_tokens"], int):  # else the pool refuses it
        most["output"] = params["max_tokens"]
    return most


def _completion(
    kind: str, prefix: str, body: dict[str, Any], choice: dict[str, Any], usage: dict[str, int]
) -> web.Response:
    tokens = {"prompt_tokens": usage.get("input", 0), "completion_tokens": usage.get("output", 0)}
    answer = {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": body["model"],
        "choices": [choice],
        "usage": {**tokens, "total_tokens": sum(tokens.values())},
    }
    return web.json_response(answer)
