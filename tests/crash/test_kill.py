"""SIGKILL at random moments: nothing finished is done again, nothing is paid twice."""

import asyncio
import collections
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import WALLET

from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.runtime import run as runs

CHILD = Path(__file__).with_name("child.py")
ROWS = 40
PAID = ROWS + ROWS // 2 + 1


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )


async def state_of(folder: Path) -> runs.RunState:
    journal = await Journal.open(folder / "home", WALLET)
    try:
        await journal.check()
        return await runs.read(journal, (folder / "run").read_text())
    finally:
        await journal.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_run_survives_kills_at_random_moments(tmp_path: Path, seed: int) -> None:
    draw, kills, folder = random.Random(seed), 0, tmp_path / "f"
    finished: dict[str, object] = {}
    while True:
        child = start(folder)
        if kills < 5:
            while not (folder / "run").exists() and child.poll() is None:
                time.sleep(0.01)
            time.sleep(draw.uniform(0.0, 0.15))
            child.send_signal(signal.SIGKILL)
        output, _ = child.communicate(timeout=60)
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
        kills += 1
        state = asyncio.run(state_of(folder))
        assert finished.items() <= state.done.items()  # what was durable stays as it was
        finished = dict(state.done)
    assert kills == 5
    check(folder, int(output.split()[1]))


def check(folder: Path, paid: int) -> None:
    state = asyncio.run(state_of(folder))
    assert state.outcome == "done"
    by_purchase = collections.Counter(receipt.attempt.purchase for receipt in state.receipts)
    assert len(by_purchase) == PAID
    assert set(by_purchase.values()) == {1}
    assert sum(receipt.amount.units for receipt in state.receipts) == paid
    asyncio.run(check_books(folder, paid))
    for purchase in state.purchases.values():
        assert not purchase.open
    assert len((folder / "counted.log").read_text()) in (1, 2)


async def check_books(folder: Path, paid: int) -> None:
    journal = await Journal.open(folder / "home", WALLET)
    rows = await journal.commit(lambda tx: tx.every(r.Total))
    reservations = await journal.commit(lambda tx: tx.every(r.Reservation))
    await journal.close()
    totals = {row.scope: row.amount.units for row in rows}
    assert totals["ever"] == paid
    assert totals["held"] == 0
    assert collections.Counter(x.standing for x in reservations)["open"] == 0
