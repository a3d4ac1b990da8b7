"""Several artifact stores as one: this machine's first, then remote ones by locator."""

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
    """A store that other machines can read; `most` is the largest artifact it gets, in bytes."""

    store: ArtifactStore
    most: int


class Stores:
    """Artifacts on this machine and in one remote store; see `market.seams.ArtifactStore`.

    An artifact goes to the first of `remotes` that takes its size.  A store that returns bytes of
    another digest is skipped.  What is fetched from a remote store is stored on this machine.
    """

    def __init__(self, local: LocalStore, remotes: Sequence[Remote] = ()) -> None:
        self._local = local
        self._remotes = tuple(remotes)

    @property
    def scheme(self) -> str:
        return self._local.scheme

    @property
    def most(self) -> int:
        """The largest artifact, in bytes, that a remote store takes; 0 without remote stores."""
        return max((remote.most for remote in self._remotes), default=0)

    async def put(self, artifact: Artifact) -> Artifact:
        """Store an artifact on this machine, and where other machines can read it.

        A remote store that fails is only logged: the bytes are safe on this machine, and the
        artifact gets no locator for that store.
        """
        stored = await self._local.put(artifact)
        remote = next((r.store for r in self._remotes if artifact.size <= r.most), None)
        if remote is None:
            return stored
        try:
            return await remote.put(stored)
        except StateError as error:
            log.warning("artifact %s is on this machine only: %s", artifact.digest[:12], error)
            return stored

    async def get(self, artifact: Artifact) -> Artifact:
        """Return an artifact from this machine, or fetch it by its locators and store it here.

        Raises StateCorrupt if a store returned bytes of another digest, else StoreUnavailable.
        """
        problems: list[StateError] = []
        try:
            return await self._local.get(artifact)
        except (StoreUnavailable, StateCorrupt) as error:
            problems.append(error)
        for remote in self._remotes:
            prefix = f"{remote.store.scheme}://"
            if not any(locator.startswith(prefix) for locator in artifact.locators):
                continue
            try:
                fetched = await remote.store.get(artifact)
            except (StoreUnavailable, StateCorrupt) as error:
                problems.append(error)
            else:
                return await self._local.mend(fetched)
        raise _combined_error(artifact, problems)


def _combined_error(artifact: Artifact, problems: Sequence[StateError]) -> StateError:
    """Return one error that names what each store answered."""
    reasons = "; ".join(map(str, problems))
    is_damaged = any(isinstance(problem, StateCorrupt) for problem in problems)
    error_class = StateCorrupt if is_damaged else StoreUnavailable
    places = ", ".join(artifact.locators) or "no place is known"
    return error_class(f"artifact {artifact.digest[:12]} cannot be had ({places}): {reasons}")
