"""Makes a home and its embedded network with a channel of `AgentChannels` that is open.

    PYTHONPATH=CHECKOUT python tests/homes/open_channels.py tests/homes/open-channels.tar.zst

Done by the last version that opened such channels, for `tests/integration/payments/test_legacy.py`.
The network is killed as it stands; its keys are throwaway keys of test money.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import tarfile
import tempfile
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import zstandard

from agentkit.agent import Agent
from agentkit.graph.builder import JobGraph
from agentkit.journal import records as r
from agentkit.payments.balance import token_balance
from agentkit.planner import policy


def hello(name: str) -> JobGraph:
    graph = JobGraph(name)
    graph.infer("greet", model="smollm2-135m", prompt="Greet the sea.", max_tokens=8)
    return graph


async def work(folder: Path) -> dict[str, Any]:
    """Buy over a channel and leave it open; returns what the books and the chain say."""
    settings: dict[str, Any] = {"home": folder / "home", "network_home": folder / "network"}
    async with Agent.from_config(**settings) as agent:
        for name in ("greeting", "again", "once more"):
            await agent.run(hello(name), policy=policy.allow("native"))
        channels = await agent._journal.commit(lambda tx: tx.every(r.Channel))
        return {
            "address": agent.address,
            "wallet": await token_balance(agent._parts.chain, agent.network, agent.address),
            "channels": [channel.model_dump(mode="json") for channel in channels],
        }


def packed(folder: Path) -> bytes:
    """Return the state files, the keys and the figures of a folder, as one archive."""
    for path in folder.rglob("*.db"):
        with closing(sqlite3.connect(path)) as db:
            db.execute("pragma journal_mode = delete")
            db.execute("vacuum")
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for path in sorted(folder.rglob("*")):
            if path.suffix == ".db" or path.parent.name == "keys" or path.name == "figures.json":
                data = path.read_bytes()
                about = tarfile.TarInfo(path.relative_to(folder).as_posix())
                about.size, about.mode = len(data), 0o600
                tar.addfile(about, BytesIO(data))
    return zstandard.ZstdCompressor(level=19).compress(content.getvalue())


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "figures.json").write_text(json.dumps(asyncio.run(work(folder)), indent=1))
        network = json.loads((folder / "network" / "network.json").read_text())
        os.kill(network["pid"], signal.SIGKILL)
        out.write_bytes(packed(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
