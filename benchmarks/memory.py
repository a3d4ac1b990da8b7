"""What remembering costs and how fast it comes back; every figure with its reference.

    python benchmarks/memory.py --json

Runs the parts in `benchmarks/remembering/` one after the other, each in a process of its own; any
of them can be run alone.  It takes some minutes; LangGraph is installed apart at the first run.
"""

from __future__ import annotations

from typing import Any

from parts import run

PARTS = ("appending", "signing", "sizes", "restoring", "flips")


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


if __name__ == "__main__":
    run(__doc__ or "", "remembering", PARTS, lines)
