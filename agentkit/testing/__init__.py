"""For people who write adapters: conformance suites (pytest classes to subclass) and fakes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentkit.testing.conformance import Case as Case
    from agentkit.testing.conformance import Desk as Desk
    from agentkit.testing.conformance import ProviderConformance as ProviderConformance
    from agentkit.testing.conformance import RailConformance as RailConformance
    from agentkit.testing.conformance import StoreConformance as StoreConformance
    from agentkit.testing.conformance import VerifierConformance as VerifierConformance
    from agentkit.testing.fakes import FakeProvider as FakeProvider
    from agentkit.testing.fakes import ToyRail as ToyRail
    from agentkit.testing.nodes import FAULTS as FAULTS
    from agentkit.testing.nodes import Fault as Fault
    from agentkit.testing.nodes import FaultyNode as FaultyNode

_HOMES = {
    "Case": "conformance",
    "Desk": "conformance",
    "FAULTS": "nodes",
    "FakeProvider": "fakes",
    "Fault": "nodes",
    "FaultyNode": "nodes",
    "ProviderConformance": "conformance",
    "RailConformance": "conformance",
    "StoreConformance": "conformance",
    "ToyRail": "fakes",
    "VerifierConformance": "conformance",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """Import a public name, and pytest with the suites, when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'agentkit.testing' has no attribute {name!r}")
    return getattr(import_module(f"agentkit.testing.{_HOMES[name]}"), name)
