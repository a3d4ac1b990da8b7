"""Whatever anybody does in whatever order: no money appears, none is lost, none is locked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)
from support.evm import Deployed, Evm, holds, other_forms, vrs
from support.state_machines import go_every_way

from agentkit.keys.messages import ReceiveAuthorization, Release, Voucher, keccak, word
from agentkit.keys.signer import KeySigner

MOST = 2**104 - 1
CLOSED = 2**40 - 1
ACTORS = [KeySigner(number.to_bytes(32, "big")) for number in range(1, 6)]
DEPLOYER, PAYER, WHALE, PROVIDER, SESSION = ACTORS
MINTED = {PAYER.address: 10**9, WHALE.address: 2**105}
CHANNELS = (
    (PAYER, SESSION, PROVIDER, 900),
    (PAYER, PAYER, PROVIDER, 86400),
    (WHALE, SESSION, PAYER, 30 * 86400),
    (PROVIDER, PROVIDER, PROVIDER, 900),
    (PAYER, SESSION, PROVIDER, 899),
)


@dataclass
class Channel:
    """What a channel should be like, by the rules in plain words."""

    payer: KeySigner
    voucher_key: KeySigner
    provider: KeySigner
    delay: int
    salt: bytes
    deposited: int = 0
    claimed: int = 0
    closes: int = 0

    @property
    def closed(self) -> bool:
        return self.closes == CLOSED

    def close(self) -> int:
        rest, self.deposited, self.closes = self.deposited - self.claimed, self.claimed, CLOSED
        return rest


class Channels(RuleBasedStateMachine):
    """Random steps on a chain, beside a model that says what each of them should do."""

    which = st.integers(0, len(CHANNELS) - 1)
    # None stands for who should do it, so that enough of the steps succeed.
    actors = st.sampled_from([None] * 15 + ACTORS)
    small = st.integers(1, 1000)
    amounts = st.one_of(small, small, small, st.sampled_from([0, 10**9, MOST, 2**128 - 1]))
    picked = st.lists(st.tuples(st.sampled_from([0, 1, 0, 1, 0, 1, 4]), amounts), max_size=3)
    seldom = st.sampled_from([False] * 5 + [True])
    done: ClassVar[set[str]] = set()

    @initialize()
    def begin(self) -> None:
        self.evm = Evm()
        self.token = Deployed.new(self.evm, "TestUSD", DEPLOYER)
        self.channels = Deployed.new(self.evm, "AgentChannels", DEPLOYER)
        self.domain = self.channels.domain("AgentChannels")
        for address, units in MINTED.items():
            self.token.do(DEPLOYER, "mint", address, units)
        self.coins = {actor.address: MINTED.get(actor.address, 0) for actor in ACTORS}
        self.books = [Channel(*c, bytes([n]) * 32) for n, c in enumerate(CHANNELS)]
        for actor in ACTORS:
            self.token.do(actor, "approve", self.channels.address, 2**256 - 1)
        self.touched = 0
        every = range(len(CHANNELS))
        self.ids = [self.channels.do(DEPLOYER, "channelId", self.config(n)) for n in every]
        for n in (0, 1):
            self.fund(n, None, 1000)

    # -- steps -----------------------------------------------------------------------------------

    @rule(n=which, who=actors, amount=amounts)
    def fund(self, n: int, who: KeySigner | None, amount: int) -> None:
        channel = self.books[n]
        who = who or channel.payer
        reason = self.no_credit(channel, amount) if who is channel.payer else "NotPayer"
        if self.step(n, who, reason, "fund", amount):
            self.credit(channel, amount)

    @rule(picks=picked, who=actors)
    def fund_many(self, picks: list[tuple[int, int]], who: KeySigner | None) -> None:
        """Several of one payer's channels, some twice, with one transfer."""
        who = who or PAYER
        before = [(self.books[n].deposited, self.coins[PAYER.address]) for n, _ in picks]
        reason = "" if picks else "no reason"
        for n, amount in picks:
            channel = self.books[n]
            short = self.no_credit(channel, amount)
            if short == "balance is too low":  # found out at the end, for all of them
                short = ""
            reason = reason or (short if who is PAYER else "NotPayer")
            self.credit(channel, amount)
        if not reason and self.coins[PAYER.address] < 0:
            reason = "balance is too low"
        configs, amounts = [self.config(n) for n, _ in picks], [amount for _, amount in picks]
        if not self.attempt(who, reason, "fundMany", configs, amounts):
            for (n, _), (deposited, coins) in reversed(list(zip(picks, before, strict=True))):
                self.books[n].deposited, self.coins[PAYER.address] = deposited, coins

    @rule(n=which, amount=amounts, signer=actors, late=seldom, stale=seldom)
    def top_up(
        self, n: int, amount: int, signer: KeySigner | None, late: bool, stale: bool
    ) -> None:
        channel, until = self.books[n], self.evm.now + (0 if late else 600)
        signer = signer or channel.payer
        nonce = keccak(self.id(n) + word(channel.deposited + stale))
        given = ReceiveAuthorization(
            channel.payer.address, self.channels.address, amount, until, nonce
        )
        domain = self.token.domain("USD Coin")
        reason = self.no_credit(channel, amount)
        if reason in ("", "balance is too low"):
            reason = "invalid signature" if stale or signer is not channel.payer else reason
            reason = "authorization is expired" if late else reason
        signature = vrs(signer.sign_authorization(domain, given))
        if self.step(n, DEPLOYER, reason, "fundWithAuthorization", amount, until, *signature):
            self.credit(channel, amount)

    @rule(n=which, who=actors, signer=actors, more=st.integers(-1, 2), part=st.floats(0, 1))
    def claim(
        self, n: int, who: KeySigner | None, signer: KeySigner | None, more: int, part: float
    ) -> None:
        channel, arguments, reason = self.voucher(n, signer, more, part)
        if self.step(n, who or DEPLOYER, reason, "claim", *arguments):
            self.pay(channel, arguments[0][0])

    @rule(
        ns=st.lists(which, max_size=3), signer=actors, more=st.integers(0, 2), part=st.floats(0, 1)
    )
    def claim_many(self, ns: list[int], signer: KeySigner | None, more: int, part: float) -> None:
        """Several channels of one provider, some twice, with one transfer."""
        reason, claims = "" if ns else "no reason", []
        before = [(self.books[n].claimed, dict(self.coins)) for n in ns]
        for n in ns:
            channel, (voucher, *signature), refusal = self.voucher(n, signer, more, part)
            if channel.provider is not self.books[ns[0]].provider:
                refusal = "Mixed"
            reason = reason or refusal
            claims.append((self.config(n), voucher, tuple(signature)))
            self.pay(channel, voucher[0])
        columns = [list(column) for column in zip(*claims, strict=True)] or [[], [], []]
        if not self.attempt(DEPLOYER, reason, "claimMany", *columns):
            for n, (claimed, coins) in reversed(list(zip(ns, before, strict=True))):
                self.books[n].claimed, self.coins = claimed, coins

    @rule(n=which, who=actors, signer=actors, more=st.integers(-1, 2), part=st.floats(0, 1))
    def claim_and_close(
        self, n: int, who: KeySigner | None, signer: KeySigner | None, more: int, part: float
    ) -> None:
        channel, arguments, reason = self.voucher(n, signer, more, part)
        who = who or channel.provider
        reason = reason if who is channel.provider else "NotProvider"
        if self.step(n, who, reason, "claimAndClose", *arguments):
            self.pay(channel, arguments[0][0])
            self.coins[channel.payer.address] += channel.close()

    @rule(n=which, of=st.one_of(st.none(), which), form=st.sampled_from([None, 0, 0, *range(6)]))
    def forge(self, n: int, of: int | None, form: int | None) -> None:
        """Claim with the voucher of another channel, or with another form of a signature."""
        channel, (voucher, *signature), reason = self.voucher(n, None, 1, 0, of)
        if form is not None:
            v, r, s = signature
            signature = list(other_forms(r + s + bytes([v]))[form])
        if form is not None or of not in (None, n):
            reason = reason or "BadSignature"
        if self.step(n, PROVIDER, reason, "claim", voucher, *signature):
            self.pay(channel, voucher[0])

    @rule(n=which, signer=actors, of=which, off=seldom, sure=seldom)
    def release(self, n: int, signer: KeySigner | None, of: int, off: bool, sure: bool) -> None:
        channel, claimed = self.books[n], self.books[n].claimed + off
        signer, of = (signer or channel.provider, n) if sure else (SESSION, of)
        signed = Release(self.id(of), claimed)
        reason = "Closed" if channel.closed else ""
        reason = reason if (signer, of) == (channel.provider, n) else "BadSignature"
        reason = "OtherClaims" if off else reason
        reason = reason if channel.deposited else "NotOpen"
        signature = vrs(signer.sign_release(self.domain, signed))
        if self.step(n, DEPLOYER, reason, "closeWithRelease", claimed, *signature):
            self.coins[channel.payer.address] += channel.close()

    @rule(n=which, who=actors)
    def request_close(self, n: int, who: KeySigner | None) -> None:
        channel = self.books[n]
        who = who or channel.payer
        reason = "" if channel.deposited else "NotOpen"
        reason = "Closing" if channel.closes else reason
        reason = reason if who is channel.payer else "NotPayer"
        if self.step(n, who, reason, "requestClose"):
            asked = self.evm.now
            channel.closes = asked + channel.delay
            self.evm.now = channel.closes - 1
            self.finish_close(n)
            self.evm.now = asked
            self.fund(n, None, 1)

    @rule(n=which)
    def finish_close(self, n: int) -> None:
        channel = self.books[n]
        reason = "" if self.evm.now >= channel.closes else "TooEarly"
        reason = "Closed" if channel.closed else reason
        reason = reason if channel.closes else "NotClosing"
        if self.step(n, SESSION, reason, "finishClose"):
            self.coins[channel.payer.address] += channel.close()

    @rule(seconds=st.sampled_from([1, 899, 900, 86400]))
    def wait(self, seconds: int) -> None:
        self.evm.now += seconds

    def teardown(self) -> None:
        """Everybody has gone silent: the payer's request and time free every coin."""
        for n, channel in enumerate(self.books):
            if channel.deposited and not channel.closes:
                self.request_close(n, channel.payer)
        self.evm.now += 31 * 86400
        for n, _ in 2 * list(enumerate(self.books)):
            self.finish_close(n)
        assert self.token.do(DEPLOYER, "balanceOf", self.channels.address) == 0

    # -- the model -------------------------------------------------------------------------------

    def no_credit(self, channel: Channel, amount: int) -> str:
        """Return why this much cannot be paid in."""
        reason = "balance is too low" if self.coins[channel.payer.address] < amount else ""
        reason = "TooMuch" if channel.deposited + amount > MOST else reason
        reason = "Closing" if channel.closes else reason
        reason = "BadConfig" if channel.delay < 900 else reason
        return reason if amount else "Zero"

    def credit(self, channel: Channel, amount: int) -> None:
        channel.deposited += amount
        self.coins[channel.payer.address] -= amount

    def pay(self, channel: Channel, cumulative: int) -> None:
        self.coins[channel.provider.address] += cumulative - channel.claimed
        channel.claimed = cumulative

    def voucher(
        self, n: int, signer: KeySigner | None, more: int, part: float, of: int | None = None
    ) -> tuple[Channel, Any, str]:
        """Return a signed voucher for a part of what is left, and why it would be refused."""
        channel = self.books[n]
        left = channel.deposited - channel.claimed
        cumulative = min(max(channel.claimed + int(left * part) + more, 0), 2**128 - 1)
        signer = signer or channel.voucher_key
        signed = Voucher(self.id(n if of is None else of), cumulative, 1)
        reason = "" if signer is channel.voucher_key else "BadSignature"
        reason = "OverDeposit" if cumulative > channel.deposited else reason
        reason = "NothingNew" if cumulative <= channel.claimed else reason
        signature = vrs(signer.sign_voucher(self.domain, signed))
        return channel, ((cumulative, 1, bytes(32)), *signature), reason

    # -- the chain -------------------------------------------------------------------------------

    @invariant()
    def the_books_are_right(self) -> None:
        channel, identity = self.books[self.touched], self.id(self.touched)
        state = self.channels.do(DEPLOYER, "channels", identity)
        closes = self.channels.do(DEPLOYER, "closingAt", identity)
        assert (*state, closes) == (channel.deposited, channel.claimed, channel.closes)
        owed = sum(one.deposited - one.claimed for one in self.books)
        assert self.balance(self.channels.address) == owed
        assert {address: self.balance(address) for address in self.coins} == self.coins
        assert owed + sum(self.coins.values()) == sum(MINTED.values())

    def step(self, n: int, who: KeySigner, reason: str, name: str, *arguments: Any) -> bool:
        """Do it with one channel and see it end as expected; returns whether it was done."""
        self.touched = n
        return self.attempt(who, reason, name, self.config(n), *arguments)

    def attempt(self, who: KeySigner, reason: str, name: str, *arguments: Any) -> bool:
        said = self.channels.refusal(who, name, *arguments)
        event(f"{name}: {said or 'done'}")
        self.done.add(f"{name}: {said or 'done'}")
        assert said == reason, f"{name}: {said or 'done'} instead of {reason or 'done'}"
        return not said

    def config(self, n: int) -> tuple[str, str, str, str, int, bytes]:
        channel = self.books[n]
        who = (channel.payer, channel.voucher_key, channel.provider)
        return (*(one.address for one in who), self.token.address, channel.delay, channel.salt)

    def id(self, n: int) -> bytes:
        return self.ids[n]

    def balance(self, address: str) -> int:
        return holds(self.token, address)


@pytest.mark.lengthy
@pytest.mark.timeout(600)
def test_money_is_kept_and_every_way_is_gone() -> None:
    names = ("fund", "fundMany", "fundWithAuthorization", "claim", "claimMany", "claimAndClose")
    names += ("closeWithRelease", "requestClose", "finishClose")
    ends = {f"{name}: done" for name in names}
    refusals = {"claim: NothingNew", "claim: OverDeposit", "claim: BadSignature"}
    refusals |= {"fund: Closing", "finishClose: TooEarly", "finishClose: Closed"}
    refusals |= {"closeWithRelease: BadSignature", "closeWithRelease: OtherClaims"}
    refusals |= {"fundMany: NotPayer", "fundMany: BadConfig"}
    go_every_way(Channels, ends | refusals)
