"""What is asked of a provider: a task spec while it is priced, a task when it is done."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from agentkit.artifacts import Artifact
from agentkit.graph.nodes import PaidNode, canonical
from agentkit.graph.registry import Node
from agentkit.market.value import Value

Units = Mapping[str, int]
"""Counts of what is charged for.

A `request`, its `input` and `output` tokens, `row`s trained on, `byte`s read, and `cpu_ms`:
milliseconds of processor time, measured by who did it.
"""

CPU_MS = "cpu_ms"

_CPU_MS_PER_UNIT = {"input": 10.0, "output": 150.0, "row": 50.0, "byte": 0.002}
"""Ten times what a slow core needs, units as in `Units`; a row counts as a long text read once."""

_CPU_MS_ALWAYS = 2000
"""What any task may use, beside its units: its libraries are loaded first."""

_CPU_MS_USUAL = 50


def cpu_ms_needed(units: Units) -> int:
    """Return the processor time that a task of so many units can need, generously.

    A node allows a task that declares no `cpu_ms` so much.
    """
    each = sum(_CPU_MS_PER_UNIT.get(unit, 0.0) * count for unit, count in units.items())
    return _CPU_MS_ALWAYS + round(each)


def with_cpu(load: Load, *, share: int, at_least: int = 0) -> Load:
    """Return a load that also declares processor time, by its units.

    Expected is one `share`-th of what the units can need, generously; declared at most is all of
    that, and no less than `at_least` milliseconds.
    """
    most = max(at_least, cpu_ms_needed(load.most))
    usual = _CPU_MS_USUAL + (cpu_ms_needed(load.expected) - _CPU_MS_ALWAYS) // share
    return Load(
        expected={**load.expected, CPU_MS: min(usual, most)}, most={**load.most, CPU_MS: most}
    )


class Load(Value):
    """How much work one purchase is: what is expected, and the most it can come to."""

    expected: dict[str, int]
    most: dict[str, int]


class TaskSpec(Value):
    """A node as it is priced: no data yet, its inputs' sizes estimated.

    `items` is the number of purchases the node may need (rows of `over`), each of size `load`;
    `likely` how many it is expected to need.  `basis` says where the expectation comes from,
    `spread` how far off it may be, as a share.
    """

    node: Node
    load: Load
    items: int = 1
    likely: int = 1
    basis: str = ""
    spread: float = 0.0

    @property
    def replicas(self) -> int:
        """How often each item is bought, from as many provider nodes."""
        return self.node.replicas if isinstance(self.node, PaidNode) else 1


@dataclass(frozen=True)
class Task:
    """A node as it is done, or one item of it: inputs resolved, prompt filled in.

    `params` is plain JSON.  `inputs` are artifacts whose bytes are at hand.
    """

    kind: str
    params: dict[str, Any]
    load: Load
    inputs: dict[str, Artifact] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """sha256 over kind, parameters and the digests of the inputs."""
        return task_digest(self.kind, self.params, self.inputs)


class _Named(Protocol):
    @property
    def digest(self) -> str: ...


def task_digest(kind: str, params: Mapping[str, Any], inputs: Mapping[str, _Named]) -> str:
    """Return the digest of a task, whichever form its inputs have."""
    named = {name: artifact.digest for name, artifact in inputs.items()}
    document = {"kind": kind, "params": params, "inputs": named}
    return hashlib.sha256(canonical(document)).hexdigest()
