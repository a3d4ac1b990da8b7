"""Prepaid credit: topped up on chain before, debited by the provider after each task.

A top-up is an EIP-3009 authorization whose nonce is a function of payee and number, so the token
itself refuses the same one twice, whatever a node of the chain said about the first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from agentkit.errors import InsufficientFunds, IntentMismatch, ProtocolBroken, SettlementFailed
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import Transfer, address_word, keccak, word
from agentkit.keys.signer import Signer
from agentkit.market.attempt import Attempt, Message, Payment, Result
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.market.offer import Offer, Pays
from agentkit.market.plan import Fee
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Transaction, Wanted
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.budget import Exposure
from agentkit.payments.channels.terms import token_balance
from agentkit.payments.gas import gas_fee
from agentkit.payments.sender import Sender
from agentkit.payments.x402.proof import USED, Due, has_moved, is_used

TRANSFER_GAS = 100_000
"""What a top-up costs at most, for the gas row of a plan."""

AUTHORIZATION_LASTS = 3600
"""Seconds within which a top-up has to reach the chain."""


class PrepaidRail:
    """Pays out of credit that a provider keeps for this wallet; see `market.seams.Rail`.

    A top-up counts once the provider has acknowledged the transfer that it saw on the chain.
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
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network, self._sender = network, sender
        self._exposure = exposure or Exposure()
        self._found: dict[str, tuple[str, int]] = {}
        sender.on_final["topup"] = self._check_transfer

    @property
    def name(self) -> str:
        return "prepaid"

    @property
    def pays(self) -> Pays:
        return "with_request"

    async def quote(self, offers: Sequence[Offer], amounts: Sequence[Money]) -> Sequence[Fee]:
        needs: dict[str, int] = {}
        for offer, amount in zip(offers, amounts, strict=True):
            needs[offer.payee] = needs.get(offer.payee, 0) + amount.units
        accounts = await self._journal.commit(lambda tx: tx.every(r.Account, "prepaid|"))
        free = {account.account: account.free for account in accounts}
        topups = sum(need > free.get(payee, 0) for payee, need in needs.items())
        if not topups:
            return []
        gas = topups * TRANSFER_GAS
        return [await gas_fee(self._chain, self._network, gas, "top up credit")]

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        await self._sender.recover()
        attempt = wanted.attempt

        def look(tx: Transaction) -> tuple[int, list[r.EvmTransaction]]:
            account = tx.get(r.Account, f"prepaid|{offer.payee}")
            hold = tx.get(r.Hold, attempt.run)
            most = min(need.units, hold.left.units - hold.reserved.units if hold else 0)
            free = account.free if account else 0
            missing, least = most - free, max(0, attempt.at_most.units - free)
            if missing > 0:
                missing = self._exposure.within(tx, offer.payee, missing, least)
            return missing, _unclaimed(tx, offer.payee)

        missing, unclaimed = await self._journal.commit(look)
        missing -= sum(_amount(row.intent) for row in unclaimed)
        claims = [row.transaction for row in unclaimed]
        if missing > 0:
            claims += await self._top_up(offer.payee, missing)
        return [self._claim(offer, transaction) for transaction in claims]

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        account = tx.get(r.Account, f"prepaid|{attempt.payee}")
        if account is None or account.free < 0:
            raise InsufficientFunds(f"the credit at {attempt.provider} is too small")
        return Payment(rail="prepaid")

    def settle(
        self, tx: Transaction, attempt: Attempt, result: Result
    ) -> tuple[Receipt, Sequence[Message]]:
        receipt = Receipt.of(attempt, result, at=tx.now)
        return receipt, []

    def release(self, tx: Transaction, attempt: Attempt, *, uncertain: bool) -> bool:
        return False  # the provider's own figures say what it debited

    async def balance(self) -> dict[str, Money]:
        accounts = await self._journal.commit(lambda tx: tx.every(r.Account, "prepaid|"))
        currency = self._network.currency
        return {
            f"credit with {account.account}": Money(max(0, account.free), currency)
            for account in accounts
        }

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        return []  # credit stays with the provider until it is used

    async def insist(self, message: Message) -> str:
        return ""

    async def finish(self, answer: Message) -> None:
        if answer.verb != "credited":
            return
        transaction = str(answer.body.get("transaction", ""))

        def work(tx: Transaction) -> None:
            known = {x.transaction: (_payee(x.intent), _amount(x.intent)) for x in _unclaimed(tx)}
            account, units = (known | self._found).get(transaction, ("", 0))
            if account and tx.get(r.Credited, transaction) is None:
                amount = Money(units, self._network.currency)
                tx.append(
                    e.WALLET,
                    e.CreditFunded(account=account, amount=amount, transaction=transaction),
                )

        await self._journal.commit(work)

    # -- inside ----------------------------------------------------------------------------------

    async def _top_up(self, payee: str, units: int) -> list[str]:
        """Transfer `units` to the provider and return the transactions to claim credit for.

        None: another process of this wallet is at it, and there is to be another look.
        """
        tried = await self._journal.commit(lambda tx: tx.every(r.EvmTransaction, f"topup:{payee}:"))
        if not all(row.final for row in tried):
            return []
        number = 1 + max((_number(row.intent) for row in tried if row.succeeded), default=-1)
        while await self._is_used(payee, number):
            if any(_number(row.intent) == number for row in tried):
                landed = await self._landed(payee, number)
                if not await self._is_credited(landed):
                    return [landed]
            number += 1  # what a wallet that lost its books once transferred is not ours to count
        return await self._transfer(payee, number, units, tried)

    async def _transfer(
        self, payee: str, number: int, units: int, tried: Sequence[r.EvmTransaction]
    ) -> list[str]:
        """Transfer by an authorization of a number that is free; as `_top_up`."""
        await self._check_balance(units)
        failed = sum(_number(row.intent) == number for row in tried)
        intent = f"topup:{payee}:{number}:{failed}:{units}"

        def still_next(tx: Transaction) -> None:
            if len(tx.every(r.EvmTransaction, f"topup:{payee}:")) != len(tried):
                raise IntentMismatch("another process of this wallet has topped up meanwhile")
            self._exposure.within(tx, payee, units, least=units)

        data = self._authorized(payee, number, units)
        try:
            await self._sender.send(intent, self._network.token, data, check=still_next)
        except IntentMismatch:
            return []
        except SettlementFailed:  # or somebody else has brought it first
            if not await self._is_used(payee, number):
                raise
            return [await self._landed(payee, number)]
        row = await self._journal.commit(lambda tx: tx.get(r.EvmTransaction, intent))
        return [row.transaction] if row else []

    def _authorized(self, payee: str, number: int, units: int) -> bytes:
        """Return the call that makes a top-up."""
        payer, until = self._signer.address, int(time.time()) + AUTHORIZATION_LASTS
        transfer = Transfer(payer, payee, units, until, self._nonce(payee, number))
        signature = self._signer.sign_transfer(self._network.token_domain, transfer)
        signed = abi.vrs(signature)
        return abi.encode(abi.MOVE, payer, payee, units, 0, until, transfer.nonce, *signed)

    def _nonce(self, payee: str, number: int) -> bytes:
        """Return the nonce of a top-up, in the form that tokens with keyed nonces take, too."""
        named = b"agentkit/topup" + address_word(payee) + word(number)
        return keccak(named)[:24] + bytes(8)

    async def _is_used(self, payee: str, number: int) -> bool:
        nonce = self._nonce(payee, number)
        return await is_used(self._chain, self._network, self._signer.address, nonce)

    async def _is_credited(self, transaction: str) -> bool:
        return await self._journal.commit(lambda tx: tx.get(r.Credited, transaction)) is not None

    async def _landed(self, payee: str, number: int) -> str:
        """Return the transaction that used an authorization of ours, and note what it moved."""
        nonce = self._nonce(payee, number)
        wanted: list[bytes | None] = [USED, address_word(self._signer.address), nonce]
        logs = await self._chain.logs(self._network.token, wanted, 0, await self._chain.head())
        receipt = await self._chain.receipt(logs[-1].transaction) if logs else None
        moved = (abi.TRANSFER, address_word(self._signer.address), address_word(payee))
        token = self._network.token.lower()
        known = [log for log in receipt.logs if log.address.lower() == token] if receipt else []
        units = [abi.numbers(log.data)[0] for log in known if log.topics == moved]
        if receipt is None or len(units) != 1:
            raise ProtocolBroken(f"the chain does not show top-up {number} of {payee}")
        self._found[receipt.transaction] = (payee, units[0])
        return receipt.transaction

    async def _check_balance(self, units: int) -> None:
        currency = self._network.currency
        held = await token_balance(self._chain, self._network, self._signer.address)
        if units > held:
            raise InsufficientFunds(
                f"a top-up of {Money(units, currency)} is needed,"
                f" and the wallet holds {Money(held, currency)}"
            )

    def _check_transfer(self, tx: Transaction, intent: str, receipt: ChainReceipt) -> None:
        """Refuse to book a transfer that moved nothing: a success is the token's own log."""
        payee, units = _payee(intent), _amount(intent)
        nonce = self._nonce(payee, _number(intent))
        if not has_moved(receipt, self._network, Due(self._signer.address, payee, units, nonce)):
            raise SettlementFailed(f"transaction {receipt.transaction} transferred nothing")

    def _claim(self, offer: Offer, transaction: str) -> Message:
        return Message(
            rail="prepaid",
            provider=offer.provider,
            provider_node=offer.provider_node,
            verb="topup",
            body={"transaction": transaction, "payer": self._signer.address},
        )


def _unclaimed(tx: Transaction, payee: str = "") -> list[r.EvmTransaction]:
    """Return final top-ups that the provider has not acknowledged."""
    credited = {row.transaction for row in tx.every(r.Credited)}
    rows = tx.every(r.EvmTransaction, f"topup:{payee}")
    return [x for x in rows if x.final and x.succeeded and x.transaction not in credited]


def _payee(intent: str) -> str:
    return intent.split(":")[1]


def _number(intent: str) -> int:
    return int(intent.split(":")[2])


def _amount(intent: str) -> int:
    return int(intent.rsplit(":", 1)[1])
