"""Following a run to its end: one line an event, Ctrl-C and SIGTERM as an orderly pause."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter

from agentkit.artifacts import Artifact, Json, Table, Text
from agentkit.cli.events import line_of
from agentkit.cli.output import note
from agentkit.display.live import LiveTable
from agentkit.journal import events as e
from agentkit.market.plan import Plan
from agentkit.market.seams import Event
from agentkit.runtime.result import RunResult
from agentkit.runtime.run import Run

EVERY = 2.0
"""Seconds between two lines about the items of one node."""
LEAVE_NOW = 4
"""Exit code of a run that was left where it can be resumed."""


async def follow(run: Run, *, quiet: bool, hint: bool = True) -> RunResult:
    """Show a run until it ends and return its result; raises RunPaused, RunFailed."""
    later = f" · resume it with: agentkit resume {run.id}" if hint else ""
    note(f"run {run.id}{later}", quiet=quiet)
    _pause_on_signals(run)
    if not quiet and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        await _live(run)
    else:
        lines = _Lines()
        async for event in run.events():
            line = lines.take(event)
            if line:
                note(f"  {line}", quiet=quiet)
    return await run.result()


class _Lines:
    """One line an event; of a node bought item by item a line now and then, not one each."""

    def __init__(self) -> None:
        self._items: Counter[str] = Counter()
        self._told: dict[str, float] = {}

    def take(self, event: Event) -> str:
        """Return the line to print for an event, "" for none."""
        match event:
            case e.AttemptOpened() if event.attempt.item is not None and event.attempt.n == 0:
                return line_of(event) if self._now_and_then(event.attempt.node) else ""
            case e.ItemDone():
                self._items[event.node] += 1
                done = self._items[event.node]
                return f"{event.node}: items done: {done}" if self._now_and_then(event.node) else ""
            case _:
                return line_of(event)

    def _now_and_then(self, node: str) -> bool:
        now = time.monotonic()
        if now - self._told.get(node, -EVERY) < EVERY:
            return False
        self._told[node] = now
        return True


def _pause_on_signals(run: Run) -> None:
    """The first signal stops buying and settles; the second leaves, the journal is on disk."""
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    def asked() -> None:
        if stopping:
            os._exit(LEAVE_NOW)
        stopping.append(loop.create_task(run.stop()))

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked)


async def _live(run: Run) -> None:
    rows = _Rows(run.plan)
    with LiveTable(("node", "kind", "where", "state", "paid")) as table:
        async for event in run.events():
            rows.take(event)
            table.show(rows.cells(), line_of(event))


class _Rows:
    """The live table's rows, one for each node, moved by events."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._state = {planned.name: "waiting" for planned in plan.nodes}
        self._where = {n.name: n.offer.label if n.offer else "here" for n in plan.nodes}
        self._paid: Counter[str] = Counter()
        self._items: Counter[str] = Counter()

    def take(self, event: Event) -> None:
        """Move the rows on by an event."""
        match event:
            case e.AttemptOpened():
                attempt = event.attempt
                node = attempt.provider_node
                self._where[attempt.node] = (
                    f"{attempt.provider}/{node}" if node else attempt.provider
                )
                if attempt.item is None:
                    self._state[attempt.node] = "working"
            case e.ItemDone():
                self._items[event.node] += 1
                self._state[event.node] = f"{self._items[event.node]} done"
                self._add(event.node, event)
            case e.NodeDone():
                self._state[event.node] = "done"
                self._add(event.node, event)
            case e.NodeSkipped():
                self._state[event.node] = "skipped"
            case e.NodeFailed():
                self._state[event.node] = "failed"

    def _add(self, node: str, event: e.ItemDone | e.NodeDone) -> None:
        if event.receipt:
            self._paid[node] += event.receipt.amount.units

    def cells(self) -> list[tuple[str, ...]]:
        """Return the rows as the table shows them."""
        asset = self._plan.price.asset
        return [
            (
                planned.name,
                self._plan.graph.by_name[planned.name].kind,
                self._where[planned.name],
                self._state[planned.name],
                type(self._plan.price)(self._paid[planned.name], asset).number,
            )
            for planned in self._plan.nodes
        ]


def result_text(result: RunResult) -> str:
    """Return a result in a few lines: what its last nodes said, and what it cost."""
    done = f"run {result.run_id} is done · paid {result.paid}"
    lines = [_last_words(result), *_skipped_rows(result), *_cut_answers(result), done]
    if result.billed_elsewhere:
        lines.append(f"billed elsewhere: {result.billed_elsewhere}")
    if result.uncertain:
        lines.append(f"uncertain, counted as spent: {result.uncertain}")
    return "\n".join(line for line in lines if line)


def _skipped_rows(result: RunResult) -> list[str]:
    """Say of each mapped node how many rows were left out, and why most of them were."""
    told = []
    for node, items in result.skipped_items.items():
        if items:
            ((why, count),) = Counter(items.values()).most_common(1)
            of_rows = f"{count} of them: " if count < len(items) else ""
            told.append(f"{node}: {len(items)} rows were skipped ({of_rows}{why})")
    return told


def _cut_answers(result: RunResult) -> list[str]:
    """Say of each node how many of its answers were cut at their limit of tokens."""
    return [
        f"{node}: {len(items)} answer{'s were' if len(items) > 1 else ' was'} cut at max_tokens"
        for node, items in result.truncated.items()
    ]


MOST_WORDS = 600
"""Characters that are shown of an output; the whole of it is in the result."""


def _last_words(result: RunResult) -> str:
    """Return the beginnings of what nodes produced that no other node reads."""
    read = {above for names in result.plan.graph.parents.values() for above in names}
    told = []
    for node in result.plan.graph.nodes:
        if node.name not in read:
            outputs = result.artifacts.get(node.name, ())
            told += [f"{node.name}: {_words(output)}" for output in outputs]
    return "\n".join(told) + "\n" if told else ""


def _words(output: Artifact) -> str:
    if not isinstance(output, Text | Json | Table):
        return f"{output.size} bytes, a {output.kind} ({output.digest[:12]})"
    text = output.read().decode(errors="replace").strip()
    return text if len(text) <= MOST_WORDS else text[:MOST_WORDS] + " …"
