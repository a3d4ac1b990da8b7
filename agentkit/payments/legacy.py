"""Closes channels that earlier versions opened in the contract `AgentChannels`; it opens none.

The contract is `contracts/AgentChannels.vy`.  This file is kept as long as state files with such
channels are opened.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from agentkit.errors import InsufficientFunds, ProtocolBroken, Refused, SettlementFailed
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys import messages as m
from agentkit.keys.messages import Release, Voucher, keccak
from agentkit.keys.signer import Signer
from agentkit.market import tree
from agentkit.market.attempt import Message
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.channels.body import ChannelBody
from agentkit.payments.channels.close import found_claim
from agentkit.payments.channels.terms import waiting_until
from agentkit.payments.claims import log_failure
from agentkit.payments.logged_claim import LoggedClaim
from agentkit.payments.sender import Sender

CLOSED = 2**40 - 1
"""The contract's `closingAt` of a closed channel: a time that never comes."""

CONFIG = "(address,address,address,address,uint40,bytes32)"
VOUCHER = "(uint128,uint64,bytes32),uint8,bytes32,bytes32"
BODY_FIELDS = ("payer", "token", "close_delay", "salt", "cumulative", "tasks", "root", "voucher")


def config_of(row: r.Channel | r.BookedChannel, payee: str) -> tuple[bytes, ...]:
    """Return a channel's terms as the contract's struct `Config`, one word for each field."""
    payer, receiver, token = map(m.address_word, (row.payer, payee, row.token))
    return (payer, payer, receiver, token, m.word(row.close_delay), bytes.fromhex(row.salt))


async def deposit_of(chain: ChainClient, network: Network, channel: str) -> tuple[int, int]:
    """Return (deposited, claimed) of a channel on the chain, in units."""
    data = abi.encode("channels(bytes32)", bytes.fromhex(channel))
    deposited, claimed = abi.exactly(2, await chain.call(network.channels, data))
    return deposited, claimed


async def closing_at(chain: ChainClient, network: Network, channel: str) -> int:
    """Return from when on anybody may finish a close, in unix seconds, 0 or `CLOSED`."""
    data = abi.encode("closingAt(bytes32)", bytes.fromhex(channel))
    return abi.number(await chain.call(network.channels, data))


def logged(receipt: ChainReceipt, network: Network, topic: bytes, channel: str) -> list[bytes]:
    """Return the data of the contract's logs of one event about one channel, in their order."""
    return [
        log.data
        for log in receipt.logs
        if log.address.lower() == network.channels.lower()
        and log.topics[:1] == (topic,)
        and [t.hex() for t in log.topics[1:2]] == [channel]
    ]


class LegacyChannels:
    """The payer's side: asks for the end of its channels, or closes them alone."""

    def __init__(
        self, journal: Journal, chain: ChainClient, signer: Signer, network: Network, sender: Sender
    ) -> None:
        """Take the sender's final `requestClose` transactions into the books from here on."""
        self._journal, self._chain, self._sender = journal, chain, sender
        self._signer, self._network = signer, network
        sender.on_final["requestClose"] = self._book_close_request

    def request_close(self, channel: r.Channel) -> Message:
        """Return the message that asks a channel's payee to close it, as earlier versions did."""
        zero = Voucher(bytes.fromhex(channel.channel), cumulative=0, tasks=0)
        proof = self._signer.sign_voucher(self._network.channels_domain, zero).hex()
        terms = {name: getattr(channel, name) for name in BODY_FIELDS}
        body = {"channel": channel.channel, **terms, "proof": proof}
        where = {"provider": channel.provider, "provider_node": channel.provider_node}
        return Message(rail="channel", verb="close", body=body, **where)

    async def close_without_provider(self, channel: r.Channel) -> str:
        """Call `requestClose`, after the contract's delay `finishClose`; return the outcome."""
        closes_at = await closing_at(self._chain, self._network, channel.channel)
        if closes_at != CLOSED and closes_at > time.time():
            return waiting_until(closes_at)
        if closes_at != CLOSED:
            function = "finishClose" if closes_at else "requestClose"
            data = abi.encode(f"{function}({CONFIG})", *config_of(channel, channel.payee))
            await self._sender.send(f"{function}:{channel.channel}", self._network.channels, data)
        if closes_at == 0:
            return waiting_until(await closing_at(self._chain, self._network, channel.channel))

        # The provider may have closed it first, so the chain says which transaction did.
        topics: list[bytes | None] = [abi.CLOSED, bytes.fromhex(channel.channel)]
        head = await self._chain.head()
        logs = await self._chain.logs(self._network.channels, topics, first=0, last=head)
        await self.book_close(channel, logs[-1].transaction if logs else "")
        return "closed"

    async def book_close(self, channel: r.Channel, transaction: str) -> None:
        """Book the end of a channel as a transaction's own logs show it; raises ProtocolBroken."""
        receipt = await self._chain.receipt(transaction) if transaction else None
        shown = receipt if receipt and receipt.succeeded else None
        closes = logged(shown, self._network, abi.CLOSED, channel.channel) if shown else []
        if not shown or not closes:
            raise ProtocolBroken(
                f"the chain does not show that channel {channel.channel[:12]} was closed"
            )
        claims = logged(shown, self._network, abi.CLAIMED, channel.channel)
        _, total = await deposit_of(self._chain, self._network, channel.channel)
        claimed = Money(total, self._network.currency)
        refunded = Money(abi.number(closes[-1]), self._network.currency)
        last = LoggedClaim.of(claims[-1]) if claims else LoggedClaim(0, 0, 0, tree.EMPTY)

        def book(tx: Transaction) -> None:
            stored = tx.get(r.Channel, channel.channel)
            if stored is None or not stored.open:
                return
            if claimed.units > stored.cumulative:
                found = found_claim(stored, claimed, tasks=last.tasks, root=last.root.hex())
                tx.append(e.WALLET, found)
            closed = e.ChannelClosed(channel=channel.channel, claimed=claimed, refunded=refunded)
            tx.append(e.WALLET, closed)

        await self._journal.commit(book)

    def _book_close_request(self, tx: Transaction, intent: str, receipt: ChainReceipt) -> None:
        channel = intent.split(":")[1]
        logs = logged(receipt, self._network, abi.CLOSE_REQUESTED, channel)
        if not logs:
            raise SettlementFailed(f"transaction {receipt.transaction} requested no close")
        requested = e.ChannelCloseRequested(channel=channel, closes_at=abi.number(logs[0]))
        tx.append(e.WALLET, requested)


class LegacyBook:
    """The payee's side: claims what it was promised, with gas of its own."""

    def __init__(
        self, journal: Journal, chain: ChainClient, signer: Signer, network: Network
    ) -> None:
        """Claim for the address of `signer`, out of what `journal` has of its channels."""
        self._journal, self._chain = journal, chain
        self._signer, self._network = signer, network
        self._sender = Sender(journal, chain, signer, network)

    def knows(self, body: Mapping[str, Any]) -> bool:
        """Return whether a message is about a channel of the old contract in our currency.

        The contract moves any token, and one of a stranger's own would do what it likes with the
        gas of who closes.
        """
        try:
            row = _row_of(body)
        except Refused:
            return False
        if not self._network.channels or row.token.lower() != self._network.token.lower():
            return False
        place = m.word(self._network.chain_id) + m.address_word(self._network.channels)
        terms = b"".join(config_of(row, self._signer.address))
        return keccak(place + terms).hex() == row.channel  # as the contract's `channelId`

    async def close(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Claim the newest voucher and return the rest to the payer, once; raises Refused."""
        sent = _row_of(body)
        nothing = sent.model_copy(update={"cumulative": 0, "tasks": 0, "root": ""})
        if not self._is_signed(nothing.model_copy(update={"signature": str(body.get("proof"))})):
            raise Refused("only the channel's payer may ask for this")
        stored = await self._journal.commit(lambda tx: tx.get(r.BookedChannel, sent.channel))
        signed = [row for row in (stored, sent) if row and row.cumulative and self._is_signed(row)]
        best = max(signed, key=lambda row: row.cumulative, default=nothing)
        call = await self._closing_call(best)
        try:
            done = await self._sender.send(f"close:{best.channel}", self._network.channels, call)
        except InsufficientFunds as error:
            raise Refused(
                f"this node cannot claim: its own wallet {self._signer.address} is short of gas"
            ) from error
        if stored and not stored.settled:
            claimed = Money(best.cumulative, self._network.currency)
            settled = e.ChannelSettled(channel=best.channel, claimed=claimed)
            await self._journal.commit(lambda tx: tx.append(e.NODE, settled))
        return {"channel": best.channel, "transaction": done.transaction}

    async def watch(self) -> None:
        """Claim on channels whose payers have asked the contract to close them."""
        if not self._network.channels:
            return
        for booked in await self._journal.commit(lambda tx: tx.every(r.BookedChannel)):
            if not booked.scheme and not booked.settled and booked.signature:
                await log_failure(self._claim_if_closing(booked), f"channel {booked.channel[:12]}")

    def _is_signed(self, row: r.BookedChannel) -> bool:
        try:
            channel, root = bytes.fromhex(row.channel), bytes.fromhex(row.root) or tree.EMPTY
            voucher = Voucher(channel, row.cumulative, row.tasks, root)
            digest = m.typed_digest(self._network.channels_domain, voucher)
            return m.recover(digest, bytes.fromhex(row.signature)).lower() == row.payer.lower()
        except (ValueError, OverflowError):
            return False

    async def _claim_if_closing(self, booked: r.BookedChannel) -> None:
        if not await closing_at(self._chain, self._network, booked.channel):
            return
        _, claimed = await deposit_of(self._chain, self._network, booked.channel)
        if claimed < booked.cumulative:
            intent = f"claim:{booked.channel}:{booked.cumulative}"
            await self._sender.send(intent, self._network.channels, self._call("claim", booked))

    async def _closing_call(self, booked: r.BookedChannel) -> bytes:
        """Return the call that claims and closes; without a voucher, a signed release."""
        if booked.cumulative:
            return self._call("claimAndClose", booked)
        _, claimed = await deposit_of(self._chain, self._network, booked.channel)
        release = Release(bytes.fromhex(booked.channel), claimed)
        signature = abi.vrs(self._signer.sign_release(self._network.channels_domain, release))
        terms = config_of(booked, self._signer.address)
        function = f"closeWithRelease({CONFIG},uint128,uint8,bytes32,bytes32)"
        return abi.encode(function, *terms, claimed, *signature)

    def _call(self, function: str, booked: r.BookedChannel) -> bytes:
        """Return the call of `claim` or `claimAndClose` with the newest voucher."""
        terms = config_of(booked, self._signer.address)
        voucher = (booked.cumulative, booked.tasks, bytes.fromhex(booked.root))
        signature = abi.vrs(bytes.fromhex(booked.signature))
        return abi.encode(f"{function}({CONFIG},{VOUCHER})", *terms, *voucher, *signature)


def _row_of(body: Mapping[str, Any]) -> r.BookedChannel:
    """Return the channel of a message with the voucher that came along; raises Refused."""
    try:
        sent = ChannelBody.model_validate(body)
    except ValidationError:
        raise Refused("this is not a message about a channel") from None
    fields = sent.model_dump(exclude={"voucher", "order", "proof"})
    return r.BookedChannel(**fields, signature=sent.voucher)
