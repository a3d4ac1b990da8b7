"""How long a restore of 10,000 steps takes, from one gateway, near and far.

    python benchmarks/remembering/restoring.py --json

The steps are those of one open run: each an item done, with 1 KB of text for a result.  The
gateway is a process of its own.  Measured is what `agentkit memory restore` does, which reads the
newest snapshot and its tail, and for `whole` with `--all`, which reads every step.  The machine's
other work counts: all rounds are printed, the fastest is the figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.toy_market import toy

from agentkit.artifacts import Text
from agentkit.graph.builder import JobGraph
from agentkit.journal import events as e
from agentkit.journal.blobs import keep
from agentkit.journal.journal import Journal
from agentkit.journal.transaction import JournalTransaction
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.memory import Memory
from agentkit.memory.restore import wallet_restore
from agentkit.memory.sealing.backlog import seal_all
from remembering.gateway import serving
from remembering.steps import drawn

SIGNER = KeySigner(b"\x17" * 32)
RUN = "r0000001"
AT_ONCE = 100


def step(tx: JournalTransaction, number: int, text: str) -> None:
    """Write that an item is done, as the executor does."""
    outputs = keep(tx, [Text.of(text.encode())])
    tx.append(RUN, e.ItemDone(node="ask", item=number, outputs=outputs))


async def begin(journal: Journal, folder: Path) -> None:
    """Begin the run, under a plan made on a market of fakes."""
    graph = JobGraph("steps")
    graph.infer("ask", model="m", prompt="?")
    async with toy(folder) as market:
        plan = await market.plan(graph)
    await journal.commit(lambda tx: tx.append(RUN, e.RunStarted(plan=plan)))


async def sealed(folder: Path, url: str, texts: list[str]) -> int:
    """Journal, seal and post steps; returns the bytes of what was posted."""
    journal = await Journal.open(folder, SIGNER.address)
    memory = Memory(journal, SIGNER, Gateways([url]))
    await begin(journal, folder / "market")
    for start in range(0, len(texts), AT_ONCE):
        part = list(enumerate(texts))[start : start + AT_ONCE]
        await journal.commit(lambda tx, part=part: [step(tx, n, text) for n, text in part])
        await journal.commit(lambda tx: seal_all(tx, SIGNER))
    await memory.checkpoint()
    posted = await journal.commit(lambda tx: tx.outbox.in_states("accepted"))
    await memory.close()
    await journal.close()
    return sum(len(item.raw) for item in posted)


async def restored(folder: Path, url: str, *, whole: bool) -> tuple[float, int]:
    """Return seconds and events of a restore into an empty folder, from nothing but the key."""
    began = time.perf_counter()
    async with Gateways([url]) as gateways:
        found = await wallet_restore.fetch(SIGNER, gateways, whole=whole)
    journal = await wallet_restore.restore(found, folder, SIGNER.address)
    seconds = time.perf_counter() - began
    assert await journal.check() == found.events - found.earlier + 1
    await journal.close()
    return seconds, found.events


async def repeated(folder: Path, url: str, name: str, steps: int, rounds: int) -> dict[str, Any]:
    """Restore some times into empty folders; returns the fastest and all times."""
    taken = []
    for number in range(rounds):
        into = folder / f"{name}-{number}"
        seconds, events = await restored(into, url, whole=name.endswith("whole"))
        assert events == steps + 1
        taken.append(round(seconds, 3))
        shutil.rmtree(into)
    return {f"{name}_s": min(taken), f"{name}_rounds_s": taken}


async def measure(steps: int, rounds: int) -> dict[str, Any]:
    """Return the figures in seconds."""
    folder = Path(tempfile.mkdtemp())
    figures: dict[str, Any] = {}
    try:
        with serving(folder / "weave") as url:
            await sealed(folder / "old", url, drawn(steps))
        for name, late in (("restore_10k", 0.0), ("restore_10k_150ms", 0.15)):
            with serving(folder / "weave", late) as url:
                for way in ("", "_whole"):
                    figures |= await repeated(folder, url, f"{name}{way}", steps, rounds)
    finally:
        shutil.rmtree(folder)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = asyncio.run(measure(options.steps, options.rounds))
    print(json.dumps(found) if options.json else "\n".join(f"{k} {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
