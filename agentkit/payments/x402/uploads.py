"""Pays for uploads by x402 out of the wallet, reserved and journalled like every purchase."""

from __future__ import annotations

from functools import partial

from agentkit.errors import OverBudget
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.market.attempt import Attempt
from agentkit.market.chain import Network
from agentkit.market.seams import Fate, Ledger, Transaction
from agentkit.market.uploads import UploadPayment
from agentkit.market.value import digest_of
from agentkit.market.x402 import Proof, Requirement
from agentkit.money import Money
from agentkit.payments.x402.rail import X402Rail

PROVIDER = "turbo"
"""The provider under whose name uploads count towards the allowance."""


class X402Uploads:
    """Pays each uploaded item as one purchase with a hold of its own.

    See `market.uploads.UploadPayer`.  `total` is what all uploads together may cost, None for no
    limit but the allowance's.
    """

    def __init__(
        self,
        journal: Journal,
        rail: X402Rail,
        ledger: Ledger,
        network: Network,
        total: Money | None = None,
    ) -> None:
        """Pay by `rail` within the limits of `ledger`."""
        self._journal = journal
        self._rail = rail
        self._ledger = ledger
        self._network = network
        self._total = total

    def takes(self, required: Requirement) -> bool:
        """Return whether this wallet can pay so."""
        return required.payable_on(self._network)

    async def pay(self, item: str, required: Requirement) -> UploadPayment:
        """Return the payment for an item, stored and reserved before; the same each time.

        A new one is signed only when none was, or when the last one can never be drawn.
        """
        amount = Money(int(required.amount), self._network.currency)
        earlier = await self.paid(item)
        if earlier is None or earlier.fate == "unpaid":
            await self._rail.ready(amount)
        reserve = partial(self._reserve, item=item, payee=required.payee, amount=amount)
        return await self._journal.commit(reserve)

    async def paid(self, item: str) -> UploadPayment | None:
        """Return the newest payment for an item and what the chain says of it; None for none."""
        await self._rail.reconcile()
        return await self._journal.commit(lambda tx: self._newest_payment(tx, item))

    async def settle(self, item: str) -> None:
        """Book the payment for an item, once: the item was taken for it."""

        def book(tx: Transaction) -> None:
            attempt = _newest_attempt(tx, item)
            if attempt and self._ledger.is_reserved(tx, attempt):
                self._ledger.spend(tx, attempt, attempt.at_most, "paid")
                self._ledger.release(tx, attempt.run)

        await self._journal.commit(book)

    # -- inside, all of it in one transaction ----------------------------------------------------

    def _reserve(self, tx: Transaction, *, item: str, payee: str, amount: Money) -> UploadPayment:
        """Return the payment for an item at these terms, signed and reserved at most once.

        If the item's open payment has other terms, the rail raises IntentMismatch.
        """
        newest = _newest_attempt(tx, item)
        if newest is None:
            number = 1
        elif _fate(tx, newest) == "unpaid":
            number = newest.n + 1
        else:
            number = newest.n
        attempt = _attempt(item, number, payee=payee, amount=amount)

        is_new = tx.get(r.Authorization, attempt.id) is None
        if is_new and not self._ledger.is_reserved(tx, attempt):
            self._check_total(tx, amount)
            self._ledger.hold(tx, attempt.run, amount, None)
            self._ledger.reserve(tx, attempt)
        return self._payment(tx, attempt)

    def _newest_payment(self, tx: Transaction, item: str) -> UploadPayment | None:
        """Return the newest payment for an item; what was reserved for an expired one goes back."""
        attempt = _newest_attempt(tx, item)
        if attempt is None:
            return None
        if _fate(tx, attempt) == "unpaid" and self._ledger.is_reserved(tx, attempt):
            self._ledger.unreserve(tx, attempt)
            self._ledger.release(tx, attempt.run)
        return self._payment(tx, attempt)

    def _payment(self, tx: Transaction, attempt: Attempt) -> UploadPayment:
        """Return the payment of an attempt; the rail signs it unless it was signed before."""
        body = self._rail.reserve(tx, attempt).body
        proof = Proof.model_validate(body["proof"])
        name = proof.authorization.nonce[:10]
        return UploadPayment(proof=proof, name=name, fate=_fate(tx, attempt))

    def _check_total(self, tx: Transaction, amount: Money) -> None:
        """Raise OverBudget when `amount` more would exceed the limit on all uploads."""
        if self._total is None:
            return
        scopes = (f"provider:{PROVIDER}", f"open:{PROVIDER}")
        totals = [tx.get(r.Total, f"{scope}|{amount.asset.id}") for scope in scopes]
        used = sum(total.amount.units for total in totals if total)
        needed = Money(used, amount.asset) + amount
        if needed > self._total:
            raise OverBudget("memory.total", needed, self._total)


def _newest_attempt(tx: Transaction, item: str) -> Attempt | None:
    """Return the newest attempt to pay for an item; attempts are numbered from 1."""
    newest = None
    number = 1
    while row := tx.get(r.Authorization, _id(item, number)):
        newest = _attempt(item, number, payee=row.payee, amount=row.amount)
        number += 1
    return newest


def _fate(tx: Transaction, attempt: Attempt) -> Fate:
    """Return what became of an attempt's payment, as far as it is written down."""
    row = tx.get(r.Authorization, attempt.id)
    fates: dict[str, Fate] = {"used": "paid", "expired": "unpaid"}
    return fates.get(row.outcome if row else "", "open")


def _id(item: str, number: int) -> str:
    return digest_of("upload", item, number)


def _attempt(item: str, number: int, *, payee: str, amount: Money) -> Attempt:
    """Return the attempt of that number to pay for an item."""
    return Attempt(
        id=_id(item, number),
        purchase=digest_of("upload", item),
        n=number,
        run=f"upload:{item}",
        node="upload",
        provider=PROVIDER,
        rail="x402",
        payee=payee,
        terms=digest_of(payee, amount.encode()),
        at_most=amount,
        task=item,
    )
