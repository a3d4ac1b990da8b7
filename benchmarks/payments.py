"""What paying costs, how fast it is and what goes wrong with it; every figure with its reference.

    python benchmarks/payments.py --json

Runs the parts in `benchmarks/paying/` one after the other, each in a process of its own; any of
them can be run alone.  It takes some minutes and needs what `make install-dev` installs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PARTS = ("gas", "vouchers", "x402", "once")


def part(name: str) -> dict[str, Any]:
    """Run one part and return its figures."""
    path = Path(__file__).parent / "paying" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, str(path), "--json"], check=True, stdout=subprocess.PIPE, text=True
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def lines(figures: dict[str, Any]) -> list[str]:
    """Return the figures that have limits, one a line."""
    channel = figures["gas_per_task"]["channel"]
    escrow, claim = figures["escrow_gas"], figures["claim_gas"]
    ratio, rate, faults = (
        figures["voucher_ratio"],
        figures["paid_tasks_vs_x402"],
        figures["faults"],
    )
    return [
        f"gas per task   channel {channel['10']} at 10 tasks, {channel['1000']} at 1,000;"
        f" x402 {figures['gas_per_task']['x402']}, transfer {figures['gas_per_task']['transfer']}",
        f"escrow gas     {escrow['job']} a job, {escrow['batched']} in batches of 10",
        f"claim gas      {claim['ours']}, the sketch {claim['sketch']}",
        f"vouchers       signed at {ratio['sign']:.2f} and verified at {ratio['verify']:.2f}"
        " of libsecp256k1 alone",
        f"paid tasks     {rate['ratio']:.1f} times stock x402 exact"
        f" ({rate['channel_per_s']:.0f} and {rate['x402_per_s']:.0f} a second)",
        f"faults         {faults['paid_once']} of {faults['scenarios']} paid each task once; the"
        f" naive payer paid too often in {faults['control_overpaid']} of {faults['controls']}",
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
