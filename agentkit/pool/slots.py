"""The child processes of a pool: a queue of slots for each model, and one of workers."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from agentkit.pool.limits import SlotLimits
from agentkit.pool.llama import Core, Llama
from agentkit.pool.models import ModelFile
from agentkit.pool.queue import QueueLimit, SlotQueue
from agentkit.pool.worker import Worker

_CORE_STREAMS = 4
"""How many requests a server for a proxy answers at once."""


class Slots:
    """Creates and ends the slots; `scratch` is the folder that contains the slots' folders."""

    def __init__(
        self, scratch: Path, limits: SlotLimits, *, llamas: int, workers: int, max_queue: int
    ) -> None:
        self.limits = limits
        self._scratch = scratch
        self._llamas_per_model = llamas
        self._queue_limit = QueueLimit(max_queue)
        self.workers = SlotQueue(
            [Worker(scratch / f"worker-{number}", limits) for number in range(workers)],
            self._queue_limit,
        )
        self._llamas: dict[str, SlotQueue[Llama]] = {}
        self._cores: dict[str, Llama] = {}

    def llamas(self, model: ModelFile) -> SlotQueue[Llama]:
        """Return the queue of the slots that have this model."""
        if model.name not in self._llamas:
            slots = [
                self._llama(model, f"llama-{number}", 1) for number in range(self._llamas_per_model)
            ]
            self._llamas[model.name] = SlotQueue(slots, self._queue_limit)
        return self._llamas[model.name]

    async def core(self, model: ModelFile) -> Core:
        """Return the server of this model that is no slot; starts it if it does not run."""
        if model.name not in self._cores:
            self._cores[model.name] = self._llama(model, "core", _CORE_STREAMS)
        return await self._cores[model.name].core()

    def _llama(self, model: ModelFile, label: str, streams: int) -> Llama:
        """Return a slot with this model that answers so many requests at once."""
        # Embeddings that are computed together with others differ in their last bits.
        parallel = streams if model.makes == "text" else 1
        folder = self._scratch / f"{label}-{model.name}"
        return Llama(model, folder, self.limits, parallel=parallel)

    def _servers(self) -> list[Llama]:
        slots = [slot for queue in self._llamas.values() for slot in queue.slots]
        return [*slots, *self._cores.values()]

    @property
    def loaded(self) -> list[str]:
        """The names of the models that are in memory."""
        return sorted({server.model.name for server in self._servers() if server.loaded})

    @property
    def counts(self) -> dict[str, int]:
        """The number of slots of each kind; that of `llama` is for each model."""
        return {"llama": self._llamas_per_model, "worker": len(self.workers.slots)}

    async def close(self) -> None:
        """Kill every child and remove the slots' folders."""
        slots: list[Llama | Worker] = [*self._servers(), *self.workers.slots]
        await asyncio.gather(*(slot.close() for slot in slots))
        for slot in slots:
            shutil.rmtree(slot.folder, ignore_errors=True)
