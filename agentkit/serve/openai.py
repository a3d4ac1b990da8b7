"""The OpenAI-compatible API of a provider node: the same tasks in another format.

With an API key of the operator a request is free.  A chat can also be bought over x402, if the
operator has set a facilitator.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from aiohttp import web

from agentkit.artifacts import Reply, Table
from agentkit.errors import AgentKitError
from agentkit.kinds.sizes import TEMPLATE_TOKENS
from agentkit.market.offer import charge
from agentkit.money import Money
from agentkit.net.guard import has_token
from agentkit.payments.x402.paywall import CHARGE, PAID, Price
from agentkit.pool.request import Done
from agentkit.providers import wire
from agentkit.serve.node import NODE, Node
from agentkit.serve.openai_wire import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    OpenAIRequest,
)


async def models(request: web.Request) -> web.Response:
    """Answer with the list of the node's models."""
    node = request.app[NODE]
    listed = [
        {"id": name, "object": "model", "created": 0, "owned_by": node.settings.name}
        for name in node.facts().models
    ]
    return web.json_response({"object": "list", "data": listed})


async def chat(request: web.Request) -> web.Response:
    """Answer a conversation: by a message, which may call one of the tools that it offers."""
    openai_request = wire.read(ChatRequest, await request.read(), "this request")
    done = await _do(request, openai_request)
    output = done.outputs[0]
    if isinstance(output, Reply):
        message = output.value
    else:
        message = {"role": "assistant", "content": output.read().decode()}
    choice = {"index": 0, "message": message, "finish_reason": done.finish_reason}
    return _completion("chat.completion", "chatcmpl", openai_request, choice, done.usage)


async def completions(request: web.Request) -> web.Response:
    """Answer with the continuation of a text."""
    openai_request = wire.read(CompletionRequest, await request.read(), "this request")
    done = await _do(request, openai_request)
    text = done.outputs[0].read().decode()
    choice = {"index": 0, "text": text, "finish_reason": done.finish_reason}
    return _completion("text_completion", "cmpl", openai_request, choice, done.usage)


async def embeddings(request: web.Request) -> web.Response:
    """Answer with the embedding of one text."""
    openai_request = wire.read(EmbeddingRequest, await request.read(), "this request")
    done = await _do(request, openai_request)
    output = done.outputs[0]
    vector = output.rows()[0]["vector"] if isinstance(output, Table) else []
    input_tokens = done.usage.get("input", 0)
    answer = {
        "object": "list",
        "model": openai_request.model,
        "data": [{"object": "embedding", "index": 0, "embedding": vector}],
        "usage": {"prompt_tokens": input_tokens, "total_tokens": input_tokens},
    }
    return web.json_response(answer)


async def passes_paywall(request: web.Request) -> bool:
    """Return whether a chat reaches the node without an x402 payment of its own.

    It does if it carries an operator's API key, or if it can be told at no cost that the node would
    refuse it: the client must see that refusal, and not be asked to pay for it.
    """
    node = request.app[NODE]
    if _has_key(request, node):
        return True
    try:
        openai_request = wire.read(ChatRequest, await request.read(), "this request")
        node.charged("infer", openai_request.params())
    except AgentKitError:
        return True
    return False


async def price_of_chat(request: web.Request) -> Price:
    """Return what a chat costs: a flat price in advance, or metered, up to its declared most.

    Raises Refused for one that this node does not do.  A GET, which buys nothing, is shown the
    flat price.
    """
    node = request.app[NODE]
    currency = node.network.currency
    flat = Money.parse(node.settings.request_price).bind(currency)
    if request.method != "POST":
        return Price.of(flat)
    openai_request = wire.read(ChatRequest, await request.read(), "this request")
    rates = node.charged("infer", openai_request.params()).rates
    return Price(flat=flat, at_most=charge(currency, dict(rates), _most(openai_request)))


async def check_chat(request: web.Request) -> None:
    """Raise the error with which the node would refuse a chat; it may have to count tokens."""
    node = request.app[NODE]
    openai_request = wire.read(ChatRequest, await request.read(), "this request")
    await node.pool.check("infer", openai_request.params(), {}, _most(openai_request))
    await node.pool.check_fits("infer", openai_request.params())


# -- inside --------------------------------------------------------------------------------------


async def _do(request: web.Request, openai_request: OpenAIRequest) -> Done:
    """Return the result of a request.

    Raises Refused, and HTTPPaymentRequired without an API key or a payment over x402.
    """
    node = request.app[NODE]
    params = openai_request.params()
    has_key = _has_key(request, node)
    if has_key or PAID in request:
        declared = None if has_key else _most(openai_request)
        key = f"open-{secrets.token_hex(8)}"
        done = await node.pool.run(key, "infer", params, {}, declared=declared)
        rates = node.charged("infer", params).rates
        request[CHARGE] = charge(node.network.currency, dict(rates), done.usage)
        return done

    node.charged("infer", params)  # a model that is not here is refused first
    raise web.HTTPPaymentRequired(
        text="this request has to be paid for: buy /v1/chat/completions over x402, or give an API"
        " key of this node"
    )


def _has_key(request: web.Request, node: Node) -> bool:
    return any(has_token(request, key) for key in node.settings.api_keys)


def _most(openai_request: OpenAIRequest) -> dict[str, int]:
    """Return the most units that a request can use.

    Every token has at least one byte, so a prompt has no more tokens than bytes.
    """
    most = {"request": 1, "input": openai_request.input_bytes + TEMPLATE_TOKENS}
    if openai_request.output_tokens:
        most["output"] = openai_request.output_tokens
    return most


def _completion(
    kind: str,
    prefix: str,
    openai_request: OpenAIRequest,
    choice: dict[str, Any],
    usage: dict[str, int],
) -> web.Response:
    """Answer with a completion in OpenAI's format."""
    tokens = {"prompt_tokens": usage.get("input", 0), "completion_tokens": usage.get("output", 0)}
    answer = {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": openai_request.model,
        "choices": [choice],
        "usage": {**tokens, "total_tokens": sum(tokens.values())},
    }
    return web.json_response(answer)
