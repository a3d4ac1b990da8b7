"""How often each task is paid while payers die and chains misbehave, beside a naive payer.

    python benchmarks/paying/once.py --json

The scenarios are those of `tests/support/sending_scenarios.py`, each on a node of its own (anvil,
which `make install-dev` installs) and played one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.sending_scenarios import CONTROLS, SCENARIOS, TASKS, Outcome, play


async def measure() -> dict[str, Any]:
    """Return how many scenarios there were, in how many each task was paid once, and the control's.

    `control_overpaid`: in how many of its scenarios the naive payer paid more than it should have.
    """
    ours = [await play(scenario) for scenario in SCENARIOS]
    naive = [await play(scenario, naive=True) for scenario in CONTROLS]
    return {
        "faults": {
            "scenarios": len(ours),
            "paid_once": sum(outcome.paid_once for outcome in ours),
            "control_overpaid": sum(outcome.paid > TASKS for outcome in naive),
            "controls": len(naive),
            "played": [_row(outcome) for outcome in ours],
            "control": [_row(outcome) for outcome in naive],
        }
    }


def _row(outcome: Outcome) -> dict[str, Any]:
    names = ("name", "paid", "starts", "kills", "faults", "signed")
    return {"tasks": TASKS, **{name: getattr(outcome, name) for name in names}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = asyncio.run(measure())
    if options.json:
        print(json.dumps(found))
        return
    rows = found["faults"]
    for kind in ("played", "control"):
        for row in rows[kind]:
            print(f"{kind:>8}  paid {row['paid']} of {row['tasks']}  {row['name']}")


if __name__ == "__main__":
    main()
