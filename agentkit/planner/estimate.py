"""How much work each node is, as far as it can be told before any data exists.

What is particular to a kind of work stands in `agentkit.kinds`; here its estimates are followed
through the graph, and replaced by what an earlier run measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from types import MappingProxyType

from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.nodes import PaidNode
from agentkit.graph.registry import Node
from agentkit.kinds.registry import bought_kind, kind_of
from agentkit.kinds.sizes import GUESS, EstimateContext, Size, Sizes
from agentkit.market.receipt import Receipt
from agentkit.market.task import CPU_MS, TaskSpec
from agentkit.planner.queries import bind


@dataclass(frozen=True, slots=True)
class Measured:
    """What a purchase of a node used in an earlier run: units on average, and their spread.

    `spread` is the standard deviation of the largest unit, as a share of it.
    """

    node: Node
    run: str
    units: Mapping[str, float]
    spread: float


def measured_in(run: str, graph: FrozenGraph, receipts: Iterable[Receipt]) -> dict[str, Measured]:
    """Return what the purchases of a run used, by node."""
    used: dict[str, list[Mapping[str, int]]] = {}
    for receipt in receipts:
        if receipt.usage and receipt.attempt.node in graph.by_name:
            used.setdefault(receipt.attempt.node, []).append(receipt.usage)
    return {name: _mean(graph.by_name[name], run, counts) for name, counts in used.items()}


def _mean(node: Node, run: str, counts: list[Mapping[str, int]]) -> Measured:
    units = {unit: fmean(count.get(unit, 0) for count in counts) for unit in counts[0]}
    largest = max(units, key=lambda unit: units[unit] if unit != CPU_MS else -1.0)
    off = pstdev(count.get(largest, 0) for count in counts)
    spread = GUESS / 2 if len(counts) == 1 else off / max(units[largest], 1e-9)
    return Measured(node, run, units, spread)


def sizes_of(graph: FrozenGraph, folder: Path) -> Sizes:
    """Return the sizes of every node's outputs; relative sources are files in `folder`.

    Raises WrongInput for a source that cannot be read, and for a node whose kind is not installed.
    """
    context = EstimateContext(folder, bind)
    sizes: dict[str, tuple[Size, ...]] = {}
    for node in graph.nodes:
        sizes[node.name] = kind_of(node).sizes(node, sizes, context)
    return sizes


def carried(graph: FrozenGraph, sizes: Sizes) -> dict[str, dict[str, int]]:
    """Return the bytes that each node is expected to read of each of its parents."""
    read: dict[str, dict[str, int]] = {}
    for name, wires in graph.wires.items():
        read[name] = {}
        for _, parent, output in wires:
            more = sizes[parent][output].bytes
            read[name][parent] = read[name].get(parent, 0) + more
    return read


def spec_of(
    node: PaidNode, sizes: Sizes, measured: Mapping[str, Measured] = MappingProxyType({})
) -> TaskSpec:
    """Return what providers are asked to price; raises WrongInput for rows that cannot do.

    What an earlier run `measured` of the node comes before what its text and inputs say.
    """
    spec = bought_kind(node).spec(node, sizes)
    known = measured.get(node.name)
    if known is None or known.node != node:
        return spec
    expected = {
        unit: min(spec.load.most[unit], max(1, round(known.units.get(unit, count))))
        for unit, count in spec.load.expected.items()
    }
    load = spec.load.model_copy(update={"expected": expected})
    basis = f"measured in run {known.run}"
    return spec.model_copy(update={"load": load, "basis": basis, "spread": known.spread})
