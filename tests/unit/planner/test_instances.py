"""What the benchmark measures: the same instance for the same seed, real graphs as they are."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agentkit.planner.solver.lagrange import Goal
from agentkit.planner.solver.solve import solve

FOLDER = Path(__file__).parents[3] / "benchmarks"


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


instances = loaded("planner_instances")


def test_a_seed_gives_the_same_numbers_everywhere() -> None:
    """Costs and makespans as an independent generator of the same draws gives them."""
    for size, cost, makespan in (
        ((10, 5, 1), 0.4742273045741505, 132.81453261127663),
        ((100, 20, 3), 7.290433559058081, 1354.4866513702073),
        ((1000, 50, 0), 59.621781628961685, 9127.994416254738),
    ):
        instance = instances.layered(*size)
        import numpy as np

        choice = np.random.default_rng(0).integers(0, 2, size[0]).tolist()
        assert instance.check(choice) == pytest.approx((cost, makespan), rel=1e-12)
    first, again = instances.layered(50, 20, 4), instances.layered(50, 20, 4)
    assert first.digest == again.digest
    assert first.digest != instances.layered(50, 20, 5).digest
    assert first.digest != first.without_egress().digest


def test_the_checker_and_the_solver_agree() -> None:
    instance = instances.layered(40, 8, 2)
    deadline = instance.deadline(0.3)
    found = solve(instance.problem, Goal(deadline))
    cost, makespan = instance.check(found.choice.tolist())
    assert (cost, makespan) == pytest.approx((found.cost, found.makespan), rel=1e-9)
    assert makespan <= deadline
    best = min(rival for rival in instance.rivals(deadline).values() if rival is not None)
    assert cost <= best * (1 + 1e-9)


def trace(**changes: Any) -> dict[str, Any]:
    """A WfFormat document: a makes x, b and c read it, d reads what c makes and x."""
    tasks = [
        {"id": "a", "parents": [], "children": ["b", "c", "d"], "outputFiles": ["x"]},
        {"id": "b", "parents": ["a"], "children": [], "inputFiles": ["x", "given"]},
        {"id": "c", "parents": ["a"], "children": ["d"], "inputFiles": ["x"], "outputFiles": ["y"]},
        {"id": "d", "parents": ["c", "a"], "children": [], "inputFiles": ["y", "x"]},
    ]
    files = [
        {"id": name, "sizeInBytes": n * 10**9} for n, name in enumerate(("x", "y", "given"), 1)
    ]
    times = [{"id": t["id"], "runtimeInSeconds": n, "command": "no"} for n, t in enumerate(tasks)]
    document = {
        "schemaVersion": "1.5",
        "workflow": {
            "specification": {"tasks": tasks, "files": files},
            "execution": {"tasks": times},
        },
    }
    return document | changes


def written(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / "trace.json"
    path.write_text(json.dumps(document))
    return path


def test_a_real_graph_is_read_with_its_edges_and_sizes(tmp_path: Path) -> None:
    read = instances.real(written(tmp_path, trace()), 8, 0)
    assert len(read.times) == 4
    parents, children = read.parents.tolist(), read.children.tolist()
    assert all(parent < child for parent, child in zip(parents, children, strict=True))
    assert sorted(read.sizes.tolist()) == [1, 1, 1, 2]
    assert len(set(zip(parents, children, strict=True))) == 4
    assert read.digest == instances.real(written(tmp_path, trace()), 8, 0).digest
    deadline = read.deadline(0.3)
    assert solve(read.problem, Goal(deadline)).in_time


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schemaVersion="1.4"), "1.4, not 1.5"),
        (lambda d: _task(d, "b")["parents"].append("z"), "one side only"),
        (lambda d: _task(d, "b")["parents"].append("c"), "one side only"),
        (lambda d: _task(d, "a")["children"].remove("b"), "one side only"),
        (lambda d: _loop(d), "wait for one another"),
        (lambda d: _files(d)[0].update(sizeInBytes=-1), "negative size"),
    ],
)
def test_a_trace_that_is_wrong_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    document = trace()
    change(document)
    with pytest.raises(ValueError, match=said):
        instances.real(written(tmp_path, document), 8, 0)


def _task(document: dict[str, Any], name: str) -> dict[str, Any]:
    tasks = document["workflow"]["specification"]["tasks"]
    return next(task for task in tasks if task["id"] == name)


def _files(document: dict[str, Any]) -> list[dict[str, Any]]:
    return document["workflow"]["specification"]["files"]


def _loop(document: dict[str, Any]) -> None:
    _task(document, "d")["children"].append("a")
    _task(document, "a")["parents"].append("d")
