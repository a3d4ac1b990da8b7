"""A child process of its own group: one JSON line in, one out, and SIGKILL for all of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

import psutil

from agentkit.errors import LeaseLost
from agentkit.net.environment import child_environment

_ROOT = str(Path(__file__).resolve().parents[2])
_INSTALLED = sysconfig.get_path("purelib") == _ROOT  # then a child finds us by itself


class Child:
    """A running child; `start` makes one.  It ends when this process does."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process, self._log = process, log

    @classmethod
    async def start(
        cls, module: str, settings: Mapping[str, Any], folder: Path, threads: int
    ) -> Self:
        """Start `python -m module settings` in `folder`."""
        log = folder / "stderr.log"
        with _opened(log) as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", module, json.dumps(settings)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=folder,
                env=_environment(folder, threads),
                start_new_session=True,
            )
        return cls(process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    @property
    def resident(self) -> int:
        """Resident memory in bytes; 0 once the process is gone."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    async def ask(self, request: Mapping[str, Any]) -> Any:
        """Send one line and return the answer to it; raises LeaseLost when the child dies."""
        assert self._process.stdin
        with suppress(BrokenPipeError, ConnectionResetError):  # the answer will be missing
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            await self._process.stdin.drain()
        return await self.answer()

    async def answer(self) -> Any:
        """Return the next line; raises LeaseLost when the child dies."""
        assert self._process.stdout
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise LeaseLost(f"the slot's process {await self.end()}")
        return json.loads(line)

    async def end(self) -> str:
        """Wait for the end, which is due, and say what it was."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), timeout=2)
        await self.kill()
        code = self._process.returncode or 0
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with code {code}: {_last_line(self._log)}"

    async def kill(self) -> None:
        """End the whole group at once; returns when it is gone."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        assert self._process.stdin
        self._process.stdin.close()
        await self._process.wait()


def _environment(folder: Path, threads: int) -> dict[str, str]:
    """Return the environment of a slot, whose tasks are strangers'.

    Without PASSIVE, threads that wait for one another spin: with a busy neighbour on the cores
    that is 50 times slower.
    """
    paths = ("" if _INSTALLED else _ROOT, os.environ.get("PYTHONPATH", ""))
    count = str(threads)
    return child_environment(
        PYTHONPATH=os.pathsep.join(filter(None, paths)),
        HOME=str(folder),
        TMPDIR=str(folder),
        OMP_WAIT_POLICY="PASSIVE",
        OMP_NUM_THREADS=count,
        OPENBLAS_NUM_THREADS=count,
        MKL_NUM_THREADS=count,
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
    )


def _opened(log: Path) -> IO[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.open("wb")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")
