"""The pool: calls by key, done in warm slots on this machine."""

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
from agentkit.pool.dispatch import Inputs, Work
from agentkit.pool.extras import installed
from agentkit.pool.limits import SlotLimits
from agentkit.pool.llama import Core
from agentkit.pool.models import CATALOGUE, model_file
from agentkit.pool.request import Done, InferParams
from agentkit.pool.services import TASK_KINDS, params_of
from agentkit.pool.slots import Slots


@dataclass(slots=True)
class _PoolCall:
    work: asyncio.Task[Done]
    cancelled: bool = False


class Pool:
    """Slots on this machine that infer, train and query.

    `llama_slots` is per model, `worker_slots` for everything else; each is one child process that
    does one call at a time, started at first use.  `threads` and `nice` are per slot, `seconds`
    and `memory_mib` bound one task.  A call whose child dies is lost and not tried again here.
    `on_execute` is told a call's key once, right before a child gets its work.
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
        limits = SlotLimits(threads, nice, seconds, memory_mib)
        self._slots = Slots(
            scratch.absolute(),  # a child's working folder is its own
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
        """Raise Refused for what is no call of this pool, or larger than it was declared."""
        await asyncio.to_thread(check_declared, params_of(kind, params), inputs, declared)

    async def check_fits(self, kind: str, params: dict[str, Any]) -> None:
        """Raise Refused for a prompt longer than its model reads, RateLimited without room for it.

        The tokens of a long one are counted by the model, in its turn.
        """
        question = params_of(kind, params)
        if isinstance(question, InferParams) and question.model:
            await Work(self._slots, lambda: None, None).check_fits(question)

    async def run(
        self,
        key: str,
        kind: str,
        params: dict[str, Any],
        inputs: Inputs,
        *,
        declared: Units | None = None,
    ) -> Done:
        """Do one call and return what it made.

        With `declared` units, see `check`, it is stopped when it has used what they allow.
        Raises Refused, RateLimited, BadOutput; LeaseLost when its child died or it was cancelled;
        MissingExtra, and StoreUnavailable or StateCorrupt when a model cannot be fetched.
        """
        if self._closed:
            raise LeaseLost("the pool is closed")
        if key in self._calls:
            raise Refused(f"the call {key!r} is running already")
        work = Work(self._slots, partial(self._on_execute, key), declared)
        call = _PoolCall(asyncio.ensure_future(work.do(params_of(kind, params), inputs)))
        self._calls[key] = call
        try:
            return await call.work
        except asyncio.CancelledError:
            if call.cancelled:
                raise LeaseLost(f"the call {key!r} was cancelled") from None
            raise
        finally:
            del self._calls[key]

    async def cancel(self, key: str) -> None:
        """Stop a call, queued or running, and kill the child that does it; returns when it is."""
        if call := self._calls.get(key):
            call.cancelled = True
            call.work.cancel()
            await asyncio.wait([call.work])

    def running(self) -> list[str]:
        """Return the keys of the calls that run or wait."""
        return list(self._calls)

    async def core(self, model: str) -> Core:
        """Return a llama.cpp server of this model for a front to proxy, started if need be.

        It is not one of the slots: no cancelled call takes it away under the front.
        Raises Refused, LeaseLost, and what fetching the model raises.
        """
        if self._closed:
            raise LeaseLost("the pool is closed")
        return await self._slots.core(model_file(model))

    async def close(self) -> None:
        """Cancel every call, end every child and remove the slots' folders."""
        self._closed = True
        await asyncio.gather(*map(self.cancel, self.running()))
        await self._slots.close()

    def facts(self) -> dict[str, Any]:
        """Return what this pool is made of; memory in MiB, contexts in tokens."""
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
