"""Verifiers that other installed packages bring, by entry point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from agentkit.errors import ConfigError

VERIFIERS = "agentkit.verifiers"
"""The group of entry points that make a verifier from a check's parameters."""


@dataclass(frozen=True)
class InstalledVerifier:
    """Makes verifiers of a name that this process wrote itself; its package is loaded when called.

    A name that stands in a document is loaded by consent instead, see `FrozenGraph.adopt`.
    """

    name: str

    def __call__(self, **params: Any) -> Any:
        return verifier_entry(self.name).load()(**params)


def verifier_entry(name: str) -> EntryPoint:
    """Return the entry point of a verifier; raises ConfigError when no package brings it."""
    for entry in entry_points(group=VERIFIERS, name=name):
        return entry
    raise ConfigError(
        f"no installed package brings a verifier {name!r}",
        hint=f"install the package whose entry point in {VERIFIERS!r} is called so",
    )


def factory_of(entry: EntryPoint, attribute: Any) -> Callable[..., Any]:
    """Return what an entry point leads to; raises ConfigError when that makes no verifier."""
    if not callable(attribute):
        raise ConfigError(
            f"the verifier {entry.name!r} leads to {entry.value}, which makes nothing",
            hint="ask the package's author to mend its entry point",
        )
    return attribute  # type: ignore[no-any-return]
