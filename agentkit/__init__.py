"""agentkit: plan, price, run and pay job graphs on decentralised AI."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentkit.agent import Agent as Agent
    from agentkit.artifacts import Artifact as Artifact
    from agentkit.artifacts import Blob as Blob
    from agentkit.artifacts import Dataset as Dataset
    from agentkit.artifacts import Embedding as Embedding
    from agentkit.artifacts import Json as Json
    from agentkit.artifacts import Model as Model
    from agentkit.artifacts import Reply as Reply
    from agentkit.artifacts import Table as Table
    from agentkit.artifacts import Text as Text
    from agentkit.errors import AgentKitError as AgentKitError
    from agentkit.errors import BadAmount as BadAmount
    from agentkit.errors import ConfigError as ConfigError
    from agentkit.errors import GraphError as GraphError
    from agentkit.errors import PaymentError as PaymentError
    from agentkit.errors import PlanError as PlanError
    from agentkit.errors import ProviderError as ProviderError
    from agentkit.errors import RunError as RunError
    from agentkit.errors import RunFailed as RunFailed
    from agentkit.errors import RunPaused as RunPaused
    from agentkit.errors import StateError as StateError
    from agentkit.graph import verify as verify
    from agentkit.graph.builder import JobGraph as JobGraph
    from agentkit.graph.messages import assistant as assistant
    from agentkit.graph.messages import system as system
    from agentkit.graph.messages import tool_result as tool_result
    from agentkit.graph.messages import user as user
    from agentkit.graph.nodes import Needs as Needs
    from agentkit.graph.nodes import Timeouts as Timeouts
    from agentkit.graph.refs import Ref as Ref
    from agentkit.market.allowance import Allowance as Allowance
    from agentkit.market.plan import Plan as Plan
    from agentkit.market.receipt import Receipt as Receipt
    from agentkit.money import Money as Money
    from agentkit.planner import policy as policy
    from agentkit.runtime import approve as approve
    from agentkit.runtime.result import RunResult as RunResult
    from agentkit.runtime.run import Run as Run
    from agentkit.schedule import Tick as Tick
    from agentkit.schedule import every as every
    from agentkit.sync import plan as plan
    from agentkit.sync import resume as resume
    from agentkit.sync import run as run
    from agentkit.sync import status as status

__version__ = "0.1.0"

_HOMES = {
    "agent": ("Agent",),
    "artifacts": (
        "Artifact",
        "Blob",
        "Dataset",
        "Embedding",
        "Json",
        "Model",
        "Reply",
        "Table",
        "Text",
    ),
    "errors": (
        "AgentKitError",
        "BadAmount",
        "ConfigError",
        "GraphError",
        "PaymentError",
        "PlanError",
        "ProviderError",
        "RunError",
        "RunFailed",
        "RunPaused",
        "StateError",
    ),
    "graph.builder": ("JobGraph",),
    "graph.messages": ("assistant", "system", "tool_result", "user"),
    "graph.nodes": ("Needs", "Timeouts"),
    "graph.refs": ("Ref",),
    "market.allowance": ("Allowance",),
    "market.plan": ("Plan",),
    "market.receipt": ("Receipt",),
    "money": ("Money",),
    "graph": ("verify",),
    "planner": ("policy",),
    "runtime": ("approve",),
    "runtime.result": ("RunResult",),
    "runtime.run": ("Run",),
    "schedule": ("Tick", "every"),
    "sync": ("plan", "resume", "run", "status"),
}
_MODULES = {
    "approve": "agentkit.runtime.approve",
    "policy": "agentkit.planner.policy",
    "verify": "agentkit.graph.verify",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605  # the list above, and a test that it is all


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'agentkit' has no attribute {name!r}")
    if name in _MODULES:
        return import_module(_MODULES[name])
    return getattr(import_module(f"agentkit.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
