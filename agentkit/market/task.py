"""The work that is bought: a task spec to be priced, and a task to be done."""

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
"""Counts of what is charged for, by unit.

`request`s, `input` and `output` tokens, `row`s trained on, `byte`s read, and `cpu_ms`:
milliseconds of processor time, measured by the provider.
"""

CPU_MS = "cpu_ms"

_CPU_MS_PER_UNIT = {"input": 10.0, "output": 150.0, "row": 50.0, "byte": 0.002}
"""Milliseconds for each unit: ten times what a slow core needs; a row counts as one long text."""

_CPU_MS_ALWAYS = 2000
"""Milliseconds that any task may use beside its units, because its libraries are loaded first."""

_CPU_MS_USUAL = 50
"""Milliseconds that a task is expected to use beside its units: the libraries mostly are loaded."""


def cpu_ms_needed(units: Units) -> int:
    """Return a generous limit on the processor time of a task, in milliseconds.

    A provider node allows that much to a task that declares no `cpu_ms`.
    """
    for_units = sum(_CPU_MS_PER_UNIT.get(unit, 0.0) * count for unit, count in units.items())
    return _CPU_MS_ALWAYS + round(for_units)


def with_cpu(load: Load, *, share: int, at_least: int = 0) -> Load:
    """Return a load that also declares processor time, by its units.

    The most is `cpu_ms_needed`, and no less than `at_least` milliseconds.  That limit is generous,
    so only one `share`-th of it is expected.
    """
    most = max(at_least, cpu_ms_needed(load.most))
    expected = _CPU_MS_USUAL + (cpu_ms_needed(load.expected) - _CPU_MS_ALWAYS) // share
    return Load(
        expected={**load.expected, CPU_MS: min(expected, most)},
        most={**load.most, CPU_MS: most},
    )


class Load(Value):
    """How much work one purchase is, in `Units`: the expected amount, and the most."""

    expected: dict[str, int]
    most: dict[str, int]


class TaskSpec(Value):
    """A node to be priced: without data, the sizes of its inputs estimated.

    `items` is the number of purchases that the node may need (rows of `over`), each of size
    `load`; `likely` is how many it is expected to need.  `basis` says where the expectation comes
    from, and `spread` how far off it may be, as a share.
    """

    node: Node
    load: Load
    items: int = 1
    likely: int = 1
    basis: str = ""
    spread: float = 0.0

    @property
    def replicas(self) -> int:
        """How often each item is bought, each time from another provider node."""
        return self.node.replicas if isinstance(self.node, PaidNode) else 1


@dataclass(frozen=True)
class Task:
    """A node to be done, or one item of it: inputs resolved, prompt filled in.

    `params` is plain JSON; the bytes of the `inputs` can be read.
    """

    kind: str
    params: dict[str, Any]
    load: Load
    inputs: dict[str, Artifact] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """sha256 over kind, parameters and the digests of the inputs."""
        return task_digest(self.kind, self.params, self.inputs)


class _HasDigest(Protocol):
    @property
    def digest(self) -> str: ...


def task_digest(kind: str, params: Mapping[str, Any], inputs: Mapping[str, _HasDigest]) -> str:
    """Return the digest of a task; its inputs may be artifacts, or artifacts on the wire."""
    digests = {name: artifact.digest for name, artifact in inputs.items()}
    document = {"kind": kind, "params": params, "inputs": digests}
    return hashlib.sha256(canonical(document)).hexdigest()
