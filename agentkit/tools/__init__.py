"""agentkit for LangChain and LangGraph: a chat model, tools, and stores on an agent's memory."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentkit.tools.chat import ChatAgentKit as ChatAgentKit
    from agentkit.tools.checkpointer import AgentKitSaver as AgentKitSaver
    from agentkit.tools.effects import once as once
    from agentkit.tools.embeddings import AgentKitEmbeddings as AgentKitEmbeddings
    from agentkit.tools.fetch import FetchPaid as FetchPaid
    from agentkit.tools.jobs import PlanJobs as PlanJobs
    from agentkit.tools.jobs import RunPlan as RunPlan
    from agentkit.tools.jobs import toolkit as toolkit
    from agentkit.tools.once_policy import NOT_HAPPENED as NOT_HAPPENED
    from agentkit.tools.store_items import AgentKitStore as AgentKitStore
    from agentkit.tools.stores import AgentKitByteStore as AgentKitByteStore
    from agentkit.tools.stores import AgentKitChatHistory as AgentKitChatHistory

_HOMES = {
    "AgentKitByteStore": "stores",
    "AgentKitChatHistory": "stores",
    "AgentKitEmbeddings": "embeddings",
    "AgentKitSaver": "checkpointer",
    "AgentKitStore": "store_items",
    "ChatAgentKit": "chat",
    "FetchPaid": "fetch",
    "NOT_HAPPENED": "once_policy",
    "PlanJobs": "jobs",
    "RunPlan": "jobs",
    "once": "effects",
    "toolkit": "jobs",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, and langchain-core or langgraph with it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'agentkit.tools' has no attribute {name!r}")
    return getattr(import_module(f"agentkit.tools.{_HOMES[name]}"), name)
