"""Whatever anybody does in whatever order: no money appears, none is lost, none is locked."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from eth_abi import decode, encode
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agentkit.embedded.chain import trial
from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.genesis import deploy
from agentkit.embedded.chain.vm import CHAIN_ID, GENESIS_TIME
from agentkit.keys.messages import HALF_ORDER, Authorization, Domain, Transaction, Voucher, keccak
from agentkit.keys.signer import KeySigner

CONFIG = "(address,address,address,address,uint40,bytes32)"
VOUCHER = "(uint128,uint64,bytes32)"
SIGNATURE = ["uint8", "bytes32", "bytes32"]
SIGNED_VOUCHER = [VOUCHER, *SIGNATURE]
ORDER = 2 * HALF_ORDER + 1
MOST = 2**104 - 1
CLOSED = 2**40 - 1
ACTORS = [KeySigner(number.to_bytes(32, "big")) for number in range(1, 6)]
DEPLOYER, PAYER, WHALE, PROVIDER, SESSION = ACTORS
MINTED = {PAYER.address: 10**9, WHALE.address: 2**105}


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

    channels = (
        (PAYER, SESSION, PROVIDER, 900),
        (PAYER, PAYER, PROVIDER, 86400),
        (WHALE, SESSION, PAYER, 30 * 86400),
        (PROVIDER, PROVIDER, PROVIDER, 900),
        (PAYER, SESSION, PROVIDER, 899),
    )
    which = st.integers(0, len(channels) - 1)
    # None stands for who should do it, so that enough of the steps succeed.
    actors = st.sampled_from([None] * 15 + ACTORS)
    small = st.integers(1, 1000)
    amounts = st.one_of(small, small, small, st.sampled_from([0, 10**9, MOST, 2**128 - 1]))
    seldom = st.sampled_from([False] * 5 + [True])
    done: ClassVar[set[str]] = set()

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.now = GENESIS_TIME + 1
        rich = {actor.address: 10**24 for actor in ACTORS}
        path = Path(self.folder.name) / "chain.db"
        self.chain = Chain.open(path, rich=rich, clock=lambda: self.now)
        self.at = deploy(self.chain, bytes(31) + b"\x01", MINTED)
        self.domain = Domain("AgentChannels", "1", CHAIN_ID, self.at.channels)
        self.coins = {actor.address: MINTED.get(actor.address, 0) for actor in ACTORS}
        self.books = [Channel(*c, bytes([n]) * 32) for n, c in enumerate(self.channels)]
        for actor in ACTORS:
            kinds, all_of_it = ["address", "uint256"], (self.at.channels, 2**256 - 1)
            self.send(actor, self.at.token, calldata("approve", kinds, *all_of_it))
        self.touched = 0
        for n in (0, 1):
            self.fund(n, None, 1000)

    # -- steps -----------------------------------------------------------------------------------

    @rule(n=which, who=actors, amount=amounts)
    def fund(self, n: int, who: KeySigner | None, amount: int) -> None:
        channel = self.books[n]
        who = who or channel.payer
        reason = self.no_credit(channel, amount) if who is channel.payer else "NotPayer"
        if self.step(n, who, reason, "fund", ["uint128"], amount):
            self.credit(channel, amount)

    @rule(n=which, amount=amounts, signer=actors, late=seldom, stale=seldom)
    def top_up(
        self, n: int, amount: int, signer: KeySigner | None, late: bool, stale: bool
    ) -> None:
        channel, until = self.books[n], self.now + (0 if late else 600)
        signer = signer or channel.payer
        nonce = keccak(self.id(n) + (channel.deposited + stale).to_bytes(32, "big"))
        given = Authorization(channel.payer.address, self.at.channels, amount, until, nonce)
        domain = Domain("USD Coin", "1", CHAIN_ID, self.at.token)
        signature = split(signer.sign_authorization(domain, given))
        reason = self.no_credit(channel, amount)
        if reason in ("", "balance is too low"):
            reason = "invalid signature" if stale or signer is not channel.payer else reason
            reason = "authorization is expired" if late else reason
        types = ["uint128", "uint256", *SIGNATURE]
        if self.step(
            n, DEPLOYER, reason, "fundWithAuthorization", types, amount, until, *signature
        ):
            self.credit(channel, amount)

    @rule(n=which, who=actors, signer=actors, more=st.integers(-1, 2), part=st.floats(0, 1))
    def claim(
        self, n: int, who: KeySigner | None, signer: KeySigner | None, more: int, part: float
    ) -> None:
        channel, arguments, reason = self.voucher(n, signer, more, part)
        if self.step(n, who or DEPLOYER, reason, "claim", SIGNED_VOUCHER, *arguments):
            self.pay(channel, arguments[0][0])

    @rule(n=which, who=actors, signer=actors, more=st.integers(-1, 2), part=st.floats(0, 1))
    def claim_and_close(
        self, n: int, who: KeySigner | None, signer: KeySigner | None, more: int, part: float
    ) -> None:
        channel, arguments, reason = self.voucher(n, signer, more, part)
        who = who or channel.provider
        reason = reason if who is channel.provider else "NotProvider"
        if self.step(n, who, reason, "claimAndClose", SIGNED_VOUCHER, *arguments):
            self.pay(channel, arguments[0][0])
            self.coins[channel.payer.address] += channel.close()

    @rule(n=which, other=which, high=st.booleans())
    def forge(self, n: int, other: int, high: bool) -> None:
        """Claim with the voucher of another channel, or with the other form of a signature."""
        channel, (voucher, v, r, s), reason = self.voucher(n, None, 1, 0, of=other)
        if high:
            v, s = 55 - v, (ORDER - int.from_bytes(s, "big")).to_bytes(32, "big")
        if high or other != n:
            reason = reason or "BadSignature"
        if self.step(n, PROVIDER, reason, "claim", SIGNED_VOUCHER, voucher, v, r, s):
            self.pay(channel, voucher[0])

    @rule(n=which, who=actors, sure=seldom)
    def release(self, n: int, who: KeySigner | None, sure: bool) -> None:
        channel = self.books[n]
        who = (who or channel.provider) if sure else SESSION
        reason = "Closed" if channel.closed else ""
        reason = reason if channel.deposited else "NotOpen"
        reason = reason if who is channel.provider else "NotProvider"
        if self.step(n, who, reason, "release", []):
            self.coins[channel.payer.address] += channel.close()

    @rule(n=which, who=actors)
    def request_close(self, n: int, who: KeySigner | None) -> None:
        channel = self.books[n]
        who = who or channel.payer
        reason = "" if channel.deposited else "NotOpen"
        reason = "Closing" if channel.closes else reason
        reason = reason if who is channel.payer else "NotPayer"
        if self.step(n, who, reason, "requestClose", []):
            channel.closes = self.now + channel.delay
            self.finish_close(n)
            self.fund(n, None, 1)

    @rule(n=which)
    def finish_close(self, n: int) -> None:
        channel = self.books[n]
        reason = "" if self.now >= channel.closes else "TooEarly"
        reason = "Closed" if channel.closed else reason
        reason = reason if channel.closes else "NotClosing"
        if self.step(n, SESSION, reason, "finishClose", []):
            self.coins[channel.payer.address] += channel.close()

    @rule(seconds=st.sampled_from([1, 899, 900, 86400]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    def teardown(self) -> None:
        """Everybody has gone silent: the payer's request and time free every coin."""
        for n, channel in enumerate(self.books):
            if channel.deposited and not channel.closes:
                self.request_close(n, channel.payer)
        self.now += 31 * 86400
        for n, _ in 2 * list(enumerate(self.books)):
            self.finish_close(n)
        assert self.balance(self.at.channels) == 0
        self.chain.close()
        self.folder.cleanup()

    # -- the model -------------------------------------------------------------------------------

    def no_credit(self, channel: Channel, amount: int, *, bare: bool = False) -> str:
        """Return why the channel takes no such deposit; `bare` leaves the balance out."""
        if not amount:
            return "Zero"
        if not 900 <= channel.delay <= 30 * 86400:
            return "BadConfig"
        if channel.closes:
            return "Closing"
        if channel.deposited + amount > MOST:
            return "TooMuch"
        if not bare and self.coins[channel.payer.address] < amount:
            return "balance is too low"
        return ""

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
        signature = split(signer.sign_voucher(self.domain, signed))
        reason = "" if signer is channel.voucher_key else "BadSignature"
        reason = "OverDeposit" if cumulative > channel.deposited else reason
        reason = "NothingNew" if cumulative <= channel.claimed else reason
        return channel, ((cumulative, 1, bytes(32)), *signature), reason

    # -- the chain -------------------------------------------------------------------------------

    @invariant()
    def the_books_are_right(self) -> None:
        channel = self.books[self.touched]
        identity = self.id(self.touched)
        state = self.ask("channels(bytes32)", ["uint128", "uint128"], ["bytes32"], identity)
        closes = self.ask("closingAt(bytes32)", ["uint40"], ["bytes32"], identity)
        assert (*state, *closes) == (channel.deposited, channel.claimed, channel.closes)
        owed = sum(one.deposited - one.claimed for one in self.books)
        assert self.balance(self.at.channels) == owed
        assert {address: self.balance(address) for address in self.coins} == self.coins
        assert owed + sum(self.coins.values()) == sum(MINTED.values())

    def step(
        self,
        n: int,
        who: KeySigner | None,
        reason: str,
        name: str,
        types: list[str],
        *arguments: Any,
    ) -> bool:
        """Do it and see it end as expected; returns whether it was done."""
        self.touched = n
        data = calldata(name, [CONFIG, *types], self.config(n), *arguments)
        said = self.refusal(who, data)
        event(f"{name}: {said or 'done'}")
        self.done.add(f"{name}: {said or 'done'}")
        assert said == reason, f"{name}: {said or 'done'} instead of {reason or 'done'}"
        if not said:
            self.send(who, self.at.channels, data)
        return not said

    def config(self, n: int) -> tuple[str, str, str, str, int, bytes]:
        channel = self.books[n]
        who = (channel.payer, channel.voucher_key, channel.provider)
        return (*(one.address for one in who), self.at.token, channel.delay, channel.salt)

    def id(self, n: int) -> bytes:
        kinds = ["uint256", "address", CONFIG]
        return keccak(encode(kinds, [CHAIN_ID, self.at.channels, self.config(n)]))

    def balance(self, address: str) -> int:
        return self.ask("balanceOf(address)", ["uint256"], ["address"], address)[0]

    def ask(self, signature: str, answer: list[str], kinds: list[str], *arguments: Any) -> Any:
        to = self.at.token if signature.startswith("balanceOf") else self.at.channels
        wanted = trial.Call(to=unhex(to), data=selector(signature) + encode(kinds, arguments))
        return decode(answer, trial.call(self.chain, wanted, self.chain.head))

    def refusal(self, who: KeySigner, data: bytes) -> str:
        wanted = trial.Call(sender=unhex(who.address), to=unhex(self.at.channels), data=data)
        try:
            trial.call(self.chain, wanted, self.chain.next_header())
        except trial.CallFailed as failed:
            return str(failed).removeprefix("execution reverted: ")
        return ""

    def send(self, who: KeySigner, to: str, data: bytes) -> None:
        nonce = self.chain.state().get_nonce(unhex(who.address))
        wanted = Transaction(CHAIN_ID, nonce, to, data, 400_000, 10**10, 0)
        self.chain.send(who.sign_tx(wanted)[1])
        (receipt,) = self.chain.receipts(self.chain.head)
        assert receipt.state_root == b"\x01"


def calldata(name: str, kinds: list[str], *arguments: Any) -> bytes:
    return selector(f"{name}({','.join(kinds)})") + encode(kinds, arguments)


def selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]


def unhex(address: str) -> Any:
    return bytes.fromhex(address[2:])


def split(signature: bytes) -> tuple[int, bytes, bytes]:
    return signature[64], signature[:32], signature[32:64]


class TestChannels(Channels.TestCase):
    """Runs the machine, and sees that it went everywhere."""

    settings = settings(
        max_examples=25,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )

    def runTest(self) -> None:
        super().runTest()
        names = ("fund", "fundWithAuthorization", "claim", "claimAndClose", "release")
        ends = {f"{name}: done" for name in (*names, "requestClose", "finishClose")}
        refusals = {"claim: NothingNew", "claim: OverDeposit", "claim: BadSignature"}
        refusals |= {"fund: Closing", "finishClose: TooEarly", "finishClose: Closed"}
        assert ends | refusals <= Channels.done
