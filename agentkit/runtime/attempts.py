"""One attempt's life: opened durably, handed over, verified; then paid, or closed unpaid.

open (durable) -> submit -> result -> verify -> Delivery
settle: pay and record in one transaction        close: unpaid, refused or uncertain
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Literal, TypeVar

from agentkit.artifacts import Artifact
from agentkit.errors import (
    BadAmount,
    BadOutput,
    ExecuteTimedOut,
    InsufficientFunds,
    OfferExpired,
    OffersTimedOut,
    OverBudget,
    PaymentError,
    ProtocolBroken,
    ProviderError,
    RunPaused,
    SettleTimedOut,
    StateError,
    StoreTimedOut,
    SubmitTimedOut,
    Unavailable,
)
from agentkit.journal import events as e
from agentkit.journal.blobs import keep
from agentkit.journal.run_state import Purchase, RunState
from agentkit.market.attempt import Attempt, Evidence, JobStatus, Message, Payment, Result
from agentkit.market.offer import Offer, charge
from agentkit.market.receipt import Receipt
from agentkit.market.seams import AskableRail, Event, Fate, Provider, Rail, Transaction, Wanted
from agentkit.market.task import Task, TaskSpec
from agentkit.money import Money
from agentkit.runtime import hints, result_checks
from agentkit.runtime.context import Means
from agentkit.runtime.deadline import Deadline, within
from agentkit.runtime.purchase import Delivery, Want
from agentkit.runtime.retry import again_for
from agentkit.runtime.verifiers import judge

T = TypeVar("T")

FIND_PATIENCE = 10.0
"""Seconds for which a provider that can be asked is asked what became of an attempt."""

FUNDINGS = 3
"""How often a rail is asked to put money in place for one attempt."""

OFFERS_SECONDS = 20.0
"""Seconds in which a provider repeats an offer, unless the node says otherwise."""

CALL_SECONDS = 10.0
"""Seconds in which a provider has to say what became of an attempt, or stop it."""

CARRY_SECONDS = 60.0
"""Seconds in which a provider has to take a rail's message."""

MOST_LANES = 64
"""Attempts that are under way at one provider node, whatever it says it takes."""


class Attempts:
    """The attempts of one run.  `rebuy`: the user asked to buy again what is uncertain."""

    def __init__(self, means: Means, state: RunState, deadline: Deadline, *, rebuy: bool) -> None:
        self._means, self._state, self._deadline = means, state, deadline
        self._rebuy = rebuy
        self._funding: dict[str, asyncio.Lock] = {}
        self._lanes: dict[str, asyncio.Semaphore] = {}
        self._beyond: dict[str, int] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self._left = {attempt.id: attempt for attempt in state.unfinished}
        self.stopping = asyncio.Event()
        self.closing = False

    @property
    def run(self) -> str:
        return self._state.run

    def past(self, purchase: str) -> Purchase:
        """Return the attempts made at a purchase so far."""
        return self._state.purchases.get(purchase, Purchase())

    # -- from offer to delivery ------------------------------------------------------------------

    async def deliver(
        self, want: Want, offer: Offer, begun: asyncio.Event, *, extra: bool = False
    ) -> Delivery:
        """Have a purchase done under an offer and verify what comes back; nothing is paid yet.

        `begun` is set when the provider is about to be asked; `extra` is one more than the plan
        foresaw.  Raises ProviderError once the attempt is closed, RunPaused when the run cannot
        go on.
        """
        offer = await self._fresh(want, offer)
        async with self._lane(offer):
            attempt = self._next(want, offer)
            payment = await self._open(want, offer, attempt, extra=extra)
            await self._before_pay(attempt)
            started = time.monotonic()
            begun.set()
            try:
                result = await self._asked(want, offer, attempt, payment)
            except ProviderError as wrong:
                return await self._lost(want, offer, attempt, wrong)
        seconds = time.monotonic() - started
        return await self._verified(want, Delivery(attempt, offer, result, seconds))

    async def _asked(self, want: Want, offer: Offer, attempt: Attempt, payment: Payment) -> Result:
        """Hand the task over and wait; an error says by `unknown` whether it may have been done."""
        provider, limits = self._provider(offer.provider), want.node.limits
        taken = False
        try:
            share = self._deadline.share(want.node.name)
            async with self._time_for(want, offer, attempt, share):
                with _only_its_errors(offer):
                    async with within(
                        limits.submit, lambda s: SubmitTimedOut(s, provider=offer.label)
                    ):
                        sending = provider.submit(want.task, offer, attempt, payment)
                        await (self.or_stop(sending) if offer.finds else sending)
                    taken = True
                    return await self._result(provider, offer, attempt)
        except Unavailable as wrong:
            wrong.unknown = wrong.unknown or taken
            raise

    @asynccontextmanager
    async def _time_for(
        self, want: Want, offer: Offer, attempt: Attempt, share: float | None = None
    ) -> AsyncIterator[None]:
        """Bound an execution by the node's limit and by its `share` of the deadline.

        What is late is called off at its provider; at the deadline itself, what can be found
        again is left to be found.
        """
        given = (want.node.limits.execute, share)
        seconds = min((limit for limit in given if limit is not None), default=None)
        try:
            async with within(seconds, lambda s: ExecuteTimedOut(s, provider=offer.label)):
                yield
        except ExecuteTimedOut:
            if offer.finds and self._deadline.passed:
                raise self.pause("its deadline has passed", hint=hints.replan(self.run)) from None
            await self._call_off(attempt, offer)
            raise

    async def _call_off(self, attempt: Attempt, offer: Offer) -> None:
        """Ask a provider to stop, and do not wait long for its answer."""
        with suppress(ProviderError, TimeoutError), _only_its_errors(offer):
            async with asyncio.timeout(CALL_SECONDS):
                await self._provider(attempt.provider).cancel(attempt)

    async def _result(self, provider: Provider, offer: Offer, attempt: Attempt) -> Result:
        """Wait for a result; a stop leaves it behind only where it can be found again."""
        waiting = provider.result(attempt)
        return await (self.or_stop(waiting) if offer.finds else waiting)

    async def _verified(self, want: Want, delivery: Delivery) -> Delivery:
        """Return a delivery that may be paid; raises BadOutput once it is refused and closed."""
        offer, attempt, result = delivery.offer, delivery.attempt, delivery.result
        try:
            with _only_its_errors(offer):
                result.digest  # noqa: B018  # what has none is no result
                await result_checks.check_aside(want.node, want.task, offer, attempt, result)
        except BadOutput as wrong:
            await self.refuse(delivery, str(wrong))
            raise
        except ProtocolBroken as odd:
            await self.close_lost(attempt, offer, str(odd))
            raise
        judging = judge(want.verifiers, want.task, result)
        verdict = await (self.or_stop(judging) if offer.finds else judging)
        if verdict.mend:
            raise await self._unjudged(want, delivery, verdict.reason)
        if verdict.outcome != "pass":
            bad = BadOutput(f"its output did not verify: {verdict.reason}", provider=offer.label)
            await self.refuse(delivery, str(bad), blame=verdict.outcome == "fail")
            raise bad
        return delivery

    async def _unjudged(self, want: Want, delivery: Delivery, why: str) -> RunPaused:
        """Return the pause for a delivery whose verifier, a function of the user's, failed.

        It stays open where it can be found again, so that the mended function verifies the same
        delivery and nothing is bought twice.
        """
        told = f"{want.node.name}: what verifies it failed: {why}"
        if not delivery.offer.finds:
            await self.refuse(delivery, told, blame=False)
        return self.pause(told, mend=want.node.name)

    async def _lost(
        self, want: Want, offer: Offer, attempt: Attempt, wrong: ProviderError
    ) -> Delivery:
        """End an attempt that failed, or carry it on when the provider turns out to have it."""
        if wrong.unknown and offer.finds:
            delivery = await self.reattach(want, attempt)
            if delivery is not None:
                return delivery
        elif wrong.unknown or isinstance(wrong, BadOutput):
            await self.close_lost(attempt, offer, str(wrong))
        else:
            await self._close(attempt, "unpaid", str(wrong))
        raise wrong

    # -- opening ---------------------------------------------------------------------------------

    def _next(self, want: Want, offer: Offer) -> Attempt:
        attempt = Attempt.at(
            want.purchase,
            len(self.past(want.purchase).attempts),
            offer,
            run=self.run,
            item=want.item,
            task=want.task.digest,
            at_most=_at_most(want.task, offer),
        )
        if attempt.at_most > offer.at_most:
            raise OfferExpired(
                f"the task can come to {attempt.at_most}, above the offer's {offer.at_most}",
                provider=offer.label,
            )
        return attempt

    async def _fresh(self, want: Want, offer: Offer) -> Offer:
        """Return the offer, or its provider's new one on terms that are no dearer."""
        if time.time() < offer.expires or want.planned.spec is None:
            return offer
        for new in await self._asked_again(want, offer, want.planned.spec):
            if new.terms == offer.terms:
                return new.model_copy(update={"at_most": min(new.at_most, offer.at_most)})
        raise OfferExpired("the price has changed since the plan was made", provider=offer.label)

    async def _asked_again(self, want: Want, offer: Offer, spec: TaskSpec) -> Sequence[Offer]:
        seconds = want.node.limits.offers or OFFERS_SECONDS
        with _only_its_errors(offer):
            async with within(seconds, lambda s: OffersTimedOut(s, provider=offer.label)):
                again = await self._provider(offer.provider).offers(spec)
                return [o.paid_by(offer.rail) if offer.rail in o.rails else o for o in again]

    def _lane(self, offer: Offer) -> asyncio.Semaphore:
        """Return what bounds the attempts under way at an offer's node.

        Those that an earlier process left there count until they are taken up.
        """
        if offer.label not in self._lanes:
            lanes = min(max(offer.lanes, 1), MOST_LANES)
            taken = sum(attempt.label == offer.label for attempt in self._left.values())
            self._lanes[offer.label] = asyncio.Semaphore(max(lanes - taken, 0))
            self._beyond[offer.label] = max(taken - lanes, 0)  # delivered, and not yet settled
        return self._lanes[offer.label]

    def _free_lane(self, attempt: Attempt) -> None:
        label = attempt.label
        if not self._left.pop(attempt.id, None) or label not in self._lanes:
            return
        if self._beyond[label]:
            self._beyond[label] -= 1
        else:
            self._lanes[label].release()

    async def _open(self, want: Want, offer: Offer, attempt: Attempt, *, extra: bool) -> Payment:
        """Reserve an attempt everywhere and journal it; from here on it may be sent."""
        self._check_going()
        rail = self._means.rails[offer.rail]
        spare = self._needed(extra)
        try:
            try:
                return await self._commit_open(rail, attempt, spare)
            except InsufficientFunds:
                await self._confirm(want, offer)
                return await self._open_funded(want, rail, offer, attempt, spare)
        except (PaymentError, OverBudget) as wrong:
            hint = hints.after(wrong, self.run)
            raise self.pause(f"{offer.label} cannot be paid: {wrong}", hint=hint) from wrong

    def _check_going(self) -> None:
        if self.stopping.is_set():
            raise self.pause("it was asked to stop")
        if self.closing:
            raise self.pause("another node has stopped the run")
        if self._deadline.passed:
            raise self.pause("its deadline has passed", hint=hints.replan(self.run))

    async def _commit_open(self, rail: Rail, attempt: Attempt, spare: int) -> Payment:
        opened = e.AttemptOpened(attempt=attempt)

        def work(tx: Transaction) -> tuple[Event, Payment]:
            self._reserve(tx, attempt, spare)
            payment = rail.reserve(tx, attempt)
            tx.append(self.run, opened)
            return opened, payment

        return await self._record(work)

    def _reserve(self, tx: Transaction, attempt: Attempt, spare: int) -> None:
        """Set an attempt's at most aside, once, under a further hold if it must be."""
        if not self._means.ledger.is_reserved(tx, attempt):
            self._hold_more(tx, attempt, spare)
        self._means.ledger.reserve(tx, attempt)

    def _hold_more(self, tx: Transaction, attempt: Attempt, spare: int) -> None:
        """Take a further hold for what is missing, if the budget has room; raises OverBudget.

        Without a budget the plan's worst case is all that was agreed to, and what is uncertain is
        bought again within it, unless the user asked for more.  `spare`: the units that others
        still need of the hold.
        """
        ledger, budget = self._means.ledger, self._state.planned.budget
        left = ledger.left(tx, self.run)
        missing = attempt.at_most.units + spare - (left.units if left else 0)
        if missing <= 0:
            return
        if not self._rebuy and (budget is None or self.past(attempt.purchase).uncertain):
            if spare:
                raise OverBudget("hold", attempt.at_most, left or attempt.at_most.asset.zero())
            return
        ledger.hold(tx, self.run, Money(missing, attempt.at_most.asset), budget)

    def _needed(self, extra: bool) -> int:
        """Return the units of the hold that an extra attempt has to leave to the planned ones."""
        if not extra:
            return 0
        under_way = sum(attempt.at_most.units for attempt in self._state.unfinished)
        return max(0, self._state.rest - under_way)

    async def _confirm(self, want: Want, offer: Offer) -> None:
        """Hear the offer again before money is locked up for its provider node."""
        if want.planned.spec is None:
            return
        again = await self._asked_again(want, offer, want.planned.spec)
        if all(new.terms != offer.terms for new in again):
            raise OfferExpired("it no longer offers these terms", provider=offer.label)

    async def _open_funded(
        self, want: Want, rail: Rail, offer: Offer, attempt: Attempt, spare: int
    ) -> Payment:
        """Have the rail put enough in place for what this run still plans, then open.

        One at a time for each payee: what another purchase of this run funded counts first.
        More than once, where a payee is asked for our promises first, or a process was quicker.
        """
        wanted = Wanted(attempt, lambda tx: self._reserve(tx, attempt, spare))
        async with self._funding.setdefault(offer.payee or offer.label, asyncio.Lock()):
            for _ in range(FUNDINGS):
                with suppress(InsufficientFunds):
                    return await self._commit_open(rail, attempt, spare)
                await self._fund(want, rail, offer, wanted, attempt.at_most)
            return await self._commit_open(rail, attempt, spare)

    async def _fund(
        self, want: Want, rail: Rail, offer: Offer, wanted: Wanted, least: Money
    ) -> None:
        try:
            async with within(want.node.limits.settle, SettleTimedOut):
                for message in await self._top_up(rail, offer, wanted, least):
                    await self._carry(rail, message)
        except StateError as wrong:
            hint = hints.after(wrong, self.run)
            raise self.pause(f"{offer.label} cannot be paid: {wrong}", hint=hint) from wrong

    async def _top_up(
        self, rail: Rail, offer: Offer, wanted: Wanted, least: Money
    ) -> Sequence[Message]:
        """Fund all that is planned with the payee, or this attempt if the wallet has no more."""
        planned = self._planned(offer)
        if planned > least:
            with suppress(InsufficientFunds):
                return await rail.fund(offer, planned, wanted)
        return await rail.fund(offer, least, wanted)

    def _planned(self, offer: Offer) -> Money:
        """Return the worst case of what this run still plans with a payee and has not open.

        Alternates count in it, as they do in the hold, so that the sum over all payees is the
        hold and a small next run needs no top-up.
        """
        units = 0
        for node in self._state.planned.nodes:
            chosen = node.offer and (node.offer.rail, node.offer.payee) == (offer.rail, offer.payee)
            mine = chosen or node.name == offer.node  # where an alternate steps in
            if mine:
                units += self._state.rest_of(node)
        units -= sum(
            attempt.at_most.units
            for purchase in self._state.purchases.values()
            for attempt in purchase.open.values()
            if (attempt.rail, attempt.payee) == (offer.rail, offer.payee)
        )
        return Money(max(units, 0), offer.at_most.asset)

    async def _before_pay(self, attempt: Attempt) -> None:
        """Wait for what has to precede a purchase; when it fails, nothing was sent."""
        try:
            await self._means.before_pay(attempt.at_most)
        except StateError as wrong:
            await self._close(attempt, "unpaid", f"it was not sent: {wrong}")
            why = f"the log is not on Arweave before a purchase: {wrong}"
            raise self.pause(why, hint=hints.after(wrong, self.run)) from wrong

    # -- what was left open ----------------------------------------------------------------------

    async def reattach(self, want: Want, attempt: Attempt) -> Delivery | None:
        """Take up an open attempt where it stands; None once it is closed without a result."""
        try:
            return await self._taken_up(want, attempt)
        finally:
            self._free_lane(attempt)

    async def _taken_up(self, want: Want, attempt: Attempt) -> Delivery | None:
        offer = self._state.offers[attempt.terms]
        if not offer.finds:
            await self.close_lost(attempt, offer, "the provider cannot be asked about it")
            return None
        try:
            status = await self._find(attempt, offer)
        except ProviderError as wrong:
            if offer.pays != "on_delivery":
                why = f"{offer.label} cannot be asked: {wrong}"
                raise self.pause(why, uncertain=True) from wrong
            await self._close(attempt, "unpaid", str(wrong))
            return None
        if status is None and offer.pays == "with_request":
            return await self._handed_over_again(want, offer, attempt)
        if status is None or status.state in ("failed", "cancelled"):
            await self._close(attempt, "unpaid", _story(status))
            return None
        return await self._take(want, offer, attempt)

    async def _handed_over_again(
        self, want: Want, offer: Offer, attempt: Attempt
    ) -> Delivery | None:
        """Hand an attempt over with the payment that is its own; None once it is closed.

        Whatever was done with it before, it is the same job and the same payment.
        """
        rail = self._means.rails[attempt.rail]
        try:
            payment = await self._means.journal.commit(lambda tx: rail.reserve(tx, attempt))
            await self._submit_again(want, offer, attempt, payment)
        except (ProviderError, PaymentError) as wrong:
            why = f"{offer.label} does not say what became of it: {wrong}"
            match await self._fate(rail, attempt):
                case "unpaid":
                    await self._close(attempt, "unpaid", why)
                case "paid" if not getattr(wrong, "retryable", False):
                    await self.close_lost(attempt, offer, why)
                case _:
                    raise self.pause(why, uncertain=True) from wrong
            return None
        return await self._take(want, offer, attempt)

    async def _submit_again(
        self, want: Want, offer: Offer, attempt: Attempt, payment: Payment
    ) -> None:
        """Hand an attempt over, for as long as patience lasts."""
        limit = want.node.limits.submit
        async for one in again_for(FIND_PATIENCE, _may_pass, self.sleep):
            with one, _only_its_errors(offer):
                async with within(limit, lambda s: SubmitTimedOut(s, provider=offer.label)):
                    provider = self._provider(attempt.provider)
                    await self.or_stop(provider.submit(want.task, offer, attempt, payment))

    async def _fate(self, rail: Rail, attempt: Attempt) -> Fate:
        """Return what became of an attempt's payment, as far as its rail can say."""
        if not isinstance(rail, AskableRail):
            return "open"
        try:
            return await rail.lookup(attempt)
        except (StateError, ProviderError):
            return "open"

    async def _take(self, want: Want, offer: Offer, attempt: Attempt) -> Delivery | None:
        """Wait for the result of an attempt that is there; None once it is closed without one."""
        try:
            async with self._time_for(want, offer, attempt):
                with _only_its_errors(offer):
                    provider = self._provider(attempt.provider)
                    result = await self._result(provider, offer, attempt)
        except ProviderError as wrong:
            await self.close_lost(attempt, offer, str(wrong))
            return None
        try:
            return await self._verified(want, Delivery(attempt, offer, result))
        except BadOutput:
            return None

    async def _find(self, attempt: Attempt, offer: Offer) -> JobStatus | None:
        """Ask what became of an attempt, for as long as patience lasts."""
        async for one in again_for(FIND_PATIENCE, _may_pass, self.sleep):
            with one, _only_its_errors(offer):
                async with within(CALL_SECONDS, lambda _: _no_answer(offer)):
                    return await self.or_stop(self._provider(attempt.provider).find(attempt))
        raise _no_answer(offer)

    # -- endings ---------------------------------------------------------------------------------

    async def settle(self, want: Want, *deliveries: Delivery) -> tuple[Artifact, ...]:
        """Pay for verified results that agree and record the first, in one transaction."""
        first = deliveries[0]
        limits = want.node.limits
        async with within(limits.store, StoreTimedOut):
            outputs = await self._means.put(first.result.outputs)

        def work(tx: Transaction) -> tuple[Event, list[tuple[Rail, Message]]]:
            receipts, messages = [], []
            for delivery in deliveries:
                attempt, rail = delivery.attempt, self._means.rails[delivery.attempt.rail]
                receipt, told = rail.settle(tx, attempt, delivery.result)
                self._means.ledger.spend(tx, attempt, receipt.amount, receipt.standing)
                receipts.append(receipt)
                messages += [(rail, message) for message in told]
            event = want.event(keep(tx, outputs), tuple(receipts))
            tx.append(self.run, event)
            return event, messages

        try:
            messages = await self._paid(want, deliveries, work)
        except (PaymentError, ProviderError) as wrong:  # it stays open, and is found again
            who = first.attempt.provider
            why = f"{who} delivered {want.node.name!r} and cannot be paid: {wrong}"
            raise self.pause(why, hint=hints.after(wrong, self.run)) from wrong
        for rail, message in messages:
            self.errand(self._carry(rail, message))
        return outputs

    async def _paid(
        self,
        want: Want,
        deliveries: Sequence[Delivery],
        work: Callable[[Transaction], tuple[Event, T]],
    ) -> T:
        try:
            return await self._record(work)
        except InsufficientFunds:  # a restored rail has to hear of its own promises first
            for delivery in deliveries:
                rail, zero = self._means.rails[delivery.offer.rail], delivery.attempt.at_most.asset
                wanted = Wanted(delivery.attempt, lambda tx: None)  # it is reserved already
                await self._fund(want, rail, delivery.offer, wanted, zero.zero())
            return await self._record(work)

    async def refuse(self, delivery: Delivery, why: str, *, blame: bool = True) -> None:
        """Close an attempt whose result is not paid; `blame` counts against its provider."""
        on_delivery = delivery.offer.pays == "on_delivery"
        await self._close(
            delivery.attempt,
            "unpaid" if on_delivery else "uncertain",  # a bad answer is billed like a good one
            why,
            refused=delivery.result if blame else None,
        )

    async def close_lost(self, attempt: Attempt, offer: Offer, why: str) -> None:
        """Close an attempt whose result cannot be had."""
        on_delivery = offer.pays == "on_delivery"
        await self._close(attempt, "unpaid" if on_delivery else "uncertain", why)

    async def cancel(self, attempt: Attempt, why: str) -> None:
        """Stop an open attempt at its provider and close it."""
        offer = self._state.offers[attempt.terms]
        await self._call_off(attempt, offer)
        await self.close_lost(attempt, offer, why)

    async def cancel_others(self, purchase: str, why: str) -> None:
        """Stop and close what is open of a purchase that was delivered."""
        for attempt in list(self.past(purchase).open.values()):
            with suppress(PaymentError):  # its end must not keep the run from its own
                await self.cancel(attempt, why)

    async def _close(
        self,
        attempt: Attempt,
        outcome: Literal["unpaid", "uncertain"],
        reason: str,
        refused: Result | None = None,
    ) -> None:
        """Record that an attempt came to nothing, or that nobody can say."""
        if attempt.id not in self.past(attempt.purchase).open:
            return
        rail, ledger = self._means.rails[attempt.rail], self._means.ledger

        def work(tx: Transaction) -> tuple[Event, None]:
            may_be_drawn = rail.release(tx, attempt, uncertain=outcome == "uncertain")
            receipt = None
            if outcome == "uncertain":
                ledger.spend(tx, attempt, attempt.at_most, "uncertain")
                receipt = Receipt(
                    attempt=attempt, standing="uncertain", amount=attempt.at_most, at=tx.now
                )
            elif not may_be_drawn:
                ledger.unreserve(tx, attempt)
            closed = e.AttemptClosed(
                attempt=attempt.id,
                purchase=attempt.purchase,
                node=attempt.node,
                item=attempt.item,
                outcome=outcome,
                reason=reason,
                receipt=receipt,
                provider=attempt.label,
                refused=refused is not None,
                result=refused.digest if refused else "",
                evidence=refused.evidence if refused else Evidence(),
            )
            tx.append(self.run, closed)
            return closed, None

        await self._record(work)

    # -- inside ----------------------------------------------------------------------------------

    async def _record(self, work: Callable[[Transaction], tuple[Event, T]]) -> T:
        """Commit a work and take its event in, even when this task is being cancelled."""

        async def both() -> T:
            event, outcome = await self._means.journal.commit(work)
            self._state.apply(event)
            return outcome

        write = asyncio.ensure_future(both())
        try:
            return await asyncio.shield(write)
        except asyncio.CancelledError:
            await asyncio.wait([write])
            raise

    async def sleep(self, seconds: float) -> None:
        """Wait, or raise RunPaused as soon as the run is asked to stop."""
        await self.or_stop(asyncio.sleep(seconds))

    async def or_stop(self, waiting: Awaitable[T]) -> T:
        """Wait for something, or raise RunPaused as soon as the run is asked to stop."""
        task = asyncio.ensure_future(waiting)
        stop = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self.pause("it was asked to stop")
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    def errand(self, going: Awaitable[None]) -> None:
        """Have something done without waiting for it; where it fails, the run's end does it."""

        async def quietly() -> None:
            with suppress(ProviderError, PaymentError, StateError, RunPaused):
                await going

        errand = asyncio.create_task(quietly())
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)

    async def settle_errands(self) -> None:
        """Wait for errands that are still under way."""
        while self._errands:
            await asyncio.gather(*self._errands, return_exceptions=True)

    async def _carry(self, rail: Rail, message: Message) -> None:
        provider = self._provider(message.provider)
        async with within(CARRY_SECONDS, lambda s: Unavailable(f"took no message in {s:g} s")):
            answer = await provider.carry(message)
        await rail.finish(answer)

    def _provider(self, name: str) -> Provider:
        provider = self._means.providers.get(name)
        if provider is None:
            raise Unavailable("is not among the configured providers", provider=name)
        return provider

    def pause(
        self, why: str, *, uncertain: bool = False, hint: str = "", mend: str = ""
    ) -> RunPaused:
        """Return the pause of this run, with the command that goes on."""
        command = hints.command_for(self.run, uncertain=uncertain)
        if mend:
            hint = hints.mend(self.run, self._state.planned.graph.by_name[mend])
        return RunPaused(self.run, why, command, uncertain=uncertain, hint=hint, mend=mend)


@contextmanager
def _only_its_errors(offer: Offer) -> Iterator[None]:
    """Turn whatever else a provider's words make an adapter raise into ProtocolBroken.

    The boundary between the run and everybody else's code: nobody can say what was done.
    """
    try:
        yield
    except (ProviderError, RunPaused, StateError):
        raise
    except Exception as odd:
        why = f"its answer made no sense ({type(odd).__name__}: {odd})"
        raise ProtocolBroken(why, provider=offer.label, unknown=True) from odd


def _may_pass(wrong: BaseException) -> bool:
    return isinstance(wrong, ProviderError) and wrong.retryable


def _no_answer(offer: Offer) -> Unavailable:
    return Unavailable("does not say what became of it", provider=offer.label)


def _at_most(task: Task, offer: Offer) -> Money:
    try:
        return charge(offer.at_most.asset, offer.rates, task.load.most)
    except BadAmount as unpriced:
        raise OfferExpired(str(unpriced), provider=offer.label) from unpriced


def _story(status: JobStatus | None) -> str:
    if status is None:
        return "it never arrived"
    return f"the provider says {status.state}" + (f": {status.reason}" if status.reason else "")
