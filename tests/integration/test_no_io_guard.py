"""The guard of the unit tier sees whatever reaches out of the process, also what is caught."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress

import pytest
from support.no_io_guard import GUARD, NotAUnitTest


def listen() -> None:
    async def serve() -> None:
        await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)

    asyncio.run(serve())


def spawn() -> None:
    multiprocessing.get_context("spawn").Process(target=print).start()


@pytest.mark.parametrize(
    "reaches_out",
    [
        socket.socket,
        lambda: socket.getaddrinfo("localhost", 80),
        listen,
        lambda: subprocess.run(["true"]),
        lambda: os.system("true"),
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        os.fork,
        spawn,
    ],
)
def test_sockets_and_processes_are_refused(reaches_out: Callable[[], object]) -> None:
    with pytest.raises(NotAUnitTest, match="stand in tests/integration"), GUARD.watching():
        reaches_out()
    with pytest.raises(NotAUnitTest), GUARD.watching(), suppress(NotAUnitTest):
        reaches_out()


def test_loops_and_threads_are_not() -> None:
    with GUARD.watching():
        assert asyncio.run(asyncio.to_thread(lambda: 7)) == 7
        assert socket.gethostname()
