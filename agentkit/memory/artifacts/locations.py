"""Reads an artifact from the first of its locators that works."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from agentkit.artifacts import Artifact
from agentkit.errors import StateCorrupt, StateError, StoreUnavailable


async def read_from(
    artifact: Artifact, scheme: str, read: Callable[[str], Awaitable[bytes]]
) -> Artifact:
    """Return an artifact with the bytes of the first of its locators that can be read.

    Only locators of `scheme` are tried; `read` gets the part after `scheme://`.  Raises the last
    error of `read`, StateCorrupt or StoreUnavailable.
    """
    prefix = f"{scheme}://"
    last_error: StateError = StoreUnavailable(
        f"artifact {artifact.digest[:12]} has no place at {prefix}"
    )
    for locator in artifact.locators:
        if not locator.startswith(prefix):
            continue
        try:
            return replace(artifact, content=await read(locator.removeprefix(prefix)))
        except (StoreUnavailable, StateCorrupt) as error:
            last_error = error
    raise last_error
