"""How near the best a plan is, how fast it is made, and what simple routers would pay.

    python benchmarks/planner.py --workflow layered:1000 --json
    python benchmarks/planner.py --workflow trace.json --offers 20 --deadline 0.3 --json
    python benchmarks/planner.py --set hundred --limit 60
    python benchmarks/planner.py --set again

One instance prints one line.  A set prints a summary: `off` is how far plans are above the
optimum, or above the best that HiGHS finds from the plan in `--limit` seconds where it proves
none.  The set `again` plans 1,000 nodes a second time after all prices changed.
Deadlines are shares of the way from the fastest choice to that of the cheapest offers.
Every cost and makespan is recomputed from the instance by `Instance.check`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from planner_instances import Instance, layered, real

from agentkit.planner.solver.exact import best_choice
from agentkit.planner.solver.lagrange import Goal
from agentkit.planner.solver.search import Old
from agentkit.planner.solver.solve import Solution, solve

SHARES = (0.1, 0.3, 0.6)


def measure(instance: Instance, share: float, effort: str) -> tuple[dict[str, Any], Solution]:
    """Plan one instance and return what is printed of it."""
    deadline = instance.deadline(share)
    problem = instance.problem
    started, worked = time.perf_counter(), time.process_time()
    solution = solve(problem, Goal(deadline), effort="high" if effort == "high" else "normal")
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    cost, makespan = instance.check(solution.choice.tolist())
    row = {
        "instance": instance.name,
        "digest": instance.digest,
        "nodes": problem.nodes,
        "edges": problem.edges,
        "offers": int(problem.times.shape[1]),
        "cost": cost,
        "makespan": makespan,
        "deadline": deadline,
        "bound": solution.bound,
        "gap": cost / solution.bound - 1 if solution.bound > 0 else None,
        "seconds": round(seconds, 4),
        "cpu_seconds": round(cpu, 4),
        "rivals": instance.rivals(deadline),
        "late": makespan > deadline,
    }
    return row, solution


def reference(instance: Instance, row: dict[str, Any], solution: Solution, limit: float) -> None:
    """Add to a row what HiGHS finds on the whole instance, nothing pruned, from the plan."""
    goal = Goal(row["deadline"])
    exact = best_choice(instance.problem, goal, seconds=limit, start=solution.choice)
    row["best"] = row["cost"]
    if exact.choice is not None:
        cost, makespan = instance.check(exact.choice.tolist())
        if makespan <= goal.deadline * (1 + 1e-6):
            row["best"] = min(cost, row["cost"])
    row["proven"] = exact.optimal
    row["off"] = row["cost"] / row["best"] - 1
    row["valid"] = row["bound"] <= row["best"] * (1 + 1e-9)


def again(instance: Instance, share: float, seed: int) -> dict[str, Any]:
    """Plan, change every price by up to a tenth, and plan again: from the old plan, and afresh."""
    goal, problem = Goal(instance.deadline(share)), instance.problem
    old = solve(problem, goal)
    drawn = np.random.default_rng(seed).uniform(0.9, 1.1, problem.costs.shape)
    changed = replace(problem, costs=problem.costs * drawn)
    started, worked = time.perf_counter(), time.process_time()
    near = solve(changed, goal, old=Old(old.choice, old.price))
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    fresh = solve(changed, goal)
    return {
        "instance": instance.name,
        "seconds": round(seconds, 4),
        "cpu_seconds": round(cpu, 4),
        "of_fresh": near.cost / fresh.cost,
        "gap": near.gap,
        "late": not near.in_time,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of a set."""

    def spread(values: list[float]) -> dict[str, float]:
        return {"median": round(statistics.median(values), 5), "worst": round(max(values), 5)}

    best = [min(c for c in row["rivals"].values() if c is not None) for row in rows]
    paid = [row["cost"] / rival for row, rival in zip(rows, best, strict=True)]
    figures = {
        "instances": len(rows),
        "seconds": spread([row["seconds"] for row in rows]),
        "cpu_seconds": spread([row["cpu_seconds"] for row in rows]),
        "gap": spread([row["gap"] for row in rows if row["gap"] is not None]),
        "late": sum(row["late"] for row in rows),
        "dearer_than_a_rival": sum(share > 1 + 1e-9 for share in paid),
        "of_best_rival": {"median": statistics.median(paid), "least": min(paid)},
    }
    if "off" in rows[0]:
        figures["off"] = spread([row["off"] for row in rows])
        figures["proven"] = sum(row["proven"] for row in rows)
        figures["bounds_above_the_best"] = sum(not row["valid"] for row in rows)
    return figures


def instances(name: str, folder: Path, egress: bool) -> Iterator[tuple[Instance, float]]:
    """Yield the instances of a set, each with a deadline's share."""
    sizes = {
        "small": [(n, 20, s) for n in (5, 10, 15, 20, 25, 30) for s in range(5)],
        "hundred": [(100, 20, s) for s in range(30)],
        "thousand": [(1000, 20, s) for s in range(5)],
        "large": [(10_000, 20, 0)],
        "rivals": [(100, m, s) for m in (5, 20, 50) for s in range(3)] + [(1000, 20, 0)],
    }
    drawn = (layered(*size) for size in sizes.get(name, ()))
    found = (real(path, 20, 0) for path in sorted(folder.glob("*.json")) if name == "real")
    shares = (0.3,) if name in ("large", "rivals") else SHARES
    for instance in (*drawn, *found) if name == "real" else drawn:
        for share in shares:
            yield (instance if egress else instance.without_egress()), share


def one(workflow: str, offers: int, seed: int) -> Instance:
    kind, _, size = workflow.partition(":")
    if kind == "layered":
        return layered(int(size), offers, seed)
    return real(Path(workflow), offers, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workflow", default="layered:100", help="a WfFormat file or layered:N")
    parser.add_argument("--offers", type=int, default=20)
    parser.add_argument("--egress", choices=("on", "off"), default="on")
    parser.add_argument("--deadline", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--effort", choices=("normal", "high"), default="normal")
    parser.add_argument(
        "--set",
        choices=("small", "hundred", "thousand", "large", "rivals", "real", "again"),
        dest="group",
    )
    parser.add_argument("--folder", type=Path, default=Path(), help="where `--set real` reads")
    parser.add_argument("--limit", type=float, default=0.0, help="seconds of HiGHS per reference")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    warm = layered(40, 5, 0)
    solve(warm.problem, Goal(warm.deadline(0.3)))  # imports are no part of a plan
    best_choice(layered(5, 5, 0).problem, Goal())
    if given.group == "again":
        for seed in range(5):
            print(json.dumps(again(layered(1000, 20, seed), given.deadline, seed)), flush=True)
        return
    rows = []
    egress = given.egress == "on"
    chosen = one(given.workflow, given.offers, given.seed) if given.group is None else None
    if chosen is not None:
        todo = iter([(chosen if egress else chosen.without_egress(), given.deadline)])
    else:
        todo = instances(given.group, given.folder, egress)
    for instance, share in todo:
        row, solution = measure(instance, share, given.effort)
        if given.limit:
            reference(instance, row, solution, given.limit)
        rows.append(row)
        if given.json or given.group is None:
            print(json.dumps(row), flush=True)
    if given.group is not None:
        print(json.dumps({"set": given.group, **summary(rows)}, indent=2))


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
