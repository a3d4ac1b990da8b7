"""The HTTP API of a provider node: agentkit's own job API, and an OpenAI-compatible one.

GET  /node                      POST /offers              POST /carry
PUT  GET /artifacts/{sha256}    POST /jobs                GET /jobs/{attempt}
GET  /jobs/{attempt}/result     POST /jobs/{attempt}/cancel       GET /openapi.json
GET  /executions                GET  /metrics
GET  /v1/models    POST /v1/chat/completions  /v1/completions  /v1/embeddings
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from aiohttp import web

from agentkit.artifacts import Blob
from agentkit.errors import (
    AgentKitError,
    LeaseLost,
    ProtocolBroken,
    RateLimited,
    Refused,
    StateError,
    StoreUnavailable,
)
from agentkit.journal import records as r
from agentkit.market.attempt import Evidence, JobStatus, Message
from agentkit.market.value import Value
from agentkit.net.bodies import bounded_bodies, chunks
from agentkit.net.guard import guard, require_token
from agentkit.payments.x402.issuer import Issuer
from agentkit.payments.x402.paywall import Paywall
from agentkit.providers import wire
from agentkit.serve import openai
from agentkit.serve.listing import chat_declaration
from agentkit.serve.metrics import MEDIA_TYPE, Metrics, text_of
from agentkit.serve.node import NODE, Node
from agentkit.serve.openapi import openapi_document
from agentkit.serve.uploads import MAX_INPUT

MAX_BODY = 64 * 1024
"""The largest body, in bytes, of a route that has no limit in MAX_BODIES."""

MAX_BODIES = {
    "/jobs": 8 * 1024 * 1024,
    "/v1/chat/completions": 1024 * 1024,
    "/v1/completions": 1024 * 1024,
    "/v1/embeddings": 1024 * 1024,
}
UPLOAD = "/artifacts/{digest}"

MOST_WAIT = 30.0
DIGEST = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger(__name__)

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]

TOKEN: web.AppKey[str] = web.AppKey("token", str)
METRICS: web.AppKey[Metrics] = web.AppKey("metrics", Metrics)
PUBLIC_METRICS: web.AppKey[bool] = web.AppKey("public_metrics", bool)


def node_app(
    node: Node,
    *,
    token: str = "",
    host_names: Collection[str] = (),
    public_metrics: bool = False,
) -> web.Application:
    """Return the aiohttp application of a node.

    `token` gives the operator access to the execution log and to the figures, which anybody may
    read with `public_metrics`.  `host_names` are the names under which a proxy publishes the node;
    requests for other hosts than these and loopback are refused.
    """
    bodies = bounded_bodies(MAX_BODY, by_route=MAX_BODIES, streamed=[UPLOAD])
    # Errors are answered twice.  Inside of the paywall, because it decides by an answer's status
    # whether a paid request may be tried again.  Outside, for errors of the paywall and the limits.
    middlewares = [guard(host_names), answer_errors, bodies, *_paywall(node), answer_errors]
    app = web.Application(client_max_size=max(MAX_BODIES.values()), middlewares=middlewares)
    app[NODE] = node
    app[TOKEN] = token
    app[METRICS] = Metrics(node.journal, node.network.currency)
    app[PUBLIC_METRICS] = public_metrics
    app.add_routes(
        [
            web.get("/node", describe),
            web.get("/openapi.json", openapi),
            web.post("/offers", offers),
            web.post("/carry", carry),
            web.put(UPLOAD, put_artifact),
            web.get(UPLOAD, get_artifact),
            web.post("/jobs", submit),
            web.get("/jobs/{attempt}", find),
            web.get("/jobs/{attempt}/result", result),
            web.post("/jobs/{attempt}/cancel", cancel),
            web.get("/executions", executions),
            web.get("/metrics", metrics),
            web.get("/v1/models", openai.models),
            web.post("/v1/chat/completions", openai.chat),
            web.post("/v1/completions", openai.completions),
            web.post("/v1/embeddings", openai.embeddings),
        ]
    )
    return app


def _paywall(node: Node) -> list[Any]:
    """Return the middleware that sells single chats over x402, if a facilitator is set."""
    if node.x402 is None:
        return []
    paywall = Paywall(
        node.x402.schemes,
        prices={"POST /v1/chat/completions": openai.price_of_chat},
        free=openai.passes_paywall,
        refusal=_chat_refusal,
        issuer=Issuer(node.signer, node.network.id),
        declarations={"POST /v1/chat/completions": chat_declaration(node.facts().models)},
    )
    return [paywall.middleware]


async def _chat_refusal(request: web.Request) -> web.Response | None:
    """Return the error with which the node would answer a chat; None if it would do it."""
    try:
        await openai.check_chat(request)
    except AgentKitError as error:
        return error_answer(error)
    return None


@web.middleware
async def answer_errors(request: web.Request, handler: Handle) -> web.StreamResponse:
    """Answer errors as JSON; an unexpected exception is logged and answered with status 500."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        return _refusal_answer(refusal)
    except AgentKitError as error:
        return error_answer(error)
    except ConnectionError:
        raise  # the client has disconnected, so there is nobody to answer
    except Exception:
        log.exception("request %s %s failed", request.method, request.path)
        return _error(500, "InternalError", "the node failed; its operator's log says why")


def error_answer(error: AgentKitError) -> web.Response:
    """Return the JSON answer for an error of agentkit."""
    # A buyer must not try another provider for a task that every provider would refuse.
    of_task = isinstance(error, Refused) and error.of_task
    name = wire.TASK_REFUSED if of_task else type(error).__name__
    answer = _error(_status_of(error), name, str(error))
    if isinstance(error, RateLimited):
        answer.headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return answer


def _status_of(error: AgentKitError) -> int:
    """Return the HTTP status of an error: 503 and 429 say that a retry may help."""
    match error:
        case RateLimited():
            return 429
        case ProtocolBroken():
            return 400
        case StateError() | LeaseLost():  # the node's own fault
            return 503
        case _:
            return 422


def _refusal_answer(refusal: web.HTTPException) -> web.Response:
    """Return the JSON answer for an HTTP error that aiohttp raised, like 404 or 413."""
    if refusal.status < 400:  # a redirect, which is raised too
        raise refusal
    answer = _error(refusal.status, refusal.reason.replace(" ", ""), refusal.text or refusal.reason)
    for name in ("Allow", "Retry-After"):
        if name in refusal.headers:
            answer.headers[name] = refusal.headers[name]
    return answer


def _error(status: int, kind: str, message: str) -> web.Response:
    error = {"type": kind, "message": message, "code": status, "param": None}
    return web.json_response({"error": error}, status=status)


# -- the market ----------------------------------------------------------------------------------


async def describe(request: web.Request) -> web.Response:
    """Answer with the node's name, address, models and ways to be paid."""
    return _answer(request.app[NODE].facts())


async def openapi(request: web.Request) -> web.Response:
    """Answer with the description of all routes in OpenAPI 3.1."""
    return web.json_response(openapi_document())


async def offers(request: web.Request) -> web.Response:
    """Answer a question for an offer with the node's rates, or refuse it with the reason."""
    question: wire.Question = wire.read(wire.Question, await request.read(), "this question")
    return _answer(request.app[NODE].offer(question))


async def carry(request: web.Request) -> web.Response:
    """Take a message of a payment rail, like a voucher, and answer it."""
    message: Message = wire.read(Message, await request.read(), "this message")
    return _answer(await request.app[NODE].payment_books.take(message))


# -- artifacts -----------------------------------------------------------------------------------


async def put_artifact(request: web.Request) -> web.Response:
    """Store an uploaded input under its digest; only inputs that a job waits for are taken."""
    digest = _digest(request)
    await request.app[NODE].uploads.receive(digest, chunks(request, MAX_INPUT))
    return web.Response(status=201)


async def get_artifact(request: web.Request) -> web.StreamResponse:
    """Answer with an output; only somebody with the job's answer knows its digest."""
    digest = _digest(request)
    try:
        artifact = await request.app[NODE].store.get(Blob(digest, 0, ""))
    except StoreUnavailable:
        return _error(404, "NotFound", "there is no such artifact here")
    headers = {"Content-Type": "application/octet-stream"}
    return web.FileResponse(artifact.path, headers=headers)


def _digest(request: web.Request, part: str = "digest") -> str:
    """Return a digest in the URL; raises ProtocolBroken for anything else.

    It may become a file's path, so nothing but 64 hex digits is accepted.
    """
    digest = request.match_info[part]
    if not DIGEST.fullmatch(digest):
        raise ProtocolBroken(f"the {part} in the address is not 64 hex digits")
    return digest


# -- jobs ----------------------------------------------------------------------------------------


async def submit(request: web.Request) -> web.Response:
    """Take a job and answer with its state; the same attempt's key again is the same job."""
    node = request.app[NODE]
    submission: wire.Submission = wire.read(wire.Submission, await request.read(), "this job")
    task = submission.task
    pricing = node.charged(task.kind, task.params, trained=bool(task.inputs))
    job = await node.jobs.take(submission, pricing)
    return _job_answer(await _wire_job(node, job), status=202)


async def find(request: web.Request) -> web.Response:
    """Answer with the state of an attempt."""
    node = request.app[NODE]
    return await _answer_job_or_404(node, await node.jobs.find(_digest(request, "attempt")))


async def result(request: web.Request) -> web.Response:
    """Answer once an attempt has ended, or after the time that `Prefer: wait` allows."""
    node = request.app[NODE]
    job = await node.jobs.wait(_digest(request, "attempt"), _wait_seconds(request))
    return await _answer_job_or_404(node, job)


async def cancel(request: web.Request) -> web.Response:
    """Stop an attempt and answer with its state."""
    node = request.app[NODE]
    attempt = _digest(request, "attempt")
    await node.jobs.cancel(attempt)
    return await _answer_job_or_404(node, await node.jobs.find(attempt))


async def executions(request: web.Request) -> web.Response:
    """Answer the operator with the execution log; others need the token and are refused."""
    require_token(request, request.app[TOKEN])
    return web.json_response(await request.app[NODE].jobs.executions())


async def metrics(request: web.Request) -> web.Response:
    """Answer the operator with the node's figures, as Prometheus reads them.

    Others need the token and are refused, unless the operator has made them public: they say how
    much money a node has.
    """
    if not request.app[PUBLIC_METRICS]:
        require_token(request, request.app[TOKEN])
    text = text_of(await request.app[METRICS].figures())
    return web.Response(body=text.encode(), headers={"Content-Type": MEDIA_TYPE})


async def _answer_job_or_404(node: Node, job: r.Job | None) -> web.Response:
    if job is None:
        return _error(404, "LeaseLost", "there is no such attempt here")
    return _job_answer(await _wire_job(node, job))


def _job_answer(job: wire.Job, *, status: int = 200) -> web.Response:
    """Answer with a job.

    The newer fields `awaits`, `fault` and `finish_reason` are left out while they are empty: older
    payers do not know them.
    """
    document = job.model_dump(mode="json")
    for name in ("awaits", "finish_reason"):
        if not document[name]:
            del document[name]
    if not job.status.fault:
        del document["status"]["fault"]
    return _as_json(document, status)


async def _wire_job(node: Node, job: r.Job) -> wire.Job:
    """Return a job in the form of the API, with its outputs once it is done."""
    outputs = await node.jobs.outputs(job) if job.state == "done" else ()
    return wire.Job(
        awaits=node.jobs.missing(job.attempt),
        status=JobStatus(state=job.state, reason=job.reason, fault=job.fault),
        outputs=tuple(wire.WireArtifact.of(output) for output in outputs),
        usage=job.usage,
        price=job.price,
        evidence=Evidence(signer=node.signer.address, signature=job.signature),
        model=job.model,
        finish_reason=job.finish_reason,
    )


def _wait_seconds(request: web.Request) -> float:
    """Return the seconds that a header `Prefer: wait=N` asks for (RFC 7240), MOST_WAIT at most."""
    preference = re.search(r"wait=(\d{1,4})", request.headers.get("Prefer", ""))
    return min(float(preference[1]), MOST_WAIT) if preference else 0.0


def _answer(value: Value, *, status: int = 200) -> web.Response:
    return _as_json(value.model_dump(mode="json"), status)


def _as_json(document: dict[str, Any], status: int) -> web.Response:
    text = json.dumps(document)
    return web.Response(text=text, status=status, content_type="application/json")
