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

from agentkit import strict_json
from agentkit.artifacts import Artifact, Table
from agentkit.errors import AgentKitError, ProtocolBroken, Refused
from agentkit.kinds.sizes import TEMPLATE_TOKENS
from agentkit.market.task import Load
from agentkit.net.guard import has_token
from agentkit.payments.x402.middleware import PAID
from agentkit.providers import wire
from agentkit.serve.node import NODE, Node
from agentkit.serve.openai_wire import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    OpenAIRequest,
)

WAIT_SECONDS = 300.0

PAYMENT_HEADER = "Agentkit-Payment"


async def models(request: web.Request) -> web.Response:
    """List the node's models."""
    node = request.app[NODE]
    listed = [
        {"id": name, "object": "model", "created": 0, "owned_by": node.settings.name}
        for name in node.facts().models
    ]
    return web.json_response({"object": "list", "data": listed})


async def chat(request: web.Request) -> web.Response:
    """Answer a chat of one user message."""
    asked = wire.read(ChatRequest, await request.read(), "this request")
    output, usage = await _answered(request, asked)
    message = {"role": "assistant", "content": output.read().decode()}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return _completion("chat.completion", "chatcmpl", asked, choice, usage)


async def completions(request: web.Request) -> web.Response:
    """Continue a text."""
    asked = wire.read(CompletionRequest, await request.read(), "this request")
    output, usage = await _answered(request, asked)
    choice = {"index": 0, "text": output.read().decode(), "finish_reason": "stop"}
    return _completion("text_completion", "cmpl", asked, choice, usage)


async def embeddings(request: web.Request) -> web.Response:
    """Embed one text."""
    asked = wire.read(EmbeddingRequest, await request.read(), "this request")
    output, usage = await _answered(request, asked)
    vector = output.rows()[0]["vector"] if isinstance(output, Table) else []
    data = [{"object": "embedding", "index": 0, "embedding": vector}]
    spent = {"prompt_tokens": usage.get("input", 0), "total_tokens": usage.get("input", 0)}
    answer = {"object": "list", "model": asked.model, "data": data, "usage": spent}
    return web.json_response(answer)


async def passes_paywall(request: web.Request) -> bool:
    """Return whether a chat reaches the node without an x402 payment of its own.

    It does if it carries a channel payment or an operator's API key.  It also does if it can be
    told at no cost that the node would refuse it: the client must see that refusal, and not be
    asked to pay for it.
    """
    node = request.app[NODE]
    if PAYMENT_HEADER in request.headers or _has_key(request, node):
        return True
    try:
        asked = wire.read(ChatRequest, await request.read(), "this request")
        node.charged("infer", asked.params())
    except AgentKitError:
        return True
    return False


async def check_chat(request: web.Request) -> None:
    """Raise for a chat that this node would not do; costs it some work."""
    node = request.app[NODE]
    asked = wire.read(ChatRequest, await request.read(), "this request")
    await node.pool.check("infer", asked.params(), {}, _most(asked))
    await node.pool.check_fits("infer", asked.params())


# -- inside --------------------------------------------------------------------------------------


async def _answered(request: web.Request, asked: OpenAIRequest) -> tuple[Artifact, dict[str, int]]:
    """Have the pool do it: as a paid job, or at once for an operator's key or a paid request."""
    node, params = request.app[NODE], asked.params()
    if _has_key(request, node) or PAID in request:
        declared = None if _has_key(request, node) else _most(asked)
        key = f"open-{secrets.token_hex(8)}"
        done = await node.pool.run(key, "infer", params, {}, declared=declared)
        return done.outputs[0], done.usage
    if PAYMENT_HEADER not in request.headers:
        node.charged("infer", params)  # so that nobody pays for a model that is not here
        raise _payment_required()
    submission = _submission(request, asked)
    await node.jobs.take(submission, node.charged("infer", params))
    job = await node.jobs.wait(submission.attempt, WAIT_SECONDS)
    if job is None or job.state != "done":
        raise Refused(f"the job {job.state}: {job.reason}" if job else "the job is gone")
    return (await node.jobs.outputs(job))[0], job.usage


def _has_key(request: web.Request, node: Node) -> bool:
    return any(has_token(request, key) for key in node.settings.api_keys)


def _payment_required() -> web.HTTPPaymentRequired:
    return web.HTTPPaymentRequired(
        text=f"pay with the {PAYMENT_HEADER} header, or give an API key of this node"
    )


def _submission(request: web.Request, asked: OpenAIRequest) -> wire.Submission:
    """Return the paid job that a request's payment header makes of it."""
    try:
        header = base64.b64decode(request.headers[PAYMENT_HEADER], validate=True)
        paid = strict_json.loads(header)
    except (binascii.Error, ValueError) as error:
        raise ProtocolBroken(f"the {PAYMENT_HEADER} header is not base64 of JSON") from error
    most = _most(asked)
    task = wire.WireTask(kind="infer", params=asked.params(), load=Load(expected=most, most=most))
    document = {**paid, "task": task.model_dump(mode="json")} if isinstance(paid, dict) else {}
    return wire.read(wire.Submission, json.dumps(document).encode(), "the payment")


def _most(asked: OpenAIRequest) -> dict[str, int]:
    """Return what a request can come to: a token is a byte of its prompt at least."""
    most = {"request": 1, "input": len(asked.text.encode()) + TEMPLATE_TOKENS}
    return most | ({"output": asked.output_tokens} if asked.output_tokens else {})


def _completion(
    kind: str, prefix: str, asked: OpenAIRequest, choice: dict[str, Any], usage: dict[str, int]
) -> web.Response:
    """Return an answer in the shape that OpenAI's clients read."""
    tokens = {"prompt_tokens": usage.get("input", 0), "completion_tokens": usage.get("output", 0)}
    answer = {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": asked.model,
        "choices": [choice],
        "usage": {**tokens, "total_tokens": sum(tokens.values())},
    }
    return web.json_response(answer)
