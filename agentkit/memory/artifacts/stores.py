"""Several artifact stores as one: this machine's first, then wherever the locators lead."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from agentkit.artifacts import Artifact
from agentkit.errors import StateCorrupt, StateError, StoreUnavailable
from agentkit.market.seams import ArtifactStore
from agentkit.memory.artifacts.local import LocalStore

log = logging.getLogger("agentkit")


@dataclass(frozen=True)
class Remote:
    """A store that other machines can read, and the largest artifact it is given, in bytes."""

    store: ArtifactStore
    most: int


class Stores:
    """Artifacts here and in the first of `remotes` that has room; see `market.ArtifactStore`.

    Whatever store gives other bytes than the digest names is passed over, and what had to be
    fetched lies here again.
    """

    def __init__(self, local: LocalStore, remotes: Sequence[Remote] = ()) -> None:
        self._local, self._remotes = local, tuple(remotes)

    @property
    def scheme(self) -> str:
        return self._local.scheme

    @property
    def most(self) -> int:
        """The largest artifact, in bytes, that is stored where another machine finds it."""
        return max((remote.most for remote in self._remotes), default=0)

    async def put(self, artifact: Artifact) -> Artifact:
        """Store it here, and where others can read it.

        Its bytes are safe once they are here: that a remote store does not take them is a warning,
        and no locator.
        """
        here = await self._local.put(artifact)
        remote = next((r.store for r in self._remotes if artifact.size <= r.most), None)
        if remote is None:
            return here
        try:
            return await remote.put(here)
        except StateError as error:
            log.warning("artifact %s is on this machine only: %s", artifact.digest[:12], error)
            return here

    async def get(self, artifact: Artifact) -> Artifact:
        """Return the artifact from here or from where its locators lead, and keep it here.

        Raises the worst of what went wrong: bytes of another digest before an absent store.
        """
        problems: list[StateError] = []
        try:
            return await self._local.get(artifact)
        except (StoreUnavailable, StateCorrupt) as error:
            problems.append(error)
        for remote in self._remotes:
            if not any(at.startswith(f"{remote.store.scheme}://") for at in artifact.locators):
                continue
            try:
                found = await remote.store.get(artifact)
            except (StoreUnavailable, StateCorrupt) as error:
                problems.append(error)
            else:
                return await self._local.mend(found)
        raise _worst(artifact, problems)


def _worst(artifact: Artifact, problems: Sequence[StateError]) -> StateError:
    """Return what to say when no store has the bytes."""
    said = "; ".join(map(str, problems))
    damaged = any(isinstance(problem, StateCorrupt) for problem in problems)
    kind = StateCorrupt if damaged else StoreUnavailable
    places = ", ".join(artifact.locators) or "no place is known"
    return kind(f"artifact {artifact.digest[:12]} cannot be had ({places}): {said}")
