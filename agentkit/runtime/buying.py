"""Buying one purchase: attempts in order, each journalled before it leaves, paid at most once.

reattach to what an earlier process left open
-> for each offer: open (durable) -> submit -> result -> verify -> settle (durable) -> done
-> a failure known not to be paid: the next try;  unknown: find out, or count it as spent
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Literal, TypeVar

from agentkit.artifacts import Artifact
from agentkit.errors import (
    BadAmount,
    BadOutput,
    InsufficientFunds,
    OfferExpired,
    OverBudget,
    PaymentError,
    ProtocolBroken,
    ProviderError,
    RateLimited,
    RunPaused,
    StateError,
    Unavailable,
)
from agentkit.graph.nodes import InferNode, SqlNode, TrainNode
from agentkit.journal import events as e
from agentkit.journal.events import Produced
from agentkit.journal.runstate import Purchase, RunState
from agentkit.market.attempt import Attempt, JobStatus, Message, Payment, Result
from agentkit.market.offer import Offer, charge
from agentkit.market.plan import PlannedNode
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Event, Provider, Rail, Transaction
from agentkit.market.task import Task, TaskSpec
from agentkit.money import Money
from agentkit.runtime import verify
from agentkit.runtime.means import Means, keep

T = TypeVar("T")

FIND_PATIENCE = 10.0
"""Seconds for which a provider that can be asked is asked what became of an attempt."""

COOLDOWN = 15.0
"""Seconds for which a provider node that could not be reached is tried last."""

FUNDINGS = 3
"""How often a rail is asked to put money in place for one attempt."""

LONGEST_WAIT = 30.0
"""Seconds that are waited for a provider that asks to be left alone; longer is the next offer."""


@dataclass(frozen=True)
class Want:
    """One purchase: the task, where it is planned, and the event that records its delivery."""

    node: InferNode | TrainNode | SqlNode
    planned: PlannedNode
    task: Task
    purchase: str
    item: int | None
    event: Callable[[tuple[Produced, ...], Receipt], Event]


class Buyer:
    """Buys for one run.  `rebuy`: the user asked to buy again what is uncertain."""

    def __init__(self, means: Means, state: RunState, *, rebuy: bool = False) -> None:
        self._means, self._state, self._rebuy = means, state, rebuy
        self._funding: dict[str, asyncio.Lock] = {}
        self._cool: dict[str, float] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self.stopping = asyncio.Event()

    @property
    def run(self) -> str:
        return self._state.run

    async def buy(self, want: Want) -> tuple[Artifact, ...]:
        """Return the verified outputs of a purchase, paid for and journalled.

        Raises RunPaused when it cannot go on: offers used up, outcome unknown, no funds.
        """
        past = self._past(want)
        forgiven = past.uncertain + len(past.open) if self._rebuy else 0
        for attempt in list(past.open.values()):
            outputs = await self._reattach(want, attempt)
            if outputs is not None:
                return outputs
        self._check_unknown(want, forgiven)
        return await self._try_offers(want, forgiven)

    async def cancel(self, attempt: Attempt, why: str) -> None:
        """Stop an open attempt at its provider and close it; used when the run ends for good."""
        offer = self._state.offers[attempt.terms]
        with suppress(ProviderError), _only_its_errors(offer):
            await self._provider(attempt.provider).cancel(attempt)
        await self._close_lost(attempt, offer, why)

    async def settle_errands(self) -> None:
        """Wait for messages that are still on their way to providers."""
        await asyncio.gather(*self._errands, return_exceptions=True)

    # -- tries -----------------------------------------------------------------------------------

    async def _try_offers(self, want: Want, forgiven: int) -> tuple[Artifact, ...]:
        reasons: list[str] = []
        for offer in self._ordered(want.planned.offers):
            wait = 0.0
            for pause in islice(_pauses(), 1 + want.node.retries):
                await self._or_stop(asyncio.sleep(wait))
                try:
                    return await self._attempt(want, await self._fresh(want, offer))
                except ProviderError as wrong:
                    reasons.append(str(wrong))
                    self._check_unknown(want, forgiven)
                    wait = max(pause, self._cool_down(offer, wrong))
                    if not wrong.retryable or wait > LONGEST_WAIT:
                        break
        raise self._pause(f"no offer for {want.node.name!r} is left: {'; '.join(reasons[-4:])}")

    def _ordered(self, offers: Sequence[Offer]) -> list[Offer]:
        now = time.monotonic()
        return sorted(offers, key=lambda offer: self._cool.get(offer.label, 0.0) > now)

    def _cool_down(self, offer: Offer, wrong: ProviderError) -> float:
        """Note that an offer's node is to be left alone; returns the seconds it asks to wait."""
        asked = wrong.retry_after if isinstance(wrong, RateLimited) else 0.0
        if isinstance(wrong, Unavailable | RateLimited):
            self._cool[offer.label] = time.monotonic() + max(asked, COOLDOWN)
        return asked

    async def _fresh(self, want: Want, offer: Offer) -> Offer:
        """Return the offer, or its provider's new one on terms that are no dearer."""
        if time.time() < offer.expires or want.planned.spec is None:
            return offer
        for new in await self._asked_again(offer, want.planned.spec):
            if new.terms == offer.terms:
                return new.model_copy(update={"at_most": min(new.at_most, offer.at_most)})
        raise OfferExpired("the price has changed since the plan was made", provider=offer.label)

    async def _attempt(self, want: Want, offer: Offer) -> tuple[Artifact, ...]:
        attempt = self._next_attempt(want, offer)
        payment = await self._open(want, offer, attempt)
        await self._before_pay(attempt)
        provider = self._provider(offer.provider)
        taken = False
        try:
            async with asyncio.timeout(want.node.timeout):
                with _only_its_errors(offer):
                    await provider.submit(want.task, offer, attempt, payment)
                    taken = True
                    result = await self._result(provider, offer, attempt)
            verify.check(want.node, offer, attempt, result)
        except TimeoutError:
            late = await self._too_late(want, offer, attempt)
            return await self._lost(want, offer, attempt, late, unknown=True)
        except ProviderError as wrong:
            unknown = wrong.unknown or (taken and isinstance(wrong, Unavailable))
            return await self._lost(want, offer, attempt, wrong, unknown=unknown)
        return await self._settle(want, attempt, result)

    async def _before_pay(self, attempt: Attempt) -> None:
        """Wait for what has to precede a purchase; when it fails, nothing was sent."""
        try:
            await self._means.before_pay(attempt.at_most)
        except StateError as wrong:
            await self._close(attempt, "unpaid", f"it was not sent: {wrong}")
            raise self._pause(f"the log is not on Arweave before a purchase: {wrong}") from wrong

    async def _too_late(self, want: Want, offer: Offer, attempt: Attempt) -> Unavailable:
        """Tell a provider that its result is no longer wanted, and return that as an error."""
        with suppress(ProviderError), _only_its_errors(offer):
            await self._provider(attempt.provider).cancel(attempt)
        return Unavailable(f"no result in {want.node.timeout} s", provider=offer.label)

    def _next_attempt(self, want: Want, offer: Offer) -> Attempt:
        past = self._past(want)
        attempt = Attempt.at(
            want.purchase,
            len(past.attempts),
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

    async def _result(self, provider: Provider, offer: Offer, attempt: Attempt) -> Result:
        """Wait for a result; a stop leaves it behind only where it can be found again."""
        waiting = provider.result(attempt)
        return await (self._or_stop(waiting) if offer.finds else waiting)

    # -- opening ---------------------------------------------------------------------------------

    async def _open(self, want: Want, offer: Offer, attempt: Attempt) -> Payment:
        """Reserve an attempt everywhere and journal it; from here on it may be sent."""
        if self.stopping.is_set():
            raise self._pause("it was asked to stop")
        rail = self._means.rails[offer.rail]
        try:
            if self._rebuy and self._past(want).uncertain:
                await self._hold_more(attempt)
            try:
                return await self._commit_open(rail, attempt)
            except InsufficientFunds:
                await self._confirm(want, offer)
                return await self._open_funded(rail, offer, attempt)
        except (PaymentError, OverBudget) as wrong:
            raise self._pause(f"{offer.label} cannot be paid: {wrong}") from wrong

    async def _commit_open(self, rail: Rail, attempt: Attempt) -> Payment:
        opened = e.AttemptOpened(attempt=attempt)

        def work(tx: Transaction) -> Payment:
            self._means.ledger.reserve(tx, attempt)
            payment = rail.reserve(tx, attempt)
            tx.append(self.run, opened)
            return payment

        payment = await self._means.journal.commit(work)
        self._state.apply(opened)
        return payment

    async def _hold_more(self, attempt: Attempt) -> None:
        """Take a further hold where the user asked to buy again what the hold was spent on.

        Nothing else goes beyond the plan's worst case.  Raises OverBudget.
        """
        ledger, budget = self._means.ledger, self._state.planned.budget

        def work(tx: Transaction) -> None:
            left = ledger.left(tx, self.run)
            if left is None or left < attempt.at_most:
                ledger.hold(tx, self.run, attempt.at_most, budget)

        await self._means.journal.commit(work)

    async def _confirm(self, want: Want, offer: Offer) -> None:
        """Hear the offer again before money is locked up for its provider node."""
        if want.planned.spec is None:
            return
        again = await self._asked_again(offer, want.planned.spec)
        if all(new.terms != offer.terms for new in again):
            raise OfferExpired("it no longer offers these terms", provider=offer.label)

    async def _asked_again(self, offer: Offer, spec: TaskSpec) -> Sequence[Offer]:
        with _only_its_errors(offer):
            return await self._provider(offer.provider).offers(spec)

    async def _open_funded(self, rail: Rail, offer: Offer, attempt: Attempt) -> Payment:
        """Have the rail put enough in place for what this run still plans, then open.

        One at a time for each payee: what another purchase of this run funded counts first.
        More than once, where a payee is asked for our promises first, or a process was quicker.
        """
        async with self._funding.setdefault(offer.payee or offer.label, asyncio.Lock()):
            for _ in range(FUNDINGS):
                with suppress(InsufficientFunds):
                    return await self._commit_open(rail, attempt)
                await self._fund(rail, offer, attempt.at_most)
            return await self._commit_open(rail, attempt)

    async def _fund(self, rail: Rail, offer: Offer, least: Money) -> None:
        try:
            for message in await self._top_up(rail, offer, least):
                await self._carry(rail, message)
        except StateError as wrong:
            raise self._pause(f"{offer.label} cannot be paid: {wrong}") from wrong

    async def _top_up(self, rail: Rail, offer: Offer, least: Money) -> Sequence[Message]:
        """Fund all that is planned with the payee, or this attempt if the wallet has no more."""
        planned = self._planned(offer)
        if planned > least:
            with suppress(InsufficientFunds):
                return await rail.fund(offer, self.run, planned)
        return await rail.fund(offer, self.run, least)

    def _planned(self, offer: Offer) -> Money:
        """Return the worst case of what this run still plans with a payee and has not open.

        Alternates count in it, as they do in the hold, so that the sum over all payees is the
        hold and a small next run needs no top-up.
        """
        units = 0
        for node in self._state.planned.nodes:
            chosen = node.offer and (node.offer.rail, node.offer.payee) == (offer.rail, offer.payee)
            mine = chosen or node.name == offer.node  # where an alternate steps in
            if node.at_most and mine and node.name not in self._state.done:
                left = node.items - len(self._state.items.get(node.name, ()))
                units += node.at_most.units * max(left, 0) // node.items
        units -= sum(
            attempt.at_most.units
            for purchase in self._state.purchases.values()
            for attempt in purchase.open.values()
            if (attempt.rail, attempt.payee) == (offer.rail, offer.payee)
        )
        return Money(max(units, 0), offer.at_most.asset)

    # -- endings ---------------------------------------------------------------------------------

    async def _settle(self, want: Want, attempt: Attempt, result: Result) -> tuple[Artifact, ...]:
        """Pay for a verified result and record it, in one transaction."""
        outputs = await self._means.put(result.outputs)
        rail = self._means.rails[attempt.rail]

        def work(tx: Transaction) -> tuple[Event, Sequence[Message]]:
            receipt, messages = rail.settle(tx, attempt, result)
            self._means.ledger.spend(tx, attempt, receipt.amount, receipt.standing)
            event = want.event(keep(tx, outputs), receipt)
            tx.append(self.run, event)
            return event, messages

        try:
            try:
                event, messages = await self._durably(work)
            except InsufficientFunds:  # a restored rail has to hear of its own promises first
                offer = self._state.offers[attempt.terms]
                await self._fund(rail, offer, attempt.at_most.asset.zero())
                event, messages = await self._durably(work)
        except (PaymentError, ProviderError) as wrong:  # it stays open, and is found again
            why = f"{attempt.provider} delivered {want.node.name!r} and cannot be paid: {wrong}"
            raise self._pause(why) from wrong
        self._state.apply(event)
        for message in messages:
            self._send(rail, message)
        return outputs

    async def _lost(
        self, want: Want, offer: Offer, attempt: Attempt, wrong: ProviderError, *, unknown: bool
    ) -> tuple[Artifact, ...]:
        """End an attempt that failed, or carry it on when the provider turns out to have it.

        `unknown`: the provider may have acted on it all the same.
        """
        if unknown and offer.finds:
            outputs = await self._reattach(want, attempt)
            if outputs is not None:
                return outputs
        elif unknown or isinstance(wrong, BadOutput):  # a bad answer costs like a good one
            await self._close_lost(attempt, offer, str(wrong))
        else:
            await self._close(attempt, "unpaid", str(wrong))
        raise wrong

    async def _reattach(self, want: Want, attempt: Attempt) -> tuple[Artifact, ...] | None:
        """Take up an open attempt where it stands; None once it is closed without a result."""
        offer = self._state.offers[attempt.terms]
        if not offer.finds:
            await self._close_lost(attempt, offer, "the provider cannot be asked about it")
            return None
        try:
            status = await self._find(attempt, offer)
        except ProviderError as wrong:
            if offer.pays != "on_delivery":
                why = f"{offer.label} cannot be asked: {wrong}"
                raise self._pause(why, uncertain=True) from wrong
            await self._close(attempt, "unpaid", str(wrong))
            return None
        if status is None or status.state in ("failed", "cancelled"):
            await self._close(attempt, "unpaid", _story(status))
            return None
        return await self._take(want, offer, attempt)

    async def _take(
        self, want: Want, offer: Offer, attempt: Attempt
    ) -> tuple[Artifact, ...] | None:
        """Wait for the result of an attempt that is there; None once it is closed without one."""
        try:
            async with asyncio.timeout(want.node.timeout):
                with _only_its_errors(offer):
                    provider = self._provider(attempt.provider)
                    result = await self._result(provider, offer, attempt)
            verify.check(want.node, offer, attempt, result)
        except TimeoutError:
            late = await self._too_late(want, offer, attempt)
            await self._close_lost(attempt, offer, str(late))
            return None
        except ProviderError as wrong:
            await self._close_lost(attempt, offer, str(wrong))
            return None
        return await self._settle(want, attempt, result)

    async def _close_lost(self, attempt: Attempt, offer: Offer, why: str) -> None:
        """Close an attempt whose result cannot be had, or cannot be taken."""
        on_delivery = offer.pays == "on_delivery"
        await self._close(attempt, "unpaid" if on_delivery else "uncertain", why)

    async def _find(self, attempt: Attempt, offer: Offer) -> JobStatus | None:
        """Ask what became of an attempt, for as long as patience lasts."""
        until, pauses = time.monotonic() + FIND_PATIENCE, _pauses()
        while True:
            pause = next(pauses)
            try:
                with _only_its_errors(offer):
                    return await self._provider(attempt.provider).find(attempt)
            except ProviderError as wrong:
                if not wrong.retryable or time.monotonic() + pause > until:
                    raise
            await self._or_stop(asyncio.sleep(pause))

    async def _close(
        self, attempt: Attempt, outcome: Literal["unpaid", "uncertain"], reason: str
    ) -> None:
        """Record that an attempt came to nothing, or that nobody can say."""
        rail, ledger = self._means.rails[attempt.rail], self._means.ledger

        def work(tx: Transaction) -> Event:
            rail.release(tx, attempt, uncertain=outcome == "uncertain")
            receipt = None
            if outcome == "uncertain":
                ledger.spend(tx, attempt, attempt.at_most, "uncertain")
                receipt = Receipt(
                    attempt=attempt, standing="uncertain", amount=attempt.at_most, at=tx.now
                )
            else:
                ledger.unreserve(tx, attempt)
            closed = e.AttemptClosed(
                attempt=attempt.id,
                purchase=attempt.purchase,
                node=attempt.node,
                item=attempt.item,
                outcome=outcome,
                reason=reason,
                receipt=receipt,
            )
            tx.append(self.run, closed)
            return closed

        self._state.apply(await self._durably(work))

    def _check_unknown(self, want: Want, forgiven: int) -> None:
        """Pause before buying again what may have been bought, unless the rules allow it.

        `forgiven`: how many unknown outcomes the user has looked at and asked to buy again.
        """
        past = self._past(want)
        if past.uncertain <= forgiven:
            return
        below = self._means.allowance.rebuy_below
        last = past.attempts[-1]
        small = below is not None and last.at_most < below
        if small or want.node.on_unknown == "rebuy":
            return
        raise self._pause(
            f"whether {last.provider} did {want.node.name!r} is unknown, and {last.at_most} counts"
            " as spent",
            uncertain=True,
        )

    # -- inside ----------------------------------------------------------------------------------

    def _past(self, want: Want) -> Purchase:
        return self._state.purchases.get(want.purchase, Purchase())

    async def _durably(self, work: Callable[[Transaction], T]) -> T:
        """Commit a work that must be written even when this task is being cancelled."""
        write = asyncio.ensure_future(self._means.journal.commit(work))
        try:
            return await asyncio.shield(write)
        except asyncio.CancelledError:
            await asyncio.wait([write])
            raise

    async def _or_stop(self, waiting: Awaitable[T]) -> T:
        """Wait for something, or raise RunPaused as soon as the run is asked to stop."""
        task = asyncio.ensure_future(waiting)
        stop = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self._pause("it was asked to stop")
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    def _send(self, rail: Rail, message: Message) -> None:
        """Bring a message to a provider without waiting; the next one would cover it."""
        errand = asyncio.create_task(self._carry_quietly(rail, message))
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)

    async def _carry_quietly(self, rail: Rail, message: Message) -> None:
        with suppress(ProviderError):
            await self._carry(rail, message)

    async def _carry(self, rail: Rail, message: Message) -> None:
        await rail.finish(await self._provider(message.provider).carry(message))

    def _provider(self, name: str) -> Provider:
        provider = self._means.providers.get(name)
        if provider is None:
            raise Unavailable("is not among the configured providers", provider=name)
        return provider

    def _pause(self, why: str, *, uncertain: bool = False) -> RunPaused:
        command = f"agentkit resume {self.run}" + (" --rebuy" if uncertain else "")
        return RunPaused(self.run, why, command, uncertain=uncertain)


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


def _pauses() -> Iterator[float]:
    """Yield waiting times without end, growing to some seconds, and jittered."""
    for longest in chain((0.1, 0.2, 0.4, 0.8, 1.6, 3.2), repeat(5.0)):
        yield longest * (0.5 + random.random())  # noqa: S311


def _at_most(task: Task, offer: Offer) -> Money:
    try:
        return charge(offer.at_most.asset, offer.rates, task.load.most)
    except BadAmount as unpriced:
        raise OfferExpired(str(unpriced), provider=offer.label) from unpriced


def _story(status: JobStatus | None) -> str:
    if status is None:
        return "it never arrived"
    return f"the provider says {status.state}" + (f": {status.reason}" if status.reason else "")
