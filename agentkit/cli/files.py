"""What FILE on the command line can be: a graph, a plan, or a graph object in a Python file."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from agentkit import strict_json
from agentkit.errors import ConfigError, GraphError
from agentkit.file_io import read_bytes
from agentkit.graph import callables, codec
from agentkit.graph.builder import JobGraph
from agentkit.graph.frozen import FrozenGraph
from agentkit.market import plan
from agentkit.market.plan import Plan

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def read_graph(name: str) -> FrozenGraph:
    """Return the graph of `graph.toml`, `graph.json` or `module.py:name`; raises GraphError."""
    path, colon, attribute = name.partition(":")
    if path.endswith(".py"):
        if not colon:
            raise GraphError(
                f"{name} does not say which graph", hint=f"write {path}:graph, naming the object"
            )
        found = getattr(callables.load_file(Path(path).resolve(), Path(path).stem), attribute, None)
        if not isinstance(found, JobGraph):
            raise GraphError(f"{path} has no JobGraph called {attribute!r}", hint="check the name")
        return found.freeze()
    if Path(path).suffix not in (".toml", ".json"):
        raise GraphError(
            f"{name} is not a graph file", hint="give graph.toml, graph.json or module.py:graph"
        )
    return codec.load(Path(path))


def is_plan(name: str) -> bool:
    """Whether a file holds a plan."""
    path = Path(name)
    if path.suffix != ".json" or not path.is_file():
        return False
    try:
        document = strict_json.loads(read_bytes(path, plan.MAX_BYTES))
    except ValueError:
        return False
    return isinstance(document, dict) and "plan" in document


def read_plan(name: str) -> Plan:
    """Return the plan in a file; raises PlanError."""
    return Plan.load(name)


def read_duration(text: str | None) -> timedelta | None:
    """Return `90s`, `10m`, `6h` or `2d` as a duration; raises ConfigError."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if not found:
        raise ConfigError(f"{text!r} is not a duration", hint="write it like 90s, 10m, 6h or 2d")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])
