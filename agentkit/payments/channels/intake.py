"""Takes the vouchers that payers send: checks each, and stores the best one of every channel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from agentkit.errors import ProtocolBroken, Refused
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.channel_messages import ChannelVoucher
from agentkit.market.batch_settlement import SCHEME
from agentkit.market.chain import Network
from agentkit.market.seams import Transaction
from agentkit.money import Asset, Money
from agentkit.payments.channels.body import check_voucher, read_body
from agentkit.payments.channels.mirror import ChannelMirror
from agentkit.payments.channels.terms import ChannelTerms


@dataclass(frozen=True, slots=True)
class _SentVoucher:
    """A voucher as it was sent, with its channel's terms; an unsigned one promises nothing."""

    terms: ChannelTerms
    voucher: ChannelVoucher
    signature: str
    tasks: int

    @classmethod
    def of(
        cls, terms: ChannelTerms, voucher: ChannelVoucher, body: Mapping[str, Any]
    ) -> _SentVoucher:
        """Return the voucher of a body that was read; unsigned, its amount counts as zero."""
        signature = str(body["voucher"])
        if not signature:
            voucher = ChannelVoucher(voucher.channel, 0)
        return cls(terms, voucher, signature, int(body.get("tasks", 0)))

    @property
    def channel(self) -> str:
        return self.voucher.channel.hex()

    @property
    def cumulative(self) -> int:
        return self.voucher.ceiling

    def event(self, deposited: int, currency: Asset) -> e.VoucherTaken:
        """Return the event that stores this voucher on a channel that holds `deposited` units."""
        return e.VoucherTaken(
            channel=self.channel,
            payer=self.terms.payer,
            token=self.terms.token,
            close_delay=self.terms.close_delay,
            salt=self.terms.salt,
            deposited=Money(deposited, currency),
            cumulative=Money(self.cumulative, currency),
            tasks=self.tasks,
            root="",
            signature=self.signature,
            scheme=SCHEME,
        )


@dataclass(slots=True)
class _Batch:
    """Vouchers of one channel that wait to be stored: the best of them, and the task that will."""

    best: _SentVoucher
    task: asyncio.Task[r.BookedChannel | None]


class PayerIndex:
    """Which channels each payer has with this node; read from the journal once, then kept up."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._channels: dict[str, set[str]] = {}  # by payer, in lower case
        self._is_loaded = False

    async def load(self) -> None:
        """Read the channels that are stored already, the first time that this is called."""
        if not self._is_loaded:
            for row in await self._journal.commit(lambda tx: tx.every(r.BookedChannel)):
                self.add(row.payer, row.channel)
            self._is_loaded = True

    def add(self, payer: str, channel: str) -> None:
        """Note that a payer has a channel."""
        self._channels.setdefault(payer.lower(), set()).add(channel)

    def channels(self, payer: str) -> set[str]:
        """Return the ids of a payer's channels."""
        return self._channels.get(payer.lower(), set())


class VoucherIntake:
    """Stores the best voucher of every channel of one provider node, `payee`."""

    def __init__(
        self,
        journal: Journal,
        mirror: ChannelMirror,
        network: Network,
        payee: str,
        payers: PayerIndex,
    ) -> None:
        """Take vouchers into `journal`, and note new channels in `payers`."""
        self._journal = journal
        self._mirror = mirror
        self._network = network
        self._payee = payee
        self._payers = payers
        self._batches: dict[str, _Batch] = {}  # by channel
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def take(self, body: Mapping[str, Any]) -> r.BookedChannel:
        """Store a voucher if it is better than the stored one; raises Refused for a bad one.

        Vouchers are cumulative: a higher one covers all below it.  So while one is being written,
        only the best of those that wait is checked and written next, which saves commits.
        """
        terms, voucher = read_body(body, self._payee, self._network)
        sent = _SentVoucher.of(terms, voucher, body)

        # Shielded, because the task serves all who wait and not only this caller.
        booked = await asyncio.shield(self._join_batch(sent))
        if booked and booked.cumulative >= sent.cumulative:
            return booked
        # The best one was bad, or was not this channel's best: this one is judged by itself.
        return await self._take_one(sent)

    # -- inside ----------------------------------------------------------------------------------

    def _join_batch(self, sent: _SentVoucher) -> asyncio.Task[r.BookedChannel | None]:
        """Add a voucher to those that wait on its channel; returns the task that stores the best.

        The task's result is None when the best one was refused.
        """
        batch = self._batches.get(sent.channel)
        if batch is None:
            task = asyncio.create_task(self._take_best_of_batch(sent.channel))
            batch = _Batch(best=sent, task=task)
            self._batches[sent.channel] = batch
        elif sent.cumulative > batch.best.cumulative:
            batch.best = sent
        return batch.task

    async def _take_best_of_batch(self, channel: str) -> r.BookedChannel | None:
        """Store the best voucher that waits on a channel, once the one before it is stored."""
        async with self._locks.setdefault(channel, asyncio.Lock()):
            # From here on a new batch gathers, which waits for the lock.
            batch = self._batches.pop(channel)
            try:
                return await self._take_one(batch.best)
            except Refused:
                return None  # each one of the batch is then judged by itself, and hears why

    async def _take_one(self, sent: _SentVoucher) -> r.BookedChannel:
        """Check one voucher and store it, in one commit where its channel is stored already."""
        if sent.signature:
            check_voucher(sent.voucher, sent.signature, sent.terms.payer, self._network)
        # Only a channel's first voucher needs the chain; later ones are checked in the journal.
        booked = await self._journal.commit(lambda tx: self._store(tx, sent))
        if booked is None:
            booked = await self._take_first(sent)
        if booked is None:
            raise ProtocolBroken("the voucher was not written")
        return booked

    async def _take_first(self, sent: _SentVoucher) -> r.BookedChannel | None:
        """Look a new channel up on the chain, and store its first voucher.

        Raises Refused when nothing was deposited on it.
        """
        sold = await self._mirror.known(sent.voucher.channel, sent.terms.wire)
        if sold is None or not sold.balance:
            raise Refused("the channel holds nothing")
        booked = await self._journal.commit(lambda tx: self._store(tx, sent, sold.spendable))
        self._payers.add(sent.terms.payer, sent.channel)
        if sold.withdrawing:
            await self._journal.commit(lambda tx: note_closing(tx, sent.channel))
        return booked

    def _store(
        self, tx: Transaction, sent: _SentVoucher, deposited: int | None = None
    ) -> r.BookedChannel | None:
        """Store a checked voucher unless a better one is stored; returns what is stored then.

        `deposited` is what a new channel holds, in units; without it, None is returned for a new
        channel.  Raises Refused for a closed channel, and for a voucher above the deposit.
        """
        stored = tx.get(r.BookedChannel, sent.channel)
        if stored:
            if stored.settled:
                raise Refused(f"channel {stored.channel[:12]} is closed")
            if sent.cumulative <= stored.cumulative:
                return stored
            sold = tx.get(r.SoldChannel, sent.channel)
            # What its payer asks back can be claimed until it is gone; a refund is on its way.
            deposited = sold.balance - sold.refunding if sold else stored.deposited
        if deposited is None:
            return None
        if sent.cumulative > deposited:
            raise Refused("the voucher is above the channel's deposit")
        tx.append(e.NODE, sent.event(deposited, self._network.currency))
        return tx.get(r.BookedChannel, sent.channel)


def note_closing(tx: Transaction, channel: str) -> None:
    """Write down, once, that a channel's payer has asked the contract to close it."""
    stored = tx.get(r.BookedChannel, channel)
    if stored and not stored.closing:
        tx.append(e.NODE, e.CloseSeen(channel=channel))
