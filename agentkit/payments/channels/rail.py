"""The payer's rail: one channel with each payee, paid on delivery by vouchers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentkit.errors import InsufficientFunds, ProtocolBroken, SettlementFailed
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import Domain, Voucher, recover, typed_digest
from agentkit.keys.signer import Signer
from agentkit.market import tree
from agentkit.market.attempt import Attempt, Message, Payment, Result
from agentkit.market.chain import ChainClient, Network
from agentkit.market.offer import Offer, Pays
from agentkit.market.plan import Fee
from agentkit.market.receipt import Receipt, delivery_of
from agentkit.market.seams import Transaction, Wanted
from agentkit.market.value import Digest
from agentkit.money import Money
from agentkit.payments.budget import Exposure, count_short_payees, paid_before, shortfall
from agentkit.payments.channels.body import MAX_AMOUNT, MAX_TASKS, Root, Signature
from agentkit.payments.channels.close import ChannelCloser
from agentkit.payments.channels.deposits import Deposits
from agentkit.payments.channels.messages import ChannelMessages
from agentkit.payments.channels.terms import CLOSE_DELAY, ChannelTerms, waiting_until
from agentkit.payments.gas import gas_fee
from agentkit.payments.sender import Sender

FUND_GAS = 130_000
"""What a top-up costs at most, for the gas row of a plan."""


MAX_DELIVERIES = 100_000
"""The most deliveries that a payee may list: all that it ever made on the channel."""

MAX_MISSING_DELIVERIES = 10_000
"""The most of them that our books may lack: they are stored, and read with every voucher."""


class ChannelRail:
    """Pays providers on delivery, by vouchers on one channel each; see `market.seams.Rail`."""

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        sender: Sender,
        *,
        exposure: Exposure | None = None,
    ) -> None:
        """Make the rail of one wallet; without `exposure` its deposits have no limit."""
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network = network
        self._sender = sender
        self._exposure = exposure or Exposure()
        self._domain = network.channels_domain
        self._messages = ChannelMessages(signer, network)
        self._deposits = Deposits(journal, chain, signer, network, sender, exposure=self._exposure)
        self._closer = ChannelCloser(journal, chain, network, sender)

    @property
    def name(self) -> str:
        return "channel"

    @property
    def pays(self) -> Pays:
        return "on_delivery"

    async def quote(self, offers: Sequence[Offer], amounts: Sequence[Money]) -> Sequence[Fee]:
        """Return the gas of the top-ups that paying `amounts` needs: one for each short payee."""
        top_ups = await self._journal.commit(
            lambda tx: count_short_payees(tx, self.name, offers, amounts)
        )
        if not top_ups:
            return []
        gas = top_ups * FUND_GAS
        return [await gas_fee(self._chain, self._network, gas, "top up channels")]

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        """Top up our channel with a payee until `need` can be reserved, opening one if needed.

        Nothing is added to a channel in doubt; its payee is asked for our newest voucher first.
        """
        # A top-up that an earlier process sent counts first, so that it is not sent again.
        await self._sender.recover()
        channel = await self._journal.commit(
            lambda tx: _current(tx, offer.payee) or self._choose_channel(tx, offer)
        )
        if channel.doubtful:
            await self._deposits.read_deposit(channel)
            return [self._messages.request(channel, "best")]

        def look_again(tx: Transaction) -> tuple[r.Channel | None, int]:
            """Return the channel as it is now, and how many units it lacks."""
            missing = shortfall(
                tx,
                self._exposure,
                rail=self.name,
                payee=offer.payee,
                need=need,
                attempt=wanted.attempt,
            )
            return _current(tx, offer.payee), missing

        current, missing = await self._journal.commit(look_again)
        if current and missing > 0:
            await self._deposits.top_up(current, missing)
        return []

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        """Return the channel and its newest voucher, which go with the request.

        Raises InsufficientFunds when the channel has to be topped up or cleared of doubt first.
        """
        channel = _current(tx, attempt.payee)
        account = tx.get(r.Account, f"channel|{attempt.payee}")
        if channel is None or account is None or account.free < 0 or channel.doubtful:
            raise InsufficientFunds(f"the channel with {attempt.payee} holds too little")
        return Payment(rail=self.name, body=self._messages.body_with_proof(channel))

    def settle(
        self, tx: Transaction, attempt: Attempt, result: Result
    ) -> tuple[Receipt, Sequence[Message]]:
        """Sign a voucher for a verified result, and return the message that brings it.

        Raises SettlementFailed without an open channel, InsufficientFunds on one in doubt.
        """
        channel = _current(tx, attempt.payee)
        if channel is None:
            raise SettlementFailed(f"there is no open channel with {attempt.payee}")
        if channel.doubtful:
            raise InsufficientFunds(
                f"our newest voucher for {channel.label} is not in the books, as after a restore"
            )
        # A delivery for nothing needs no voucher, and one that was paid gets no second one.
        if result.price and paid_before(tx, attempt.id) is None:
            channel = self._pay(tx, channel, attempt, result)
        receipt = Receipt.of(attempt, result, at=tx.now)
        return receipt, [self._messages.voucher(attempt, channel)]

    def release(self, tx: Transaction, attempt: Attempt, *, uncertain: bool) -> bool:
        """Return False: without a voucher the payee can draw nothing for the attempt."""
        return False

    async def balance(self) -> dict[str, Money]:
        """Return what is promised to nobody yet on each open channel."""
        channels = await self._journal.commit(lambda tx: tx.every(r.Channel))
        currency = self._network.currency
        return {
            _balance_label(channel): Money(channel.deposited - channel.cumulative, currency)
            for channel in channels
            if channel.open
        }

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        """Return the messages that ask payees to close channels idle for `idle` seconds.

        Raises SettlementFailed when an attempt is still open on one of them.
        """
        # After a restore the books may lack deposits, which closing brings back.
        for channel in await self._journal.commit(lambda tx: tx.every(r.Channel)):
            if channel.open and channel.doubtful:
                await self._deposits.read_deposit(channel)

        def stop_buying(tx: Transaction) -> list[Message]:
            idle_channels = [
                channel
                for channel in tx.every(r.Channel)
                if channel.open and tx.now - channel.used >= idle
            ]
            return [self._ask_to_close(tx, channel) for channel in idle_channels]

        return await self._journal.commit(stop_buying)

    async def insist(self, message: Message) -> str:
        """Close a channel through the contract alone, because its payee does not answer."""
        return await self._closer.close_without_provider(str(message.body["channel"]))

    async def finish(self, answer: Message) -> None:
        """Take a payee's newest voucher, or its word that it closed a channel; both are checked."""
        match answer.verb:
            case "best":
                await self._take_newest_voucher(answer)
            case "closed":
                await self._closer.book_close(answer.body)

    # -- inside ----------------------------------------------------------------------------------

    def _choose_channel(self, tx: Transaction, offer: Offer) -> r.Channel:
        """Write down the terms of a new channel with an offer's payee, and return it.

        Its salt is random: a wallet that lost its books must not choose the id of a channel that
        it closed once.
        """
        salt = secrets.token_hex(32)
        terms = ChannelTerms(
            payer=self._signer.address,
            payee=offer.payee,
            token=self._network.token,
            close_delay=CLOSE_DELAY,
            salt=salt,
        )
        opened = e.ChannelOpened(
            channel=terms.id(self._network),
            provider=offer.provider,
            provider_node=offer.provider_node,
            payer=terms.payer,
            payee=terms.payee,
            token=terms.token,
            close_delay=terms.close_delay,
            salt=salt,
        )
        tx.append(e.WALLET, opened)
        return r.Channel(**opened.model_dump())

    def _pay(
        self, tx: Transaction, channel: r.Channel, attempt: Attempt, result: Result
    ) -> r.Channel:
        """Promise an attempt's price and return the channel as it then stands.

        After a restore, the voucher that the payee showed may have paid for the attempt already.
        Which of the payee's old attempts it paid cannot be told, and need not be: the payee is
        still owed `channel.owed` for them together, and beyond that they are paid.
        """
        price = result.price
        leaf = leaf_of(attempt, result)
        if attempt.id not in channel.old:
            return self._promise(tx, channel, attempt, price, leaf)

        units_paid = min(channel.unexplained, max(0, price.units - channel.owed))
        if price.units > units_paid:
            unpaid = Money(price.units - units_paid, price.asset)
            channel = self._promise(tx, channel, attempt, unpaid, leaf)
        if units_paid:
            matched = e.VoucherMatched(
                channel=channel.channel,
                attempt=attempt.id,
                amount=Money(units_paid, price.asset),
            )
            tx.append(e.WALLET, matched)
        return channel

    def _promise(
        self, tx: Transaction, channel: r.Channel, attempt: Attempt, amount: Money, leaf: bytes
    ) -> r.Channel:
        """Sign a voucher over `amount` more and return the channel as it then stands.

        Vouchers are cumulative: each names the total so far, so the newest one replaces all
        before it.  It is written in the caller's transaction, before it can leave.
        """
        cumulative = channel.cumulative + amount.units
        if cumulative > channel.deposited:
            raise SettlementFailed(f"the channel with {channel.label} is exhausted")
        tasks = channel.tasks + 1
        root = tree.root_of(tree.added(channel.peaks, channel.leaves, leaf))
        voucher = Voucher(
            channel=bytes.fromhex(channel.channel),
            cumulative=cumulative,
            tasks=tasks,
            receipts_root=root,
        )
        signed = e.VoucherSigned(
            channel=channel.channel,
            attempt=attempt.id,
            cumulative=Money(cumulative, amount.asset),
            tasks=tasks,
            signature=self._signer.sign_voucher(self._domain, voucher).hex(),
            leaf=leaf.hex(),
        )
        tx.append(e.WALLET, signed)
        return tx.get(r.Channel, channel.channel) or channel

    def _ask_to_close(self, tx: Transaction, channel: r.Channel) -> Message:
        """Stop buying on a channel, and return the message that asks its payee to close it."""
        account = tx.get(r.Account, f"channel|{channel.payee}")
        if account and account.reserved and not channel.closing:
            raise SettlementFailed(
                f"the channel with {channel.label} still has open attempts",
                hint="resume or cancel the runs that `agentkit status` lists first",
            )
        if not channel.closing:
            tx.append(e.WALLET, e.ChannelClosing(channel=channel.channel))
        return self._messages.request(channel, "close")

    async def _take_newest_voucher(self, answer: Message) -> None:
        """Book our newest voucher as its payee shows it; our own signature proves it.

        Raises ProtocolBroken for what cannot be read, is not signed by this wallet, or is about
        a channel with another provider node.
        """
        newest = _NewestVoucher.of(answer.body)
        if newest.cumulative and newest.signer(self._domain) != self._signer.address:
            raise ProtocolBroken("the payee's newest voucher is not signed by this wallet")
        currency = self._network.currency

        def book(tx: Transaction) -> None:
            """Write down what the payee showed, if the channel is its own."""
            channel = tx.get(r.Channel, newest.channel)
            sender = (answer.provider, answer.provider_node)
            if channel is None or (channel.provider, channel.provider_node) != sender:
                raise ProtocolBroken("it speaks of a channel that is not its own")
            # Attempts that our books show as paid need not be matched with this voucher later.
            unpaid = tuple(x for x in newest.attempts if paid_before(tx, x) is None)
            if len(unpaid) > MAX_MISSING_DELIVERIES:
                raise ProtocolBroken(
                    f"it lists {len(unpaid)} deliveries that this wallet does not know, and at"
                    f" most {MAX_MISSING_DELIVERIES} are believed"
                )
            found = e.VoucherFound(
                channel=newest.channel,
                cumulative=Money(newest.cumulative, currency),
                tasks=newest.tasks,
                signature=newest.signature,
                root=newest.voucher.receipts_root.hex(),
                delivered=Money(newest.delivered, currency),
                attempts=unpaid,
            )
            tx.append(e.WALLET, found)

        await self._journal.commit(book)


class _NewestVoucher(BaseModel):
    """A payee's answer to `best`: the newest voucher it has, and what it says it delivered.

    `delivered` in units; `attempts` are the ids of all its deliveries on the channel.  Widths as
    in `ChannelBody`.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    channel: Digest
    cumulative: int = Field(ge=0, le=MAX_AMOUNT)
    tasks: int = Field(ge=0, le=MAX_TASKS)
    root: Root = ""
    signature: Signature = Field(alias="voucher")
    delivered: int = Field(ge=0, le=MAX_AMOUNT)
    attempts: list[Digest] = Field(max_length=MAX_DELIVERIES)

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Read an answer; raises ProtocolBroken for anything else."""
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise ProtocolBroken("the payee's newest voucher cannot be read") from error

    @property
    def voucher(self) -> Voucher:
        """The voucher itself, as it is signed."""
        return Voucher(
            channel=bytes.fromhex(self.channel),
            cumulative=self.cumulative,
            tasks=self.tasks,
            receipts_root=bytes.fromhex(self.root) or tree.EMPTY,
        )

    def signer(self, domain: Domain) -> str:
        """Return the address that signed the voucher, "" for an unsigned one."""
        if not self.signature:
            return ""
        return recover(typed_digest(domain, self.voucher), bytes.fromhex(self.signature))


def _current(tx: Transaction, payee: str) -> r.Channel | None:
    """Return the open channel with a payee."""
    current = tx.get(r.CurrentChannel, payee)
    return tx.get(r.Channel, current.channel) if current else None


def leaf_of(attempt: Attempt, result: Result) -> bytes:
    """Return what a paid delivery adds to its channel's tree: the hash of what its provider signed.

    So a voucher, which names the tree's root, also says for which deliveries it pays.
    """
    delivery = delivery_of(attempt.id, result.digest, result.price, result.usage)
    return tree.leaf_of(delivery.struct_hash())


def _balance_label(channel: r.Channel) -> str:
    """Return how people tell a channel, with when its rest can be taken if a close is requested."""
    if not channel.closes_at:
        return channel.label
    return f"{channel.label}, {waiting_until(channel.closes_at)}"
