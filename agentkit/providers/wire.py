"""The native wire: how tasks, results and offers are written between an agent and our nodes.

Plain JSON over HTTP.  Artifacts up to 1 MiB travel inline in base64, larger ones by
`PUT` and `GET /artifacts/{sha256}`: inputs once the node has taken their job and says which ones it
waits for.
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


TASK_REFUSED = "TaskRefused"
"""The type of error that a node answers where the task itself is wrong, whoever does it."""


class WireArtifact(Value):
    """An artifact as it travels; without `data` its bytes are fetched by digest."""

    kind: str = Field(max_length=64)
    digest: Digest
    size: int = Field(ge=0)
    media_type: str
    data: str | None = None

    @classmethod
    def of(cls, artifact: Artifact) -> WireArtifact:
        inline = artifact.size <= INLINE_BYTES
        return cls(
            kind=artifact.kind,
            digest=artifact.digest,
            size=artifact.size,
            media_type=artifact.media_type,
            data=base64.b64encode(artifact.read()).decode() if inline else None,
        )

    def artifact(self, fetched: bytes | None = None) -> Artifact:
        """Return the artifact, its digest checked; raises ProtocolBroken."""
        kind = KINDS.get(self.kind)
        if kind is None:
            raise ProtocolBroken(f"there is no kind of artifact called {self.kind!r}")
        try:
            data = fetched if self.data is None else base64.b64decode(self.data, validate=True)
        except ValueError as error:
            raise ProtocolBroken("an artifact is not in base64") from error
        artifact = kind.of(data or b"", self.media_type)
        if (artifact.digest, artifact.size) != (self.digest, self.size):
            raise ProtocolBroken(f"artifact {self.digest[:12]} does not hash to its own name")
        return artifact


class WireTask(Value):
    """A task as it travels."""

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
        """The digest of the task that travels, see `market.task.Task`."""
        return task_digest(self.kind, self.params, self.inputs)


class Submission(Value):
    """What is posted to `/jobs`: the attempt's key, the task, the most it may cost, the payment."""

    attempt: Digest
    task: WireTask
    at_most: Money
    payment: dict[str, Any]


Count = Annotated[int, Field(ge=0, le=2**53)]


class QuestionLoad(BaseModel):
    """How much work a question is about, by unit."""

    expected: dict[str, Count] = {}
    most: dict[str, Count] = {}


class Question(BaseModel):
    """What a node is asked to price: no prompt, no data; what it does not know is not read."""

    kind: str = Field(max_length=64)
    load: QuestionLoad = QuestionLoad()
    model: str = Field(default="", max_length=200)
    method: str = Field(default="", max_length=200)
    output: str = Field(default="", max_length=200)
    trained: bool = False


class WireOffer(Value):
    """A node's answer to a question: its rates; the asker does the sum.

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
    """What a node says of itself at `/node`; `rails` are all that it can be paid by."""

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
    """A job at `/jobs/{attempt}`; outputs, usage, price and signature once it is done.

    `awaits` are the digests of inputs that its node waits for, to be put to `/artifacts/{digest}`.
    """

    status: JobStatus
    awaits: tuple[Digest, ...] = ()
    outputs: tuple[WireArtifact, ...] = ()
    usage: dict[str, int] = {}
    price: Money | None = None
    evidence: Evidence = Evidence()
    model: str = ""


def question(spec: TaskSpec) -> dict[str, Any]:
    """Return what a node is told to price a spec: no prompt, no data."""
    node = spec.node
    about_the_kind = bought_kind(node).question(node)
    return {"kind": node.kind, "load": spec.load.model_dump(), **about_the_kind}


MAX_VALUES = 100_000
"""Values in one body: a few bytes of JSON can become a hundred times as much memory."""

M = TypeVar("M", bound=BaseModel)


def read(value: type[M], body: bytes, who: str) -> M:
    """Return a value from the body of a request or an answer; raises ProtocolBroken."""
    try:
        if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_VALUES:
            raise ProtocolBroken(f"its {value.__name__} holds too many values", provider=who)
        strict_json.loads(body)  # which refuses what pydantic would take, such as NaN
        return value.model_validate_json(body)
    except strict_json.BadJson as error:
        raise ProtocolBroken(f"its {value.__name__} is not JSON: {error}", provider=who) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:200]
        raise ProtocolBroken(f"its {value.__name__} is wrong at {where}", provider=who) from error


def error_of(body: bytes) -> Mapping[str, Any]:
    """Return the `error` object of a body, empty when there is none."""
    try:
        error = from_json(body)["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}
