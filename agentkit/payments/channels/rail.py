"""The payer's rail: one channel with each payee, paid on delivery by vouchers.

The channel is one of x402 `batch-settlement`, whose contract has one address on all chains, and the
payee's facilitator pays for gas.  Channels that earlier versions opened in `AgentChannels` are only
closed (`payments.legacy`).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentkit.errors import InsufficientFunds, ProtocolBroken, SettlementFailed
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.channel_messages import ChannelVoucher
from agentkit.keys.messages import Domain, recover, typed_digest
from agentkit.keys.signer import Signer
from agentkit.market.attempt import Attempt, Message, Payment, Result
from agentkit.market.batch_settlement import MAX_UNITS, SCHEME
from agentkit.market.chain import ChainClient, Network
from agentkit.market.offer import Offer, Pays
from agentkit.market.plan import Fee
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Transaction, Wanted
from agentkit.market.value import Digest
from agentkit.money import Money
from agentkit.payments.budget import Exposure, paid_before, shortfall
from agentkit.payments.channels.body import Signature
from agentkit.payments.channels.close import ChannelCloser
from agentkit.payments.channels.deposits import Deposits
from agentkit.payments.channels.messages import ChannelMessages
from agentkit.payments.channels.terms import CLOSE_DELAY, ChannelTerms, salt_of, waiting_until
from agentkit.payments.sender import Sender

MAX_DELIVERIES = 100_000
"""The most deliveries that a payee may list: all that it ever made on the channel."""

MAX_MISSING_DELIVERIES = 10_000
"""The most of them that our books may lack: they are stored, and read with every voucher."""


class EarlierChannels(Protocol):
    """Closes the channels that earlier versions opened; see `payments.legacy`."""

    def request_close(self, channel: r.Channel) -> Message:
        """Return the message that asks a channel's payee to close it."""

    async def close_without_provider(self, channel: r.Channel) -> str:
        """Take the rest of a channel back alone; returns the outcome in words."""

    async def book_close(self, channel: r.Channel, transaction: str) -> None:
        """Book the end of a channel as a transaction shows it; raises ProtocolBroken."""


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
        earlier: EarlierChannels | None = None,
    ) -> None:
        """Make the rail of one wallet; without `exposure` its deposits have no limit.

        Without `earlier` it leaves channels alone that earlier versions opened.
        """
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network = network
        self._sender = sender
        self._exposure = exposure or Exposure()
        self._domain = network.settlement_domain
        self._messages = ChannelMessages(signer, network)
        self._deposits = Deposits(journal, chain, signer, network, exposure=self._exposure)
        self._closer = ChannelCloser(journal, chain, network, sender)
        self._earlier = earlier

    @property
    def name(self) -> str:
        return "channel"

    @property
    def pays(self) -> Pays:
        return "on_delivery"

    async def quote(self, offers: Sequence[Offer], amounts: Sequence[Money]) -> Sequence[Fee]:
        """Return no fee: the payee's facilitator pays for the gas of deposits."""
        return []

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        """Sign a deposit into our channel with a payee, so that `need` can be reserved.

        The message that is returned has the payee draw it.  Nothing is added to a channel in
        doubt; its payee is asked for our newest voucher first.
        """
        # A deposit that an earlier process signed counts first, so that it is not signed again.
        await self._deposits.reconcile()
        channel = await self._journal.commit(
            lambda tx: _current(tx, offer.payee) or self._choose_channel(tx, offer)
        )
        if channel.doubtful:
            await self._deposits.read_deposit(channel)
            return [self._messages.request(channel, "best")]
        if channel.deposit:
            return [self._messages.deposit(channel)]

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
        if not current or missing <= 0 or await self._deposits.is_older_than_chain(current):
            return []
        return [self._messages.deposit(await self._deposits.sign(current, missing))]

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        """Return the channel and its newest voucher, which go with the request.

        Raises InsufficientFunds when the channel has to be topped up or cleared of doubt first.
        """
        channel = _current(tx, attempt.payee)
        account = tx.get(r.Account, f"channel|{attempt.payee}")
        if channel is None or account is None or account.free < 0 or channel.doubtful:
            raise InsufficientFunds(f"the channel with {attempt.payee} holds too little")
        return Payment(rail=self.name, body=self._messages.payment(channel, attempt))

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
        await self._deposits.reconcile()
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
        await self._deposits.reconcile()
        # After a restore the books may lack deposits, which closing brings back.
        for channel in await self._journal.commit(lambda tx: tx.every(r.Channel)):
            if channel.open and channel.doubtful and channel.scheme:
                await self._deposits.read_deposit(channel)

        def stop_buying(tx: Transaction) -> list[Message]:
            idle_channels = [
                channel
                for channel in tx.every(r.Channel)
                if channel.open
                and (channel.scheme or self._earlier)
                and tx.now - channel.used >= idle
            ]
            return [self._ask_to_close(tx, channel) for channel in idle_channels]

        return await self._journal.commit(stop_buying)

    async def insist(self, message: Message) -> str:
        """Close a channel through the contract alone, because its payee does not answer."""
        channel = await self._channel(str(message.body["channel"]))
        if channel is None or not channel.open:
            return ""
        if channel.scheme:
            return await self._closer.close_without_provider(channel)
        return await self._earlier.close_without_provider(channel) if self._earlier else ""

    async def finish(self, answer: Message) -> None:
        """Take a payee's newest voucher, or its word that it closed a channel; both are checked."""
        match answer.verb:
            case "best":
                await self._take_newest_voucher(answer)
            case "deposited":
                await self._deposits.reconcile()
            case "closed":
                await self._book_close(answer)

    # -- inside ----------------------------------------------------------------------------------

    async def _channel(self, channel: str) -> r.Channel | None:
        return await self._journal.commit(lambda tx: tx.get(r.Channel, channel))

    async def _book_close(self, answer: Message) -> None:
        """Book the end of a channel that its payee says it closed; raises ProtocolBroken."""
        channel = await self._channel(str(answer.body.get("channel", "")))
        sender = (answer.provider, answer.provider_node)
        if channel is None or (channel.provider, channel.provider_node) != sender:
            raise ProtocolBroken("it speaks of a channel that is not its own")
        if channel.scheme:
            await self._closer.book_close(channel)
        elif self._earlier:
            await self._earlier.book_close(channel, str(answer.body.get("transaction", "")))

    def _choose_channel(self, tx: Transaction, offer: Offer) -> r.Channel:
        """Write down the terms of a new channel with an offer's payee, and return it.

        Its salt is random: two machines with one key share no channel, and a wallet that lost its
        books does not choose the id of a channel that it closed once.
        """
        earlier = tx.get(r.CurrentChannel, offer.payee)
        if earlier:  # of an earlier version: what it holds pays for nothing any more
            tx.append(e.WALLET, e.ChannelClosing(channel=earlier.channel))
        salt = salt_of(secrets.token_bytes(32))
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
            scheme=SCHEME,
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
        if attempt.id not in channel.old:
            return self._promise(tx, channel, attempt, price)

        units_paid = min(channel.unexplained, max(0, price.units - channel.owed))
        if price.units > units_paid:
            unpaid = Money(price.units - units_paid, price.asset)
            channel = self._promise(tx, channel, attempt, unpaid)
        if units_paid:
            matched = e.VoucherMatched(
                channel=channel.channel,
                attempt=attempt.id,
                amount=Money(units_paid, price.asset),
            )
            tx.append(e.WALLET, matched)
        return channel

    def _promise(
        self, tx: Transaction, channel: r.Channel, attempt: Attempt, amount: Money
    ) -> r.Channel:
        """Sign a voucher over `amount` more and return the channel as it then stands.

        Vouchers are cumulative: each names the total so far, so the newest one replaces all
        before it.  It is written in the caller's transaction, before it can leave.
        """
        cumulative = channel.cumulative + amount.units
        if cumulative > channel.deposited:
            raise SettlementFailed(f"the channel with {channel.label} is exhausted")
        voucher = ChannelVoucher(bytes.fromhex(channel.channel), cumulative)
        signed = e.VoucherSigned(
            channel=channel.channel,
            attempt=attempt.id,
            cumulative=Money(cumulative, amount.asset),
            tasks=channel.tasks + 1,
            signature=self._signer.sign_channel_voucher(self._domain, voucher).hex(),
            leaf="",
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
        if channel.deposit:
            raise SettlementFailed(
                f"a deposit into the channel with {channel.label} is still under way",
                hint="close again in a quarter of an hour: by then it has arrived or expired",
            )
        if not channel.closing:
            tx.append(e.WALLET, e.ChannelClosing(channel=channel.channel))
        if self._earlier and not channel.scheme:
            return self._earlier.request_close(channel)
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
                tasks=len(newest.attempts),
                signature=newest.signature,
                root="",
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
    cumulative: int = Field(ge=0, le=MAX_UNITS)
    signature: Signature = Field(alias="voucher")
    delivered: int = Field(ge=0, le=MAX_UNITS)
    attempts: list[Digest] = Field(max_length=MAX_DELIVERIES)

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Read an answer; raises ProtocolBroken for anything else."""
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise ProtocolBroken("the payee's newest voucher cannot be read") from error

    def signer(self, domain: Domain) -> str:
        """Return the address that signed the voucher, "" for an unsigned one."""
        if not self.signature:
            return ""
        voucher = ChannelVoucher(bytes.fromhex(self.channel), self.cumulative)
        return recover(typed_digest(domain, voucher), bytes.fromhex(self.signature))


def _current(tx: Transaction, payee: str) -> r.Channel | None:
    """Return the open channel with a payee, None where there is none to buy over."""
    current = tx.get(r.CurrentChannel, payee)
    channel = tx.get(r.Channel, current.channel) if current else None
    return channel if channel and channel.scheme else None


def _balance_label(channel: r.Channel) -> str:
    """Return how people tell a channel, with when its rest can be taken if a close is requested."""
    if not channel.closes_at:
        return channel.label
    return f"{channel.label}, {waiting_until(channel.closes_at)}"
