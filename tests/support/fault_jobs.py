"""What the fault tests share: a mapped job that can be stopped half-way, and its books."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

from agentkit.errors import Refused
from agentkit.graph.builder import JobGraph
from agentkit.journal import records as r
from agentkit.journal.run_state import RunState
from agentkit.market.attempt import Attempt, Result
from agentkit.market.seams import Transaction
from agentkit.market.task import Task
from agentkit.testing.fakes import FakeProvider
from support.toy_market import Toy

ROWS = 12
HALF = 6


def rows_of(folder: Path, count: int = ROWS, letters: int = 1) -> str:
    """Write a table; each row's text is at least so many letters long."""
    lines = (json.dumps({"text": f"row {n} " + "x" * letters}) + "\n" for n in range(count))
    (folder / "rows.jsonl").write_text("".join(lines))
    return "rows.jsonl"


def mapped(folder: Path, count: int = ROWS, letters: int = 1, **more: Any) -> JobGraph:
    graph = JobGraph("mapped")
    table = graph.data("rows", source=rows_of(folder, count, letters))
    graph.infer("ask", model="m", over=table, prompt="{text}", **more)
    return graph


def half_way(provider: FakeProvider) -> None:
    """Have a provider refuse the second half of the rows."""

    def refuse(task: Task, attempt: Attempt) -> Refused | None:
        return Refused("shut for today") if (attempt.item or 0) >= HALF else None

    provider.before = refuse


class Endless(FakeProvider):
    """Takes every task and never comes to an end of it."""

    async def result(self, attempt: Attempt) -> Result:
        await asyncio.Event().wait()
        raise AssertionError


def in_books(tx: Transaction) -> dict[str, int]:
    """Return what was spent in each scope, and how many reservations are open."""
    reservations = tx.every(r.Reservation)
    still_open = sum(x.standing == "open" for x in reservations)
    assert sum(account.reserved.units for account in tx.every(r.Account)) >= 0
    return {x.scope: x.amount.units for x in tx.every(r.Total)} | {"open": still_open}


async def all_is_well(market: Toy, state: RunState, purchases: int) -> None:
    """The run is done; each purchase was executed, charged and booked once; nothing is held."""
    assert state.outcome == "done"
    paid = [receipt.attempt.purchase for receipt in state.receipts]
    assert len(paid) == len(set(paid)) == purchases
    bought = {a.id: a.purchase for p in state.purchases.values() for a in p.attempts}
    assert Counter(bought[attempt] for attempt in market.executions) == Counter(paid)
    books = await market.journal.commit(in_books)
    assert books["ever"] == sum(receipt.amount.units for receipt in state.receipts)
    assert books["held"] == books["open"] == 0
    await market.journal.check()
