"""The chains that the suites run against, each in a process of its own on loopback.

Run as a program with the name of a file, it serves the embedded chain in that file until its
standard input ends, which it does when whoever started it is gone.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentkit.keys.signer import KeySigner
from agentkit.payments.contracts import CANONICAL, load
from support.timing import limit

ROOT = Path(__file__).parents[2]
CHAIN_ID = 1337
KEYS = [number.to_bytes(32, "big") for number in range(1, 6)]
"""Keys that own 1,000 coins each on every chain here."""
WEALTH = 1000 * 10**18


TOKEN = "test"  # opens the switches of a chain that holds test money only


@dataclass(frozen=True)
class Node:
    """A running chain."""

    kind: str
    url: str
    process: subprocess.Popen[str]

    def rpc(self, method: str, *params: object) -> object:
        """Ask it something without web3."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = json.loads(self.post(json.dumps(request).encode()))
        assert "error" not in answer, answer
        return answer["result"]

    def post(self, body: bytes) -> bytes:
        headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(self.url, body, headers)
        with urllib.request.urlopen(request, timeout=limit(20)) as response:
            return bytes(response.read())


@contextmanager
def embedded(path: Path) -> Iterator[Node]:
    """The embedded chain in the file `path`."""
    command = [sys.executable, __file__, str(path)]
    with _running(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) as process:
        assert process.stdout is not None
        yield Node("embedded", process.stdout.readline().strip(), process)


@contextmanager
def anvil(*more: str, chain_id: int = CHAIN_ID) -> Iterator[Node]:
    """Foundry's node, which the set-up puts under tests/npm; skips where it is not."""
    binary = anvil_binary()
    if not binary.exists():
        missing = f"{binary} is missing; install it with: npm install --prefix tests/npm"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    options = [
        "--port",
        "0",
        "--chain-id",
        str(chain_id),
        "--hardfork",
        "prague",
        "--accounts",
        "0",
        *more,
    ]
    with _running([str(binary), "--host", "127.0.0.1", *options]) as process:
        node = Node("anvil", f"http://{_listening(process)}", process)
        for key in KEYS:
            node.rpc("anvil_setBalance", KeySigner(key).address, hex(WEALTH))
        for name, place in CANONICAL.items():
            node.rpc("anvil_setCode", place, "0x" + load(name).runtime.hex())
        yield node


def anvil_binary() -> Path:
    system = platform.system().lower()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return ROOT / f"tests/npm/node_modules/@foundry-rs/anvil-{system}-{machine}/bin/anvil"


@contextmanager
def _running(
    command: list[str], env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=env
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _listening(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Listening on "):
            # It says a line about every request: unread, they would fill the pipe and stop it.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return line.removeprefix("Listening on ").strip()
    raise AssertionError("anvil ended before it listened")


async def _serve(path: Path) -> None:
    from aiohttp import web

    from agentkit.embedded.chain.chain import Chain
    from agentkit.embedded.chain.rpc import RpcFront, rpc_app

    chain = Chain.open(path, rich={KeySigner(key).address: WEALTH for key in KEYS})
    runner = web.AppRunner(rpc_app(RpcFront(chain), token=TOKEN), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()
    chain.close()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
