"""x402 channels, whatever anybody does in whatever order: no money is made, lost or locked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.evm import Evm, contract_wallet, holds
from support.state_machines import go_every_way
from support.x402_channels import (
    AUTHORIZER,
    COLLECTOR,
    DAY,
    DEPLOYER,
    OWNER,
    PAYER,
    RECEIVER,
    SESSION,
    STRANGER,
    ZERO,
    Claim,
    Scene,
)

from agentkit.keys.signer import KeySigner

MOST = 2**128 - 1
MINTED = 10**9
ACTORS = [PAYER, RECEIVER, AUTHORIZER, SESSION, OWNER, STRANGER]


@dataclass
class Channel:
    """What a channel should be like, by the rules in plain words."""

    scene: Scene
    signer: KeySigner  # whose vouchers count
    depositor: KeySigner  # whose signature moves the payer's coins
    balance: int = 0
    claimed: int = 0
    nonce: int = 0
    pending: int = 0
    since: int = 0
    promised: int = 0  # the highest ceiling that was ever signed

    @property
    def free(self) -> int:
        return self.balance - self.claimed


class Channels(RuleBasedStateMachine):
    """Random steps on a chain, beside a model that says what each of them should do."""

    which = st.integers(0, 4)
    # None stands for who should do it, so that enough of the steps succeed.
    actors = st.sampled_from([None] * 12 + ACTORS)
    small = st.integers(1, 1000)
    amounts = st.one_of(small, small, small, st.sampled_from([0, 10**9, MOST]))
    part = st.floats(0, 1)
    seldom = st.sampled_from([False] * 5 + [True])
    done: ClassVar[set[str]] = set()

    @initialize()
    def begin(self) -> None:
        self.evm = Evm()
        first = Scene.new(self.evm)
        self.token = first.token
        self.wallet = contract_wallet(self.evm, OWNER)
        self.honest = True
        swapped = replace(first, payer=RECEIVER.address, receiver=PAYER.address)
        scenes = [
            first.other(0),
            replace(first.other(1), payer_authorizer=ZERO, delay=DAY),
            replace(first.other(2), payer=self.wallet.address, payer_authorizer=ZERO),
            replace(swapped.other(3), receiver_authorizer=PAYER.address, delay=30 * DAY),
            replace(first.other(4), delay=899),
        ]
        keys = [(SESSION, PAYER), (PAYER, PAYER), (OWNER, OWNER), (SESSION, RECEIVER)]
        keys.append((SESSION, PAYER))
        self.books = [Channel(s, *k) for s, k in zip(scenes, keys, strict=True)]
        self.earned: dict[str, int] = {}
        self.settled: dict[str, int] = {}
        self.coins = {PAYER.address: 10**12, RECEIVER.address: MINTED}
        self.coins |= {self.wallet.address: MINTED, STRANGER.address: 0}
        for who in (RECEIVER.address, self.wallet.address):
            self.token.do(DEPLOYER, "mint", who, MINTED)
        self.minted = sum(self.coins.values())
        self.salt = 0
        self.touched = 0
        for n in range(3):
            self.deposit(n, 1000, None, False, None)

    # -- steps -----------------------------------------------------------------------------------

    @rule(n=which, amount=amounts, signer=actors, late=seldom, of=st.one_of(st.none(), which))
    def deposit(
        self, n: int, amount: int, signer: KeySigner | None, late: bool, of: int | None
    ) -> None:
        """Pay in by ERC-3009, perhaps with what was signed for another channel."""
        channel = self.books[n]
        signer = signer or channel.depositor
        signed_for = channel if of is None else self.books[of]
        until = self.evm.now + (0 if late else 600)
        self.salt += 1
        data = signed_for.scene.authorization(amount, self.salt, signer, until)
        right = signer is channel.depositor and signed_for is channel
        short = "balance is too low" if self.coins[channel.scene.payer] < amount else ""
        reason = short if right and self.believed(channel.scene.payer) else "invalid signature"
        reason = "authorization is expired" if late else reason
        reason = "DepositOverflow" if channel.balance + amount > MOST else reason
        reason = "WithdrawDelayOutOfRange" if channel.scene.delay < 900 else reason
        reason = reason if amount else "ZeroDeposit"
        if self.step(n, STRANGER, reason, "deposit", amount, COLLECTOR, data):
            channel.balance += amount
            self.coins[channel.scene.payer] -= amount

    @rule(
        picks=st.lists(st.tuples(which, part, st.integers(-1, 2)), max_size=4),
        who=actors,
        signer=actors,
        above=st.integers(-1, 3),
    )
    def claim(
        self,
        picks: list[tuple[int, float, int]],
        who: KeySigner | None,
        signer: KeySigner | None,
        above: int,
    ) -> None:
        """Claim from several channels, some twice, as the receiver of the first one."""
        rows, reason, books = self.rows(picks, signer, above)
        who = who or (self.side(self.books[picks[0][0]]) if picks else RECEIVER)
        for n, _, _ in picks:
            scene = self.books[n].scene
            if who.address not in (scene.receiver, scene.receiver_authorizer):
                at = [p[0] for p in picks].index(n)
                earlier = self.rows(picks[:at], signer, above)[1]
                reason = earlier or "NotAuthorizedToClaim"
                break
        reason = reason if picks else "EmptyBatch"
        if self.attempt(who, reason, "claim", [row for _, row in rows]):
            self.book(books)

    @rule(
        picks=st.lists(st.tuples(st.integers(0, 2), part, st.integers(-1, 2)), max_size=4),
        signer=actors,
        authorizer=actors,
        above=st.integers(-1, 3),
        stray=seldom,
    )
    def claim_with_signature(
        self,
        picks: list[tuple[int, float, int]],
        signer: KeySigner | None,
        authorizer: KeySigner | None,
        above: int,
        stray: bool,
    ) -> None:
        """Anybody claims with the authorizer's signature over all rows."""
        picks = [*picks, (3, 0.5, 1)] if stray else picks
        rows, reason, books = self.rows(picks, signer, above)
        authorizer = authorizer or AUTHORIZER
        word = self.books[0].scene.batch(rows, authorizer)
        named = {self.books[n].scene.receiver_authorizer for n, _, _ in picks}
        if named - {authorizer.address}:
            reason = "InvalidSignature"
        if len(named) > 1:
            reason = "NotReceiverAuthorizer"
        reason = reason if picks else "EmptyBatch"
        call = ([row for _, row in rows], word)
        if self.attempt(STRANGER, reason, "claimWithSignature", *call):
            self.book(books)

    @rule(n=which)
    def settle(self, n: int) -> None:
        receiver = self.books[n].scene.receiver
        self.attempt(STRANGER, "", "settle", receiver, self.token.address)
        due = self.earned.get(receiver, 0) - self.settled.get(receiver, 0)
        self.settled[receiver] = self.earned.get(receiver, 0)
        self.coins[receiver] += due

    @rule(n=which, who=actors, amount=amounts)
    def refund(self, n: int, who: KeySigner | None, amount: int) -> None:
        channel = self.books[n]
        who = who or self.side(channel)
        reason = "" if amount else "ZeroRefund"
        if who.address not in (channel.scene.receiver, channel.scene.receiver_authorizer):
            reason = "NotAuthorizedToRefund"
        if self.step(n, who, reason, "refund", amount):
            self.give_back(channel, amount)

    @rule(n=which, signer=actors, amount=amounts, off=st.sampled_from([0] * 6 + [1, -1]))
    def refund_with_signature(
        self, n: int, signer: KeySigner | None, amount: int, off: int
    ) -> None:
        channel = self.books[n]
        nonce = max(0, channel.nonce + off)
        right = {AUTHORIZER.address: AUTHORIZER, PAYER.address: PAYER}
        authorizer = right[channel.scene.receiver_authorizer]
        signer = signer or authorizer
        word = channel.scene.refund_word(amount, nonce, signer)
        reason = "" if amount else "ZeroRefund"
        reason = reason if signer is authorizer else "InvalidSignature"
        reason = reason if nonce == channel.nonce else "InvalidRefundNonce"
        if self.step(n, STRANGER, reason, "refundWithSignature", amount, nonce, word):
            self.give_back(channel, amount)
            again = self.channels.refusal(
                STRANGER, "refundWithSignature", channel.scene.config, amount, nonce, word
            )
            assert again == "InvalidRefundNonce"

    @rule(n=which, who=actors, part=part, more=st.integers(0, 1))
    def initiate_withdraw(self, n: int, who: KeySigner | None, part: float, more: int) -> None:
        channel = self.books[n]
        amount = int(channel.free * part) + more
        reason = "" if 0 < amount <= channel.free else "NothingToWithdraw"
        reason = "WithdrawalAlreadyPending" if channel.pending else reason
        if self.withdraw(n, who, reason, "initiateWithdraw", amount):
            channel.pending, channel.since = amount, self.evm.now
            for off in (-1, 0):
                self.evm.now = channel.since + channel.scene.delay + off
                if off < 0:
                    self.finalize_withdraw(n, None)
            self.evm.now = channel.since

    @rule(n=which, who=actors)
    def finalize_withdraw(self, n: int, who: KeySigner | None) -> None:
        channel = self.books[n]
        ripe = self.evm.now >= channel.since + channel.scene.delay
        reason = "" if ripe else "WithdrawDelayNotElapsed"
        reason = reason if channel.pending else "WithdrawalNotPending"
        if self.withdraw(n, who, reason, "finalizeWithdraw"):
            given = min(channel.pending, channel.free)
            channel.pending = channel.since = 0
            channel.balance -= given
            self.coins[channel.scene.payer] += given

    @rule(seconds=st.sampled_from([1, 899, 900, DAY]))
    def wait(self, seconds: int) -> None:
        self.evm.now += seconds

    @rule(honest=st.booleans())
    def change_mind(self, honest: bool) -> None:
        """The contract wallet withdraws its word, or gives it again."""
        self.honest = honest
        self.wallet.do(OWNER, "behave", 0 if honest else 1)

    def teardown(self) -> None:
        """Everybody has gone silent but the payers: their request and time free every coin."""
        for n, channel in enumerate(self.books):
            self.evm.now += 31 * DAY
            if channel.pending:
                self.finalize_withdraw(n, None)
            if channel.free:
                assert self.withdraw(n, None, "", "initiateWithdraw", channel.free)
                channel.pending, channel.since = channel.free, self.evm.now
                self.evm.now += channel.scene.delay
                self.finalize_withdraw(n, None)
        for n in range(len(self.books)):
            self.settle(n)
        self.the_books_are_right()
        assert self.balance(self.channels.address) == 0
        assert sum(self.coins.values()) == self.minted

    # -- the model -------------------------------------------------------------------------------

    def rows(
        self, picks: list[tuple[int, float, int]], signer: KeySigner | None, above: int
    ) -> tuple[list[tuple[Scene, Claim]], str, dict[int, int]]:
        """Return rows of a claim, why they would be refused, and what is claimed after them."""
        rows, reason, claimed = [], "", {n: c.claimed for n, c in enumerate(self.books)}
        for n, part, more in picks:
            channel = self.books[n]
            free = channel.balance - claimed[n]
            total = min(max(claimed[n] + int(free * part) + more, 0), MOST)
            ceiling = max(total + above, 0)
            by = signer or channel.signer
            if by is channel.signer:
                channel.promised = max(channel.promised, ceiling)
            rows.append((channel.scene, channel.scene.row(total, ceiling, by)))
            believed = by is channel.signer and (
                channel.scene.payer_authorizer != ZERO or self.believed(channel.scene.payer)
            )
            said = "" if believed or total <= claimed[n] else "InvalidSignature"
            said = "ClaimExceedsBalance" if total > channel.balance else said
            said = "ClaimExceedsCeiling" if total > ceiling else said
            reason = reason or said
            claimed[n] = max(claimed[n], total)
        return rows, reason, claimed

    def book(self, claimed: dict[int, int]) -> None:
        for n, total in claimed.items():
            channel = self.books[n]
            receiver = channel.scene.receiver
            self.earned[receiver] = self.earned.get(receiver, 0) + total - channel.claimed
            channel.claimed = total

    def give_back(self, channel: Channel, amount: int) -> None:
        channel.nonce += 1
        given = min(amount, channel.free)
        channel.balance -= given
        channel.pending = max(0, channel.pending - given)
        channel.since = channel.since if channel.pending else 0
        self.coins[channel.scene.payer] += given

    def believed(self, payer: str) -> bool:
        return payer != self.wallet.address or self.honest

    def side(self, channel: Channel) -> KeySigner:
        return RECEIVER if channel.scene.receiver == RECEIVER.address else PAYER

    # -- the chain -------------------------------------------------------------------------------

    @property
    def channels(self) -> Any:
        return self.books[0].scene.channels

    @invariant()
    def the_books_are_right(self) -> None:
        channel = self.books[self.touched]
        scene = channel.scene
        assert scene.state() == (channel.balance, channel.claimed)
        assert scene.pending() == (channel.pending, channel.since)
        assert self.channels.do(STRANGER, "refundNonce", scene.id) == channel.nonce
        for one in self.books:
            assert one.claimed <= one.balance
            assert one.claimed <= one.promised
        owed = sum(one.balance for one in self.books) - sum(self.settled.values())
        assert self.balance(self.channels.address) == owed
        assert self.balance(COLLECTOR) == 0
        assert {address: self.balance(address) for address in self.coins} == self.coins
        assert owed + sum(self.coins.values()) == self.minted

    def withdraw(
        self, n: int, who: KeySigner | None, reason: str, name: str, *arguments: Any
    ) -> bool:
        """Do it for the payer, which may be the wallet."""
        self.touched = n
        scene = self.books[n].scene
        if who is None and scene.payer == self.wallet.address:
            data = self.channels.data(name, scene.config, *arguments)
            said = self.wallet.refusal(OWNER, "execute", self.channels.address, data)
            return self.ended(name, said, reason)
        right = {PAYER.address: PAYER, RECEIVER.address: RECEIVER}
        who = who or right[scene.payer]
        if who.address not in (scene.payer, scene.payer_authorizer):
            reason = "NotPayer"
        return self.step(n, who, reason, name, *arguments)

    def step(self, n: int, who: KeySigner, reason: str, name: str, *arguments: Any) -> bool:
        """Do it with one channel and see it end as expected; returns whether it was done."""
        self.touched = n
        return self.attempt(who, reason, name, self.books[n].scene.config, *arguments)

    def attempt(self, who: KeySigner, reason: str, name: str, *arguments: Any) -> bool:
        return self.ended(name, self.channels.refusal(who, name, *arguments), reason)

    def ended(self, name: str, said: str, reason: str) -> bool:
        event(f"{name}: {said or 'done'}")
        self.done.add(f"{name}: {said or 'done'}")
        assert said == reason, f"{name}: {said or 'done'} instead of {reason or 'done'}"
        return not said

    def balance(self, address: str) -> int:
        return holds(self.token, address)


@pytest.mark.lengthy
@pytest.mark.timeout(600)
def test_money_is_kept_and_every_way_is_gone() -> None:
    names = ("deposit", "claim", "claimWithSignature", "settle", "refund", "refundWithSignature")
    names += ("initiateWithdraw", "finalizeWithdraw")
    ends = {f"{name}: done" for name in names}
    refusals = {f"claim: {why}" for why in ("ClaimExceedsCeiling", "ClaimExceedsBalance")}
    refusals |= {f"claim: {why}" for why in ("NotAuthorizedToClaim", "InvalidSignature")}
    refusals |= {f"claimWithSignature: {why}" for why in ("InvalidSignature", "EmptyBatch")}
    refusals |= {"claimWithSignature: NotReceiverAuthorizer", "deposit: invalid signature"}
    refusals |= {"deposit: authorization is expired", "refund: NotAuthorizedToRefund"}
    refusals |= {"refundWithSignature: InvalidRefundNonce", "refundWithSignature: InvalidSignature"}
    refusals |= {"initiateWithdraw: WithdrawalAlreadyPending", "initiateWithdraw: NotPayer"}
    refusals |= {"finalizeWithdraw: WithdrawDelayNotElapsed"}
    refusals |= {"finalizeWithdraw: WithdrawalNotPending"}
    go_every_way(Channels, ends | refusals)
