"""The nodes of a job graph, as frozen data: what the document holds and the digest covers."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    field_validator,
    model_serializer,
    model_validator,
)

from agentkit.artifacts import KINDS, Artifact, Dataset, Embedding, Json, Model, Reply, Table, Text
from agentkit.errors import WrongInput
from agentkit.graph.callables import CallableSpec
from agentkit.graph.checks import CallableCheck, Redundant, VerifySpec
from agentkit.graph.conditions import Condition
from agentkit.graph.messages import ChatMessage, ToolSpec
from agentkit.graph.parts import with_parts
from agentkit.graph.refs import InputRef
from agentkit.user_values import UserValue

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Seconds = Annotated[float, Field(gt=0)]

Edges: TypeAlias = Iterator[tuple[str, InputRef, type[Artifact]]]
"""What for, the edge, and the type of artifact it must carry."""

Tag: TypeAlias = tuple[str, str]
"""Kind and operation of a node; the operation is "" for kinds that have only one."""


class Needs(UserValue):
    """Hardware a node asks for; `hours` bounds how long it may run.

    `gpu` by its name, `count` of them, each with at least `vram` GB of memory.  A provider that
    does not say that it has it is not asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    error_class = WrongInput

    gpu: str = ""
    vram: int = Field(default=0, ge=0)
    count: int = Field(default=1, ge=1)
    hours: float = Field(default=1.0, gt=0)


class Timeouts(UserValue):
    """Seconds for each stage of one try; None is as long as the runtime gives it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    error_class = WrongInput

    offers: Seconds | None = None
    submit: Seconds | None = None
    execute: Seconds | None = None
    settle: Seconds | None = None
    store: Seconds | None = None


def _only_literal(model: type[BaseModel], name: str) -> str:
    """Return the text of a field declared as a Literal of one text, "" for any other field.

    Raises TypeError where the field has a default: what is at its default is not written, and a
    document without its kind could not be read.
    """
    field = model.model_fields.get(name)
    texts = get_args(field.annotation) if field else ()
    if field is None or len(texts) != 1 or not isinstance(texts[0], str):
        return ""
    if not field.is_required():
        raise TypeError(f"{model.__qualname__}.{name} has a default, so it would not be written")
    return texts[0]


class NodeBase(BaseModel):
    """What every node has.

    `retries`: further tries after a failure known not to be paid.  `timeout`: seconds for one
    try, or for each stage of it.  `on_unknown`: what to do when a try's outcome cannot be found
    out.  `privacy="tee"`: only providers that attest a trusted environment.  `when`: conditions
    that must all hold, else the node is not done.  `cache`: the same task's artifact is taken
    again instead of paid for again.  `approve`: somebody is asked before the node begins.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    tag: ClassVar[Tag] = ("", "")
    """Read off the fields `kind` and `op`; the registry finds a document's model by it."""

    if TYPE_CHECKING:
        # Every kind declares it as a Literal.  A field of this class would be written before the
        # fields of subclasses, and so change the bytes of every plan.
        kind: str

    name: Name
    retries: int = Field(default=2, ge=0, le=20)
    timeout: Seconds | Timeouts | None = None
    on_unknown: Literal["pause", "rebuy"] = "pause"
    privacy: Literal["tee"] | None = None
    when: tuple[Condition, ...] = ()
    cache: bool = False
    approve: bool = False

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        cls.tag = (_only_literal(cls, "kind"), _only_literal(cls, "op"))

    def reads(self) -> Edges:
        """Yield the edges that carry data into this node."""
        yield from ()

    def edges(self) -> Edges:
        """Yield every edge: what the node reads, and what its conditions are about."""
        yield from self.reads()
        for condition in self.when:
            yield "when", condition.ref, Json

    @property
    def outputs(self) -> tuple[type[Artifact], ...]:
        """The types of artifact this node produces, in order."""
        raise TypeError(f"{type(self).__name__} does not say what it produces")

    @property
    def limits(self) -> Timeouts:
        """The seconds each stage may take; a plain number is for the execution."""
        given = self.timeout
        return given if isinstance(given, Timeouts) else Timeouts(execute=given)

    def callables(self) -> dict[str, CallableSpec]:
        """Return the functions in this node by their place, as `fn`, `when.0.fn`, `verify.1.fn`."""
        tests = enumerate(self.when)
        return {f"when.{n}.fn": test.fn for n, test in tests if test.fn} if self.when else {}

    def with_refs(self, change: Callable[[InputRef], InputRef]) -> Self:
        """Return this node with every edge changed."""
        return with_parts(self, InputRef, change)

    def renamed(self, name: str) -> Self:
        """Return this node under another name; raises ValidationError for no name."""
        return type(self).model_validate({**dict(self), "name": name})

    def identity(self, *, code: bool = True) -> dict[str, Any]:
        """Return what the digest of the graph covers of this node.

        Left out are defaults, so a field added later changes no digest, and a default may never
        change; where files of functions stand; and without `code` what their functions say.
        """
        bare = with_parts(self, CallableSpec, lambda spec: spec.bare(code=code))
        return bare.model_dump(mode="json", exclude_defaults=True)


class PaidNode(NodeBase):
    """A node that is bought; `verify` is what its result must pass before it is paid."""

    verify: tuple[VerifySpec, ...] = ()

    @field_validator("verify")
    @classmethod
    def _bought_in_one_way(cls, verify: tuple[VerifySpec, ...]) -> tuple[VerifySpec, ...]:
        if sum(isinstance(check, Redundant) for check in verify) > 1:
            raise ValueError("it holds more than one redundant check")
        return verify

    def callables(self) -> dict[str, CallableSpec]:
        checks = {f"verify.{n}.fn": check for n, check in enumerate(self.verify)}
        mine = {place: c.fn for place, c in checks.items() if isinstance(c, CallableCheck)}
        return {**super().callables(), **mine}

    @property
    def replicas(self) -> int:
        """How often the result is bought."""
        return next((check.of for check in self.verify if isinstance(check, Redundant)), 1)


TOOL_CHOICES = ("auto", "none", "required")
"""What a model may be told about its tools; the name of a tool stands for that one."""


NEWER_FIELDS = ("messages", "tools", "tool_choice", "seed", "top_p")
"""The fields of a question that came after plans were first written down."""


class InferNode(PaidNode):
    """Ask a model: a `prompt`, or `messages`.  With `over`, once for every row, filling columns in.

    `tools` may be called by the model, as `tool_choice` says: `auto`, `none`, `required`, or the
    name of one.  `seed` and `top_p` go to the model as they are.  `column` is what the answers are
    called beside the rows of `over`; else it is the node's name.
    `on_error="skip"` leaves a row out that fails for good at every provider, and goes on.
    """

    kind: Literal["infer"]
    model: str | InputRef
    prompt: str | None = None
    inputs: dict[str, InputRef] = {}
    over: InputRef | None = None
    max_items: int = Field(default=100, ge=1)
    style: Literal["chat", "complete"] = "chat"
    output: dict[str, Any] | Literal["embedding"] | None = None
    max_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    stop: tuple[str, ...] = ()
    column: str | None = Field(default=None, min_length=1)
    on_error: Literal["pause", "skip"] = "pause"
    messages: tuple[ChatMessage, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "auto"
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    top_p: float | None = Field(default=None, gt=0, le=1)

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave newer fields out while they say nothing: plans of before keep their bytes."""
        document: dict[str, Any] = write(self)
        for name in NEWER_FIELDS:
            if getattr(self, name) == type(self).model_fields[name].default:
                document.pop(name, None)
        return document

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if (self.prompt is None) == (not self.messages):
            raise ValueError("a question is either prompt= or messages=")
        is_plain = self.style == "chat" and self.output != "embedding"
        if (self.messages or self.tools) and not is_plain:
            raise ValueError("messages= and tools= are for chats, not for vectors or completions")
        if self.tools and self.output is not None:
            raise ValueError(
                "tools= and output= exclude one another: a call of a tool is no output"
            )
        names = [tool.function.name for tool in self.tools]
        if len({*names}) < len(names):
            raise ValueError("two of the tools have the same name")
        if self.tool_choice != "auto" and not self.tools:
            raise ValueError("tool_choice= needs tools=")
        if self.tool_choice not in TOOL_CHOICES and self.tool_choice not in names:
            raise ValueError("tool_choice= is auto, none, required or the name of one of the tools")
        return self

    @model_validator(mode="after")
    def _column_of_answers(self) -> Self:
        if self.column and (not self.over or self.output == "embedding"):
            raise ValueError("column is for the answers of over=, and vectors are called vector")
        if self.on_error == "skip" and not self.over:
            raise ValueError('on_error="skip" is for the rows of over=')
        return self

    def reads(self) -> Edges:
        if isinstance(self.model, InputRef):
            yield "model", self.model, Model
        if self.over:
            yield "over", self.over, Table
        for name, ref in self.inputs.items():
            yield name, ref, Artifact

    @property
    def outputs(self) -> tuple[type[Artifact], ...]:
        if self.output == "embedding":
            return (Embedding,)
        if self.over:
            return (Dataset,)
        if self.tools:
            return (Reply,)
        return (Json,) if self.output else (Text,)

    @property
    def templates(self) -> tuple[str, ...]:
        """The texts in which names in braces are filled in: the prompt, or one for each message."""
        if self.prompt is not None:
            return (self.prompt,)
        return tuple(message.content for message in self.messages)

    @property
    def adds(self) -> str:
        """The column that the rows of `over` gain."""
        return "vector" if self.output == "embedding" else self.column or self.name

    def renamed(self, name: str) -> Self:
        """Keep what the answers are called: prompts, queries and trainings name that column."""
        keeps = self.over and self.output != "embedding"
        column = {"column": self.adds} if keeps and name != self.name else {}
        return type(self).model_validate({**dict(self), "name": name, **column})

    def named(self) -> Iterator[str]:
        """Yield the name in braces at each place of the prompt or the messages."""
        for text in self.templates:
            for _, name, _, _ in string.Formatter().parse(text):
                if name is not None:
                    yield name

    def placeholders(self) -> set[str]:
        """The names in braces in the prompt or the messages."""
        return set(self.named())


class TrainNode(PaidNode):
    """Train a model on a dataset: columns `text` and `label`, method `head` or a provider's own."""

    kind: Literal["train"]
    base: str
    dataset: InputRef
    method: str = "head"
    text: str = "text"
    label: str = "label"
    epochs: int = Field(default=20, ge=1)
    seed: int = 0
    needs: Needs | None = None

    def reads(self) -> Edges:
        yield "dataset", self.dataset, Table

    @property
    def outputs(self) -> tuple[type[Artifact], ...]:
        return (Model,)


HTTP_METHODS = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

SECRET_HEADERS = ("authorization", "proxy-authorization", "cookie")
"""Headers that hold secrets: a graph is written down, sealed and shown."""


class RequestNode(PaidNode):
    """Send an HTTP request to an address that asks for a payment (x402), and keep its answer.

    `body` is sent as JSON, or as it is where it is text.
    """

    kind: Literal["request"]
    url: str = Field(pattern=r"^https?://[^\s@/?#]+([/?][^\s#]*)?$", max_length=2000)
    method: HTTP_METHODS = "GET"
    body: dict[str, Any] | list[Any] | str | None = None
    headers: dict[str, str] = {}

    @field_validator("headers")
    @classmethod
    def _without_secrets(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if name.lower() in SECRET_HEADERS or name.lower().startswith("payment-"):
                raise ValueError(f"the header {name} is not for a graph, which everybody may read")
            if not _HEADER.fullmatch(name) or "\n" in value or "\r" in value:
                raise ValueError(f"{name[:40]!r} is not a valid header")
        return headers

    @property
    def outputs(self) -> tuple[type[Artifact], ...]:
        return (Json,)


_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")


class SourceNode(NodeBase):
    """Bring a table in: a path or a URI, pinned by `sha256` if that is given."""

    kind: Literal["data"]
    op: Literal["source"]
    source: str
    sha256: Sha256 | None = None

    @property
    def outputs(self) -> tuple[type[Artifact], ...]:
        return (Dataset,)


class SqlNode(PaidNode):
    """Query tables: each input is a table of the same name."""

    kind: Literal["data"]
    op: Literal["sql"]
    sql: str
    inputs: dict[Name, InputRef]

    def reads(self) -> Edges:
        for name, ref in self.inputs.items():
            yield name, ref, Table

    @property
    def outputs(self) -> tuple[type[Artifact], ...]:
        return (Dataset,)


class SplitNode(NodeBase):
    """Part a table in two by a seeded draw: a share `at` of the rows, then the rest."""

    kind: Literal["data"]
    op: Literal["split"]
    table: InputRef
    at: float = Field(gt=0, lt=1)
    seed: int = 0

    def reads(self) -> Edges:
        yield "table", self.table, Table

    @property
    def outputs(self) -> tuple[type[Artifact], ...]:
        return (Dataset, Dataset)


class LocalNode(NodeBase):
    """Call a pure Python function on the agent's own machine; it is never shipped."""

    kind: Literal["local"]
    fn: CallableSpec
    args: tuple[InputRef, ...] = ()
    returns: str = "json"

    def reads(self) -> Edges:
        for number, ref in enumerate(self.args):
            yield f"argument {number + 1}", ref, Artifact

    def callables(self) -> dict[str, CallableSpec]:
        return {"fn": self.fn} | (super().callables() if self.when else {})

    @property
    def outputs(self) -> tuple[type[Artifact], ...]:
        return (KINDS[self.returns],)


def canonical(value: Any) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
