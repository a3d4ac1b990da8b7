"""One warm child for work on what strangers wrote, bounded in time and memory.

The child runs `serve` of this module.  It gets no environment of ours, no file and no network
address; a request that takes longer than its second ends it, and the next one starts another.
"""

from __future__ import annotations

import atexit
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, BinaryIO

from agentkit import framing
from agentkit.framing import BrokenProtocol
from agentkit.net.environment import child_environment, package_path

CPU_SECONDS = 1.0
"""How much processor time one request may take."""

WALL_SECONDS = 10.0
"""How long one may last on a machine that is busy with other things."""

START_SECONDS = 60.0
MEMORY_BYTES = 1 << 30


class OutOfBounds(Exception):
    """The work took more than its time or memory; the message says which, for people."""


class BoundedChild:
    """A child that answers one request at a time, started at first use and after it was ended."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._forget)

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Return the answer to a request; blocks, for at most `WALL_SECONDS` once it is started.

        Raises OutOfBounds; the child is gone then, and with it whatever it was doing.
        """
        with self._lock:
            process = self._running()
            identity = framing.new_id()
            try:
                answer = _exchange(process, {**request, "id": identity}, WALL_SECONDS)
                framing.check_id(answer, identity)
            except (OSError, BrokenProtocol) as error:
                self._end()
                raise OutOfBounds("it took more than 1 s or 1 GiB of memory") from error
            return answer["answer"]

    def close(self) -> None:
        """End the child; the next request starts another."""
        with self._lock:
            self._end()

    def _forget(self) -> None:
        """Leave the child to the process that was forked: its answers are not for us."""
        self._lock = threading.Lock()
        if self._process is not None:
            self._process.returncode = 0  # it is not ours to wait for
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = self._start()
        return self._process

    def _start(self) -> subprocess.Popen[bytes]:
        """Start the child and wait for its first answer; raises OutOfBounds."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=child_environment(PYTHONPATH=package_path()),
            start_new_session=True,
        )
        identity = framing.new_id()
        try:
            framing.check_id(_exchange(process, {"id": identity}, START_SECONDS), identity)
        except (OSError, BrokenProtocol) as error:
            _kill(process)
            raise OutOfBounds("the process that does it cannot be started") from error
        return process

    def _end(self) -> None:
        if self._process is not None:
            _kill(self._process)
        self._process = None


def _exchange(
    process: subprocess.Popen[bytes], request: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """Send a request and read its answer; a timer kills a child that is late, which ends both."""
    assert process.stdin
    assert process.stdout
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        framing.write(process.stdin, request, framing.MAX_REQUEST)  # type: ignore[arg-type]
        answer = framing.read(process.stdout, framing.MAX_ANSWER)  # type: ignore[arg-type]
    finally:
        timer.cancel()
    if answer is None:
        raise BrokenProtocol("the child has ended")
    return answer


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(OSError):
                pipe.close()
    process.wait()


# -- in the child --------------------------------------------------------------------------------


def serve(work: Callable[[dict[str, Any]], Any]) -> None:
    """Answer requests by `work` until standard input ends; the first one is a greeting."""
    requests, answers = _private_pipes()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    greeting = framing.read(requests, framing.MAX_REQUEST)
    if greeting:
        framing.write(answers, {"id": greeting["id"], "answer": None}, framing.MAX_ANSWER)
    while request := framing.read(requests, framing.MAX_REQUEST):
        identity = request.pop("id")
        # SIGPROF ends the process by default, in the midst of C code too.
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        answer = work(request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        framing.write(answers, {"id": identity, "answer": answer}, framing.MAX_ANSWER)


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the pipes to ourselves: what a library prints cannot be taken for an answer."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return requests, answers
