"""What the rest of agentkit asks a kind of work: the base class of every kind.

There are two sorts.  A kind that is *bought* turns a node into tasks for providers, and says what
may be paid.  A kind that *runs here* does its nodes on this machine, for nothing.  The model of a
kind's nodes decides: a `PaidNode` is bought.

A kind has no state: there is one object of it in a process, and what it is asked about is an
argument.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeAlias, TypeVar

from agentkit.artifacts import Artifact
from agentkit.graph.nodes import NodeBase, PaidNode
from agentkit.kinds.artifact_checks import empty_output, unreadable_output
from agentkit.kinds.sizes import ASSUMED, GUESS, GUESSED, EstimateContext, Size, Sizes
from agentkit.market.offer import Offer
from agentkit.market.task import Load, Task, TaskSpec
from agentkit.market.value import digest_of

N = TypeVar("N", bound=NodeBase)
P = TypeVar("P", bound=PaidNode)
T = TypeVar("T")

Inputs: TypeAlias = Mapping[str, Artifact]
"""Artifacts by what they are for, as the node's `reads` names it."""

SMALL_BYTES = 64 << 10
"""Up to here a result is checked on the event loop; more would keep other purchases waiting."""


class Kind(ABC, Generic[N]):
    """What is particular to one kind of work, as far as all kinds have it."""

    node_type: ClassVar[type[NodeBase]]
    """The model of its nodes."""

    can_be_mended: ClassVar[bool] = False
    """Whether a person can mend what makes its nodes fail; the run then pauses and waits for it."""

    def sizes(self, node: N, sizes: Sizes, context: EstimateContext) -> tuple[Size, ...]:
        """Return how large each output is expected to be; `sizes` has those of earlier nodes."""
        return (ASSUMED,) * len(node.outputs)

    def models(self, node: N) -> tuple[str, ...]:
        """Return the names of the AI models that a node needs."""
        return ()

    def file_to_mend(self, node: N) -> str:
        """Return the file that a person has to mend when the node fails, "" when it is another."""
        return ""


# -- kinds that are bought -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChatRequirements:
    """What a chat endpoint must be able to do for a node: have a model, and give such an output.

    `model` is "" for one that is no model of the endpoint's: it comes with the task.
    """

    model: str
    output: Literal["text", "json", "embedding"] = "text"


@dataclass(frozen=True, slots=True)
class WebRequest:
    """An HTTP request: `body` is sent as JSON, or as it is where it is text."""

    url: str
    method: str = "GET"
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class BoughtKind(Kind[P]):
    """A kind of work that providers do.

    In the order in which it is asked: `spec` while a plan is made; `question`,
    `chat_requirements`, `web_request`, `pricing_key` and `unfit` for its offers; `items` and
    `task` once the inputs are there; `outputs` and `fault_in` for every result; `gather` for the
    answers of a node that has items.
    """

    # -- planning --------------------------------------------------------------------------------

    @abstractmethod
    def spec(self, node: P, sizes: Sizes) -> TaskSpec:
        """Return a node as it is priced; `sizes` has those of its inputs and of its own outputs.

        Raises WrongInput for a node that cannot be done, as far as that can be told now.
        """

    def with_cpu(self, load: Load) -> Load:
        """Return a load that also declares processor time, for kinds that are charged for it."""
        return load

    def question(self, node: P) -> dict[str, Any]:
        """Return what a native node is told beside kind and load: nothing of prompts and data."""
        return {}

    def chat_requirements(self, node: P) -> ChatRequirements | None:
        """Return what a chat endpoint needs to do the node; None for what is not a prompt.

        The parameters of the node's task are then those of an infer task.
        """
        return None

    def web_request(self, node: P) -> WebRequest | None:
        """Return what an address on the web is asked for the node; None for other work."""
        return None

    def pricing_key(self, node: P, load: Load) -> str:
        """Return a text that is equal for nodes that every provider prices alike.

        Providers are asked once for all nodes of one key.
        """
        unnamed = node.model_copy(update={"name": "n", "when": ()})
        return digest_of(unnamed.model_dump_json(), load.model_dump_json())

    def unfit(self, node: P, load: Load, offer: Offer) -> str:
        """Return what the node needs and the offer says it lacks, "" when it lacks nothing."""
        return ""

    # -- buying ----------------------------------------------------------------------------------

    def items(self, node: P, inputs: Inputs) -> Sequence[Any] | None:
        """Return the items that are bought one by one; None for a node of one purchase.

        Raises WrongInput for what cannot be bought.
        """
        return None

    def skips_failed_items(self, node: P) -> bool:
        """Return whether items that fail for good are left out, and the node goes on."""
        return False

    @abstractmethod
    def task(self, node: P, inputs: Inputs, item: Any = None) -> Task:
        """Return what a provider is asked to do, for one of `items` if the node has them.

        It depends on the arguments alone: after a crash, the same task must come again.  Raises
        WrongInput for what cannot be asked.
        """

    def outputs(self, node: P) -> tuple[type[Artifact], ...]:
        """Return the types of artifact that one purchase must deliver."""
        return node.outputs

    def is_quick_to_check(self, node: P, size: int) -> bool:
        """Return whether a result of so many bytes may be checked on the event loop."""
        return size <= SMALL_BYTES

    def fault_in(self, node: P, outputs: Sequence[Artifact]) -> str:
        """Say why the outputs of a purchase may not be paid, "" when they may.

        They are of the right types.  May block, where `is_quick_to_check` denies that it is quick.
        """
        return empty_output(outputs) or unreadable_output(outputs)

    def gather(
        self, node: P, inputs: Inputs, items: Sequence[Any], answers: Mapping[int, Artifact]
    ) -> tuple[Artifact, ...]:
        """Return the outputs of a node that has items; `answers` are by the item's number."""
        raise NotImplementedError(f"{type(self).__name__} has items and does not gather them")


def guessed_spec(node: PaidNode, load: Load) -> TaskSpec:
    """Return the spec of a node that is bought once, with a load that nobody counted."""
    return TaskSpec(node=node, load=load, basis=GUESSED, spread=GUESS)


# -- kinds that run here -------------------------------------------------------------------------


class Machine(Protocol):
    """What a node that runs on this machine may use, beside its inputs."""

    @property
    def folder(self) -> Path:
        """Where relative paths lie."""

    async def read(self, uri: str) -> bytes:
        """Return what lies under a URI; raises StoreUnavailable, WrongInput, MissingExtra."""

    def function(self, node: str, place: str) -> Callable[..., Any]:
        """Return the user's function at a place of a node, as `NodeBase.callables` names it."""

    def in_thread(self, function: Callable[[], T], *, alone: bool) -> Awaitable[T]:
        """Call a function in a thread; `alone`: in its own, so that nothing waits behind it."""


class LocalKind(Kind[N]):
    """A kind of work that is done on this machine."""

    @abstractmethod
    async def run(self, node: N, inputs: Inputs, machine: Machine) -> tuple[Artifact, ...]:
        """Return the outputs of a node.

        It is called again after a failure or a crash, so it must have no effect of its own.
        """
