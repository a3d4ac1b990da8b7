"""Nodes that providers do: from a node to its purchases, one or one for every item."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any

from agentkit.artifacts import Artifact
from agentkit.errors import RunPaused, StoreUnavailable, WrongInput
from agentkit.graph.callables import guarding
from agentkit.graph.nodes import PaidNode
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.kinds.kind import Inputs
from agentkit.kinds.registry import bought_kind
from agentkit.market.attempt import Result, purchase_id
from agentkit.market.seams import Verifier
from agentkit.market.task import Task
from agentkit.market.value import digest_of
from agentkit.runtime import hints
from agentkit.runtime.approve import Question
from agentkit.runtime.attempt.lanes import MOST_LANES
from agentkit.runtime.context import RunContext
from agentkit.runtime.endings import NodeEnd
from agentkit.runtime.inputs import NodeInputs
from agentkit.runtime.purchase import Hopeless, Purchase
from agentkit.runtime.sourcing import Sourcing
from agentkit.runtime.verifiers import judge, verifiers_of


class PaidNodes:
    """Does the nodes of one run that are bought."""

    def __init__(self, context: RunContext, sourcing: Sourcing, inputs: NodeInputs) -> None:
        self._context = context
        self._sourcing = sourcing
        self._inputs = inputs

    async def do(self, node: PaidNode) -> NodeEnd | None:
        """Do a node; returns the end that is still to be recorded.

        None is a node of one purchase: its outputs were recorded together with their payment.
        Raises RunPaused, Hopeless, and WrongInput for rows that cannot be asked about.
        """
        with guarding():  # kinds may be other packages'
            return await self._do(node)

    async def _do(self, node: PaidNode) -> NodeEnd | None:
        failed = await self._inputs.failed_condition(node)
        if failed is not None:
            return NodeEnd.skipped(node.name, f"{failed} did not hold")

        inputs = await self._inputs.of(node)
        await self._approve(node)
        kind = bought_kind(node)
        items = kind.items(node, inputs)
        if items is not None:
            outputs = await self._buy_items(node, inputs, items)
            return NodeEnd.done(node.name, await self._context.resources.put(outputs))

        purchase = self._purchase(node, kind.task(node, inputs), self._verifiers(node))
        if await self._cached(purchase) is None:
            await self._sourcing.buy(purchase)
        return None

    def _purchase(
        self,
        node: PaidNode,
        task: Task,
        verifiers: tuple[Verifier, ...],
        item: int | None = None,
    ) -> Purchase:
        """Return the purchase of a task, under an id that every process derives alike."""
        return Purchase(
            id=purchase_id(self._context.run, node.name, item),
            node=node,
            planned=self._context.state.planned.node(node.name),
            task=task,
            item=item,
            cache_key=_cache_key(node, task) if node.cache else "",
            verifiers=verifiers,
        )

    def _verifiers(self, node: PaidNode) -> tuple[Verifier, ...]:
        return verifiers_of(self._context.state.planned.graph.checks(node.name))

    async def _cached(self, purchase: Purchase) -> tuple[Artifact, ...] | None:
        """Take the outputs of an equal task that some run of this wallet paid for; None for none.

        They are verified again: a function that decided then may say something else by now.
        """
        if not purchase.cache_key:
            return None
        resources = self._context.resources
        known = await resources.journal.commit(lambda tx: tx.get(r.Reusable, purchase.cache_key))
        if known is None:
            return None
        try:
            outputs = await resources.get_all(known.outputs)
        except StoreUnavailable:
            return None
        nothing = self._context.state.planned.price.asset.zero()
        verdict = await judge(purchase.verifiers, purchase.task, Result(outputs, {}, nothing))
        if verdict.outcome != "pass":
            return None
        await self._context.log.append(purchase.done(known.outputs, ()))
        return outputs

    # -- one purchase for every item -------------------------------------------------------------

    async def _buy_items(
        self, node: PaidNode, inputs: Inputs, items: Sequence[Any]
    ) -> tuple[Artifact, ...]:
        """Buy a node item by item, as many at a time as its chosen offer has lanes."""
        self._check_count(node, len(items))
        verifiers = self._verifiers(node)
        answers: dict[int, Artifact] = {}
        numbers = iter(self._in_order(node, len(items)))

        async def lane() -> None:
            """Buy one item after another until none is left."""
            for number in numbers:
                try:
                    with guarding():
                        answer = await self._item_or_skip(
                            node, inputs, items[number], number, verifiers
                        )
                except BaseException:
                    deque(numbers, maxlen=0)  # use the rest up: other lanes finish only their own
                    raise
                if answer is not None:
                    answers[number] = answer

        await _all_or_worst_error([lane() for _ in range(self._lanes(node))])
        return bought_kind(node).gather(node, inputs, items, answers)

    def _lanes(self, node: PaidNode) -> int:
        offers = self._context.state.planned.node(node.name).offers
        return min(max(offers[0].lanes, 1), MOST_LANES) if offers else 1

    def _in_order(self, node: PaidNode, count: int) -> list[int]:
        """Return the numbers of items, those with an open attempt first.

        These hold a lane at their provider, and the others might wait for it for ever.
        """
        unfinished = self._context.state.unfinished
        begun = {attempt.item for attempt in unfinished if attempt.node == node.name}
        return sorted(range(count), key=lambda number: number not in begun)

    def _check_count(self, node: PaidNode, count: int) -> None:
        """Pause at more items than the plan priced."""
        planned = self._context.state.planned.node(node.name)
        if count > planned.items:
            raise self._context.stop.paused(
                f"node {node.name!r} maps over {count} rows, and the plan priced"
                f" {planned.items}: resume it under a new plan",
                flag="--plan plan.json",
                hint=hints.replan(self._context.run),
            )

    async def _item_or_skip(
        self,
        node: PaidNode,
        inputs: Inputs,
        item: Any,
        number: int,
        verifiers: tuple[Verifier, ...],
    ) -> Artifact | None:
        """Return the answer for an item; None for one that failed for good and is left out."""
        state = self._context.state
        if number in state.skipped_items.get(node.name, {}):
            return None
        done = state.items.get(node.name, {}).get(number)
        if done:
            return await self._context.resources.get(done[0])
        kind = bought_kind(node)
        try:
            purchase = self._purchase(node, kind.task(node, inputs, item), verifiers, number)
            outputs = await self._cached(purchase) or await self._sourcing.buy(purchase)
            return outputs[0]
        except (Hopeless, WrongInput) as error:
            if not kind.skips_failed_items(node):
                raise
            why = str(error)
            await self._context.log.append(e.ItemSkipped(node=node.name, item=number, why=why))
            return None

    # -- consent ---------------------------------------------------------------------------------

    async def _approve(self, node: PaidNode) -> None:
        """Have somebody agree to a node that needs it; raises RunPaused without a yes."""
        state, approval = self._context.state, self._context.resources.approval
        planned = state.planned.node(node.name)
        amount, agreed = planned.at_most, state.approved.get(node.name)
        if amount is None or (agreed is not None and amount <= agreed):
            return
        if not approval.concerns(amount, marked=node.approve):
            return

        question = Question(
            run=self._context.run,
            graph=state.planned.graph.name,
            node=node.name,
            kind=node.kind,
            provider=planned.offers[0].label,
            amount=amount,
        )
        if not await self._context.stop.or_stop(approval.agreed(question)):
            raise self._context.stop.paused(
                f"nobody agreed to {amount} for node {node.name!r}", flag=f"--approve {node.name}"
            )
        await self._context.log.append(e.Approved(node=node.name, amount=amount, by=approval.by))


def _cache_key(node: PaidNode, task: Task) -> str:
    """Return what must be equal for a result to be taken again: the task, and how it was got."""
    checks = [check.model_dump_json() for check in node.verify]
    return digest_of("cache", task.digest, node.privacy, *checks)


async def _all_or_worst_error(lanes: list[Coroutine[Any, Any, None]]) -> None:
    """Run lanes side by side to their ends; raises an uncertain pause before any other error."""
    outcomes = await asyncio.gather(*lanes, return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if errors:
        raise min(errors, key=lambda error: not (isinstance(error, RunPaused) and error.uncertain))
