"""SIGKILL at random moments: nothing is lost, nothing finished is done again or paid twice.

`AGENTKIT_KILLS=200 pytest tests/crash -s` for the long form.
"""

import asyncio
import collections
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from support.killed_graphs import graph_of
from support.processes import PROGRAMS, provider_node
from support.timing import limit, measured_slowness
from support.toy_market import WALLET, toy

from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.journal.rows import Row
from agentkit.journal.run_state import RunState
from agentkit.market.seams import Transaction

KILLS = int(os.environ.get("AGENTKIT_KILLS", "24"))
SHAPES = ("chain", "fan", "layered", "mapped")
LANES = 8
AT_ONCE = {"chain": 1, "fan": LANES, "layered": LANES, "mapped": LANES, "hundred": LANES}
LONGEST = 0.5
"""Seconds in which a resumed run has to have something new on disk."""

CHILD = PROGRAMS / "agent_run.py"


def agent(folder: Path, shape: str) -> subprocess.Popen[str]:
    """Start an agent; it waits for the number of the graph it is to execute."""
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), shape],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )


@contextmanager
def agents(folder: Path, shape: str) -> Iterator[Iterator[subprocess.Popen[str]]]:
    """Yield agents, each started while the one before it is at work."""
    spare = [agent(folder, shape)]

    def following() -> Iterator[subprocess.Popen[str]]:
        while True:
            spare.append(agent(folder, shape))
            yield spare.pop(0)

    try:
        yield following()
    finally:
        for one in spare:
            one.kill()
            one.communicate()


@dataclass
class Witness:
    """What was durable when somebody last looked; each look checks all of it again."""

    folder: Path
    rows: dict[str, list[Row]] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)
    firsts: list[float] = field(default_factory=list)

    @property
    def node(self) -> provider_node.Away:
        return provider_node.Away("node", self.folder / "node")

    def done_so_often(self) -> dict[str, int]:
        """How often each purchase was taken by the node, and each function called."""
        log = self.folder / "calls.log"
        called = log.read_text().splitlines() if log.exists() else []
        return collections.Counter(called) | self.node.count("accepted")

    async def look(self) -> list[RunState]:
        """Check everything against the last look; returns the runs as they stand."""
        journal = await Journal.open(self.folder / "home", WALLET)
        try:
            await journal.check()
            rows = await journal.commit(lambda tx: {s: list(tx.rows(s)) for s in tx.streams()})
            states = [
                RunState.of(s, await journal.history(s)) for s in rows.keys() - {e.WALLET} if s
            ]
            await journal.commit(lambda tx: check_books(tx, states))
        finally:
            await journal.close()
        for stream, before in self.rows.items():
            assert rows[stream][: len(before)] == before
        self.rows = rows
        self._nothing_again(states)
        self._nothing_twice(rows.get(e.WALLET, []), states)
        return states

    def _nothing_again(self, states: list[RunState]) -> None:
        often = self.done_so_often()
        assert {name: often[name] for name in self.finished} == self.finished
        for state in states:
            graph = state.planned.graph
            here = [f"{graph.name} {n}" for n in state.done if graph.by_name[n].kind == "local"]
            bought = [receipt.attempt.purchase for receipt in state.receipts]
            self.finished |= {name: often[name] for name in (*here, *bought)}

    def _nothing_twice(self, wallet: list[Row], states: list[RunState]) -> None:
        """The rail charged for each purchase once, and only for what the run has."""
        known = {a.id: a.purchase for s in states for p in s.purchases.values() for a in p.attempts}
        charged = [known[json.loads(x.body)["json_text"]] for x in wallet if x.kind == "Extra"]
        paid = [receipt.attempt.purchase for state in states for receipt in state.receipts]
        assert sorted(charged) == sorted(paid)
        assert len(set(paid)) == len(paid)


def check_books(tx: Transaction, states: list[RunState]) -> None:
    """Holds, reservations, accounts and totals say what the runs say."""
    totals = {row.scope: row.amount.units for row in tx.every(r.Total)}
    holds, reservations = tx.every(r.Hold), tx.every(r.Reservation)
    still_open = [x for x in reservations if x.standing == "open"]
    reserved = sum(x.amount.units for x in still_open)
    paid = sum(receipt.amount.units for state in states for receipt in state.receipts)
    assert {x.attempt for x in still_open} == {
        attempt for s in states for p in s.purchases.values() for attempt in p.open
    }
    assert sum(hold.reserved.units for hold in holds) == reserved
    assert sum(hold.left.units for hold in holds) == totals.get("held", 0)
    assert totals.get("ever", 0) == paid
    assert sum(account.spent.units for account in tx.every(r.Account)) == paid
    assert sum(account.reserved.units for account in tx.every(r.Account)) == reserved
    for hold in holds:
        (state,) = (state for state in states if state.run == hold.run)
        assert hold.left + hold.spent == state.planned.at_most


async def undisturbed(shape: str, folder: Path) -> dict[str, list[str]]:
    """Return what each node gives in a run that nobody kills."""
    folder.mkdir()
    async with toy(folder) as market:
        result = await market.run(graph_of(shape, 0, folder))
        return {name: [a.digest for a in outputs] for name, outputs in result.artifacts.items()}


def at_the_end(witness: Witness, states: list[RunState], wanted: dict[str, list[str]]) -> None:
    """Nothing is missing, and everything was bought once."""
    paid = 0
    for state in states:
        assert state.outcome == "done"
        assert {n: [o.digest for o in outs] for n, outs in state.done.items()} == wanted
        assert not any(purchase.open for purchase in state.purchases.values())
        paid += len(state.receipts)
    accepted = witness.node.count("accepted")
    assert len(accepted) == paid
    assert set(accepted.values()) == {1}
    assert collections.Counter(witness.node.executions).most_common(1)[0][1] == 1


def executed(
    child: subprocess.Popen[str], number: int, until: Callable[[], object] | None = None
) -> list[str]:
    """Let an agent execute a graph, and kill it after `until`; returns what it printed."""
    assert child.stdin and child.stdout
    child.stdin.write(f"{number}\n")
    child.stdin.flush()
    assert child.stdout.readline() == "go\n"
    if until:
        until()
        child.send_signal(signal.SIGKILL)
    output, _ = child.communicate(timeout=limit(60))
    assert child.returncode in (0, -signal.SIGKILL)
    return output.splitlines()


def reached(condition: Callable[[], bool]) -> Callable[[], None]:
    """Return what waits until a condition holds."""

    def wait() -> None:
        late = time.monotonic() + limit(30)
        while not condition():
            assert time.monotonic() < late
            time.sleep(0.005)

    return wait


@pytest.mark.timeout(120 + 3 * KILLS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_survives_kills_at_random_moments(tmp_path: Path, shape: str) -> None:
    draw, witness = random.Random(shape), Witness(tmp_path / "f")
    kills, number, going = 0, 0, True
    with (
        provider_node.running(witness.folder / "node", lanes=LANES, delay=0.05) as (_, process),
        agents(witness.folder, shape) as waiting,
    ):
        while going:
            child = next(waiting)
            more = kills < KILLS // len(SHAPES)
            moment = partial(time.sleep, draw.uniform(0.0, 0.5))
            said = executed(child, number, moment if more else None)
            witness.firsts += [float(x.split()[1]) for x in said if x.startswith("first")]
            if child.returncode == 0:
                assert said[-1] == "done"
                number, going = number + 1, more
            states = asyncio.run(witness.look())
            kills += any(state.outcome == "running" for state in states)
        assert process.poll() is None  # the node lived through all of it
    assert kills >= KILLS // len(SHAPES)
    assert len(states) == number
    at_the_end(witness, states, asyncio.run(undisturbed(shape, tmp_path / "calm")))
    print(
        f"\n{shape}: {kills} kills in {number} runs, at most {witness.node.highest} at once,"
        f" {sum(witness.node.count('refused').values())} refused; from resume to the first event"
        f" {max(witness.firsts):.3f} s at worst of {len(witness.firsts)}"
    )
    assert witness.node.highest == AT_ONCE[shape]
    assert not witness.node.count("refused")
    assert max(witness.firsts) < LONGEST * measured_slowness()


def test_of_a_hundred_items_killed_at_fifty_a_hundred_are_executed(tmp_path: Path) -> None:
    witness = Witness(tmp_path / "f")
    with (
        provider_node.running(witness.folder / "node", lanes=LANES, delay=0.05),
        agents(witness.folder, "hundred") as waiting,
    ):
        child = next(waiting)
        executed(child, 0, reached(lambda: len(witness.node.executions) >= 50))
        assert child.returncode == -signal.SIGKILL
        (state,) = asyncio.run(witness.look())
        assert 40 <= len(state.items["ask"]) <= 60  # it was in the middle
        (*_, last) = executed(next(waiting), 0)
        assert last == "done"
        states = asyncio.run(witness.look())
    at_the_end(witness, states, asyncio.run(undisturbed("hundred", tmp_path / "calm")))
    assert len(witness.node.executions) == 100
    assert sum(witness.node.count("accepted").values()) == 100
    assert witness.node.highest == LANES


@pytest.mark.parametrize("shape", ["fan", "mapped"])
def test_a_resumed_run_keeps_to_the_lanes_that_the_killed_one_still_fills(
    tmp_path: Path, shape: str
) -> None:
    witness = Witness(tmp_path / "f")
    with (
        provider_node.running(witness.folder / "node", lanes=LANES, delay=0.5),
        agents(witness.folder, shape) as waiting,
    ):
        child = next(waiting)
        after = next(waiting)
        time.sleep(1.5)  # so that the second is there at once
        executed(child, 0, reached(lambda: len(witness.node.count("accepted")) >= LANES))
        assert child.returncode == -signal.SIGKILL
        assert not witness.node.count("finished")  # all of them are still at it
        executed(after, 0)
        at_the_end(
            witness, asyncio.run(witness.look()), asyncio.run(undisturbed(shape, tmp_path / "calm"))
        )
    assert witness.node.highest == LANES
    assert not witness.node.count("refused")
