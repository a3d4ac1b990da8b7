"""The payer's half: one channel with each payee, paid on delivery by vouchers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from agentkit.errors import (
    InsufficientFunds,
    IntentMismatch,
    ProtocolBroken,
    SettlementFailed,
)
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import Authorization, Voucher, keccak, recover, typed_digest, word
from agentkit.keys.signer import Signer
from agentkit.market import tree
from agentkit.market.attempt import Attempt, Message, Payment, Result
from agentkit.market.chain import ChainClient, ChainReceipt, Log, Network
from agentkit.market.offer import Offer, Pays
from agentkit.market.plan import Fee
from agentkit.market.receipt import Receipt, delivery_of
from agentkit.market.seams import Transaction, Wanted
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.budget import Exposure, paid_before
from agentkit.payments.channels.terms import (
    CLOSE_DELAY,
    CLOSED,
    CONFIG,
    Terms,
    closing_at,
    deposit_of,
    token_balance,
)
from agentkit.payments.gas import gas_fee
from agentkit.payments.sender import Sender

AUTHORIZATION_LASTS = 3600
"""Seconds within which a top-up has to reach the chain."""

FUND_GAS = 130_000
"""What a top-up costs at most, for the gas row of a plan."""

FUND = f"fundWithAuthorization({CONFIG},uint128,uint256,uint8,bytes32,bytes32)"


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
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network, self._sender = network, sender
        self._exposure = exposure or Exposure()
        self._domain = network.channels_domain
        self._proofs: dict[str, str] = {}
        sender.on_final["fund"] = self._funded
        sender.on_final["requestClose"] = self._close_requested

    @property
    def name(self) -> str:
        return "channel"

    @property
    def pays(self) -> Pays:
        return "on_delivery"

    async def quote(self, offers: Sequence[Offer], amounts: Sequence[Money]) -> Sequence[Fee]:
        needs: dict[str, int] = {}
        for offer, amount in zip(offers, amounts, strict=True):
            needs[offer.payee] = needs.get(offer.payee, 0) + amount.units
        accounts = await self._journal.commit(lambda tx: tx.every(r.Account, "channel|"))
        free = {account.account: account.free for account in accounts}
        openings = sum(need > free.get(payee, 0) for payee, need in needs.items())
        if not openings:
            return []
        gas = openings * FUND_GAS
        return [await gas_fee(self._chain, self._network, gas, "top up channels")]

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        await self._sender.recover()
        attempt = wanted.attempt
        channel = await self._journal.commit(
            lambda tx: _current(tx, offer.payee) or self._choose(tx, offer)
        )
        if channel.doubtful:
            await self._read_deposit(channel)
            return [self._about(channel, "best")]

        def look(tx: Transaction) -> tuple[r.Channel | None, int]:
            account = tx.get(r.Account, f"channel|{offer.payee}")
            hold = tx.get(r.Hold, attempt.run)
            most = min(need.units, hold.left.units - hold.reserved.units if hold else 0)
            free = account.free if account else 0
            missing, least = most - free, max(0, attempt.at_most.units - free)
            if missing > 0:
                missing = self._exposure.within(tx, offer.payee, missing, least)
            return _current(tx, offer.payee), missing

        current, missing = await self._journal.commit(look)
        if current and missing > 0:
            await self._top_up(current, missing)
        return []

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        channel = _current(tx, attempt.payee)
        account = tx.get(r.Account, f"channel|{attempt.payee}")
        if channel is None or account is None or account.free < 0 or channel.doubtful:
            raise InsufficientFunds(f"the channel with {attempt.payee} holds too little")
        return Payment(rail="channel", body={**_body(channel), "proof": self._proof(channel)})

    def settle(
        self, tx: Transaction, attempt: Attempt, result: Result
    ) -> tuple[Receipt, Sequence[Message]]:
        channel = _current(tx, attempt.payee)
        if channel is None:
            raise SettlementFailed(f"there is no open channel with {attempt.payee}")
        if channel.doubtful:
            raise InsufficientFunds(f"what {channel.label} was promised is not known any more")
        if result.price and paid_before(tx, attempt.id) is None:
            channel = self._pay(tx, channel, attempt, result)
        receipt = Receipt.of(attempt, result, at=tx.now)
        return receipt, [_message(attempt, "voucher", _body(channel))]

    def release(self, tx: Transaction, attempt: Attempt, *, uncertain: bool) -> bool:
        return False  # nothing was signed for it

    async def balance(self) -> dict[str, Money]:
        def look(tx: Transaction) -> dict[str, Money]:
            currency = self._network.currency
            rows = [row for row in tx.every(r.Channel) if row.open]
            return {_place(c): Money(c.deposited - c.cumulative, currency) for c in rows}

        return await self._journal.commit(look)

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        for channel in await self._journal.commit(lambda tx: tx.every(r.Channel)):
            if channel.open and channel.doubtful:
                await self._read_deposit(channel)

        def work(tx: Transaction) -> list[Message]:
            rows = [row for row in tx.every(r.Channel) if row.open and tx.now - row.used >= idle]
            return [self._close(tx, row) for row in rows]

        return await self._journal.commit(work)

    async def insist(self, message: Message) -> str:
        """Ask the contract for the rest, and take it once the payee's time to claim is over."""
        channel = str(message.body["channel"])
        row = await self._journal.commit(lambda tx: tx.get(r.Channel, channel))
        if row is None or not row.open:
            return ""
        closes_at = await closing_at(self._chain, self._network, channel)
        if closes_at == CLOSED:
            await self._take_closed({"channel": channel, "transaction": await self._end_of(row)})
            return "closed"
        verb = "finishClose" if 0 < closes_at <= time.time() else "requestClose"
        if closes_at and verb == "requestClose":
            return _free_at(closes_at)
        data = abi.encode(f"{verb}({CONFIG})", *Terms.of(row, row.payee).words())
        await self._sender.send(f"{verb}:{channel}", self._network.channels, data)
        if verb == "finishClose":
            await self._take_closed({"channel": channel, "transaction": await self._end_of(row)})
            return "closed"
        return _free_at(await closing_at(self._chain, self._network, channel))

    async def finish(self, answer: Message) -> None:
        if answer.verb == "best":
            await self._take_best(answer)
        if answer.verb == "closed":
            await self._take_closed(answer.body)

    # -- inside ----------------------------------------------------------------------------------

    async def _take_closed(self, body: dict[str, Any]) -> None:
        """Book the end of a channel as the chain tells it."""
        channel, transaction = str(body.get("channel", "")), str(body.get("transaction", ""))
        end = await self._closed_on_chain(channel, transaction)
        currency = self._network.currency
        claimed, refunded = Money(end.claimed, currency), Money(end.refunded, currency)
        closed = e.ChannelClosed(channel=channel, claimed=claimed, refunded=refunded)

        def work(tx: Transaction) -> None:
            row = tx.get(r.Channel, channel)
            if row is None or not row.open:
                return
            if end.claimed > row.cumulative:  # the contract has checked our signature for it
                found = e.VoucherFound(
                    channel=channel,
                    cumulative=claimed,
                    tasks=end.tasks,
                    signature="",
                    root=end.root.hex(),
                    delivered=claimed,
                )
                tx.append(e.WALLET, found)
            tx.append(e.WALLET, closed)

        await self._journal.commit(work)

    def _choose(self, tx: Transaction, offer: Offer) -> r.Channel:
        """Write down the terms of a new channel.

        Its salt is random: a wallet that lost its books must not meet a channel it once closed.
        """
        salt = secrets.token_hex(32)
        terms = Terms(self._signer.address, offer.payee, self._network.token, CLOSE_DELAY, salt)
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

    async def _top_up(self, channel: r.Channel, units: int) -> None:
        """Deposit `units` more; the authorization's nonce lets each top-up land once."""
        if await self._is_older_than_chain(channel):
            return
        await self._check_balance(units)
        before = word(channel.deposited)
        authorization = Authorization(
            payer=self._signer.address,
            payee=self._network.channels,
            units=units,
            valid_before=int(time.time()) + AUTHORIZATION_LASTS,
            nonce=keccak(bytes.fromhex(channel.channel) + before),
        )
        signature = self._signer.sign_authorization(self._network.token_domain, authorization)
        data = abi.encode(
            FUND,
            *Terms.of(channel, channel.payee).words(),
            units,
            authorization.valid_before,
            *abi.vrs(signature),
        )
        prefix = f"fund:{channel.channel}:{channel.deposited}:"
        tried = await self._journal.commit(lambda tx: tx.every(r.EvmTransaction, prefix))
        failed = sum(row.final and not row.succeeded for row in tried)
        with suppress(IntentMismatch):  # another process of this wallet is at it; look again
            await self._sender.send(
                f"{prefix}{failed}",
                self._network.channels,
                data,
                check=lambda tx: self._check_exposure(tx, channel.payee, units),
            )

    async def _is_older_than_chain(self, channel: r.Channel) -> bool:
        """Whether the contract has seen more than our books, which are an old copy then.

        Nothing is signed below what it has seen: the channel is doubtful until its payee has shown
        our newest promise, as after a restore.
        """
        deposited, claimed = await deposit_of(self._chain, self._network, channel.channel)

        def work(tx: Transaction) -> bool:
            known = _known(tx, channel)
            if not all(row.final for row in tx.every(r.EvmTransaction, f"fund:{channel.channel}:")):
                return False  # another process of this wallet is at it
            if deposited <= known.deposited and claimed <= known.cumulative:
                return False
            tx.append(e.WALLET, e.Restored(events=0))
            return True

        return await self._journal.commit(work)

    def _check_exposure(self, tx: Transaction, payee: str, units: int) -> None:
        self._exposure.within(tx, payee, units, least=units)

    async def _read_deposit(self, channel: r.Channel) -> None:
        """Book what the chain knows of a channel's deposit and a restored journal does not."""
        deposited, _ = await deposit_of(self._chain, self._network, channel.channel)
        currency = self._network.currency

        def work(tx: Transaction) -> None:
            known = tx.get(r.Channel, channel.channel)
            more = deposited - known.deposited if known else 0
            if more > 0:
                funded = e.ChannelFunded(
                    channel=channel.channel,
                    amount=Money(more, currency),
                    deposited=Money(deposited, currency),
                )
                tx.append(e.WALLET, funded)

        await self._journal.commit(work)

    async def _check_balance(self, units: int) -> None:
        currency = self._network.currency
        held = Money(
            await token_balance(self._chain, self._network, self._signer.address), currency
        )
        if Money(units, currency) > held:
            raise InsufficientFunds(
                f"a deposit of {Money(units, currency)} is needed, and the wallet holds {held}"
            )

    def _funded(self, tx: Transaction, intent: str, receipt: ChainReceipt) -> None:
        """Book a top-up as the contract logged it."""
        channel = intent.split(":")[1]
        for log in receipt.logs:
            if _is(log, self._network.channels, abi.FUNDED, channel):
                amount, deposited = abi.numbers(log.data)
                currency = self._network.currency
                tx.append(
                    e.WALLET,
                    e.ChannelFunded(
                        channel=channel,
                        amount=Money(amount, currency),
                        deposited=Money(deposited, currency),
                    ),
                )
                return
        raise SettlementFailed(f"transaction {receipt.transaction} funded no channel")

    def _pay(
        self, tx: Transaction, channel: r.Channel, attempt: Attempt, result: Result
    ) -> r.Channel:
        """Promise an attempt's price, unless a voucher that was found after a restore has done so.

        Which of the payee's old attempts that voucher paid cannot be told, and need not: beyond
        what it is still owed for them, they are paid.
        """
        price = result.price
        leaf = leaf_of(attempt, result)
        if attempt.id not in channel.old:
            return self._promise(tx, channel, attempt, price, leaf)
        paid = min(channel.unexplained, max(0, price.units - channel.owed))
        if price.units > paid:
            rest = Money(price.units - paid, price.asset)
            channel = self._promise(tx, channel, attempt, rest, leaf)
        if paid:
            amount = Money(paid, price.asset)
            matched = e.VoucherMatched(channel=channel.channel, attempt=attempt.id, amount=amount)
            tx.append(e.WALLET, matched)
        return channel

    def _promise(
        self, tx: Transaction, channel: r.Channel, attempt: Attempt, price: Money, leaf: bytes
    ) -> r.Channel:
        """Sign for one task more and write the voucher down."""
        cumulative, tasks = channel.cumulative + price.units, channel.tasks + 1
        if cumulative > channel.deposited:
            raise SettlementFailed(f"the channel with {channel.label} is exhausted")
        root = tree.root_of(tree.added(channel.peaks, channel.leaves, leaf))
        voucher = Voucher(bytes.fromhex(channel.channel), cumulative, tasks, root)
        signature = self._signer.sign_voucher(self._domain, voucher).hex()
        tx.append(
            e.WALLET,
            e.VoucherSigned(
                channel=channel.channel,
                attempt=attempt.id,
                cumulative=Money(cumulative, price.asset),
                tasks=tasks,
                signature=signature,
                leaf=leaf.hex(),
            ),
        )
        return _known(tx, channel)

    def _close(self, tx: Transaction, channel: r.Channel) -> Message:
        """Have nothing more bought on a channel, and return the message that ends it."""
        account = tx.get(r.Account, f"channel|{channel.payee}")
        if account and account.reserved and not channel.closing:
            raise SettlementFailed(
                f"the channel with {channel.label} still has open attempts",
                hint="resume or cancel the runs that `agentkit status` lists first",
            )
        if not channel.closing:
            tx.append(e.WALLET, e.ChannelClosing(channel=channel.channel))
        return self._about(channel, "close")

    def _about(self, channel: r.Channel, verb: str) -> Message:
        """Return a message about a whole channel."""
        return Message(
            rail="channel",
            provider=channel.provider,
            provider_node=channel.provider_node,
            verb=verb,
            body={**_body(channel), "proof": self._proof(channel)},
        )

    def _proof(self, channel: r.Channel) -> str:
        """Return what proves to a payee that its payer asks: our voucher for nothing."""
        if channel.channel not in self._proofs:
            nothing = Voucher(bytes.fromhex(channel.channel), 0, 0)
            self._proofs[channel.channel] = self._signer.sign_voucher(self._domain, nothing).hex()
        return self._proofs[channel.channel]

    async def _take_best(self, answer: Message) -> None:
        """Take our newest voucher from the payee: our own signature proves it.

        What a payee says of somebody else's channel is refused.
        """
        body, said_by = answer.body, (answer.provider, answer.provider_node)
        try:
            cumulative, tasks = int(body["cumulative"]), int(body["tasks"])
            delivered, attempts = max(0, int(body["delivered"])), map(str, body["attempts"])
            root = bytes.fromhex(str(body.get("root", ""))) or tree.EMPTY
            voucher = Voucher(bytes.fromhex(str(body["channel"])), cumulative, tasks, root)
            signature = bytes.fromhex(str(body["voucher"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolBroken("the payee's newest voucher cannot be read") from error
        signer = recover(typed_digest(self._domain, voucher), signature) if signature else ""
        if cumulative and signer != self._signer.address:
            raise ProtocolBroken("the payee's newest voucher is not signed by this wallet")
        currency = self._network.currency

        def work(tx: Transaction) -> None:
            row = tx.get(r.Channel, voucher.channel.hex())
            if row is None or (row.provider, row.provider_node) != said_by:
                raise ProtocolBroken("it speaks of a channel that is not its own")
            lacking = [x for x in attempts if paid_before(tx, x) is None]
            found = e.VoucherFound(
                channel=voucher.channel.hex(),
                cumulative=Money(cumulative, currency),
                tasks=tasks,
                signature=signature.hex(),
                root=root.hex(),
                delivered=Money(delivered, currency),
                attempts=tuple(lacking),
            )
            tx.append(e.WALLET, found)

        await self._journal.commit(work)

    def _close_requested(self, tx: Transaction, intent: str, receipt: ChainReceipt) -> None:
        """Book from when on a channel's rest can be taken, as the contract logged it."""
        channel = intent.split(":")[1]
        for log in receipt.logs:
            if _is(log, self._network.channels, abi.CLOSE_REQUESTED, channel):
                asked = e.ChannelCloseRequested(channel=channel, closes_at=abi.numbers(log.data)[0])
                tx.append(e.WALLET, asked)
                return
        raise SettlementFailed(f"transaction {receipt.transaction} asked for no close")

    async def _end_of(self, row: r.Channel) -> str:
        """Return the transaction that closed a channel, whoever sent it."""
        wanted: list[bytes | None] = [abi.CLOSED, bytes.fromhex(row.channel)]
        logs = await self._chain.logs(self._network.channels, wanted, 0, await self._chain.head())
        if not logs:
            raise ProtocolBroken(f"the chain does not show that channel {row.channel[:12]} ended")
        return logs[-1].transaction

    async def _closed_on_chain(self, channel: str, transaction: str) -> _End:
        """Return how a channel ended, from the contract's own logs."""
        receipt = await self._chain.receipt(transaction)
        logs = receipt.logs if receipt and receipt.succeeded else ()
        mine = [x for x in logs if x.address.lower() == self._network.channels.lower()]
        named = {x.topics[0]: x.data for x in mine if x.topics[1:2] == (bytes.fromhex(channel),)}
        if abi.CLOSED not in named:
            raise ProtocolBroken(f"the chain does not show that channel {channel[:12]} was closed")
        _, claimed = await deposit_of(self._chain, self._network, channel)
        tasks, root = 0, tree.EMPTY
        if abi.CLAIMED in named:
            last = named[abi.CLAIMED]
            tasks, root = abi.numbers(last)[2], last[96:128]
        return _End(claimed, abi.numbers(named[abi.CLOSED])[0], tasks, root)


@dataclass(frozen=True, slots=True)
class _End:
    """How a channel was closed: units claimed in all and refunded; the last claim's promise."""

    claimed: int
    refunded: int
    tasks: int
    root: bytes


def _current(tx: Transaction, payee: str) -> r.Channel | None:
    """Return the open channel with a payee."""
    current = tx.get(r.CurrentChannel, payee)
    return tx.get(r.Channel, current.channel) if current else None


def _known(tx: Transaction, channel: r.Channel) -> r.Channel:
    """Return a channel as the events of this transaction have left it."""
    return tx.get(r.Channel, channel.channel) or channel


def leaf_of(attempt: Attempt, result: Result) -> bytes:
    """Return what a paid delivery adds to its channel's tree: the provider's own statement."""
    said = delivery_of(attempt.id, result.digest, result.price, result.usage)
    return tree.leaf_of(said.struct_hash())


def _place(channel: r.Channel) -> str:
    """Return how people tell a channel, and when its rest can be taken if they asked for it."""
    return f"{channel.label}, {_free_at(channel.closes_at)}" if channel.closes_at else channel.label


def _free_at(closes_at: int) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(closes_at))
    return f"asked for on chain, comes back by `agentkit wallet close` from {when} on"


def _body(channel: r.Channel) -> dict[str, Any]:
    """Return what a provider needs to know of a channel, and the newest promise on it."""
    fields = ("payer", "token", "close_delay", "salt", "cumulative", "tasks", "root", "voucher")
    return {"channel": channel.channel, **{name: getattr(channel, name) for name in fields}}


def _message(attempt: Attempt, verb: str, body: dict[str, Any]) -> Message:
    return Message(
        rail="channel",
        provider=attempt.provider,
        provider_node=attempt.provider_node,
        verb=verb,
        body=body,
    )


def _is(log: Log, contract: str, topic: bytes, channel: str) -> bool:
    return log.address.lower() == contract.lower() and log.topics[:2] == (
        topic,
        bytes.fromhex(channel),
    )
