"""Fetching one address: a request that is paid for where it has to be, as a run of one node."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypedDict

from agentkit.artifacts import Json
from agentkit.graph.builder import JobGraph
from agentkit.graph.frozen import FrozenGraph
from agentkit.kinds.kind import WebRequest
from agentkit.kinds.registry import bought_kind
from agentkit.market.chain import Network
from agentkit.market.receipt import Receipt
from agentkit.money import Money
from agentkit.providers import web
from agentkit.runtime.result import RunResult

NODE = "answer"
"""The one node of a fetch."""


class RequestFields(TypedDict, total=False):
    """What a request has beside its address."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    body: Mapping[str, Any] | Sequence[Any] | str | None
    headers: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer: its status and media type, its body as bytes, and what was paid for it.

    `run_id` is "" and `paid` None where the address asked for no payment.
    """

    status: int
    media_type: str
    body: bytes
    run_id: str = ""
    paid: Money | None = None
    receipts: tuple[Receipt, ...] = ()

    @classmethod
    def of(cls, result: RunResult) -> Self:
        """Return the answer that a run bought."""
        artifact = result[NODE]
        assert isinstance(artifact, Json)
        document = artifact.value
        return cls(
            status=document["status"],
            media_type=document["media_type"],
            body=_body(document),
            run_id=result.run_id,
            paid=result.paid,
            receipts=result.receipts,
        )

    @property
    def text(self) -> str:
        """The body as text; raises ValueError for one that is not UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """Return the body as JSON; raises ValueError for anything else."""
        return json.loads(self.body)


def graph_of(url: str, request: RequestFields) -> FrozenGraph:
    """Return the graph that fetches an address; raises WrongInput for what is not a request."""
    graph = JobGraph("fetch")
    graph.request(NODE, url=url, **request)
    return graph.freeze()


async def free_answer(network: Network, graph: FrozenGraph) -> Fetched | None:
    """Return the answer of an address that asks for no payment, None for one that does.

    Raises ProviderError.
    """
    provider = web.Web(web.NAME, network)
    try:
        answer = await provider.look(_wanted(graph))
    finally:
        await provider.close()
    if answer.status == 402:
        return None
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return Fetched(status=answer.status, media_type=media_type, body=answer.body)


def _wanted(graph: FrozenGraph) -> WebRequest:
    node = graph.by_name[NODE]
    wanted = bought_kind(node).web_request(node)
    assert wanted is not None
    return wanted


def _body(document: Mapping[str, Any]) -> bytes:
    """Return the body in an answer's document; JSON is written anew, with the same content."""
    if "base64" in document:
        return base64.b64decode(document["base64"])
    if "text" in document:
        return str(document["text"]).encode()
    return json.dumps(document["json"], ensure_ascii=False).encode()
