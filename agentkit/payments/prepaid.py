"""The rail of prepaid credit: topped up on chain before, debited by the provider after each task.

A top-up is an EIP-3009 authorization whose nonce is a function of payee and number.  So the token
itself refuses the same one twice, whatever a node of the chain said about the first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

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
from agentkit.payments.budget import Exposure, count_short_payees, shortfall
from agentkit.payments.gas import gas_fee
from agentkit.payments.sender import Sender
from agentkit.payments.x402.proof import USED, ExpectedTransfer, has_moved, is_used

TRANSFER_GAS = 100_000
"""What a top-up costs at most, for the gas row of a plan."""

AUTHORIZATION_LASTS = 3600
"""Seconds within which a top-up has to reach the chain."""


class PrepaidRail:
    """Pays out of credit that a provider keeps for this wallet; see `market.seams.Rail`.

    A top-up counts once the provider has acknowledged the transfer that it saw on the chain.  Its
    transaction has the intent `topup:PAYEE:NUMBER:FAILED_BEFORE:UNITS`.
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
    ) -> None:
        """Make the rail of one wallet; without `exposure` its credit has no limit."""
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network = network
        self._sender = sender
        self._exposure = exposure or Exposure()
        # Top-ups that were found on the chain: (payee, units) by transaction.
        self._found_on_chain: dict[str, tuple[str, int]] = {}
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

        Top-ups that arrived before and that the payee has not credited yet count first, so that a
        crash between sending and crediting never pays twice.  Returns the messages that claim
        credit for all of them.
        """
        await self._sender.recover()

        def look(tx: Transaction) -> tuple[int, list[r.EvmTransaction]]:
            """Return how many units our credit lacks, and the top-ups that are not credited."""
            missing = shortfall(
                tx,
                self._exposure,
                rail=self.name,
                payee=offer.payee,
                need=need,
                attempt=wanted.attempt,
            )
            return missing, _uncredited(tx, offer.payee)

        missing, uncredited = await self._journal.commit(look)
        missing -= sum(_units(row.intent) for row in uncredited)
        transactions = [row.transaction for row in uncredited]
        # Uncredited top-ups are claimed even if no new one is needed.
        if missing > 0:
            transactions += await self._top_up(offer.payee, missing)
        return [self._credit_request(offer, transaction) for transaction in transactions]

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        """Return the payment, which is empty: the payee knows our credit.

        Raises InsufficientFunds when the credit has to be topped up first.
        """
        account = tx.get(r.Account, f"prepaid|{attempt.payee}")
        if account is None or account.free < 0:
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
        """Return what is left of our credit with each payee."""
        accounts = await self._journal.commit(lambda tx: tx.every(r.Account, "prepaid|"))
        currency = self._network.currency
        return {
            f"credit with {account.account}": Money(max(0, account.free), currency)
            for account in accounts
        }

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        """Return no message: credit stays with the provider until it is used."""
        return []

    async def insist(self, message: Message) -> str:
        """Return "": no contract holds the credit, so nothing can be done without the provider."""
        return ""

    async def finish(self, answer: Message) -> None:
        """Book a top-up that a payee has credited, once; the amount is the one that we sent."""
        if answer.verb != "credited":
            return
        transaction = str(answer.body.get("transaction", ""))

        def book(tx: Transaction) -> None:
            # The payee names the transaction; payee and amount are taken from our own books.
            sent = {row.transaction: _payee_and_units(row.intent) for row in _uncredited(tx)}
            payee, units = (sent | self._found_on_chain).get(transaction, ("", 0))
            if payee and tx.get(r.Credited, transaction) is None:
                amount = Money(units, self._network.currency)
                funded = e.CreditFunded(account=payee, amount=amount, transaction=transaction)
                tx.append(e.WALLET, funded)

        await self._journal.commit(book)

    # -- inside ----------------------------------------------------------------------------------

    async def _top_up(self, payee: str, units: int) -> list[str]:
        """Transfer `units` to a payee and return the transactions to claim credit for.

        Returns none while another process of this wallet tops up; the caller looks again then.
        """
        prefix = f"topup:{payee}:"
        earlier = await self._journal.commit(lambda tx: tx.every(r.EvmTransaction, prefix))
        if not all(row.final for row in earlier):
            return []

        number = 1 + max((_number(row.intent) for row in earlier if row.succeeded), default=-1)
        while await self._is_used(payee, number):
            # One that failed in our books was brought to the chain by somebody else.
            if any(_number(row.intent) == number for row in earlier):
                landed = await self._find_landed(payee, number)
                if not await self._is_credited(landed):
                    return [landed]
            # Others are of a wallet that lost its books: what it transferred is not counted here.
            number += 1
        return await self._transfer(payee, number=number, units=units, earlier=earlier)

    async def _transfer(
        self, payee: str, *, number: int, units: int, earlier: Sequence[r.EvmTransaction]
    ) -> list[str]:
        """Make top-up `number`, which is unused; returns as `_top_up`."""
        await check_balance(
            self._chain, self._network, self._signer.address, units, purpose="a top-up"
        )
        failed = sum(_number(row.intent) == number for row in earlier)
        intent = f"topup:{payee}:{number}:{failed}:{units}"

        # In the transaction that signs, so that two processes cannot top up for the same need.
        def check_still_next(tx: Transaction) -> None:
            if len(tx.every(r.EvmTransaction, f"topup:{payee}:")) != len(earlier):
                raise IntentMismatch("another process of this wallet has topped up meanwhile")
            self._exposure.within(tx, payee, units, least=units)

        data = self._transfer_call(payee, number=number, units=units)
        try:
            await self._sender.send(intent, self._network.token, data, check=check_still_next)
        except IntentMismatch:
            return []
        except SettlementFailed:
            # Anybody may bring our signed transfer to the chain; then our own call reverts.
            if not await self._is_used(payee, number):
                raise
            return [await self._find_landed(payee, number)]
        row = await self._journal.commit(lambda tx: tx.get(r.EvmTransaction, intent))
        return [row.transaction] if row else []

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

    async def _is_credited(self, transaction: str) -> bool:
        return await self._journal.commit(lambda tx: tx.get(r.Credited, transaction)) is not None

    async def _find_landed(self, payee: str, number: int) -> str:
        """Return the transaction that used a top-up's authorization, and note what it moved.

        Raises ProtocolBroken when the chain does not show exactly one transfer to the payee.
        """
        own_word = address_word(self._signer.address)
        topics: list[bytes | None] = [USED, own_word, self._nonce(payee, number)]
        head = await self._chain.head()
        uses = await self._chain.logs(self._network.token, topics, first=0, last=head)
        receipt = await self._chain.receipt(uses[-1].transaction) if uses else None

        token = self._network.token.lower()
        transfer_topics = (abi.TRANSFER, own_word, address_word(payee))
        moved = [
            abi.numbers(log.data)[0]
            for log in (receipt.logs if receipt else ())
            if log.address.lower() == token and log.topics == transfer_topics
        ]
        if receipt is None or len(moved) != 1:
            raise ProtocolBroken(f"the chain does not show top-up {number} of {payee}")
        self._found_on_chain[receipt.transaction] = (payee, moved[0])
        return receipt.transaction

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

    def _credit_request(self, offer: Offer, transaction: str) -> Message:
        """Return the message that asks a payee to credit a top-up."""
        return Message(
            rail=self.name,
            provider=offer.provider,
            provider_node=offer.provider_node,
            verb="topup",
            body={"transaction": transaction, "payer": self._signer.address},
        )


def _uncredited(tx: Transaction, payee: str = "") -> list[r.EvmTransaction]:
    """Return the top-ups that arrived and that the provider has not acknowledged."""
    credited = {row.transaction for row in tx.every(r.Credited)}
    return [
        row
        for row in tx.every(r.EvmTransaction, f"topup:{payee}")
        if row.final and row.succeeded and row.transaction not in credited
    ]


# The parts of an intent `topup:PAYEE:NUMBER:FAILED_BEFORE:UNITS`.


def _payee_and_units(intent: str) -> tuple[str, int]:
    return intent.split(":")[1], _units(intent)


def _number(intent: str) -> int:
    return int(intent.split(":")[2])


def _units(intent: str) -> int:
    return int(intent.rsplit(":", 1)[1])
