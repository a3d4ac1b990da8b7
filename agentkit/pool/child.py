"""A child process of its own group: numbered messages both ways, and SIGKILL for all of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

import psutil

from agentkit import framing
from agentkit.errors import LeaseLost, brief
from agentkit.framing import BrokenProtocol
from agentkit.net.environment import child_environment, package_path


class Child:
    """A running child; `start` makes one.  It ends when this process does."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process, self._log = process, log

    @classmethod
    async def start(cls, module: str, folder: Path, *, threads: int, nice: int) -> Self:
        """Start `python -m module` in `folder`."""
        log = folder / "stderr.log"
        with _opened(log) as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", module, str(nice)),
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
        """Send one request and return the answer to it, and to no other.

        Raises LeaseLost when the child dies, and when it breaks the protocol: then it is killed.
        """
        assert self._process.stdin
        identity = framing.new_id()
        message = framing.encode({**request, "id": identity}, framing.MAX_REQUEST)
        with suppress(BrokenPipeError, ConnectionResetError):  # the answer will be missing
            self._process.stdin.write(message)
            await self._process.stdin.drain()
        try:
            answer = await self._read()
            framing.check_id(answer, identity)
        except BrokenProtocol as error:
            await self.kill()
            raise LeaseLost(f"the slot's process broke its protocol: {error}") from error
        except asyncio.IncompleteReadError as cut:
            raise LeaseLost(f"the slot's process {await self.end()}") from cut
        return answer

    async def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        header = await self._process.stdout.readexactly(framing.HEADER.size)
        length = framing.body_length(header, framing.MAX_ANSWER)
        return framing.decode(await self._process.stdout.readexactly(length))

    def cpu_seconds(self) -> float:
        """Return the processor time used so far, of all threads; 0 once the process is gone."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return float(times.user + times.system)

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
    count = str(threads)
    return child_environment(
        PYTHONPATH=package_path(),
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
    return brief(next((line for line in reversed(lines) if line.strip()), "it said nothing"))
