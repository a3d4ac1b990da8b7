"""The provider's half: the newest voucher of every payer, and what was delivered for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from pydantic import ValidationError

from agentkit.errors import (
    InsufficientFunds,
    PaymentError,
    ProtocolBroken,
    ProviderError,
    RateLimited,
    Refused,
)
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import Release, Voucher, recover, typed_digest
from agentkit.keys.signer import Signer
from agentkit.market import tree
from agentkit.market.chain import ChainClient, Network
from agentkit.market.seams import Transaction
from agentkit.money import Asset, Money
from agentkit.payments import abi
from agentkit.payments.channels.body import ChannelBody
from agentkit.payments.channels.terms import (
    CONFIG,
    Terms,
    closing_at,
    deposit_of,
)
from agentkit.payments.sender import Sender

CLAIM = f"claim({CONFIG},(uint128,uint64,bytes32),uint8,bytes32,bytes32)"
CLAIM_AND_CLOSE = f"claimAndClose({CONFIG},(uint128,uint64,bytes32),uint8,bytes32,bytes32)"
RELEASE = f"closeWithRelease({CONFIG},uint128,uint8,bytes32,bytes32)"


MAX_LOOKUPS = 8
"""Channels that are looked up on the chain at once: anybody can name new ones, at no cost."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Promise:
    """A voucher as it came, with the channel it is for; unsigned, it promises nothing."""

    terms: Terms
    voucher: Voucher
    signature: str

    @classmethod
    def of(cls, terms: Terms, voucher: Voucher, signature: str) -> _Promise:
        nothing = Voucher(voucher.channel, 0, voucher.tasks)
        return cls(terms, voucher if signature else nothing, signature)

    @property
    def channel(self) -> str:
        return self.voucher.channel.hex()

    @property
    def cumulative(self) -> int:
        return self.voucher.cumulative

    def taken(self, deposited: int, currency: Asset) -> e.VoucherTaken:
        return e.VoucherTaken(
            channel=self.channel,
            payer=self.terms.payer,
            token=self.terms.token,
            close_delay=self.terms.close_delay,
            salt=self.terms.salt,
            deposited=Money(deposited, currency),
            cumulative=Money(self.cumulative, currency),
            tasks=self.voucher.tasks,
            root=self.voucher.receipts_root.hex(),
            signature=self.signature,
        )


@dataclass(slots=True)
class _Gathering:
    """The best of the vouchers that wait for their turn on one channel."""

    best: _Promise
    taking: asyncio.Task[r.BookedChannel | None]


class VoucherBook:
    """What a provider node knows of the channels it is paid on.

    `window` is how much it delivers on a channel before it wants to see the next voucher.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        window: Money,
    ) -> None:
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network, self._window = network, window
        self._domain = network.channels_domain
        self._sender = Sender(journal, chain, signer, network)
        self._gathering: dict[str, _Gathering] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._channels_of: dict[str, set[str]] = {}  # by payer, in lower case
        self._knows_payers = False
        self._lookups: dict[str, asyncio.Task[tuple[int, bool]]] = {}

    async def admit(self, body: dict[str, Any], at_most: Money) -> str:
        """Check that a task of `at_most` would be paid, and return its channel's id.

        Takes the newest voucher on the way.  A channel's terms are on the chain for everybody to
        read, so the payer proves that it is the payer who asks.  Raises Refused with the reason,
        and RateLimited while what was delivered and is under way is enough for one payer.
        """
        terms, voucher = self._read(body)
        channel = voucher.channel.hex()
        self._check_payer(terms, voucher, body)
        await self.take(body)
        booked = await self._booked(channel)
        if booked.closing:
            raise Refused(f"channel {channel[:12]} is closing")
        await self._know_payers()
        await self._journal.commit(lambda tx: self.check_window(tx, booked.payer))
        needed = booked.delivered + booked.working + at_most.units
        if needed > booked.deposited:
            booked = await self._refresh(terms, booked)
        if needed > booked.deposited:
            raise Refused(f"the channel holds {booked.deposited} units and {needed} are needed")
        return channel

    def check_window(self, tx: Transaction, payer: str) -> None:
        """Raise RateLimited while a payer's debts are above the window.

        They are what was delivered and is not paid, and what the work under way can come to, on
        all of its channels.  The task that is asked for is not counted, so that one that is dearer
        than the window can be bought as well, alone.
        """
        channels = self._channels_of.get(payer.lower(), ())
        booked = [row for channel in channels if (row := tx.get(r.BookedChannel, channel))]
        owed = sum(max(0, row.delivered - row.cumulative) + row.working for row in booked)
        if owed > self._window.units:
            raise RateLimited(
                "earlier deliveries are not paid yet, and more is under way than this node"
                " delivers ahead of payment",
                retry_after=1.0,
            )

    async def take(self, body: dict[str, Any]) -> r.BookedChannel:
        """Store a voucher if it is better than what we have; raises Refused for a bad one.

        Of vouchers that wait while another one is written only the best is looked at: it covers
        the rest, unless it turns out to be no good.
        """
        promise = _Promise.of(*self._read(body), str(body["voucher"]))
        booked = await asyncio.shield(self._gathered(promise))
        if booked and booked.cumulative >= promise.cumulative:
            return booked
        return await self._take(promise)

    async def books(self) -> list[r.BookedChannel]:
        """Return every channel this node was ever paid on."""
        return await self._journal.commit(lambda tx: tx.every(r.BookedChannel))

    async def best(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the newest voucher of a channel and what was delivered on it, to its payer.

        For a payer that lost its books; on a channel never heard of here nothing was.  Raises
        Refused.
        """
        terms, voucher = self._read(body)
        self._check_payer(terms, voucher, body)
        channel = voucher.channel.hex()
        booked = await self._booked_or_none(channel)
        booked = booked or r.BookedChannel(channel=channel, payer=terms.payer)
        jobs = await self._journal.commit(lambda tx: tx.every(r.Job))
        return {
            "channel": channel,
            "cumulative": booked.cumulative,
            "tasks": booked.tasks,
            "root": booked.root,
            "voucher": booked.signature,
            "delivered": booked.delivered,
            "attempts": [j.attempt for j in jobs if j.channel == channel and j.state == "done"],
        }

    async def close(self, body: dict[str, Any]) -> dict[str, Any]:
        """Claim what is promised and let the rest go back, on chain, once; for the payer alone."""
        terms, voucher = self._read(body)
        self._check_payer(terms, voucher, body)
        booked = await self._booked_or_none(voucher.channel.hex())
        if booked is None or not booked.settled:
            booked = await self.take(body)
        data = await self._closing(booked)
        try:
            receipt = await self._sender.send(
                f"close:{booked.channel}", self._network.channels, data
            )
        except InsufficientFunds as error:
            raise Refused(
                f"this node cannot claim: its own wallet {self._signer.address} is short of gas"
            ) from error
        settled = e.ChannelSettled(
            channel=booked.channel, claimed=Money(booked.cumulative, self._network.currency)
        )
        await self._journal.commit(lambda tx: _settle(tx, settled))
        return {"channel": booked.channel, "transaction": receipt.transaction}

    async def watch(self) -> None:
        """Claim what is promised on channels whose payers have asked the contract for the rest."""
        for booked in await self.books():
            if not booked.settled:
                await going_on(self._look_after(booked), f"channel {booked.channel[:12]}")

    # -- inside ----------------------------------------------------------------------------------

    async def _look_after(self, booked: r.BookedChannel) -> None:
        if await closing_at(self._chain, self._network, booked.channel):
            await self._journal.commit(partial(_see_close, channel=booked.channel))
            await self._claim(booked)

    async def _claim(self, booked: r.BookedChannel) -> None:
        """Have the newest promise paid, if it was not yet."""
        _, claimed = await deposit_of(self._chain, self._network, booked.channel)
        if claimed >= booked.cumulative or not booked.signature:
            return
        signature = bytes.fromhex(booked.signature)
        promise = (booked.cumulative, booked.tasks, bytes.fromhex(booked.root))
        words = Terms.of(booked, self._signer.address).words()
        data = abi.encode(CLAIM, *words, *promise, *abi.vrs(signature))
        intent = f"claim:{booked.channel}:{booked.cumulative}"
        await self._sender.send(intent, self._network.channels, data)

    async def _closing(self, booked: r.BookedChannel) -> bytes:
        """Return the call that claims what is promised, or gives back what never was."""
        terms = Terms.of(booked, self._signer.address).words()
        if booked.cumulative:
            signature = bytes.fromhex(booked.signature)
            promise = (booked.cumulative, booked.tasks, bytes.fromhex(booked.root))
            return abi.encode(CLAIM_AND_CLOSE, *terms, *promise, *abi.vrs(signature))
        _, claimed = await deposit_of(self._chain, self._network, booked.channel)
        release = Release(bytes.fromhex(booked.channel), claimed)
        signature = self._signer.sign_release(self._domain, release)
        return abi.encode(RELEASE, *terms, claimed, *abi.vrs(signature))

    def _read(self, body: dict[str, Any]) -> tuple[Terms, Voucher]:
        """Return a payment's channel and voucher; raises Refused unless the channel is ours."""
        try:
            sent = ChannelBody.model_validate(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise Refused(f"this is no channel payment: {where}: {first['msg']}") from None
        terms = Terms(sent.payer, self._signer.address, sent.token, sent.close_delay, sent.salt)
        channel = terms.id(self._network)
        if channel != sent.channel or terms.token.lower() != self._network.token.lower():
            raise Refused("the channel is not one with this provider node in its currency")
        root = bytes.fromhex(sent.root) or tree.EMPTY
        return terms, Voucher(bytes.fromhex(channel), sent.cumulative, sent.tasks, root)

    def _gathered(self, promise: _Promise) -> asyncio.Task[r.BookedChannel | None]:
        """Return the taking of the best voucher of those that gather on a channel now."""
        channel = promise.channel
        gathering = self._gathering.get(channel)
        if gathering is None:
            taking = asyncio.create_task(self._take_best(channel))
            gathering = self._gathering[channel] = _Gathering(promise, taking)
        elif promise.cumulative > gathering.best.cumulative:
            gathering.best = promise
        return gathering.taking

    async def _take_best(self, channel: str) -> r.BookedChannel | None:
        async with self._locks.setdefault(channel, asyncio.Lock()):
            best = self._gathering.pop(channel).best
            try:
                return await self._take(best)
            except Refused:
                return None  # each of those that gathered hears why by itself

    async def _take(self, promise: _Promise) -> r.BookedChannel:
        """Check one voucher and write it, in one commit where its channel is known."""
        if promise.signature:
            self._check(promise)
        booked = await self._journal.commit(lambda tx: self._store(tx, promise))
        if booked is None:
            booked = await self._take_first(promise)
        if booked is None:
            raise ProtocolBroken("the voucher was not written")
        return booked

    async def _take_first(self, promise: _Promise) -> r.BookedChannel | None:
        """Look a channel up on the chain that was never heard of, and write its first voucher."""
        deposited, closing = await self._looked_up(promise.channel)
        if not deposited:
            raise Refused("the channel holds nothing")
        booked = await self._journal.commit(lambda tx: self._store(tx, promise, deposited))
        self._note_payer(promise.terms.payer, promise.channel)
        if closing:
            await self._journal.commit(partial(_see_close, channel=promise.channel))
        return booked

    async def _looked_up(self, channel: str) -> tuple[int, bool]:
        """Return a channel's deposit and whether it is closing; who asks at once is answered once.

        Raises RateLimited while too many others are looked up.
        """
        lookup = self._lookups.get(channel)
        if lookup is None:
            if len(self._lookups) >= MAX_LOOKUPS:
                raise RateLimited("too many new channels are looked up at once", retry_after=1.0)
            lookup = self._lookups[channel] = asyncio.create_task(self._look_up(channel))
        return await asyncio.shield(lookup)

    async def _look_up(self, channel: str) -> tuple[int, bool]:
        try:
            deposited, _ = await deposit_of(self._chain, self._network, channel)
            closing = deposited and await closing_at(self._chain, self._network, channel)
            return deposited, bool(closing)
        finally:
            del self._lookups[channel]

    async def _know_payers(self) -> None:
        """Read once which channels are whose; what comes later is noted as it comes."""
        if not self._knows_payers:
            for row in await self.books():
                self._note_payer(row.payer, row.channel)
            self._knows_payers = True

    def _note_payer(self, payer: str, channel: str) -> None:
        self._channels_of.setdefault(payer.lower(), set()).add(channel)

    def _store(
        self, tx: Transaction, promise: _Promise, deposited: int | None = None
    ) -> r.BookedChannel | None:
        """Write a voucher that was checked unless a better one is written; None: never heard of.

        `deposited` is what a channel that was never heard of holds.  Raises Refused.
        """
        known = tx.get(r.BookedChannel, promise.channel)
        if known:
            if known.settled:
                raise Refused(f"channel {known.channel[:12]} is closed")
            if promise.cumulative <= known.cumulative:
                return known
            deposited = known.deposited
        if deposited is None:
            return None
        if promise.cumulative > deposited:
            raise Refused("the voucher is above the channel's deposit")
        tx.append(e.NODE, promise.taken(deposited, self._network.currency))
        return tx.get(r.BookedChannel, promise.channel)

    def _check(self, promise: _Promise) -> None:
        voucher = promise.voucher
        try:
            signer = recover(typed_digest(self._domain, voucher), bytes.fromhex(promise.signature))
        except (ValueError, OverflowError) as error:
            raise Refused("the voucher cannot be read") from error
        if signer.lower() != promise.terms.payer.lower():
            raise Refused("the voucher is not signed by the channel's payer")

    def _check_payer(self, terms: Terms, voucher: Voucher, body: dict[str, Any]) -> None:
        """Let nobody but its payer ask for a channel's voucher or its end.

        A signed voucher for nothing is worth nothing, and shows who asks.
        """
        nothing = Voucher(voucher.channel, 0, 0)
        try:
            signer = recover(
                typed_digest(self._domain, nothing), bytes.fromhex(str(body.get("proof")))
            )
        except (ValueError, OverflowError) as error:
            raise Refused("the proof that the payer asks cannot be read") from error
        if signer.lower() != terms.payer.lower():
            raise Refused("only the channel's payer may ask for this")

    async def _booked_or_none(self, channel: str) -> r.BookedChannel | None:
        return await self._journal.commit(lambda tx: tx.get(r.BookedChannel, channel))

    async def _booked(self, channel: str) -> r.BookedChannel:
        booked = await self._booked_or_none(channel)
        if booked is None:
            raise Refused(f"channel {channel[:12]} is not known here")
        return booked

    async def _refresh(self, terms: Terms, booked: r.BookedChannel) -> r.BookedChannel:
        """Read the deposit from the chain again; a channel that is closing counts as empty."""
        deposited, _ = await deposit_of(self._chain, self._network, booked.channel)
        if await closing_at(self._chain, self._network, booked.channel):
            raise Refused(f"channel {booked.channel[:12]} is closing")
        taken = e.VoucherTaken(
            channel=booked.channel,
            payer=terms.payer,
            token=terms.token,
            close_delay=terms.close_delay,
            salt=terms.salt,
            deposited=Money(deposited, self._network.currency),
            cumulative=Money(booked.cumulative, self._network.currency),
            tasks=booked.tasks,
            root=booked.root,
            signature=booked.signature,
        )
        return await self._journal.commit(lambda tx: _book(tx, taken))


async def going_on(claiming: Awaitable[object], whose: str) -> None:
    """Look after one payer's money; what is wrong with it keeps nothing from the others."""
    try:
        await claiming
    except (PaymentError, ProviderError) as error:
        log.warning("%s: %s", whose, error)


def _book(tx: Transaction, taken: e.VoucherTaken) -> r.BookedChannel:
    """Write a voucher unless a better one was written meanwhile."""
    known = tx.get(r.BookedChannel, taken.channel)
    if known and (known.cumulative, known.deposited) > (
        taken.cumulative.units,
        taken.deposited.units,
    ):
        return known
    tx.append(e.NODE, taken)
    row = tx.get(r.BookedChannel, taken.channel)
    if row is None:
        raise ProtocolBroken("the voucher was not written")
    return row


def _see_close(tx: Transaction, channel: str) -> None:
    known = tx.get(r.BookedChannel, channel)
    if known and not known.closing:
        tx.append(e.NODE, e.CloseSeen(channel=channel))


def _settle(tx: Transaction, settled: e.ChannelSettled) -> None:
    known = tx.get(r.BookedChannel, settled.channel)
    if known and not known.settled:
        tx.append(e.NODE, settled)
