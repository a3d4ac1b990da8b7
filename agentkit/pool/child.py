"""A child process with its own process group, which answers numbered requests over its pipes."""

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
    """A running child process, made by `start`.  It ends at the latest when this process does."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, module: str, folder: Path, *, threads: int, nice: int) -> Self:
        """Start `python -m module` in `folder`, with so many threads and that niceness."""
        log = folder / "stderr.log"
        with _open_log(log) as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                module,
                str(nice),
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
        """The process id, which is also that of its group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.returncode is None

    @property
    def resident(self) -> int:
        """The resident memory in bytes; 0 once the process is gone."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    async def ask(self, request: Mapping[str, Any]) -> Any:
        """Send one request and return its answer.

        Request and answer have the same random id, so that an answer to an earlier request is not
        taken for this one's.  Raises LeaseLost if the child dies or breaks the protocol; in the
        second case it is killed, because later answers could not be trusted either.
        """
        assert self._process.stdin
        request_id = framing.new_id()
        message = framing.encode({**request, "id": request_id}, framing.MAX_REQUEST)
        with suppress(BrokenPipeError, ConnectionResetError):  # reading the answer fails below
            self._process.stdin.write(message)
            await self._process.stdin.drain()
        try:
            answer = await self._read_answer()
            framing.check_id(answer, request_id)
        except BrokenProtocol as error:
            await self.kill()
            raise LeaseLost(f"the slot's process broke its protocol: {error}") from error
        except asyncio.IncompleteReadError as error:
            raise LeaseLost(f"the slot's process {await self.end()}") from error
        return answer

    async def _read_answer(self) -> dict[str, Any]:
        """Read one message: a header with its length, then JSON; raises BrokenProtocol."""
        assert self._process.stdout
        header = await self._process.stdout.readexactly(framing.HEADER.size)
        length = framing.body_length(header, framing.MAX_ANSWER)
        return framing.decode(await self._process.stdout.readexactly(length))

    def cpu_seconds(self) -> float:
        """Return the processor time of all its threads so far; 0 once the process is gone."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return float(times.user + times.system)

    async def end(self) -> str:
        """Wait for a child that has closed its pipe to end, and say how it ended."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), timeout=2)
        await self.kill()
        code = self._process.returncode or 0
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with code {code}: {_last_line(self._log)}"

    async def kill(self) -> None:
        """Kill the child and all processes that it started, and wait until it is gone."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        assert self._process.stdin
        self._process.stdin.close()
        await self._process.wait()


def _environment(folder: Path, threads: int) -> dict[str, str]:
    """Return the environment of a child: no secrets of ours, because its tasks are strangers'.

    With OMP_WAIT_POLICY=PASSIVE waiting threads sleep.  By default they spin, which is 50 times
    slower when another process uses the same cores.
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


def _open_log(log: Path) -> IO[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.open("wb")


def _last_line(log: Path) -> str:
    """Return the last line of a log that is not blank: of a traceback, the error itself."""
    lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
    for line in reversed(lines):
        if line.strip():
            return brief(line)
    return "it said nothing"
