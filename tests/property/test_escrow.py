"""Whatever anybody does in whatever order: each job's money goes where its rules say, and goes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from support.evm import Deployed, Evm, holds, other_forms, vrs
from support.state_machines import go_every_way

from agentkit.keys.messages import Accept, Quote, ReceiveAuthorization, keccak, typed_digest, word
from agentkit.keys.signer import KeySigner

NONE, FUNDED, SUBMITTED, DISPUTED, PAID, REFUNDED = range(6)
ACTORS = [KeySigner(number.to_bytes(32, "big")) for number in range(1, 7)]
STRANGER, PAYER, OTHER_PAYER, PROVIDER, OTHER_PROVIDER, ARBITER = ACTORS
NOBODY = "0x" + "00" * 20
BY_ADDRESS = {actor.address: actor for actor in ACTORS} | {NOBODY: STRANGER}
MINTED = {PAYER.address: 10**9, OTHER_PAYER.address: 2**129}
RESULT = keccak(b"result")
DAY = 86400
SPOILT: list[dict[str, Any]] = [
    {"price": 0},
    {"arbiter": PAYER.address, "payer": PAYER.address},
    {"arbiter": PROVIDER.address, "provider": PROVIDER.address},
    {"payer": PROVIDER.address, "provider": PROVIDER.address},
    {"provider": NOBODY},
    {"deliver_by": 0},
    {"deliver_by": -1},
    {"deliver_by": 365 * DAY + 1},
    {"judge_window": 30 * DAY + 1},
    {"arbiter_window": 30 * DAY + 1},
    {"default_bps": 10001},
    {"quote_expiry": -1},
]
SPOILT = [{}] * 3 * len(SPOILT) + SPOILT


@dataclass
class Job:
    """What a job should be like, by the rules in plain words."""

    quote: Quote
    id: bytes
    state: int = NONE
    due: int = 0

    @property
    def payer(self) -> KeySigner:
        return BY_ADDRESS[self.quote.payer]

    @property
    def provider(self) -> KeySigner:
        return BY_ADDRESS[self.quote.provider]

    @property
    def raw(self) -> tuple[Any, ...]:
        return raw(self.quote)

    @property
    def held(self) -> int:
        return self.quote.price if self.state in (FUNDED, SUBMITTED, DISPUTED) else 0


def raw(quote: Quote) -> tuple[Any, ...]:
    return tuple(getattr(quote, name) for name in Quote.__slots__)


class Escrow(RuleBasedStateMachine):
    """Random steps on a chain, beside a model that says what each of them should do."""

    which = st.integers(0, 2**16)
    # None stands for who should do it, so that enough of the steps succeed.
    actors = st.sampled_from([None] * 10 + ACTORS)
    small = st.integers(1, 1000)
    seldom = st.sampled_from([False] * 8 + [True])
    done: ClassVar[set[str]] = set()

    good_quotes = st.builds(
        Quote,
        payer=st.sampled_from([PAYER.address] * 3 + [OTHER_PAYER.address]),
        provider=st.sampled_from([PROVIDER.address] * 3 + [OTHER_PROVIDER.address]),
        arbiter=st.sampled_from([ARBITER.address] * 4 + [NOBODY]),
        token=st.just(""),
        price=st.one_of(small, small, small, st.sampled_from([1, 2**104, 2**128 - 1])),
        deliver_by=st.sampled_from([1, 10, 30, 30, 30, 365 * DAY]),
        judge_window=st.sampled_from([0, 5, 20, 20, 20, 30 * DAY]),
        quote_expiry=st.sampled_from([0, 20]),
        arbiter_window=st.sampled_from([0, 5, 20, 20, 20, 30 * DAY]),
        default_bps=st.sampled_from([0, 3333, 5000, 10000]),
        task_id=st.just(b""),
        spec_hash=st.just(bytes(32)),
    )
    quotes = st.builds(
        lambda quote, spoilt: replace(quote, **spoilt), good_quotes, st.sampled_from(SPOILT)
    )

    @initialize()
    def begin(self) -> None:
        self.evm = Evm()
        self.token = Deployed.new(self.evm, "TestUSD", STRANGER)
        self.escrow = Deployed.new(self.evm, "TaskEscrow", STRANGER)
        self.domain = self.escrow.domain("TaskEscrow")
        for address, units in MINTED.items():
            self.token.do(STRANGER, "mint", address, units)
            self.token.do(BY_ADDRESS[address], "approve", self.escrow.address, 2**256 - 1)
        self.coins = {actor.address: MINTED.get(actor.address, 0) for actor in ACTORS}
        self.jobs: list[Job] = []
        self.touched: Job | None = None
        parties = (PAYER.address, PROVIDER.address, ARBITER.address, "")
        quote = Quote(*parties, 1000, 30, 20, 20, 20, 3333, b"", bytes(32))
        for _ in range(3):
            self.open(quote, None, None)
        for n in (1, 2):
            self.submit(n, None)
        self.dispute(1, None)

    # -- opening ---------------------------------------------------------------------------------

    @rule(quote=quotes, who=actors, signer=actors)
    def open(self, quote: Quote, who: KeySigner | None, signer: KeySigner | None) -> None:
        job = self.job(quote)
        who, signer = who or job.payer, signer or job.provider
        signature = vrs(signer.sign_quote(self.domain, job.quote))
        reason = self.no_open(job, signer) if who is job.payer else "NotPayer"
        reason = reason or self.no_money(job.payer, quote.price)
        if self.step(job, who, reason, "open", *signature):
            self.opened(job)

    @rule(quote=quotes, signer=actors, payer=actors, late=seldom, stale=seldom, n=which)
    def open_with_authorization(
        self,
        quote: Quote,
        signer: KeySigner | None,
        payer: KeySigner | None,
        late: bool,
        stale: bool,
        n: int,
    ) -> None:
        job = self.job(quote)
        signer, payer = signer or job.provider, payer or job.payer
        until = self.evm.now + (0 if late else 60)
        bound = self.jobs[n % len(self.jobs)].id if stale and self.jobs else job.id
        nonce = bound[:24] + bytes(8)
        given = ReceiveAuthorization(quote.payer, self.escrow.address, quote.price, until, nonce)
        signature = vrs(signer.sign_quote(self.domain, job.quote))
        authorization = vrs(payer.sign_authorization(self.token.domain("USD Coin"), given))
        reason = self.no_open(job, signer)
        if not reason:
            reason = self.no_money(job.payer, quote.price)
            wrong = payer is not job.payer or bound != job.id
            reason = "invalid signature" if wrong else reason
            reason = "authorization is expired" if late else reason
        arguments = (signature, until, *authorization)
        if self.step(job, STRANGER, reason, "openWithAuthorization", *arguments):
            self.opened(job)

    @rule(quotes=st.lists(quotes, max_size=2), again=seldom)
    def open_many(self, quotes: list[Quote], again: bool) -> None:
        """Several quotes of one payer with one transfer."""
        jobs = [self.job(replace(quote, payer=PAYER.address), n) for n, quote in enumerate(quotes)]
        jobs += jobs[:1] if again else []
        reason = "" if jobs else "no reason"
        for job in jobs:
            reason = reason or self.no_open(job, job.provider)
            job.state = FUNDED
        reason = reason or self.no_money(PAYER, sum(job.quote.price for job in jobs))
        signatures = [vrs(job.provider.sign_quote(self.domain, job.quote)) for job in jobs]
        for job in jobs:
            job.state = NONE
        if self.attempt(PAYER, reason, "openMany", [job.raw for job in jobs], signatures):
            for job in jobs:
                self.opened(job)

    @precondition(lambda self: self.jobs)
    @rule(n=which)
    def open_again(self, n: int) -> None:
        job = self.pick(n)
        reason = self.no_open(job, job.provider)
        signature = vrs(job.provider.sign_quote(self.domain, job.quote))
        assert reason
        self.step(job, job.payer, reason, "open", *signature)

    # -- judging ---------------------------------------------------------------------------------

    @precondition(lambda self: self.jobs)
    @rule(n=which, who=actors)
    def submit(self, n: int, who: KeySigner | None) -> None:
        job = self.pick(n, FUNDED)
        who = who or job.provider
        reason = self.in_time(job, FUNDED) if who is job.provider else "NotProvider"
        if self.step(job, who, reason, "submit", RESULT):
            job.state, job.due = SUBMITTED, self.evm.now + job.quote.judge_window
            self.edges(job)

    @precondition(lambda self: self.jobs)
    @rule(n=which, who=actors, share=st.sampled_from([0, 0.5, 1, 1, 1, 2]))
    def accept(self, n: int, who: KeySigner | None, share: float) -> None:
        job = self.pick(n, FUNDED, SUBMITTED)
        who, pay = who or job.payer, self.part(job, share)
        reason = self.no_accept(job, pay, who, who)
        reason = reason if who in (job.payer, job.provider) else "NotParty"
        if self.step(job, who, reason, "accept", pay, RESULT):
            self.settled(job, pay)

    @precondition(lambda self: self.jobs)
    @rule(
        n=which,
        who=actors,
        signer=actors,
        share=st.sampled_from([0, 0.5, 0.5, 1, 2, 2]),
        form=st.sampled_from([-1] * 20 + [*range(7)]),
        of=st.one_of(st.none(), st.none(), st.none(), which),
    )
    def accept_with_sig(
        self,
        n: int,
        who: KeySigner | None,
        signer: KeySigner | None,
        share: float,
        form: int,
        of: int | None,
    ) -> None:
        """One side's signature, brought by the other or by anybody, in a good form or another."""
        job = self.pick(n, FUNDED, SUBMITTED)
        who, signer, pay = who or job.provider, signer or job.payer, self.part(job, share)
        signed = Accept(self.pick(n if of is None else of).id, pay, RESULT)
        signature = signer.sign_accept(self.domain, signed)
        reason = self.no_accept(job, pay, who, signer)
        if form >= 0 or signed.job != job.id or signer not in (job.payer, job.provider):
            reason = "BadSignature"
        given = other_forms(signature)[form] if form >= 0 else vrs(signature)
        if self.step(job, who, reason, "acceptWithSig", pay, RESULT, *given):
            self.settled(job, pay)

    @precondition(lambda self: self.jobs)
    @rule(
        n=which,
        who=actors,
        signers=st.tuples(actors, actors),
        share=st.sampled_from([0, 0.5, 0.5, 1, 2, 2]),
        form=st.sampled_from([-1] * 20 + [*range(7)]),
    )
    def accept_with_both(
        self,
        n: int,
        who: KeySigner | None,
        signers: tuple[KeySigner | None, KeySigner | None],
        share: float,
        form: int,
    ) -> None:
        """Both sides' signatures, brought by anybody; each in a good form, or one in another."""
        job = self.pick(n, FUNDED, SUBMITTED)
        who, pay = who or STRANGER, self.part(job, share)
        sides = (signers[0] or job.payer, signers[1] or job.provider)
        word = Accept(job.id, pay, RESULT)
        payer, provider = (signer.sign_accept(self.domain, word) for signer in sides)
        reason = self.no_accept(job, pay, job.payer, job.provider)
        if form >= 0 or sides != (job.payer, job.provider):
            reason = "BadSignature"
        last = other_forms(provider)[form] if form >= 0 else vrs(provider)
        if self.step(job, who, reason, "acceptWithBoth", pay, RESULT, vrs(payer), last):
            self.settled(job, pay)

    @precondition(lambda self: self.jobs)
    @rule(ns=st.lists(which, max_size=3), who=actors, share=st.sampled_from([0.5, 1, 1]))
    def accept_many(self, ns: list[int], who: KeySigner | None, share: float) -> None:
        who = who or PROVIDER
        reason, rows, before = "", [], dict(self.coins)
        jobs = [self.pick(n, FUNDED, SUBMITTED) for n in ns]
        states = [(job.state, job.due) for job in jobs]
        for job in jobs:
            pay = self.part(job, share)
            reason = reason or self.no_accept(job, pay, who, job.payer)
            signature = job.payer.sign_accept(self.domain, Accept(job.id, pay, RESULT))
            rows.append((job.raw, pay, RESULT, vrs(signature)))
            if not reason:
                self.settled(job, pay)
        columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
        if not self.attempt(who, reason, "acceptMany", *columns):
            self.coins = before
            for job, state in zip(reversed(jobs), reversed(states), strict=True):
                job.state, job.due = state

    # -- disputes and silence --------------------------------------------------------------------

    @precondition(lambda self: self.jobs)
    @rule(n=which, who=actors)
    def dispute(self, n: int, who: KeySigner | None) -> None:
        job = self.pick(n, SUBMITTED)
        who = who or job.payer
        reason = "NoArbiter" if job.quote.arbiter == NOBODY else self.in_time(job, SUBMITTED)
        reason = reason if who is job.payer else "NotPayer"
        if self.step(job, who, reason, "dispute", RESULT):
            job.state, job.due = DISPUTED, self.evm.now + job.quote.arbiter_window
            self.edges(job)

    @precondition(lambda self: self.jobs)
    @rule(n=which, who=actors, share=st.sampled_from([0, 0.5, 1, 2]))
    def resolve(self, n: int, who: KeySigner | None, share: float) -> None:
        job = self.pick(n, DISPUTED)
        who, pay = who or ARBITER, self.part(job, share)
        reason = "OverPrice" if pay > job.quote.price else ""
        reason = self.in_time(job, DISPUTED) or reason
        reason = reason if who.address == job.quote.arbiter else "NotArbiter"
        if self.step(job, who, reason, "resolve", pay):
            self.settled(job, pay)

    @precondition(lambda self: self.jobs)
    @rule(n=which)
    def time_out(self, n: int) -> None:
        self.try_time(self.pick(n, FUNDED, SUBMITTED, DISPUTED))

    def try_time(self, job: Job) -> None:
        """Try every way that time opens."""
        quote = job.quote
        share = quote.price * quote.default_bps // 10000
        ways = (("refundUndelivered", FUNDED, 0), ("claimUnjudged", SUBMITTED, quote.price))
        for name, state, pay in (*ways, ("expireDispute", DISPUTED, share)):
            reason = "" if self.evm.now > job.due else "TooEarly"
            reason = reason if job.state == state else "BadState"
            if self.step(job, STRANGER, reason, name):
                self.settled(job, pay)

    def edges(self, job: Job) -> None:
        """See that the last second of a state is in time, and that the next is not."""
        now, self.evm.now = self.evm.now, job.due
        self.try_time(job)
        self.evm.now += 1
        ways: dict[int, tuple[KeySigner, str, Any]] = {
            FUNDED: (job.provider, "submit", RESULT),
            SUBMITTED: (job.payer, "dispute", RESULT),
            DISPUTED: (ARBITER, "resolve", job.quote.price),
        }
        who, name, argument = ways[job.state]
        alone = job.state == SUBMITTED and job.quote.arbiter == NOBODY
        self.step(job, who, "NoArbiter" if alone else "TooLate", name, argument)
        self.evm.now = now

    @rule(seconds=st.sampled_from([1, 5, 15, 21, 31]))
    def wait(self, seconds: int) -> None:
        self.evm.now += seconds

    def teardown(self) -> None:
        """Everybody has gone silent: time frees every coin, whoever asks for it."""
        self.evm.now += 400 * DAY
        for job in self.jobs:
            self.try_time(job)
        assert self.token.do(STRANGER, "balanceOf", self.escrow.address) == 0
        assert sum(holds(self.token, actor.address) for actor in ACTORS) == sum(MINTED.values())

    # -- the model -------------------------------------------------------------------------------

    def job(self, quote: Quote, n: int = 0) -> Job:
        """Return a new job: the times of its quote count from now."""
        full = replace(
            quote,
            token=self.token.address,
            deliver_by=self.evm.now + quote.deliver_by,
            quote_expiry=self.evm.now + quote.quote_expiry,
            task_id=word(len(self.jobs) + n),
        )
        return Job(full, typed_digest(self.domain, full))

    def pick(self, n: int, *states: int) -> Job:
        """Return a late job, mostly one in one of these states, so that most steps lead on."""
        fit = [job for job in self.jobs if job.state in states] if n % 5 else []
        some = (fit or self.jobs)[-3:]
        return some[n % len(some)]

    def part(self, job: Job, share: float) -> int:
        return {0: 0, 0.5: job.quote.price // 2, 1: job.quote.price}.get(
            share, min(job.quote.price + 1, 2**128 - 1)
        )

    def no_open(self, job: Job, signer: KeySigner) -> str:
        """Return why a quote cannot be opened, whatever the payer has."""
        quote, now = job.quote, self.evm.now
        reason = "" if signer is job.provider else "BadSignature"
        reason = "BadState" if job.state else reason
        reason = "TooLate" if quote.deliver_by <= now or quote.quote_expiry < now else reason
        wide = max(quote.judge_window, quote.arbiter_window) > 30 * DAY
        wide = wide or quote.deliver_by > now + 365 * DAY or quote.default_bps > 10000
        same = quote.payer == quote.provider or quote.arbiter in (quote.payer, quote.provider)
        if wide or same or quote.provider == NOBODY:
            reason = "BadQuote"
        return reason if quote.price else "Zero"

    def no_money(self, payer: KeySigner, units: int) -> str:
        return "balance is too low" if self.coins[payer.address] < units else ""

    def no_accept(self, job: Job, pay: int, who: KeySigner, signer: KeySigner) -> str:
        """Return why two words, one of them signed, settle nothing."""
        words = {who, signer} & {job.payer, job.provider}
        reason = "OverPrice" if pay > job.quote.price else ""
        if words == {job.payer} and pay != job.quote.price:
            reason = "NotAgreed"
        if words == {job.provider} and pay:
            reason = "NotAgreed"
        return reason if job.state in (FUNDED, SUBMITTED) else "BadState"

    def in_time(self, job: Job, state: int) -> str:
        reason = "TooLate" if self.evm.now > job.due else ""
        return reason if job.state == state else "BadState"

    def opened(self, job: Job) -> None:
        job.state, job.due = FUNDED, job.quote.deliver_by
        self.coins[job.quote.payer] -= job.quote.price
        self.jobs.append(job)
        self.edges(job)

    def settled(self, job: Job, pay: int) -> None:
        job.state, job.due = PAID if pay else REFUNDED, 0
        self.coins[job.quote.provider] += pay
        self.coins[job.quote.payer] += job.quote.price - pay

    # -- the chain -------------------------------------------------------------------------------

    @invariant()
    def the_books_are_right(self) -> None:
        if self.touched:
            job = self.touched
            assert self.escrow.do(STRANGER, "jobs", job.id) == (job.state, job.due)
        held = sum(job.held for job in self.jobs)
        assert holds(self.token, self.escrow.address) == held
        assert {address: holds(self.token, address) for address in self.coins} == self.coins
        assert held + sum(self.coins.values()) == sum(MINTED.values())

    def step(self, job: Job, who: KeySigner, reason: str, name: str, *arguments: Any) -> bool:
        """Do it with one job and see it end as expected; returns whether it was done."""
        self.touched = job
        return self.attempt(who, reason, name, job.raw, *arguments)

    def attempt(self, who: KeySigner, reason: str, name: str, *arguments: Any) -> bool:
        said = self.escrow.refusal(who, name, *arguments)
        event(f"{name}: {said or 'done'}")
        self.done.add(f"{name}: {said or 'done'}")
        assert said == reason, f"{name}: {said or 'done'} instead of {reason or 'done'}"
        return not said


@pytest.mark.lengthy
@pytest.mark.timeout(600)
def test_money_is_kept_and_every_way_is_gone() -> None:
    names = ("open", "openWithAuthorization", "openMany", "submit", "accept", "acceptWithSig")
    names += ("acceptMany", "acceptWithBoth", "dispute", "resolve", "refundUndelivered")
    ends = {f"{name}: done" for name in (*names, "claimUnjudged", "expireDispute")}
    refusals = {f"open: {why}" for why in ("BadQuote", "TooLate", "BadState")}
    refusals |= {f"{name}: NotAgreed" for name in ("accept", "acceptWithSig", "acceptMany")}
    bad = ("BadSignature", "OverPrice", "BadState")
    refusals |= {f"{name}: {why}" for name in ("acceptWithSig", "acceptWithBoth") for why in bad}
    refusals |= {f"{name}: TooLate" for name in ("submit", "dispute", "resolve")}
    refusals |= {"resolve: NotArbiter", "dispute: NoArbiter", "expireDispute: TooEarly"}
    go_every_way(Escrow, ends | refusals)
