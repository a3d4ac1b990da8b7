"""The embedded Arweave gateway: the real HTTP paths, stricter than the real ones, on disk here."""

from agentkit.embedded.gateway.faults import Failure, Faults
from agentkit.embedded.gateway.gateway import Gateway
from agentkit.embedded.gateway.web import gateway_app

__all__ = ["Failure", "Faults", "Gateway", "gateway_app"]
