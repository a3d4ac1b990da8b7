"""The optional packages that slots need."""

from __future__ import annotations

import importlib.util

from agentkit.errors import MissingExtra


def installed(package: str) -> bool:
    """Tell whether a package can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def require(extra: str, package: str) -> None:
    """Raise MissingExtra unless a package can be imported."""
    if not installed(package):
        raise MissingExtra(extra, package)
