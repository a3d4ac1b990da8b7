"""A server slot: llama.cpp in a child process, spoken to over loopback HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from agentkit.errors import LeaseLost, Refused, brief
from agentkit.pool.child import Child
from agentkit.pool.extras import require
from agentkit.pool.limits import SlotLimits
from agentkit.pool.meter import Meter
from agentkit.pool.models import ModelFile, path_of

_GROWTH_MIB = 1024
"""What a request may add to a loaded model: a grammar can be far larger than its schema."""


@dataclass(frozen=True, slots=True)
class Core:
    """A running llama.cpp server: its address, its key, and the name of its one model."""

    url: str
    key: str = field(repr=False)
    model: str


class Llama:
    """One model in one child, started at first use and again after it died."""

    def __init__(
        self, model: ModelFile, folder: Path, limits: SlotLimits, *, parallel: int = 1
    ) -> None:
        self.model = model
        self.folder = folder
        self._limits = limits
        self._parallel = parallel
        self._starting = asyncio.Lock()
        self._child: Child | None = None
        self._http: aiohttp.ClientSession | None = None
        self._core = Core("", "", model.name)
        self._closed = False

    @property
    def loaded(self) -> bool:
        return self._child is not None and self._child.alive

    async def core(self) -> Core:
        """Return the running server, started if need be.

        Raises LeaseLost, MissingExtra, and what fetching the model raises.
        """
        async with self._starting:
            if not self.loaded:
                await self._kill()
                await self._start()
        return self._core

    async def _start(self) -> None:
        """Start the child process with its model, and open a session to its HTTP server."""
        if self._closed:
            raise LeaseLost("the pool is closed")
        require("local", "xllamacpp")
        settings = self._settings(await asyncio.to_thread(path_of, self.model.name))
        self._child = await Child.start(
            "agentkit.pool.llama_child",
            self.folder,
            threads=self._limits.threads,
            nice=self._limits.nice,
        )
        try:
            ready = await self._child.ask(settings)
        except asyncio.CancelledError:
            await self._kill()
            raise
        self._core = Core(ready["url"], ready["key"], self.model.name)
        self._http = aiohttp.ClientSession(
            ready["url"],
            headers={"Authorization": f"Bearer {ready['key']}"},
            timeout=aiohttp.ClientTimeout(total=self._limits.seconds),
        )

    def _settings(self, path: Path) -> dict[str, Any]:
        """Return what the child needs to load the model."""
        return {
            "path": str(path),
            "name": self.model.name,
            "makes": self.model.makes,
            "context": self.model.context,
            "parallel": self._parallel,
            "threads": self._limits.threads,
        }

    async def ask(self, path: str, body: Mapping[str, Any], meter: Meter) -> Any:
        """Post a request and return the answer; a caller that gives up kills the child.

        llama.cpp reads a long prompt to its end even when nobody waits for it any more.
        Raises Refused (also over a limit), LeaseLost.
        """
        await self.core()
        http, child = self._http, self._child
        assert http
        assert child
        memory_mib = (child.resident >> 20) + _GROWTH_MIB
        return await meter.run(child, self._post(http, child, path, body), memory_mib)

    async def count_tokens(self, prompt: str, meter: Meter) -> int:
        """Return how many tokens a text has, without what a chat template adds."""
        answer = await self.ask("/tokenize", {"content": prompt}, meter)
        return len(answer["tokens"])

    async def _post(
        self, http: aiohttp.ClientSession, child: Child, path: str, body: Mapping[str, Any]
    ) -> Any:
        """Post to the child; a cancelled or late one is killed, or it would go on computing."""
        try:
            async with http.post(path, json=body) as reply:
                return _checked(reply.status, await reply.json())
        except asyncio.CancelledError:
            await self._kill()
            raise
        except TimeoutError as late:
            await self._kill()
            raise LeaseLost(f"no answer within {self._limits.seconds:.0f} s") from late
        except aiohttp.ClientError as error:
            raise LeaseLost(f"the slot's process {await child.end()}") from error

    async def close(self) -> None:
        """Kill the child and wait for its end; it is not started again."""
        self._closed = True
        async with self._starting:
            await self._kill()

    async def _kill(self) -> None:
        if self._child:
            await self._child.kill()
        if self._http:
            await self._http.close()
        self._child = self._http = None


def _checked(status: int, answer: Any) -> Any:
    """Return llama.cpp's answer; raises Refused with its reason in our words."""
    if status == 200:
        return answer
    error = answer.get("error", {})
    said = str(error.get("message", answer))
    if error.get("type") == "exceed_context_size_error":
        said = (
            f"the prompt has {error['n_prompt_tokens']} tokens and the model reads at most"
            f" {error['n_ctx']}"
        )
    elif "too large to process" in said:
        said = "a text is longer than the model reads: " + said.split(". ", 1)[0]
    raise Refused(brief(said))
