"""The native protocol: the JSON that an agent and our nodes exchange over HTTP.

Artifacts up to 1 MiB travel inline in base64, larger ones by `PUT` and `GET /artifacts/{sha256}`.
Inputs are uploaded once the node has taken their job, and says which ones it waits for.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from agentkit import strict_json
from agentkit.artifacts import KINDS, Artifact
from agentkit.errors import ProtocolBroken
from agentkit.kinds.registry import bought_kind
from agentkit.market.attempt import Evidence, JobStatus
from agentkit.market.offer import Pays
from agentkit.market.task import Load, Task, TaskSpec, task_digest
from agentkit.market.value import Digest, Value
from agentkit.money import Money, Rate

INLINE_BYTES = 1024 * 1024
"""The largest artifact that travels inline."""

TASK_REFUSED = "TaskRefused"
"""The error type of a task that is wrong itself, so that no other node can do it either."""


class WireArtifact(Value):
    """An artifact on the wire; without `data` its bytes are fetched by digest."""

    kind: str = Field(max_length=64)
    digest: Digest
    size: int = Field(ge=0)
    media_type: str
    data: str | None = None

    @classmethod
    def of(cls, artifact: Artifact) -> WireArtifact:
        """Return an artifact for the wire, with its bytes if it is small."""
        data = None
        if artifact.size <= INLINE_BYTES:
            data = base64.b64encode(artifact.read()).decode()
        return cls(
            kind=artifact.kind,
            digest=artifact.digest,
            size=artifact.size,
            media_type=artifact.media_type,
            data=data,
        )

    def artifact(self, fetched: bytes | None = None) -> Artifact:
        """Return the artifact with its inline or `fetched` bytes, their digest checked.

        Raises ProtocolBroken.
        """
        kind = KINDS.get(self.kind)
        if kind is None:
            raise ProtocolBroken(f"there is no kind of artifact called {self.kind!r}")
        try:
            data = fetched if self.data is None else base64.b64decode(self.data, validate=True)
        except ValueError as error:
            raise ProtocolBroken("an artifact is not in base64") from error
        # The digest names the content, so nobody on the way can exchange it.
        artifact = kind.of(data or b"", self.media_type)
        if (artifact.digest, artifact.size) != (self.digest, self.size):
            raise ProtocolBroken(f"artifact {self.digest[:12]} does not hash to its own name")
        return artifact


class WireTask(Value):
    """A task on the wire."""

    kind: str = Field(max_length=64)
    params: dict[str, Any]
    load: Load
    inputs: dict[str, WireArtifact] = {}

    @classmethod
    def of(cls, task: Task) -> WireTask:
        inputs = {name: WireArtifact.of(artifact) for name, artifact in task.inputs.items()}
        return cls(kind=task.kind, params=task.params, load=task.load, inputs=inputs)

    @property
    def digest(self) -> str:
        """The digest of the task; see `market.task.Task`."""
        return task_digest(self.kind, self.params, self.inputs)


class Submission(Value):
    """The body of `POST /jobs`: the attempt's id, the task, the most it may cost, the payment."""

    attempt: Digest
    task: WireTask
    at_most: Money
    payment: dict[str, Any]


Count = Annotated[int, Field(ge=0, le=2**53)]


class QuestionLoad(BaseModel):
    """How much work is to be priced, by unit."""

    expected: dict[str, Count] = {}
    most: dict[str, Count] = {}


class Question(BaseModel):
    """The body of `POST /offers`: what a node is asked to price, without prompt and data.

    Unknown fields are ignored, so that newer agents can ask older nodes.
    """

    kind: str = Field(max_length=64)
    load: QuestionLoad = QuestionLoad()
    model: str = Field(default="", max_length=200)
    method: str = Field(default="", max_length=200)
    output: str = Field(default="", max_length=200)
    trained: bool = False


class WireOffer(Value):
    """A node's answer to a question: its rates, from which the agent computes the price.

    `eta` is in seconds for one purchase, `lasts` for how many seconds the rates hold; the rest as
    in `market.offer.Offer`.
    """

    on: str
    model: str = ""
    rates: dict[str, Rate]
    eta: float
    lanes: int
    lasts: float
    context: int = 0
    gpu: str = ""
    vram: int = 0
    tuning: tuple[str, ...] = ()


class NodeFacts(Value):
    """A node's answer to `GET /node`; `rails` are all the ways in which it can be paid."""

    name: str
    label: str = ""
    address: str
    chain_id: int
    token: str
    channels: str
    escrow: str = ""
    rail: str
    rails: tuple[str, ...] = ()
    pays: Pays
    kinds: tuple[str, ...]
    models: tuple[str, ...]
    detail: dict[str, Any] = {}


class Job(Value):
    """A node's answer about a job; outputs, usage, price and signature once it is done.

    `awaits` are the digests of the inputs to upload with `PUT /artifacts/{digest}`.
    """

    status: JobStatus
    awaits: tuple[Digest, ...] = ()
    outputs: tuple[WireArtifact, ...] = ()
    usage: dict[str, int] = {}
    price: Money | None = None
    evidence: Evidence = Evidence()
    model: str = ""
    finish_reason: str = ""


def question(spec: TaskSpec) -> dict[str, Any]:
    """Return the body that asks a node to price a spec, see `Question`."""
    node = spec.node
    fields_of_kind = bought_kind(node).question(node)
    return {"kind": node.kind, "load": spec.load.model_dump(), **fields_of_kind}


MAX_VALUES = 100_000
"""The most values in one body: a value of a few bytes can take a hundred times as much memory."""

M = TypeVar("M", bound=BaseModel)


def read(value: type[M], body: bytes, sender: str) -> M:
    """Return a value from the body of a request or an answer.

    Raises ProtocolBroken, which names the sender, for anything else.
    """
    name = value.__name__
    try:
        # Each value needs one of these characters before it, so they are counted before parsing.
        if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_VALUES:
            raise ProtocolBroken(f"its {name} holds too many values", provider=sender)
        strict_json.loads(body)  # which refuses what pydantic would take, such as NaN
        return value.model_validate_json(body)
    except strict_json.BadJson as error:
        raise ProtocolBroken(f"its {name} is not JSON: {error}", provider=sender) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])[:200]
        why = first["msg"].removeprefix("Value error, ")[:200]
        raise ProtocolBroken(f"its {name} is wrong at {field}: {why}", provider=sender) from error


def error_of(body: bytes) -> Mapping[str, Any]:
    """Return the `error` object in a body, empty if there is none."""
    try:
        error = from_json(body)["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}
