"""The embedded gateway in a process of its own, each answer later by some seconds.

python benchmarks/remembering/gateway.py FOLDER SECONDS        prints its address
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from agentkit.embedded.gateway import Gateway, gateway_app


@contextmanager
def serving(folder: Path, seconds: float = 0.0) -> Iterator[str]:
    """Serve a folder's weave from another process; yields the address."""
    child = subprocess.Popen(
        [sys.executable, __file__, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout
        yield child.stdout.readline().strip()
    finally:
        child.terminate()
        child.wait()


async def main(folder: Path, seconds: float) -> None:
    @web.middleware
    async def late(request: web.Request, handler: Any) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        answered: web.StreamResponse = await handler(request)
        return answered

    app = gateway_app(Gateway.open(folder))
    app.middlewares.append(late)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2])))
