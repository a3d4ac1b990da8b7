"""What an acknowledged step costs beside a bare SQLite commit of the same bytes.

    python benchmarks/remembering/appending.py --json

Ours is one event of 1 KB, appended and awaited through the journal: encoded, chained, folded,
committed in its writer thread.  Bare is one INSERT of the same text with `synchronous=FULL` in WAL
mode, through sqlite3 alone.  In turns, in one process, each in a file of its own on the same disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from agentkit.journal import events as e
from agentkit.journal.journal import Journal
from agentkit.keys.signer import KeySigner
from remembering.steps import drawn

SIGNER = KeySigner(b"\x18" * 32)
RUN = "r0000001"


async def measure(steps: int) -> dict[str, Any]:
    """Return ratios of the medians and of the 99th percentiles, with the times in ms."""
    with tempfile.TemporaryDirectory() as folder:
        journal = await Journal.open(Path(folder) / "ours", SIGNER.address)
        bare = opened(Path(folder) / "bare.db")
        ours, theirs = [], []
        for number, text in enumerate(drawn(steps)):
            step = e.Extra(owner="benchmark", version=1, json_text=text)
            began = time.perf_counter()
            await journal.commit(lambda tx, step=step: tx.append(RUN, step))
            between = time.perf_counter()
            insert(bare, number, text)
            ended = time.perf_counter()
            ours.append(between - began)
            theirs.append(ended - between)
        await journal.close()
        bare.close()
    figures = {"ours": in_ms(ours), "bare": in_ms(theirs)}
    return {
        "append_ratio": round(figures["ours"][0] / figures["bare"][0], 2),
        "append_p99_ratio": round(figures["ours"][1] / figures["bare"][1], 2),
        "append_ms": {"p50": figures["ours"][0], "p99": figures["ours"][1]},
        "bare_append_ms": {"p50": figures["bare"][0], "p99": figures["bare"][1]},
    }


def opened(path: Path) -> sqlite3.Connection:
    """Open a file as the journal does, with one table."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=full")
    db.execute("create table step(seq integer primary key, body text not null) strict")
    return db


def insert(db: sqlite3.Connection, number: int, text: str) -> None:
    db.execute("begin immediate")
    db.execute("insert into step values(?, ?)", (number, text))
    db.execute("commit")


def in_ms(times: list[float]) -> tuple[float, float]:
    """Return median and 99th percentile."""
    cuts = statistics.quantiles(times, n=100)
    return round(cuts[49] * 1e3, 4), round(cuts[98] * 1e3, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=4000)
    options = parser.parse_args()
    found = asyncio.run(measure(options.steps))
    print(json.dumps(found) if options.json else "\n".join(f"{k} {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
