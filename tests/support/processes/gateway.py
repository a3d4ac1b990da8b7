"""A gateway in a process of its own: prints its address, then serves the weave of a folder."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from agentkit.embedded.gateway import Gateway, gateway_app


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder's weave from another process; yields the address."""
    child = subprocess.Popen(
        [sys.executable, __file__, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout
        yield child.stdout.readline().strip()
    finally:
        child.terminate()
        child.communicate()


async def main(folder: Path) -> None:
    runner = web.AppRunner(gateway_app(Gateway.open(folder)), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
