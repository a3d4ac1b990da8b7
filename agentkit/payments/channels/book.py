"""The provider's book: the newest voucher of every channel, and what was delivered for it."""

from __future__ import annotations

from typing import Any

from agentkit.errors import InsufficientFunds, ProtocolBroken, RateLimited, Refused
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import Release
from agentkit.keys.signer import Signer
from agentkit.market.chain import ChainClient, Network
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.channels.body import check_payer, read_body
from agentkit.payments.channels.intake import PayerIndex, VoucherIntake, note_closing
from agentkit.payments.channels.terms import CONFIG, ChannelTerms, closing_at, deposit_of
from agentkit.payments.claims import log_failure
from agentkit.payments.sender import Sender

CLAIM = f"claim({CONFIG},(uint128,uint64,bytes32),uint8,bytes32,bytes32)"
"""Pays the provider up to a voucher; the channel stays open."""

CLAIM_AND_CLOSE = f"claimAndClose({CONFIG},(uint128,uint64,bytes32),uint8,bytes32,bytes32)"
"""Pays the provider up to a voucher, and returns the rest to the payer."""

RELEASE = f"closeWithRelease({CONFIG},uint128,uint8,bytes32,bytes32)"
"""Returns the rest to the payer, where the provider has no voucher to claim."""


class VoucherBook:
    """What a provider node knows of the channels it is paid on.

    `window` is how much it delivers on a payer's channels before it wants to see the next voucher.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        window: Money,
    ) -> None:
        """Open the book of the node that `signer` signs for; it is stored in `journal`."""
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network = network
        self._window = window
        self._sender = Sender(journal, chain, signer, network)
        self._payers = PayerIndex(journal)
        self._intake = VoucherIntake(journal, chain, network, signer.address, self._payers)

    async def admit(self, body: dict[str, Any], at_most: Money) -> str:
        """Check that a task of `at_most` would be paid, and return its channel's id.

        The voucher that comes along is stored.  Raises Refused with the reason, and RateLimited
        while the payer owes too much for earlier tasks.
        """
        terms = self._read_from_payer(body)
        channel = terms.id(self._network)
        # The voucher comes first: it may pay for what would otherwise exceed the window.
        await self.take(body)
        booked = await self._booked(channel)
        if booked.closing:
            raise Refused(f"channel {channel[:12]} is closing")

        await self._payers.load()
        await self._journal.commit(lambda tx: self.check_window(tx, booked.payer))

        needed = booked.delivered + booked.working + at_most.units
        if needed > booked.deposited:  # the payer may have topped the channel up since
            booked = await self._read_deposit(terms, booked)
        if needed > booked.deposited:
            raise Refused(f"the channel holds {booked.deposited} units and {needed} are needed")
        return channel

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
                unpaid = max(0, booked.delivered - booked.cumulative)
                owed += unpaid + booked.working
        if owed > self._window.units:
            raise RateLimited(
                "earlier deliveries are not paid yet, and more is under way than this node"
                " delivers ahead of payment",
                retry_after=1.0,
            )

    async def take(self, body: dict[str, Any]) -> r.BookedChannel:
        """Store a voucher if it is better than the stored one; raises Refused for a bad one."""
        return await self._intake.take(body)

    async def books(self) -> list[r.BookedChannel]:
        """Return every channel this node was ever paid on."""
        return await self._journal.commit(lambda tx: tx.every(r.BookedChannel))

    async def best(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the newest voucher of a channel and what was delivered on it, to its payer.

        A payer that lost its books asks for it.  On a channel that is new to this node, nothing
        was promised or delivered.  Raises Refused.
        """
        terms = self._read_from_payer(body)
        channel = terms.id(self._network)
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
            "attempts": [
                job.attempt for job in jobs if job.channel == channel and job.state == "done"
            ],
        }

    async def close(self, body: dict[str, Any]) -> dict[str, Any]:
        """Claim what is promised and return the rest to the payer, on chain, once.

        Only the payer may ask.  Asked again, it returns the same transaction.  Raises Refused.
        """
        terms = self._read_from_payer(body)
        booked = await self._booked_or_none(terms.id(self._network))
        if booked is None or not booked.settled:
            booked = await self.take(body)  # the payer may bring a newer voucher than we have

        data = await self._closing_call(booked)
        intent = f"close:{booked.channel}"
        try:
            receipt = await self._sender.send(intent, self._network.channels, data)
        except InsufficientFunds as error:
            raise Refused(
                f"this node cannot claim: its own wallet {self._signer.address} is short of gas"
            ) from error

        claimed = Money(booked.cumulative, self._network.currency)
        settled = e.ChannelSettled(channel=booked.channel, claimed=claimed)
        await self._journal.commit(lambda tx: _settle(tx, settled))
        return {"channel": booked.channel, "transaction": receipt.transaction}

    async def watch(self) -> None:
        """Claim on channels whose payers have asked the contract to close, before it is too late.

        A payer may take back what is not claimed once the close delay has passed.
        """
        for booked in await self.books():
            if not booked.settled:
                claim = self._claim_if_closing(booked)
                await log_failure(claim, f"channel {booked.channel[:12]}")

    # -- inside ----------------------------------------------------------------------------------

    def _read_from_payer(self, body: dict[str, Any]) -> ChannelTerms:
        """Return the channel that a message is about; raises Refused if not its payer sent it."""
        terms, _ = read_body(body, self._signer.address, self._network)
        check_payer(body, terms, self._network)
        return terms

    async def _claim_if_closing(self, booked: r.BookedChannel) -> None:
        """Claim the newest voucher of a channel whose payer has asked the contract to close it."""
        if await closing_at(self._chain, self._network, booked.channel):
            await self._journal.commit(lambda tx: note_closing(tx, booked.channel))
            await self._claim(booked)

    async def _claim(self, booked: r.BookedChannel) -> None:
        """Have the contract pay the newest voucher, unless it has paid as much already."""
        _, claimed = await deposit_of(self._chain, self._network, booked.channel)
        if claimed >= booked.cumulative or not booked.signature:
            return
        terms = ChannelTerms.of(booked, self._signer.address)
        data = terms.call(CLAIM, *_signed_voucher(booked))
        intent = f"claim:{booked.channel}:{booked.cumulative}"
        await self._sender.send(intent, self._network.channels, data)

    async def _closing_call(self, booked: r.BookedChannel) -> bytes:
        """Return the contract call that claims the newest voucher and closes.

        Without a voucher the provider signs a release instead: it claims no more than it has.
        """
        terms = ChannelTerms.of(booked, self._signer.address)
        if booked.cumulative:
            return terms.call(CLAIM_AND_CLOSE, *_signed_voucher(booked))
        _, claimed = await deposit_of(self._chain, self._network, booked.channel)
        release = Release(bytes.fromhex(booked.channel), claimed)
        signature = self._signer.sign_release(self._network.channels_domain, release)
        return terms.call(RELEASE, claimed, *abi.vrs(signature))

    async def _booked_or_none(self, channel: str) -> r.BookedChannel | None:
        return await self._journal.commit(lambda tx: tx.get(r.BookedChannel, channel))

    async def _booked(self, channel: str) -> r.BookedChannel:
        """Return a stored channel; raises Refused for one that is not stored."""
        booked = await self._booked_or_none(channel)
        if booked is None:
            raise Refused(f"channel {channel[:12]} is not known here")
        return booked

    async def _read_deposit(self, terms: ChannelTerms, booked: r.BookedChannel) -> r.BookedChannel:
        """Store a channel's deposit as the chain has it now, and return the channel.

        Raises Refused when the channel is closing: its payer may take the deposit back.
        """
        deposited, _ = await deposit_of(self._chain, self._network, booked.channel)
        if await closing_at(self._chain, self._network, booked.channel):
            raise Refused(f"channel {booked.channel[:12]} is closing")
        currency = self._network.currency
        taken = e.VoucherTaken(
            channel=booked.channel,
            payer=terms.payer,
            token=terms.token,
            close_delay=terms.close_delay,
            salt=terms.salt,
            deposited=Money(deposited, currency),
            cumulative=Money(booked.cumulative, currency),
            tasks=booked.tasks,
            root=booked.root,
            signature=booked.signature,
        )
        return await self._journal.commit(lambda tx: _store_deposit(tx, taken))


def _signed_voucher(booked: r.BookedChannel) -> tuple[int | bytes, ...]:
    """Return the newest voucher and its signature as the contract takes them."""
    voucher = (booked.cumulative, booked.tasks, bytes.fromhex(booked.root))
    return (*voucher, *abi.vrs(bytes.fromhex(booked.signature)))


def _store_deposit(tx: Transaction, taken: e.VoucherTaken) -> r.BookedChannel:
    """Store a voucher with a new deposit, unless a better voucher was stored meanwhile."""
    stored = tx.get(r.BookedChannel, taken.channel)
    if stored:
        is_better = (stored.cumulative, stored.deposited) > (
            taken.cumulative.units,
            taken.deposited.units,
        )
        if is_better:
            return stored
    tx.append(e.NODE, taken)
    booked = tx.get(r.BookedChannel, taken.channel)
    if booked is None:
        raise ProtocolBroken("the voucher was not written")
    return booked


def _settle(tx: Transaction, settled: e.ChannelSettled) -> None:
    """Write down, once, that a channel was closed and claimed."""
    booked = tx.get(r.BookedChannel, settled.channel)
    if booked and not booked.settled:
        tx.append(e.NODE, settled)
