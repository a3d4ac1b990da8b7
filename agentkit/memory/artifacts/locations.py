"""One artifact at several places of one store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from agentkit.artifacts import Artifact
from agentkit.errors import StateCorrupt, StateError, StoreUnavailable


async def read_from(
    artifact: Artifact, scheme: str, read: Callable[[str], Awaitable[bytes]]
) -> Artifact:
    """Return an artifact with the bytes that `read` finds at the first of its places that is good.

    `read` is given what stands after `scheme://`.  Raises what it raised last, StateCorrupt or
    StoreUnavailable.
    """
    begin = f"{scheme}://"
    last: StateError = StoreUnavailable(f"artifact {artifact.digest[:12]} has no place at {begin}")
    for locator in artifact.locators:
        if not locator.startswith(begin):
            continue
        try:
            return replace(artifact, content=await read(locator.removeprefix(begin)))
        except (StoreUnavailable, StateCorrupt) as error:
            last = error
    raise last
