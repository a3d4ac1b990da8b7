"""The rail of prepaid credit: topped up on chain before, debited by the provider after each task.

The provider is told once which address transfers come from, and has no other call for a top-up.
What it has credited can only be read from its balance, which it shows in whole cents:

    bound, balance read -- transfer signed -- on the chain: in transit -- balance risen: credit

A top-up is an EIP-3009 authorization whose nonce is a function of payee and number.  So the token
itself refuses the same one twice, whatever a node of the chain said about the first.  Its log is
the Transfer from this wallet's address by which the provider credits it (decision 47).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from agentkit.errors import InsufficientFunds, IntentMismatch, ProtocolBroken, SettlementFailed
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import TransferAuthorization, address_word, keccak, word
from agentkit.keys.signer import Signer
from agentkit.market.attempt import Attempt, Message, Payment, Result
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.market.offer import Offer, Pays
from agentkit.market.plan import Fee
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Transaction, Wanted
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.balance import check_balance
from agentkit.payments.budget import Budget, Exposure, count_short_payees, shortfall
from agentkit.payments.credit import (
    in_transit,
    is_shown,
    least_top_up,
    units_per_cent,
    whole_cents,
)
from agentkit.payments.gas import gas_fee
from agentkit.payments.sender import Sender
from agentkit.payments.x402.proof import USED, ExpectedTransfer, has_moved, is_used

TRANSFER_GAS = 100_000
"""What a top-up costs at most, for the gas row of a plan."""

AUTHORIZATION_LASTS = 3600
"""Seconds within which a top-up has to reach the chain."""

READING_LASTS = 60.0
"""Seconds for which a balance that was read counts as the one before a transfer."""

SHOWN_SECONDS = 40.0
"""Seconds that a provider is asked for, until its balance shows a transfer."""

LATE_SECONDS = 900.0
"""Seconds after which a transfer that is not shown is late, and the address is bound again."""


class PrepaidRail:
    """Pays out of credit that a provider keeps for this wallet; see `market.seams.Rail`.

    A top-up counts once the provider's balance shows it; until then it is in transit, and no other
    one is sent there.  Its transaction has the intent `topup:PAYEE:NUMBER:FAILED_BEFORE:UNITS`.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        sender: Sender,
        *,
        exposure: Exposure | None = None,
        budget: Budget | None = None,
    ) -> None:
        """Make the rail of one wallet; without `exposure` its credit has no limit.

        What a top-up is rounded up by, beyond the run's hold, has to fit in the limits of `budget`.
        """
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network = network
        self._sender = sender
        self._exposure = exposure or Exposure()
        self._budget = budget
        self._cent = units_per_cent(network.currency)
        sender.on_final["topup"] = self._check_transfer

    @property
    def name(self) -> str:
        return "prepaid"

    @property
    def pays(self) -> Pays:
        return "with_request"

    async def quote(self, offers: Sequence[Offer], amounts: Sequence[Money]) -> Sequence[Fee]:
        """Return the gas of the top-ups that paying `amounts` needs: one for each short payee."""
        top_ups = await self._journal.commit(
            lambda tx: count_short_payees(tx, self.name, offers, amounts)
        )
        if not top_ups:
            return []
        gas = top_ups * TRANSFER_GAS
        return [await gas_fee(self._chain, self._network, gas, "top up credit")]

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        """Top up our credit with a payee until `need` can be reserved.

        It takes two calls: the first has the address bound and the balance read, the second sends
        a transfer and has the balance read until it shows it.  While one is in transit, no other
        is sent, so that a crash in between never pays twice.
        """
        await self._sender.recover()

        def look(tx: Transaction) -> tuple[int, list[r.CreditTransfer], bool]:
            """Return what our credit lacks, what is on its way, and whether a top-up may leave."""
            on_the_way = in_transit(tx, offer.payee)
            missing = shortfall(
                tx,
                Exposure() if on_the_way else self._exposure,
                rail=self.name,
                payee=offer.payee,
                need=need,
                attempt=wanted.attempt,
            )
            return missing, on_the_way, self._is_prepared(tx, offer)

        missing, on_the_way, is_prepared = await self._journal.commit(look)
        if missing <= 0:
            return []
        if on_the_way:
            return await self._questions(offer, on_the_way[0])
        if not is_prepared:
            return await self._questions(offer)
        transfer = await self._top_up(offer.payee, missing, wanted.attempt)
        return await self._questions(offer, transfer) if transfer else []

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        """Return the payment, which is empty: the payee knows our credit.

        Raises InsufficientFunds when the credit has to be topped up first.
        """
        account = tx.get(r.Account, f"prepaid|{attempt.payee}")
        if account is None or account.free < 0:
            for transfer in in_transit(tx, attempt.payee):
                raise self._not_shown(attempt.provider, transfer)
            raise InsufficientFunds(f"the credit at {attempt.provider} is too small")
        return Payment(rail=self.name)

    def settle(
        self, tx: Transaction, attempt: Attempt, result: Result
    ) -> tuple[Receipt, Sequence[Message]]:
        """Return the receipt; the payee has debited the price itself."""
        receipt = Receipt.of(attempt, result, at=tx.now)
        return receipt, []

    def release(self, tx: Transaction, attempt: Attempt, *, uncertain: bool) -> bool:
        """Return False: what the payee debited is compared with its own figures in an audit."""
        return False

    async def balance(self) -> dict[str, Money]:
        """Return what is left of our credit with each payee, and what is in transit to it.

        What the provider showed above our credit was paid in otherwise, such as by card: the label
        says so, and it is not counted as money of this wallet.
        """

        def look(
            tx: Transaction,
        ) -> tuple[list[r.Account], list[r.CreditReading], list[tuple[str, Money]]]:
            moving = [
                (f"transit to {row.account} since {_moment(row.at)}", row.amount)
                for row in in_transit(tx)
            ]
            moving += [
                (f"transit to {payee} since an earlier version", Money(units, currency))
                for payee, units in map(_payee_and_units, _never_credited(tx))
            ]
            return tx.every(r.Account, "prepaid|"), tx.every(r.CreditReading), moving

        currency = self._network.currency
        accounts, readings, moving = await self._journal.commit(look)
        shown = {reading.account: reading for reading in readings}
        placed = {
            f"credit with {account.account}{self._paid_in_otherwise(account, shown)}": Money(
                max(0, account.free), currency
            )
            for account in accounts
        }
        for label, amount in moving:
            placed[label] = placed.get(label, currency.zero()) + amount
        return placed

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        """Return no message: credit stays with the provider until it is used."""
        return []

    async def insist(self, message: Message) -> str:
        """Return "": no contract holds the credit, so nothing can be done without the provider."""
        return ""

    async def finish(self, answer: Message) -> None:
        """Note what a provider answered; a transfer that its balance shows becomes credit, once."""
        if answer.verb == "bound":
            await self._journal.commit(lambda tx: self._note_binding(tx, answer))
        elif answer.verb == "balance":
            await self._journal.commit(lambda tx: self._note_balance(tx, answer))

    # -- what a provider is asked ----------------------------------------------------------------

    def _is_prepared(self, tx: Transaction, offer: Offer) -> bool:
        """Return whether the provider knows our address, and its balance was read just now."""
        reading = tx.get(r.CreditReading, offer.payee)
        is_fresh = reading is not None and tx.now - reading.at < READING_LASTS
        return is_fresh and self._is_bound(tx, offer)

    def _is_bound(self, tx: Transaction, offer: Offer) -> bool:
        binding = tx.get(r.PayerBinding, f"{offer.payee}|{offer.provider}")
        return binding is not None and binding.address == self._signer.address

    async def _questions(
        self, offer: Offer, transfer: r.CreditTransfer | None = None
    ) -> list[Message]:
        """Return the messages that bind our address, where needed, and read the balance.

        The balance is read until it has risen, if it is to show a `transfer`.
        """

        def look(tx: Transaction) -> tuple[bool, int]:
            account = tx.get(r.Account, f"prepaid|{offer.payee}")
            is_late = transfer is not None and tx.now - transfer.at > LATE_SECONDS
            # The provider may have forgotten an address: binding it again changes nothing else.
            return is_late or not self._is_bound(tx, offer), account.spent.units if account else 0

        needs_binding, spent = await self._journal.commit(look)
        body: dict[str, str | int | float] = {"account": offer.payee, "spent": spent}
        if transfer and transfer.before:
            body |= {"above": transfer.before.cents, "seconds": SHOWN_SECONDS}
        messages = [self._message(offer, "balance", body)]
        if needs_binding:
            who = {"account": offer.payee, "address": self._signer.address}
            messages.insert(0, self._message(offer, "bind", who))
        return messages

    def _message(self, offer: Offer, verb: str, body: Mapping[str, str | int | float]) -> Message:
        return Message(
            rail=self.name,
            provider=offer.provider,
            provider_node=offer.provider_node,
            verb=verb,
            body=dict(body),
        )

    def _note_binding(self, tx: Transaction, answer: Message) -> None:
        bound = e.PayerBound(
            account=str(answer.body.get("account", "")),
            provider=answer.provider,
            address=self._signer.address,
        )
        binding = tx.get(r.PayerBinding, f"{bound.account}|{bound.provider}")
        if binding is None or binding.address != bound.address:
            tx.append(e.WALLET, bound)

    def _note_balance(self, tx: Transaction, answer: Message) -> None:
        """Note a balance that was read, and book the transfers that it proves.

        Amounts are those of our own transfers: whatever a provider shows, no more is believed.
        """
        payee = str(answer.body["account"])
        cents = int(answer.body["cents"])
        for transfer in in_transit(tx, payee):
            if is_shown(transfer, tx.get(r.Account, f"prepaid|{payee}"), cents, self._cent):
                funded = e.CreditFunded(
                    account=payee, amount=transfer.amount, transaction=transfer.transaction
                )
                tx.append(e.WALLET, funded)
        read = e.CreditRead(account=payee, cents=cents, spent=int(answer.body["spent"]))
        tx.append(e.WALLET, read)

    def _not_shown(self, provider: str, transfer: r.CreditTransfer) -> InsufficientFunds:
        """Return the error that says since when a transfer is in transit, and what can be done."""
        return InsufficientFunds(
            f"{transfer.amount} is in transit to {provider} since {_moment(transfer.at)}, and the"
            " balance there does not show it yet",
            hint=f"wait some minutes; if it never arrives, compare {transfer.account} with the"
            f" deposit address in the console of {provider}, and show its support the transaction"
            f" {transfer.transaction or 'when it is mined'}",
        )

    def _paid_in_otherwise(self, account: r.Account, shown: Mapping[str, r.CreditReading]) -> str:
        """Return what to say about a balance that was above our credit, "" where it was not."""
        reading = shown.get(account.account)
        if reading is None:
            return ""
        left = account.funded.units - reading.spent
        if reading.cents * self._cent <= left:
            return ""
        above = Money(reading.cents * self._cent - left, self._network.currency)
        return f" (and {above} or so there that others paid in, seen {_moment(reading.at)})"

    # -- inside ----------------------------------------------------------------------------------

    async def _top_up(self, payee: str, units: int, attempt: Attempt) -> r.CreditTransfer | None:
        """Transfer `units` to a payee, rounded up to whole cents, and return the transfer.

        Returns None while another process of this wallet tops up; the caller looks again then.
        """
        prefix = f"topup:{payee}:"
        earlier = await self._journal.commit(lambda tx: tx.every(r.EvmTransaction, prefix))
        if not all(row.final for row in earlier):
            return None

        number = 1 + max((_number(row.intent) for row in earlier if row.succeeded), default=-1)
        while await self._is_used(payee, number):
            # One that failed in our books was brought to the chain by somebody else.
            if any(_number(row.intent) == number for row in earlier):
                landed = await self._landed(payee, number)
                if landed.standing == "in transit":
                    return landed
            # Others are of a wallet that lost its books: what it transferred is not counted here.
            number += 1
        return await self._transfer(
            payee, number=number, units=units, earlier=earlier, attempt=attempt
        )

    async def _rounded(self, payee: str, units: int, attempt: Attempt) -> int:
        """Return the units of a top-up in whole cents, which is all that the provider credits.

        Fewer than `units` only where the exposure leaves no room; raises OverBudget if that is too
        little for the attempt itself.
        """

        def look(tx: Transaction) -> int:
            account = tx.get(r.Account, f"prepaid|{payee}")
            free = account.free if account else 0
            smallest = least_top_up(account, self._cent)
            for_attempt = whole_cents(attempt.at_most.units - free, self._cent)
            wished = max(smallest, whole_cents(units, self._cent))
            room = self._exposure.within(tx, payee, wished, least=max(smallest, for_attempt))
            return room - room % self._cent

        return await self._journal.commit(look)

    def _check_rounding(self, tx: Transaction, payee: str, units: int, attempt: Attempt) -> None:
        """Raise OverBudget if the part of a top-up that no hold covers is above a limit."""
        account = tx.get(r.Account, f"prepaid|{payee}")
        hold = tx.get(r.Hold, attempt.run)
        free = account.free if account else 0
        covered = (hold.left.units - hold.reserved.units if hold else 0) - free
        if self._budget and units > covered:
            rounding = Money(units - max(0, covered), self._network.currency)
            self._budget.check_hold(tx, attempt.run, rounding, None)

    async def _transfer(
        self,
        payee: str,
        *,
        number: int,
        units: int,
        earlier: Sequence[r.EvmTransaction],
        attempt: Attempt,
    ) -> r.CreditTransfer | None:
        """Make top-up `number`, which is unused; returns as `_top_up`."""
        units = await self._rounded(payee, units, attempt)
        await check_balance(
            self._chain, self._network, self._signer.address, units, purpose="a top-up"
        )
        failed = sum(_number(row.intent) == number for row in earlier)
        intent = f"topup:{payee}:{number}:{failed}:{units}"
        amount = Money(units, self._network.currency)

        # In the transaction that signs, so that two processes cannot top up for the same need.
        def check_still_next(tx: Transaction) -> None:
            if len(tx.every(r.EvmTransaction, f"topup:{payee}:")) != len(earlier):
                raise IntentMismatch("another process of this wallet has topped up meanwhile")
            self._exposure.within(tx, payee, units, least=units)
            self._check_rounding(tx, payee, units, attempt)
            sent = e.CreditSent(account=payee, number=number, amount=amount, intent=intent)
            tx.append(e.WALLET, sent)

        data = self._transfer_call(payee, number=number, units=units)
        try:
            await self._sender.send(intent, self._network.token, data, check=check_still_next)
        except IntentMismatch:
            return None
        except SettlementFailed:
            # Anybody may bring our signed transfer to the chain; then our own call reverts.
            if not await self._is_used(payee, number):
                raise
            return await self._landed(payee, number)
        return await self._stored(payee, number)

    async def _stored(self, payee: str, number: int) -> r.CreditTransfer | None:
        key = f"{payee}|{number}"
        return await self._journal.commit(lambda tx: tx.get(r.CreditTransfer, key))

    def _transfer_call(self, payee: str, *, number: int, units: int) -> bytes:
        """Return the signed token call that transfers a top-up (EIP-3009)."""
        transfer = TransferAuthorization(
            payer=self._signer.address,
            payee=payee,
            units=units,
            valid_before=int(time.time()) + AUTHORIZATION_LASTS,
            nonce=self._nonce(payee, number),
        )
        signature = self._signer.sign_transfer(self._network.token_domain, transfer)
        valid_after = 0
        return abi.encode(
            abi.MOVE,
            transfer.payer,
            payee,
            units,
            valid_after,
            transfer.valid_before,
            transfer.nonce,
            *abi.vrs(signature),
        )

    def _nonce(self, payee: str, number: int) -> bytes:
        """Return the nonce of a top-up, in the form that tokens with keyed nonces take, too."""
        name = b"agentkit/topup" + address_word(payee) + word(number)
        return keccak(name)[:24] + bytes(8)

    async def _is_used(self, payee: str, number: int) -> bool:
        """Return whether the token has taken the authorization of a top-up."""
        nonce = self._nonce(payee, number)
        return await is_used(self._chain, self._network, self._signer.address, nonce)

    async def _landed(self, payee: str, number: int) -> r.CreditTransfer:
        """Note that a top-up which failed in our books has landed, and return it.

        Raises ProtocolBroken when the chain does not show exactly one transfer to the payee.
        """
        transaction, units = await self._find_landed(payee, number)

        def note(tx: Transaction) -> r.CreditTransfer:
            amount = Money(units, self._network.currency)
            row = tx.get(r.CreditTransfer, f"{payee}|{number}")
            if row is None:  # of an earlier version
                intent = f"topup:{payee}:{number}:0:{units}"
                sent = e.CreditSent(account=payee, number=number, amount=amount, intent=intent)
                tx.append(e.WALLET, sent)
            if row is None or row.standing in ("signed", "failed"):
                landed = e.CreditLanded(
                    account=payee, number=number, amount=amount, transaction=transaction
                )
                tx.append(e.WALLET, landed)
            row = tx.get(r.CreditTransfer, f"{payee}|{number}")
            assert row is not None
            return row

        return await self._journal.commit(note)

    async def _find_landed(self, payee: str, number: int) -> tuple[str, int]:
        """Return the transaction that used a top-up's authorization, and the units it moved."""
        own_word = address_word(self._signer.address)
        topics: list[bytes | None] = [USED, own_word, self._nonce(payee, number)]
        head = await self._chain.head()
        uses = await self._chain.logs(self._network.token, topics, first=0, last=head)
        receipt = await self._chain.receipt(uses[-1].transaction) if uses else None

        token = self._network.token.lower()
        transfer_topics = (abi.TRANSFER, own_word, address_word(payee))
        moved = [
            abi.number(log.data)
            for log in (receipt.logs if receipt else ())
            if log.address.lower() == token and log.topics == transfer_topics
        ]
        if receipt is None or len(moved) != 1:
            raise ProtocolBroken(f"the chain does not show top-up {number} of {payee}")
        return receipt.transaction, moved[0]

    def _check_transfer(self, tx: Transaction, intent: str, receipt: ChainReceipt) -> None:
        """Raise SettlementFailed for a top-up that moved nothing, so that it is not booked.

        A transaction can succeed without effect; only the token's own log shows the transfer.
        """
        payee, units = _payee_and_units(intent)
        transfer = ExpectedTransfer(
            payer=self._signer.address,
            payee=payee,
            units=units,
            nonce=self._nonce(payee, _number(intent)),
        )
        if not has_moved(receipt, self._network, transfer):
            raise SettlementFailed(f"transaction {receipt.transaction} transferred nothing")


def _moment(at: float) -> str:
    """Return a moment to the minute, as `2026-01-31 12:00 UTC`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _never_credited(tx: Transaction) -> list[str]:
    """Return the intents of top-ups that an earlier version sent, and that nobody acknowledged.

    No balance was read before them, so nothing can prove that they arrived.
    """
    credited = {row.transaction for row in tx.every(r.Credited)}
    known = {row.intent for row in tx.every(r.CreditTransfer)}
    return [
        row.intent
        for row in tx.every(r.EvmTransaction, "topup:")
        if row.succeeded and row.transaction not in credited and row.intent not in known
    ]


# The parts of an intent `topup:PAYEE:NUMBER:FAILED_BEFORE:UNITS`.


def _payee_and_units(intent: str) -> tuple[str, int]:
    return intent.split(":")[1], _units(intent)


def _number(intent: str) -> int:
    return int(intent.split(":")[2])


def _units(intent: str) -> int:
    return int(intent.rsplit(":", 1)[1])
