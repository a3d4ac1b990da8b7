"""The pool: does calls in child processes on this machine, which stay loaded between calls."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from agentkit.errors import LeaseLost, Refused
from agentkit.market.task import Units
from agentkit.pool.declared import check_declared
from agentkit.pool.dispatch import CallWork, Inputs
from agentkit.pool.extras import installed
from agentkit.pool.limits import SlotLimits
from agentkit.pool.llama import Core
from agentkit.pool.models import CATALOGUE, model_file
from agentkit.pool.request import Done, InferParams
from agentkit.pool.services import TASK_KINDS, params_of
from agentkit.pool.slots import Slots


@dataclass(slots=True)
class _PoolCall:
    """A call that runs or waits, and whether `cancel` was called for it."""

    work: asyncio.Task[Done]
    cancelled: bool = False


class Pool:
    """Runs inference, training and SQL queries in child processes, called slots.

    There are `llama_slots` for each model, and `worker_slots` for everything else.  Each slot is
    one child process that does one call at a time; it is started at its first use.  `threads` and
    `nice` apply to each slot, `seconds` and `memory_mib` limit one task.  A call whose child dies
    is not repeated.  `on_execute` is called with a call's key right before a child gets its work.
    """

    def __init__(
        self,
        *,
        scratch: Path,
        llama_slots: int = 1,
        worker_slots: int = 1,
        threads: int = 1,
        nice: int = 0,
        max_queue: int = 64,
        seconds: float = 600.0,
        memory_mib: int = 2048,
        on_execute: Callable[[str], None] = lambda _key: None,
    ) -> None:
        limits = SlotLimits(threads=threads, nice=nice, seconds=seconds, memory_mib=memory_mib)
        self._slots = Slots(
            scratch.absolute(),  # children run in other folders
            limits,
            llamas=llama_slots,
            workers=worker_slots,
            max_queue=max_queue,
        )
        self._on_execute = on_execute
        self._calls: dict[str, _PoolCall] = {}
        self._closed = False

    async def check(
        self, kind: str, params: dict[str, Any], inputs: Inputs, declared: Units
    ) -> None:
        """Raise Refused for a call that this pool cannot do, or larger than its declared load."""
        await asyncio.to_thread(check_declared, params_of(kind, params), inputs, declared)

    async def check_fits(self, kind: str, params: dict[str, Any]) -> None:
        """Raise Refused for a prompt longer than its model reads, RateLimited if the queue is full.

        The tokens of a long prompt are counted by the model, so this waits for a free slot.
        """
        parsed = params_of(kind, params)
        if isinstance(parsed, InferParams) and parsed.model:
            work = CallWork(self._slots, begin=lambda: None, declared=None)
            await work.check_fits(parsed)

    async def run(
        self,
        key: str,
        kind: str,
        params: dict[str, Any],
        inputs: Inputs,
        *,
        declared: Units | None = None,
    ) -> Done:
        """Do one call and return its outputs and usage.

        With a `declared` load the call is stopped once it has used the time which that allows.
        Raises Refused, RateLimited, BadOutput; LeaseLost if its child died or `cancel` was called;
        MissingExtra; and StoreUnavailable or StateCorrupt if a model cannot be fetched.
        """
        if self._closed:
            raise LeaseLost("the pool is closed")
        if key in self._calls:
            raise Refused(f"the call {key!r} is running already")
        work = CallWork(self._slots, partial(self._on_execute, key), declared)
        call = _PoolCall(asyncio.ensure_future(work.do(params_of(kind, params), inputs)))
        self._calls[key] = call
        try:
            return await call.work
        except asyncio.CancelledError:
            # Either `cancel` was called for this key, or the caller itself was cancelled.
            if call.cancelled:
                raise LeaseLost(f"the call {key!r} was cancelled") from None
            raise
        finally:
            del self._calls[key]

    async def cancel(self, key: str) -> None:
        """Stop a waiting or running call, kill the child that does it, and wait for its end."""
        if call := self._calls.get(key):
            call.cancelled = True
            call.work.cancel()
            await asyncio.wait([call.work])

    def running(self) -> list[str]:
        """Return the keys of the calls that run or wait."""
        return list(self._calls)

    async def core(self, model: str) -> Core:
        """Return a llama.cpp server of this model, to which an HTTP proxy can forward requests.

        It is not one of the slots, so a cancelled call does not kill it.  Raises Refused,
        LeaseLost, and what fetching the model raises.
        """
        if self._closed:
            raise LeaseLost("the pool is closed")
        return await self._slots.core(model_file(model))

    async def close(self) -> None:
        """Cancel every call, kill every child and remove the slots' folders."""
        self._closed = True
        await asyncio.gather(*map(self.cancel, self.running()))
        await self._slots.close()

    def facts(self) -> dict[str, Any]:
        """Return a description of this pool; memory is in MiB, contexts are in tokens."""
        return {
            "engine": "llama.cpp",
            "version": f"xllamacpp {version('xllamacpp')}" if installed("xllamacpp") else "",
            "kinds": [name for name, kind in TASK_KINDS.items() if kind.installed],
            "models": {name: model.context for name, model in CATALOGUE.items()},
            "loaded": self._slots.loaded,
            "slots": self._slots.counts,
            "threads": self._slots.limits.threads,
            "cores": os.cpu_count(),
            "memory_mib": psutil.virtual_memory().total >> 20,
            "simulated": False,
        }
