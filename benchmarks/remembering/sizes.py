"""What a step of 1 KB comes to on chain, beside what LangGraph's SqliteSaver writes for it.

    python benchmarks/remembering/sizes.py --json

Steps are texts from docstrings of the standard library, none twice.  Ours: an open run whose items
are done one after the other, sealed every 100; counted is every byte that is posted, signatures,
tags and snapshots among them.  LangGraph's runs in a virtual environment of its own (see
`benchmarks/peers/run.py`) with a list of messages that grows by one a step, durability "sync".
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))

from remembering.gateway import serving
from remembering.restoring import sealed
from remembering.steps import never_repeated

PEER_STEPS = 200
VENVS = Path.home() / ".cache/agentkit/peers"


async def ours(steps: int) -> float:
    """Return the bytes on chain for each step."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "weave") as url:
        posted = await sealed(Path(folder) / "old", url, never_repeated(steps))
    return round(posted / steps, 1)


def theirs() -> dict[str, Any]:
    """Return what SqliteSaver writes for each step; the bytes of its rows, not of its file."""
    import run  # type: ignore[import-not-found]  # the peers' runner, found by its folder

    (peer,) = (peer for peer in run.PEERS if peer.name == "langgraph")
    python = run.installed(peer, VENVS)
    done = subprocess.run(
        [str(python), str(Path(__file__).with_name("peer_langgraph.py"))],
        input=json.dumps(never_repeated(PEER_STEPS)),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    mine = asyncio.run(ours(options.steps))
    found = {"bytes_per_step": mine, "bytes_per_step_of": options.steps, **theirs()}
    found["langgraph_to_ours"] = round(found["langgraph_bytes_per_step"] / mine, 1)
    print(json.dumps(found) if options.json else "\n".join(f"{k} {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
