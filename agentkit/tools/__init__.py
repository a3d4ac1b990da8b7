"""agentkit for LangChain: a chat model and tools."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentkit.tools.chat import ChatAgentKit as ChatAgentKit
    from agentkit.tools.jobs import PlanJobs as PlanJobs
    from agentkit.tools.jobs import RunPlan as RunPlan
    from agentkit.tools.jobs import toolkit as toolkit

_HOMES = {"ChatAgentKit": "chat", "PlanJobs": "jobs", "RunPlan": "jobs", "toolkit": "jobs"}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """Import a public name, and langchain-core with it, when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'agentkit.tools' has no attribute {name!r}")
    return getattr(import_module(f"agentkit.tools.{_HOMES[name]}"), name)
