"""Graphs with made-up offers, the same for the same seed, and a checker that trusts nothing.

Layered graphs are drawn; real ones are read from WfFormat 1.5.  Offers differ in speed and price
for each kind of task; providers charge for data that leaves them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agentkit.planner.solver import baselines
from agentkit.planner.solver.problem import Choice, Problem

LEAST_SECONDS = 0.001


@dataclass(frozen=True)
class Instance:
    """A graph and its offers: [node, offer] arrays, [edge] arrays, [provider] arrays.

    Sizes in GB, prices in dollars, times in seconds; `egress` is dollars per GB that leaves.
    """

    name: str
    times: np.ndarray
    costs: np.ndarray
    offered: np.ndarray
    providers: np.ndarray
    parents: np.ndarray
    children: np.ndarray
    sizes: np.ndarray
    egress: np.ndarray
    latency: np.ndarray
    per_gb: np.ndarray

    @property
    def digest(self) -> str:
        """sha256 over every array, so that others can see that theirs is the same."""
        total = hashlib.sha256()
        for name in sorted(self.__dataclass_fields__):
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                total.update(f"{name}{value.shape}{value.dtype.kind}".encode())
                wide = np.float64 if value.dtype.kind == "f" else np.int64
                total.update(np.ascontiguousarray(value, wide).tobytes())
        return total.hexdigest()

    def without_egress(self) -> Instance:
        """Return the instance with nothing to carry: only latency is left between providers."""
        return replace(self, sizes=self.sizes * 0, egress=self.egress * 0)

    @property
    def problem(self) -> Problem:
        wait = self.latency[:, None] + self.sizes[None, :] * self.per_gb[:, None]
        return Problem(
            times=np.where(self.offered, self.times, 0.0),
            costs=np.where(self.offered, self.costs, np.inf),
            sites=np.broadcast_to(self.providers, self.times.shape).copy(),
            parents=self.parents,
            children=self.children,
            egress_costs=self.sizes[None, :] * self.egress[:, None],
            egress_times=wait,
            lanes=np.zeros(len(self.egress), int),
            demands=np.ones(len(self.times), int),
        )

    def check(self, choice: Sequence[int]) -> tuple[float, float]:
        """Recompute what a choice costs and lasts from the instance alone, edge by edge."""
        cost, ends = 0.0, [0.0] * len(self.times)
        ready = [0.0] * len(ends)
        into: list[list[int]] = [[] for _ in ends]
        for edge, child in enumerate(self.children.tolist()):
            into[child].append(edge)
        for node, offer in enumerate(choice):
            if not self.offered[node, offer]:
                raise ValueError(f"node {node} has no offer {offer}")
            cost += float(self.costs[node, offer])
            for edge in into[node]:
                parent = int(self.parents[edge])
                there = int(self.providers[choice[parent]])
                arrive = ends[parent]
                if there != int(self.providers[offer]):
                    size = float(self.sizes[edge])
                    cost += size * float(self.egress[there])
                    arrive += float(self.latency[there]) + size * float(self.per_gb[there])
                ready[node] = max(ready[node], arrive)
            ends[node] = ready[node] + float(self.times[node, offer])
        return cost, max(ends)

    def deadline(self, share: float) -> float:
        """Return a deadline between the fastest choice's end and that of the cheapest offers."""
        arranged, _ = self.problem.arranged()
        fast = arranged.makespan(baselines.fastest(arranged))
        slow = arranged.makespan(arranged.costs.argmin(1))
        return fast + share * (slow - fast) if slow > fast else fast * 1.05

    def rivals(self, deadline: float) -> dict[str, float | None]:
        """Return what simple routers would pay, None where they would be late."""
        arranged, order = self.problem.arranged()
        found = {
            "slack": baselines.slack_router(arranged, deadline),
            "single": baselines.single(arranged, deadline),
            "fastest": baselines.fastest(arranged),
        }
        return {name: self._cost(choice, order, deadline) for name, choice in found.items()}

    def _cost(self, arranged: Choice | None, order: np.ndarray, deadline: float) -> float | None:
        if arranged is None:
            return None
        choice = np.empty_like(arranged)
        choice[order] = arranged
        cost, makespan = self.check(choice.tolist())
        return cost if makespan <= deadline else None


def layered(nodes: int, offers: int, seed: int) -> Instance:
    """Draw layers as wide as they are many; each node reads up to three of the layer before."""
    draw = np.random.default_rng(seed)
    width = max(2, round(nodes**0.5))
    edges: list[tuple[int, int]] = []
    for node in range(width, nodes):
        layer = node // width
        first, last = (layer - 1) * width, layer * width
        above = {*draw.integers(first, last, 2).tolist(), int(draw.integers(0, last))}
        edges += [(parent, node) for parent in sorted(above)]
    ends = np.array(edges, int).reshape(-1, 2)
    work = draw.lognormal(math.log(30), 1.0, nodes)
    sizes = draw.lognormal(math.log(0.2), 1.5, len(edges))
    name = f"layered-{nodes}x{offers}-{seed}"
    return _offered(name, offers, draw, edges=ends, work=work, sizes=sizes)


def _offered(
    name: str,
    offers: int,
    draw: np.random.Generator,
    *,
    edges: np.ndarray,
    work: np.ndarray,
    sizes: np.ndarray,
) -> Instance:
    """Draw offers of every speed and price; the order of the draws is part of an instance."""
    count = max(3, min(10, offers // 4))
    providers = np.concatenate([np.arange(count), draw.integers(0, count, offers - count)])
    speed = draw.lognormal(0, 0.7, offers)
    price = 0.6 / 3600 * speed**1.25 * draw.lognormal(0, 0.35, offers)
    kinds = draw.integers(0, 4, len(work))
    able = draw.random((4, offers)) < 0.75
    able[:, :2] = True
    suits = draw.lognormal(0, 0.25, (4, offers))[kinds]
    times = work[:, None] / speed[None, :] * suits + 0.2
    return Instance(
        name=name,
        times=times,
        costs=times * price[None, :],
        offered=able[kinds],
        providers=providers,
        parents=edges[:, 0],
        children=edges[:, 1],
        sizes=sizes,
        egress=draw.choice([0.0, 0.01, 0.05, 0.09], count),
        latency=draw.uniform(0.05, 0.4, count),
        per_gb=8 / draw.choice([0.5, 1, 5, 10], count),
    )


# -- real graphs ---------------------------------------------------------------------------------


def real(path: Path, offers: int, seed: int) -> Instance:
    """Read a WfFormat 1.5 file: its graph, run times and file sizes; the offers are drawn.

    Raises ValueError for another version, a cycle, an unknown or one-sided parent, a negative
    size.  Commands in the file are never looked at.
    """
    document = json.loads(path.read_text())
    if document.get("schemaVersion") != "1.5":
        raise ValueError(f"{path.name} is WfFormat {document.get('schemaVersion')}, not 1.5")
    workflow = document["workflow"]
    tasks = {task["id"]: task for task in workflow["specification"]["tasks"]}
    sizes = {f["id"]: f["sizeInBytes"] for f in workflow["specification"].get("files", [])}
    if min(sizes.values(), default=0) < 0:
        raise ValueError(f"{path.name} has a file of negative size")
    order = _order(path.name, tasks)
    number = {name: place for place, name in enumerate(order)}
    edges, bytes_ = [], []
    for name in order:
        for parent in dict.fromkeys(tasks[name]["parents"]):
            written = set(tasks[parent].get("outputFiles", []))
            shared = [f for f in dict.fromkeys(tasks[name].get("inputFiles", [])) if f in written]
            edges.append((number[parent], number[name]))
            bytes_.append(sum(sizes.get(f, 0) for f in shared) / 1e9)
    took = {t["id"]: t.get("runtimeInSeconds", 1.0) for t in workflow["execution"]["tasks"]}
    work = np.array([max(LEAST_SECONDS, took[name]) for name in order])
    ends = np.array(edges, int).reshape(-1, 2)
    draw = np.random.default_rng(seed)
    name = f"{path.stem}-x{offers}-{seed}"
    return _offered(name, offers, draw, edges=ends, work=work, sizes=np.array(bytes_, float))


def _order(where: str, tasks: dict[str, Any]) -> list[str]:
    """Return tasks in an order in which each comes after its parents."""
    for name, task in tasks.items():
        for parent in task["parents"]:
            if name not in tasks.get(parent, {"children": ()})["children"]:
                raise ValueError(f"{where}: {parent} is a parent of {name} on one side only")
        for child in task["children"]:
            if name not in tasks.get(child, {"parents": ()})["parents"]:
                raise ValueError(f"{where}: {child} is a child of {name} on one side only")
    waits = {name: len(set(task["parents"])) for name, task in tasks.items()}
    ready, order = [name for name, count in waits.items() if not count], []
    while ready:
        order.append(ready.pop())
        for child in dict.fromkeys(tasks[order[-1]]["children"]):
            waits[child] -= 1
            if not waits[child]:
                ready.append(child)
    if len(order) < len(tasks):
        raise ValueError(f"{where}: its tasks wait for one another")
    return order
