"""Requests: HTTP to an address that asks for a payment, bought like any other work."""

from __future__ import annotations

from typing import Any

from agentkit.graph.nodes import RequestNode
from agentkit.kinds.kind import BoughtKind, Inputs, WebRequest
from agentkit.kinds.sizes import Sizes
from agentkit.market.task import Load, Task, TaskSpec

PARAMS = {"url", "method", "body", "headers"}
"""The fields of a node that its task tells the provider."""

ONE = {"request": 1}


class Request(BoughtKind[RequestNode]):
    """Buys one answer; what it costs is for the address to say."""

    node_type = RequestNode

    def spec(self, node: RequestNode, sizes: Sizes) -> TaskSpec:
        load = Load(expected=ONE, most=ONE)
        return TaskSpec(node=node, load=load, basis="one request", spread=1.0)

    def web_request(self, node: RequestNode) -> WebRequest:
        return WebRequest(node.url, node.method, node.body, node.headers)

    def task(self, node: RequestNode, inputs: Inputs, item: Any = None) -> Task:
        params = node.model_dump(mode="json", include=PARAMS)
        return Task("request", params, Load(expected=ONE, most=ONE), dict(inputs))
