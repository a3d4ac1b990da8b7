"""The child processes of a pool: who has which model, and who is free."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from agentkit.pool.limits import SlotLimits
from agentkit.pool.llama import Core, Llama
from agentkit.pool.models import ModelFile
from agentkit.pool.queue import Door, Line
from agentkit.pool.worker import Worker

_CORE_STREAMS = 4  # that a front's server does at once


class Slots:
    """Lines of server slots, one line per model, and one line of worker slots."""

    def __init__(
        self, scratch: Path, limits: SlotLimits, *, llamas: int, workers: int, max_queue: int
    ) -> None:
        self.limits = limits
        self._scratch = scratch
        self._llamas_each = llamas
        self._door = Door(max_queue)
        self.workers = Line(
            [Worker(scratch / f"worker-{n}", limits) for n in range(workers)], self._door
        )
        self._llamas: dict[str, Line[Llama]] = {}
        self._cores: dict[str, Llama] = {}

    def llamas(self, model: ModelFile) -> Line[Llama]:
        """Return the line of slots that have this model."""
        if model.name not in self._llamas:
            slots = [self._llama(model, f"llama-{n}", 1) for n in range(self._llamas_each)]
            self._llamas[model.name] = Line(slots, self._door)
        return self._llamas[model.name]

    async def core(self, model: ModelFile) -> Core:
        """Return the server of this model that no call of the pool uses, started if need be."""
        if model.name not in self._cores:
            self._cores[model.name] = self._llama(model, "core", _CORE_STREAMS)
        return await self._cores[model.name].core()

    def _llama(self, model: ModelFile, label: str, streams: int) -> Llama:
        """Embeddings go one at a time: computed beside others they differ in the last bits."""
        parallel = streams if model.makes == "text" else 1
        folder = self._scratch / f"{label}-{model.name}"
        return Llama(model, folder, self.limits, parallel=parallel)

    def _servers(self) -> list[Llama]:
        slots = [slot for line in self._llamas.values() for slot in line.slots]
        return [*slots, *self._cores.values()]

    @property
    def loaded(self) -> list[str]:
        """The models in memory."""
        return sorted({server.model.name for server in self._servers() if server.loaded})

    @property
    def counts(self) -> dict[str, int]:
        """The slots by sort; those of `llama` are per model."""
        return {"llama": self._llamas_each, "worker": len(self.workers.slots)}

    async def close(self) -> None:
        """End every child and remove the folders."""
        slots: list[Llama | Worker] = [*self._servers(), *self.workers.slots]
        await asyncio.gather(*(slot.close() for slot in slots))
        for slot in slots:
            shutil.rmtree(slot.folder, ignore_errors=True)
