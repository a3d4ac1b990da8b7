"""A payer's channels at servers that do anything at any time: the books say what is on the chain.

The chain is a few numbers, the servers know every payload that was sent to them and may draw,
claim, answer, be silent, state what they can prove, lose their books or give money back.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.state_machines import go_every_way

from agentkit.errors import InsufficientFunds, OverBudget, ProtocolBroken, SettlementFailed
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.in_memory import MemoryJournal
from agentkit.keys.signer import KeySigner
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt, Evidence, Message, Result
from agentkit.market.offer import Offer
from agentkit.market.seams import Wanted
from agentkit.money import Money, Rate
from agentkit.payments import abi
from agentkit.payments.budget import Budget, Exposure
from agentkit.payments.channels import contract
from agentkit.payments.channels.lanes import LaneRail, lane_of
from agentkit.testing.fakes import NETWORK, USDC

OWNED = 100_000
DELAY = 900
LIMIT = 40_000
KEY = KeySigner(b"\x07" * 32)
PAYEES = [KeySigner(bytes([n]) * 32).address for n in (8, 9)]


@dataclass
class OnChain:
    balance: int = 0
    claimed: int = 0
    withdrawing: int = 0
    since: int = 0
    nonce: int = 0


@dataclass
class Chain:
    """A token, and the contract of channels; both do what anybody may have them do."""

    wallet: int = OWNED
    earned: int = 0
    clock: int = 0
    used: set[bytes] = field(default_factory=set)
    channels: dict[str, OnChain] = field(default_factory=dict)

    def at(self, channel: str) -> OnChain:
        return self.channels.setdefault(channel, OnChain())

    async def head(self) -> int:
        return 100

    async def time(self, block: int) -> int:
        return self.clock

    async def call(self, to: str, data: bytes) -> bytes:
        select, argument = data[:4], data[4:]
        if select == abi.selector("balanceOf(address)"):
            return _words(self.wallet)
        if select == abi.selector("authorizationState(address,bytes32)"):
            return _words(int(argument[32:64] in self.used))
        channel = self.at(argument[:32].hex())
        if select == abi.selector("channels(bytes32)"):
            return _words(channel.balance, channel.claimed)
        if select == abi.selector("pendingWithdrawals(bytes32)"):
            return _words(channel.withdrawing, channel.since)
        return _words(channel.nonce)

    def draw(self, payload: dict[str, Any]) -> bool:
        """Put a deposit into its channel, as anybody may who has seen it."""
        name = payload["voucher"]["channelId"][2:]
        drawing = payload["deposit"]["authorization"]["erc3009Authorization"]
        nonce = contract.erc3009_nonce(bytes.fromhex(name), int(drawing["salt"], 16))
        units = int(payload["deposit"]["amount"])
        if nonce in self.used or self.clock >= int(drawing["validBefore"]):
            return False
        assert units <= self.wallet, "more was promised than the wallet holds"
        self.used.add(nonce)
        self.wallet -= units
        self.at(name).balance += units
        return True

    def give_back(self, name: str, units: int) -> int:
        channel = self.at(name)
        given = min(units, channel.balance - channel.claimed)
        channel.balance -= given
        self.wallet += given
        return given

    async def send(self, intent: str, to: str, data: bytes) -> None:
        """Withdraw for the payer; see `payments.sender.Sender`."""
        name = intent.split(":")[1]
        channel = self.at(name)
        if intent.startswith("withdraw:"):
            channel.withdrawing, channel.since = channel.balance - channel.claimed, self.clock
        else:
            assert self.clock >= channel.since + DELAY
            self.give_back(name, channel.withdrawing)
            channel.withdrawing = channel.since = 0


def _words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(32, "big") for number in numbers)


@dataclass
class Seen:
    """What a server has of a channel: every payload, and what it charged by its own books."""

    payloads: list[dict[str, Any]] = field(default_factory=list)
    charged: int = 0
    proof: tuple[int, str] = (0, "")  # the voucher under which it charged last

    @property
    def highest(self) -> int:
        return max(int(p["voucher"]["maxClaimableAmount"]) for p in self.payloads)


class Lanes(RuleBasedStateMachine):
    """Random steps of a payer and of its servers."""

    which = st.integers(0, 5)
    amounts = st.sampled_from([1, 10, 1000, 9999])
    part = st.floats(0, 1)
    done: ClassVar[set[str]] = set()

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.journal = MemoryJournal(Path(self.folder.name))
        self.chain = Chain(clock=1_800_000_000)
        self.patch = pytest.MonkeyPatch()
        for module in ("lane_deposits", "withdrawal"):
            self.patch.setattr(
                f"agentkit.payments.channels.{module}.time.time", lambda: self.chain.clock
            )
        self.exposure = Money(LIMIT, USDC)
        self.rail = LaneRail(
            self.journal,
            self.chain,  # type: ignore[arg-type]
            KEY,
            NETWORK,
            self.chain,  # type: ignore[arg-type]
            exposure=Exposure(self.exposure),
        )
        self.budget = Budget(Allowance())
        self.servers: dict[str, Seen] = {}
        self.open: list[Attempt] = []
        self.number = 0
        self.do(lambda tx: self.budget.hold(tx, "run", Money(10 * OWNED, USDC), None))

    # -- the payer -------------------------------------------------------------------------------

    @rule(payee=st.integers(0, 1), units=amounts, lanes=st.integers(1, 2))
    def buy(self, payee: int, units: int, lanes: int) -> None:
        """Promise an attempt its most; the payload leaves."""
        self.number += 1
        offer = _offer(PAYEES[payee], units, lanes)
        attempt = Attempt.at(
            f"{self.number:064x}", 0, offer, run="run", item=None, task="t", at_most=offer.at_most
        )
        for _ in range(3):
            try:
                payment = self.do(lambda tx: self.reserve(tx, attempt))
            except InsufficientFunds:
                wanted = Wanted(attempt, lambda tx: None)
                try:
                    questions = self.run(self.rail.fund(offer, offer.at_most, wanted))
                except (InsufficientFunds, OverBudget) as error:
                    self.happened(f"not funded: {type(error).__name__}")
                    return
                for question in questions:
                    self.answer_question(question)
            else:
                self.open.append(attempt)
                payload = payment.body["payload"]
                self.server(payload["voucher"]["channelId"][2:]).payloads.append(payload)
                self.happened(f"bought by {payload['type']}")
                return

    def reserve(self, tx: Any, attempt: Attempt) -> Any:
        self.budget.reserve(tx, attempt)
        return self.rail.reserve(tx, attempt)

    @precondition(lambda self: self.open)
    @rule(n=which, charge=part, tells=st.booleans())
    def is_answered(self, n: int, charge: float, tells: bool) -> None:
        """A server answers, and charges; it may charge less than it says, or not say it."""
        attempt = self.take(n)
        lane = self.lane(attempt)
        server = self.server(lane.channel)
        if server.charged != lane.charged:
            self.open.append(attempt)  # it does not take this voucher
            return
        units = int(attempt.at_most.units * charge)
        server.charged += units
        server.proof = (lane.promised, lane.signature)
        price = Money(units, USDC) if tells else attempt.at_most
        result = Result(outputs=(), usage={}, price=price, evidence=Evidence())

        def settle(tx: Any) -> None:
            receipt, _ = self.rail.settle(tx, attempt, result)
            self.budget.spend(tx, attempt, receipt.amount, "paid")

        self.do(settle)
        self.happened("answered" if tells else "answered and not told")

    @precondition(lambda self: self.open)
    @rule(n=which, charge=part, asked=st.booleans())
    def is_lost(self, n: int, charge: float, asked: bool) -> None:
        """The answer is lost: the payer may ask what was charged, and closes the attempt."""
        attempt = self.take(n)
        lane = self.lane(attempt)
        server = self.server(lane.channel)
        if server.charged == lane.charged and charge > 0.5:
            server.charged += int(attempt.at_most.units * charge)
            server.proof = (lane.promised, lane.signature)
        if asked:
            for question in self.run(self.rail.questions(attempt)):
                self.answer_question(question)
        fate = self.run(self.rail.lookup(attempt))
        charged = self.do(lambda tx: self.rail.charged(tx, attempt))

        def close(tx: Any) -> None:
            self.rail.release(tx, attempt, uncertain=fate != "unpaid")
            if fate == "unpaid":
                self.budget.unreserve(tx, attempt)
            else:
                amount = attempt.at_most if charged is None else charged
                self.budget.spend(tx, attempt, amount, "uncertain")

        self.do(close)
        self.happened(f"lost: {fate}")

    @rule()
    def is_restored(self) -> None:
        """The books may be older than what was signed."""
        self.do(lambda tx: tx.append(e.WALLET, e.Restored(events=1)))
        self.happened("restored")

    @rule(honest=st.booleans())
    def is_closed(self, honest: bool) -> None:
        """The payer asks for all that is left; a server may refuse, and then it withdraws."""
        try:
            messages = self.run(self.rail.close())
        except SettlementFailed:
            self.happened("not closed: an attempt is open")
            return
        for message in messages:
            name = message.body["channel"]
            payload = message.body["payload"]
            server = self.server(name)
            ceiling = int(payload["voucher"]["maxClaimableAmount"])
            try:
                if honest and ceiling == server.charged:
                    self.claim_up_to(name, ceiling)
                    self.chain.give_back(name, OWNED)
                    self.chain.at(name).nonce += 1
                answer = message.model_copy(update={"verb": "refunded", "body": {"channel": name}})
                self.run(self.rail.finish(answer))
                self.happened("given back")
            except ProtocolBroken:
                outcome = self.run(self.rail.insist(message))
                self.happened("withdrawn" if outcome == "closed" else "withdrawing")

    # -- servers and the chain -------------------------------------------------------------------

    @precondition(lambda self: self.servers)
    @rule(n=which, m=which)
    def draws(self, n: int, m: int) -> None:
        """Somebody draws a deposit that was sent at any time."""
        server = self.pick(n)[1]
        deposits = [p for p in server.payloads if p["type"] == "deposit"]
        if deposits and self.chain.draw(deposits[m % len(deposits)]):
            self.happened("drawn")

    @precondition(lambda self: self.servers)
    @rule(n=which, greedy=st.booleans())
    def claims(self, n: int, greedy: bool) -> None:
        """A server claims what it charged, or all that was ever promised to it."""
        name, server = self.pick(n)
        if server.payloads:
            self.claim_up_to(name, server.highest if greedy else server.charged)
            self.happened("claimed all" if greedy else "claimed")

    @precondition(lambda self: self.servers)
    @rule(n=which)
    def forgets(self, n: int) -> None:
        """A server loses its books, and begins with what it has claimed."""
        name, server = self.pick(n)
        server.charged, server.proof = self.chain.at(name).claimed, (0, "")
        self.happened("forgotten")

    @rule(seconds=st.sampled_from([1, 600, 1000]))
    def waits(self, seconds: int) -> None:
        self.chain.clock += seconds

    def claim_up_to(self, name: str, units: int) -> None:
        channel = self.chain.at(name)
        gain = max(0, min(units, channel.balance) - channel.claimed)
        channel.claimed += gain
        self.chain.earned += gain

    def answer_question(self, question: Message) -> None:
        """A server says where a channel stands, as it can prove."""
        name = question.body["channel"]
        server, channel = self.server(name), self.chain.at(name)
        server.charged = max(server.charged, channel.claimed)
        body: dict[str, Any] = {"channel": name}
        if server.proof[1] and server.charged <= server.proof[0]:
            body["channelState"] = {
                "channelId": "0x" + name,
                "balance": str(channel.balance),
                "totalClaimed": str(channel.claimed),
                "chargedCumulativeAmount": str(server.charged),
            }
            body["voucherState"] = {
                "signedMaxClaimable": str(server.proof[0]),
                "signature": server.proof[1],
            }
        else:  # it has nothing to show, so it goes by the chain
            server.charged = channel.claimed
        self.run(self.rail.finish(question.model_copy(update={"verb": "state", "body": body})))

    # -- what holds ------------------------------------------------------------------------------

    @invariant()
    def the_books_are_right(self) -> None:
        if not hasattr(self, "rail"):
            return
        self.run(self.rail.balance())  # reads the deposits first
        lanes = self.lanes()
        in_channels = sum(c.balance - c.claimed for c in self.chain.channels.values())
        assert self.chain.wallet + in_channels + self.chain.earned == OWNED
        signed = self.do(lambda tx: tx.get(r.Total, f"signed|{USDC.id}"))
        pending = sum(lane.deposit for lane in lanes)
        assert (signed.amount.units if signed else 0) == pending
        assert pending <= self.chain.wallet, "what was promised can be drawn"
        for lane in lanes:
            channel = self.chain.at(lane.channel)
            assert channel.claimed <= lane.ceiling, "no more than was ever signed"
            if lane.open:
                assert lane.balance <= channel.balance or channel.nonce
            else:
                assert channel.balance == channel.claimed, "money in a channel that is closed"
        for payee in PAYEES:
            theirs = [lane for lane in lanes if lane.payee == payee and lane.open]
            assert sum(max(0, lane.spendable) for lane in theirs) <= LIMIT

    def teardown(self) -> None:
        """Every server is silent from now on: all that was not claimed comes back."""
        if not hasattr(self, "rail"):
            return
        while self.open:
            self.is_lost(0, 0.0, asked=False)
        for _ in range(3):
            self.chain.clock += 1000
            self.is_closed(honest=False)
        assert not any(lane.open for lane in self.lanes())
        assert self.chain.wallet + self.chain.earned == OWNED
        self.patch.undo()
        self.folder.cleanup()
        self.loop.close()

    # -- helpers ---------------------------------------------------------------------------------

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def do(self, work: Any) -> Any:
        async def commit() -> Any:
            return await self.journal.commit(work)

        return self.run(commit())

    def lanes(self) -> list[r.Lane]:
        found: list[r.Lane] = self.do(lambda tx: tx.every(r.Lane))
        return found

    def lane(self, attempt: Attempt) -> r.Lane:
        lane = self.do(lambda tx: lane_of(tx, attempt))
        assert isinstance(lane, r.Lane)
        return lane

    def take(self, n: int) -> Attempt:
        return self.open.pop(n % len(self.open))

    def server(self, name: str) -> Seen:
        return self.servers.setdefault(name, Seen())

    def pick(self, n: int) -> tuple[str, Seen]:
        return list(self.servers.items())[n % len(self.servers)]

    def happened(self, what: str) -> None:
        event(what)
        self.done.add(what)


def _offer(payee: str, units: int, lanes: int) -> Offer:
    price = Money(units, USDC)
    return Offer(
        provider="web",
        provider_node=payee,
        node="n",
        on="web",
        price=price,
        at_most=price,
        eta=1.0,
        lanes=lanes,
        expires=0.0,
        rail="batch-settlement",
        pays="with_request",
        payee=payee,
        channel={"receiverAuthorizer": payee, "withdrawDelay": DELAY, "minDeposit": "20000"},
        rates={"request": Rate(price, 1, "request")},
    )


def test_all_that_was_not_claimed_comes_back_and_no_book_is_wrong() -> None:
    ways = {"bought by deposit", "bought by voucher", "answered", "answered and not told", "drawn"}
    ways |= {"lost: paid", "lost: unpaid", "lost: open", "claimed", "claimed all", "forgotten"}
    ways |= {"restored", "given back", "withdrawing", "withdrawn", "not funded: OverBudget"}
    go_every_way(Lanes, ways)
