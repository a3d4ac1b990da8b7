"""Nodes that are bought: as one purchase, or as one for every row of a table."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from agentkit.artifacts import Artifact, Table
from agentkit.errors import RunPaused, StoreUnavailable, WrongInput
from agentkit.graph.columns import check_columns
from agentkit.graph.nodes import InferNode, SqlNode, TrainNode
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.events import Produced
from agentkit.journal.run_state import RunState
from agentkit.market.attempt import Result, purchase_id
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Event, Transaction, Verifier
from agentkit.market.task import Task
from agentkit.market.value import digest_of
from agentkit.runtime import hints, resolve
from agentkit.runtime.approve import Question
from agentkit.runtime.attempts import MOST_LANES
from agentkit.runtime.context import Means
from agentkit.runtime.purchase import Hopeless, Want, is_skipping
from agentkit.runtime.sourcing import Buyer
from agentkit.runtime.verifiers import judge, verifiers_of

Bought = InferNode | TrainNode | SqlNode


class Paid:
    """Does the nodes of one run that providers do; `told` is called when something is durable."""

    def __init__(
        self, means: Means, state: RunState, buyer: Buyer, told: Callable[[], None]
    ) -> None:
        self._means, self._state, self._buyer, self._told = means, state, buyer, told

    async def do(self, node: Bought, inputs: resolve.Inputs) -> tuple[Artifact, ...] | None:
        """Do a node; returns outputs that are still to be recorded, None for one that was bought.

        Raises RunPaused, and WrongInput for rows that cannot be asked about.
        """
        await self._approve(node)
        if isinstance(node, InferNode) and node.over:
            return (await self._map(node, inputs),)
        match node:
            case InferNode():
                task = resolve.infer_task(node, inputs)
            case TrainNode():
                task = resolve.train_task(node, inputs)
            case SqlNode():
                task = resolve.sql_task(node, inputs)
        await self._buy(node, task, None, self._verifiers(node))
        return None

    # -- one purchase ----------------------------------------------------------------------------

    async def _buy(
        self, node: Bought, task: Task, item: int | None, verifiers: tuple[Verifier, ...]
    ) -> tuple[Artifact, ...]:
        """Buy what is wanted once, or take what the same task came to before."""
        cached_as = _cache_key(node, task) if node.cache else ""

        def done(outputs: tuple[Produced, ...], receipts: tuple[Receipt, ...]) -> Event:
            fields: dict[str, Any] = {
                "node": node.name,
                "outputs": outputs,
                "receipt": next(iter(receipts), None),
                "others": receipts[1:],
                "task": cached_as,
            }
            return e.NodeDone(**fields) if item is None else e.ItemDone(item=item, **fields)

        known = await self._reused(cached_as, task, verifiers, done) if cached_as else None
        if known is None:
            planned = self._state.planned.node(node.name)
            purchase = purchase_id(self._state.run, node.name, item)
            want = Want(node, planned, task, purchase, item, done, verifiers)
            known = await self._buyer.buy(want)
        self._told()
        return known

    async def _reused(
        self,
        cached_as: str,
        task: Task,
        verifiers: tuple[Verifier, ...],
        done: Callable[[tuple[Produced, ...], tuple[Receipt, ...]], Event],
    ) -> tuple[Artifact, ...] | None:
        """Take the outputs of an equal task that some run of this wallet paid for; None: none.

        They are verified again: a function that decided then may say something else by now.
        """
        found = await self._means.journal.commit(lambda tx: tx.get(r.Reusable, cached_as))
        if found is None:
            return None
        try:
            outputs = await self._means.get_all(found.outputs)
        except StoreUnavailable:
            return None
        as_result = Result(outputs, {}, self._state.planned.price.asset.zero())
        if (await judge(verifiers, task, as_result)).outcome != "pass":
            return None
        await self._record(done(found.outputs, ()))
        return outputs

    def _verifiers(self, node: Bought) -> tuple[Verifier, ...]:
        return verifiers_of(self._state.planned.graph.checks(node.name))

    # -- one for every row -----------------------------------------------------------------------

    async def _map(self, node: InferNode, inputs: resolve.Inputs) -> Artifact:
        """Buy an infer node once for every row, as many at a time as its offers have lanes."""
        over = inputs["over"]
        if not isinstance(over, Table):
            raise WrongInput(f"a {type(over).__name__} has no rows")
        rows = over.rows()
        check_columns(node, {column for row in rows for column in row})
        self._check_count(node, len(rows))
        planned = self._state.planned.node(node.name)
        lanes = planned.offers[0].lanes if planned.offers else 1
        verifiers = self._verifiers(node)
        answers: dict[int, Artifact] = {}
        begun = {a.item for a in self._state.unfinished if a.node == node.name}
        # Those that hold a lane at a provider go first, or the others might wait for it for ever.
        numbers = iter(sorted(range(len(rows)), key=lambda number: number not in begun))

        async def lane() -> None:
            for number in numbers:
                try:
                    answer = await self._item_or_skip(node, inputs, rows[number], number, verifiers)
                except BaseException:
                    deque(numbers, maxlen=0)  # the other lanes end what they are at, and no more
                    raise
                if answer is not None:
                    answers[number] = answer

        await _all_or_worst_error([lane() for _ in range(min(max(lanes, 1), MOST_LANES))])
        kept = [number for number in range(len(rows)) if number in answers]
        answered = [rows[number] for number in kept]
        return resolve.mapped_output(node, over, answered, [answers[n] for n in kept])

    def _check_count(self, node: InferNode, count: int) -> None:
        if count > node.max_items:
            raise WrongInput(
                f"node {node.name!r} maps over {count} rows, and max_items is {node.max_items}",
                hint=f"set max_items={count}, or take fewer rows",
            )
        planned = self._state.planned.node(node.name)
        if count > planned.items:
            raise RunPaused(
                self._state.run,
                f"node {node.name!r} maps over {count} rows, and the plan priced"
                f" {planned.items}: resume it under a new plan",
                f"agentkit resume {self._state.run} --plan plan.json",
                hint=hints.replan(self._state.run),
            )

    async def _item_or_skip(
        self,
        node: InferNode,
        inputs: resolve.Inputs,
        row: dict[str, Any],
        number: int,
        verifiers: tuple[Verifier, ...],
    ) -> Artifact | None:
        """Return the answer for a row; None for one that failed for good and is left out."""
        if number in self._state.skipped_items.get(node.name, {}):
            return None
        try:
            return await self._item(node, inputs, row, number, verifiers)
        except (Hopeless, WrongInput) as error:
            if not is_skipping(node):
                raise
            await self._record(e.ItemSkipped(node=node.name, item=number, why=str(error)))
            return None

    async def _item(
        self,
        node: InferNode,
        inputs: resolve.Inputs,
        row: dict[str, Any],
        number: int,
        verifiers: tuple[Verifier, ...],
    ) -> Artifact:
        known = self._state.items.get(node.name, {}).get(number)
        if known:
            return await self._means.get(known[0])
        task = resolve.infer_task(node, inputs, row)
        (answer,) = await self._buy(node, task, number, verifiers)
        return answer

    # -- consent ---------------------------------------------------------------------------------

    async def _approve(self, node: Bought) -> None:
        """Have somebody agree to a node that needs it; raises RunPaused without a yes."""
        planned = self._state.planned.node(node.name)
        amount, approval = planned.at_most, self._means.approval
        agreed = self._state.approved.get(node.name)
        if amount is None or (agreed is not None and amount <= agreed):
            return
        if not approval.concerns(amount, marked=node.approve):
            return
        question = Question(
            run=self._state.run,
            graph=self._state.planned.graph.name,
            node=node.name,
            kind=node.kind,
            provider=planned.offers[0].label,
            amount=amount,
        )
        if not await self._buyer.unless_stopped(approval.agreed(question)):
            raise RunPaused(
                self._state.run,
                f"nobody agreed to {amount} for node {node.name!r}",
                f"agentkit resume {self._state.run} --approve {node.name}",
            )
        await self._record(e.Approved(node=node.name, amount=amount, by=approval.by))

    async def _record(self, event: Event) -> None:
        def work(tx: Transaction) -> None:
            tx.append(self._state.run, event)

        await self._means.journal.commit(work)
        self._state.apply(event)
        self._told()


def _cache_key(node: Bought, task: Task) -> str:
    """Return what must be equal for a result to be taken again: the task, and how it was got."""
    checks = [check.model_dump_json() for check in node.verify]
    return digest_of("cache", task.digest, node.privacy, *checks)


async def _all_or_worst_error(lanes: list[Coroutine[Any, Any, None]]) -> None:
    """Run lanes side by side to their ends; raises an uncertain pause before any other error."""
    outcomes = await asyncio.gather(*lanes, return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    for error in sorted(errors, key=lambda e: not (isinstance(e, RunPaused) and e.uncertain)):
        raise error
