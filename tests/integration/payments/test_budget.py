"""The allowance under races: between tasks of one process, and between processes."""

import subprocess
import sys
from pathlib import Path

from support.timing import limit

RACER = """
import asyncio, sys
from pathlib import Path
from agentkit.errors import OverBudget
from agentkit.journal.journal import Journal
from agentkit.market.allowance import Allowance
from agentkit.payments.budget import Budget
from support.toy_market import WALLET, usdc

async def main() -> None:
    journal = await Journal.open(Path(sys.argv[1]), WALLET)
    budget, got = Budget(Allowance(total=usdc("0.00004"))), 0
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(20):
        run = f"r{sys.argv[2]}-{number}"
        try:
            await journal.commit(lambda tx: budget.hold(tx, run, usdc("0.000001"), None))
            got += 1
        except OverBudget as refused:
            assert refused.limit == "total"
    print(got, flush=True)
    await journal.close()

asyncio.run(main())
"""


def test_processes_that_race_for_an_allowance_stop_exactly_at_it(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": ":".join(sys.path)},
        )
        for number in range(6)
    ]
    for racer in racers:
        assert racer.stdout and racer.stdout.readline() == "ready\n"
    got = [int(racer.communicate("go\n", timeout=limit(60))[0]) for racer in racers]
    assert sum(got) == 40  # 120 were asked for
    assert all(racer.returncode == 0 for racer in racers)
