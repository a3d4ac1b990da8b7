"""A slot with a llama.cpp server in a child process, asked over HTTP on loopback."""

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
"""How much memory a request may need beyond the loaded model, for a grammar above all."""


@dataclass(frozen=True, slots=True)
class Core:
    """A running llama.cpp server: its URL, its API key, and the name of its one model."""

    url: str
    key: str = field(repr=False)
    model: str


class Llama:
    """One model in one child process, started at its first use, and again after it died."""

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
        """Whether the child process runs."""
        return self._child is not None and self._child.alive

    async def core(self) -> Core:
        """Return the running server, and start it if it does not run.

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
            # The server closes a connection that is idle for five seconds.  A question that is sent
            # at that moment is lost, and may not be sent again.
            connector=aiohttp.TCPConnector(force_close=True),
        )

    def _settings(self, path: Path) -> dict[str, Any]:
        """Return the child's one request; see `llama_child`."""
        return {
            "path": str(path),
            "name": self.model.name,
            "makes": self.model.makes,
            "context": self.model.context,
            "parallel": self._parallel,
            "threads": self._limits.threads,
        }

    async def ask(self, path: str, body: Mapping[str, Any], meter: Meter) -> Any:
        """Post a request and return the answer.  The child is killed if the caller is cancelled.

        Otherwise llama.cpp would read a long prompt to its end although nobody waits for it.
        Raises Refused, also when the task exceeds a limit, and LeaseLost.
        """
        await self.core()
        http = self._http
        child = self._child
        assert http
        assert child
        memory_mib = (child.resident >> 20) + _GROWTH_MIB
        return await meter.run(child, self._post(http, child, path, body), memory_mib)

    async def count_tokens(self, prompt: str, meter: Meter) -> int:
        """Return how many tokens a text has, without those that a chat template adds."""
        answer = await self.ask("/tokenize", {"content": prompt}, meter)
        return len(answer["tokens"])

    async def _post(
        self, http: aiohttp.ClientSession, child: Child, path: str, body: Mapping[str, Any]
    ) -> Any:
        """Post to the child; kill it after a timeout or cancellation, or it would work on."""
        try:
            async with http.post(path, json=body) as reply:
                return _checked_answer(reply.status, await reply.json())
        except asyncio.CancelledError:
            await self._kill()
            raise
        except TimeoutError as error:
            await self._kill()
            raise LeaseLost(f"no answer within {self._limits.seconds:.0f} s") from error
        except aiohttp.ClientError as error:
            raise LeaseLost(f"the slot's process {await child.end()}") from error

    async def close(self) -> None:
        """Kill the child and wait until it has ended; it is not started again."""
        self._closed = True
        async with self._starting:
            await self._kill()

    async def _kill(self) -> None:
        if self._child:
            await self._child.kill()
        if self._http:
            await self._http.close()
        self._child = None
        self._http = None


def _checked_answer(status: int, answer: Any) -> Any:
    """Return llama.cpp's answer if its status is 200; otherwise raise Refused with its reason."""
    if status == 200:
        return answer
    error = answer.get("error", {})
    reason = str(error.get("message", answer))
    if error.get("type") == "exceed_context_size_error":
        reason = (
            f"the prompt has {error['n_prompt_tokens']} tokens and the model reads at most"
            f" {error['n_ctx']}"
        )
    elif "too large to process" in reason:
        first_sentence = reason.split(". ", 1)[0]
        reason = f"a text is longer than the model reads: {first_sentence}"
    raise Refused(brief(reason))
