"""The provider's book: the newest voucher of every channel, and what was delivered for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from agentkit.errors import RateLimited, Refused
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.channel_messages import ClaimBatch, Order
from agentkit.keys.signer import Signer
from agentkit.market.batch_settlement import (
    ChannelPayment,
    ClaimPayload,
    DepositPayload,
    FacilitatorOrder,
)
from agentkit.market.chain import Network
from agentkit.market.seams import Transaction
from agentkit.market.x402 import VERSION, Requirement, Settled
from agentkit.money import Money
from agentkit.payments.channels.body import check_order, check_payer, read_body
from agentkit.payments.channels.intake import PayerIndex, VoucherIntake, note_closing
from agentkit.payments.channels.mirror import ChannelMirror
from agentkit.payments.channels.refunds import Refunds, claim_of, requirement_of
from agentkit.payments.channels.terms import ChannelTerms
from agentkit.payments.x402.remote import Facilitation

MAX_DEPOSITS = 8
"""Deposits that are drawn at once: each one keeps the facilitator busy."""


class VoucherBook:
    """What a provider node knows of the channels it is paid on, on delivery.

    `window` is how much it delivers on a payer's channels before it wants to see the next voucher.
    What was promised is claimed with all else that the node sells over channels
    (`channels.claiming`).
    """

    def __init__(
        self,
        journal: Journal,
        signer: Signer,
        network: Network,
        facilitator: Facilitation,
        *,
        window: Money,
        mirror: ChannelMirror,
    ) -> None:
        """Open the book of the node that `signer` signs for; it is stored in `journal`.

        `facilitator` puts deposits, claims and refunds on the chain; `mirror` is that of all who
        read the node's channels.
        """
        self._journal = journal
        self._signer = signer
        self._network = network
        self._window = window
        self._facilitator = facilitator
        self._refunds = Refunds(journal, network, facilitator, signer)
        self._mirror = mirror
        self._payers = PayerIndex(journal)
        payee = signer.address
        self._intake = VoucherIntake(journal, self._mirror, network, payee, self._payers)
        self._drawing: set[str] = set()  # channels

    async def admit(self, body: Mapping[str, Any], attempt: str, task: str, at_most: Money) -> str:
        """Check that an attempt at a task, by its digest, would be paid; returns its channel's id.

        The voucher that comes along is stored.  Raises Refused with the reason, and RateLimited
        while the payer owes too much for earlier tasks.
        """
        terms, voucher = read_body(body, self._signer.address, self._network)
        order = Order(
            channel=voucher.channel,
            attempt=bytes.fromhex(attempt),
            at_most=at_most.units,
            request=bytes.fromhex(task),
        )
        check_order(body, order, terms.payer, self._network)
        # The voucher comes first: it may pay for what would otherwise exceed the window.
        booked = await self.take(body)
        await self._payers.load()

        def check(tx: Transaction) -> None:
            check_open(tx, booked.channel)
            self.check_window(tx, booked.payer)

        await self._journal.commit(check)
        await self._look(terms, booked, at_most)
        await self._journal.commit(lambda tx: check_room(tx, booked.channel, at_most))
        return booked.channel

    def check_window(self, tx: Transaction, payer: str) -> None:
        """Raise RateLimited while a payer owes more than the window, on all of its channels.

        It owes what was delivered and is not paid, and what the work under way can come to.  The
        task that is asked for now does not count, so that one that costs more than the window can
        be bought as well, alone.
        """
        owed = 0
        for channel in self._payers.channels(payer):
            booked = tx.get(r.BookedChannel, channel)
            if booked:
                owed += booked.used - booked.cumulative
        if owed > self._window.units:
            raise RateLimited(
                "earlier deliveries are not paid yet, and more is under way than this node"
                " delivers ahead of payment",
                retry_after=1.0,
            )

    async def take(self, body: Mapping[str, Any]) -> r.BookedChannel:
        """Store a voucher if it is better than the stored one; raises Refused for a bad one."""
        return await self._intake.take(body)

    async def books(self) -> list[r.BookedChannel]:
        """Return every channel this node was ever paid on, on delivery."""
        return await self._journal.commit(lambda tx: tx.every(r.BookedChannel))

    async def best(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the newest voucher of a channel and what was delivered on it, to its payer.

        A payer that lost its books asks for it.  On a channel that is new to this node, nothing
        was promised or delivered.  Raises Refused.
        """
        terms = self._read_from_payer(body)
        channel = terms.id(self._network)
        booked = await self._booked_or_none(channel)
        booked = booked or r.BookedChannel(channel=channel, payer=terms.payer)
        # Anybody may ask about a channel of its own making, and to go through all jobs is work.
        attempts = await self._delivered_on(channel) if booked.delivered else []
        return {
            "channel": channel,
            "cumulative": booked.cumulative,
            "voucher": booked.signature,
            "delivered": booked.delivered,
            "attempts": attempts,
        }

    async def deposit(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Have a payer's deposit put on the chain, once; raises Refused.

        What the facilitator says proves nothing: payer and payee read the chain themselves.
        """
        terms = self._read_from_payer(body)
        payload = _deposit_in(body)
        if payload.channel_config.terms() != terms.config:
            raise Refused("the deposit is into another channel")
        channel = terms.id(self._network)
        if channel in self._drawing or len(self._drawing) >= MAX_DEPOSITS:
            raise RateLimited("as many deposits are drawn now as may be", retry_after=1.0)
        self._drawing.add(channel)
        try:
            required = self._required(terms)
            payment = ChannelPayment(x402_version=VERSION, accepted=required, payload=payload)
            settled = await self._facilitator.settle(payment, required)
            await self._mirror.read(bytes.fromhex(channel), terms.wire)
        finally:
            self._drawing.discard(channel)
        if not settled.success:
            raise Refused(f"the deposit was not drawn: {_reason_of(settled)}")
        return {"channel": channel}

    async def close(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Claim what is promised and return the rest to the payer, on chain, once.

        Only the payer may ask, and not while work is under way.  Asked again, it goes on with the
        same.  Raises Refused.
        """
        terms = self._read_from_payer(body)
        channel = terms.id(self._network)
        booked = await self._booked_or_none(channel)
        if booked is None or not booked.settled:
            await self.take(body)  # the payer may bring a newer voucher than we have
            booked = await self._journal.commit(lambda tx: _stop_selling(tx, channel))
            await self._give_back(terms, str(body.get("proof")), booked)
            claimed = Money(booked.cumulative, self._network.currency)
            settled = e.ChannelSettled(channel=channel, claimed=claimed)
            await self._journal.commit(lambda tx: _settle(tx, settled))
        return {"channel": channel}

    # -- inside ----------------------------------------------------------------------------------

    def _read_from_payer(self, body: Mapping[str, Any]) -> ChannelTerms:
        """Return the channel that a message is about; raises Refused if not its payer sent it."""
        terms, _ = read_body(body, self._signer.address, self._network)
        check_payer(body, terms, self._network)
        return terms

    async def _delivered_on(self, channel: str) -> list[str]:
        """Return the attempts that were delivered on a channel."""
        jobs = await self._journal.commit(lambda tx: tx.every(r.Job))
        return [job.attempt for job in jobs if job.channel == channel and job.state == "done"]

    def _required(self, terms: ChannelTerms) -> Requirement:
        return requirement_of(self._network, terms.payee, terms.payee, terms.close_delay)

    async def _give_back(self, terms: ChannelTerms, proof: str, booked: r.BookedChannel) -> None:
        """Have a channel claimed, and what is left in it returned; raises Refused.

        `proof` is the payer's signature under a voucher over nothing, for where nothing was bought.
        """
        channel = bytes.fromhex(booked.channel)
        sold = await self._mirror.read(channel, terms.wire)
        left = sold.balance - sold.charged
        signature = "0x" + (booked.signature if sold.charged else proof)
        if left > 0:
            settled = await self._refunds.give_back(sold, left, signature)
        elif sold.unclaimed:
            settled = await self._claim(terms, sold)
        else:
            return
        after = await self._mirror.read(channel, terms.wire)
        if after.balance > after.total_claimed:
            raise Refused(f"the channel is not closed yet: {_reason_of(settled)}")

    async def _claim(self, terms: ChannelTerms, sold: r.SoldChannel) -> Settled:
        """Claim all of a channel in which nothing is left for its payer."""
        claim = claim_of(sold)
        signature = self._signer.sign_claims(
            self._network.settlement_domain, ClaimBatch.of([claim.row])
        )
        payload = ClaimPayload(
            claims=[claim.wire()], claim_authorizer_signature="0x" + signature.hex()
        )
        required = self._required(terms)
        return await self._facilitator.settle(FacilitatorOrder.of(required, payload), required)

    async def _booked_or_none(self, channel: str) -> r.BookedChannel | None:
        return await self._journal.commit(lambda tx: tx.get(r.BookedChannel, channel))

    async def _look(self, terms: ChannelTerms, booked: r.BookedChannel, at_most: Money) -> None:
        """Look at a channel on the chain where the last look was long ago, or showed too little.

        Its payer may have taken money out, or put some in.
        """
        channel = bytes.fromhex(booked.channel)
        sold = await self._mirror.known(channel, terms.wire)
        if sold is None or booked.used + at_most.units > sold.spendable:
            await self._mirror.read(channel, terms.wire)


def check_open(tx: Transaction, channel: str) -> None:
    """Raise Refused for a channel that is closed, or whose payer takes its money back."""
    booked = tx.get(r.BookedChannel, channel)
    sold = tx.get(r.SoldChannel, channel)
    if booked and (booked.closing or booked.settled or (sold and sold.withdrawing)):
        raise Refused(f"channel {channel[:12]} is closing")


def check_room(tx: Transaction, channel: str, at_most: Money) -> None:
    """Raise Refused if a channel cannot pay for a task of `at_most` beside all that it must pay."""
    check_open(tx, channel)
    booked = tx.get(r.BookedChannel, channel)
    sold = tx.get(r.SoldChannel, channel)
    held = sold.spendable if sold else 0
    if booked and booked.used + at_most.units > held:
        needed = booked.used + at_most.units
        raise Refused(f"the channel holds {held} units and {needed} are needed")


def _deposit_in(body: Mapping[str, Any]) -> DepositPayload:
    """Return the deposit that a message brings; raises Refused."""
    try:
        return DepositPayload.model_validate(body.get("deposit"))
    except ValidationError:
        raise Refused("the deposit cannot be read") from None


def _reason_of(settled: Settled) -> str:
    return settled.error_reason or "the facilitator says nothing more"


def _stop_selling(tx: Transaction, channel: str) -> r.BookedChannel:
    """Mark a channel so that no work begins on it, and return it; raises Refused."""
    booked = tx.get(r.BookedChannel, channel)
    if booked is None:
        raise Refused(f"channel {channel[:12]} is not known here")
    if booked.working:
        raise Refused("work on this channel is under way; ask again when it has ended")
    note_closing(tx, channel)
    return booked


def _settle(tx: Transaction, settled: e.ChannelSettled) -> None:
    """Write down, once, that a channel was closed and claimed."""
    booked = tx.get(r.BookedChannel, settled.channel)
    if booked and not booked.settled:
        tx.append(e.NODE, settled)
