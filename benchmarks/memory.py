"""What remembering costs and how fast it comes back; every figure with its reference.

    python benchmarks/memory.py --json

Runs the parts in `benchmarks/remembering/` one after the other, each in a process of its own; any
of them can be run alone.  It takes some minutes; LangGraph is installed apart at the first run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PARTS = ("appending", "signing", "sizes", "restoring", "flips")


def part(name: str) -> dict[str, Any]:
    """Run one part and return its figures."""
    path = Path(__file__).parent / "remembering" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, str(path), "--json"], check=True, stdout=subprocess.PIPE, text=True
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def lines(figures: dict[str, Any]) -> list[str]:
    """Return the figures that have limits, one a line."""
    return [
        f"append         {figures['append_ratio']} of a bare FULL commit, p99"
        f" {figures['append_p99_ratio']} of its p99",
        f"on chain       {figures['bytes_per_step']} bytes a step of 1 KB; LangGraph's SqliteSaver"
        f" {figures['langgraph_bytes_per_step']}",
        f"restore        10,000 steps in {figures['restore_10k_s']} s from one gateway on loopback,"
        f" {figures['restore_10k_150ms_s']} s with 150 ms for each request",
        f"signing        {figures['sign_vs_rsa']} times RSA-4096",
        f"flipped bytes  {figures['flips_caught']} of {figures['flips']} caught",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for name in PARTS:
        figures |= part(name)
    print(json.dumps(figures) if options.json else "\n".join(lines(figures)))


if __name__ == "__main__":
    main()
