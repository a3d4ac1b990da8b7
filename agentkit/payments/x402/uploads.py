"""Uploads paid by x402 with the wallet's own key, reserved and journalled like every purchase."""

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
"""Under which name uploads count towards the allowance."""


class X402Uploads:
    """One purchase for each item, with a hold of its own; see `market.uploads.UploadPayer`.

    `total` is what all uploads together may come to, None for no limit but the allowance's.
    """

    def __init__(
        self,
        journal: Journal,
        rail: X402Rail,
        ledger: Ledger,
        network: Network,
        total: Money | None = None,
    ) -> None:
        self._journal = journal
        self._rail = rail
        self._ledger = ledger
        self._network, self._total = network, total

    def takes(self, required: Requirement) -> bool:
        return required.payable_on(self._network)

    async def pay(self, item: str, required: Requirement) -> UploadPayment:
        amount = Money(int(required.amount), self._network.currency)
        known = await self.paid(item)
        if known is None or known.fate == "unpaid":
            await self._rail.ready(amount)
        work = partial(self._reserve, item=item, payee=required.payee, amount=amount)
        return await self._journal.commit(work)

    async def paid(self, item: str) -> UploadPayment | None:
        await self._rail.reconcile()
        return await self._journal.commit(lambda tx: self._look(tx, item))

    async def settle(self, item: str) -> None:
        def work(tx: Transaction) -> None:
            _, attempt = _newest(tx, item)
            if attempt and self._ledger.is_reserved(tx, attempt):
                self._ledger.spend(tx, attempt, attempt.at_most, "paid")
                self._ledger.release(tx, attempt.run)

        await self._journal.commit(work)

    # -- inside, all of it in one transaction ----------------------------------------------------

    def _reserve(self, tx: Transaction, *, item: str, payee: str, amount: Money) -> UploadPayment:
        n, attempt = _newest(tx, item)
        if attempt is None or _fate(tx, attempt) == "unpaid":
            attempt = _attempt(item, n + 1, payee, amount)
        wanted = _attempt(item, attempt.n, payee, amount)  # other terms: the rail refuses them
        if not self._ledger.is_reserved(tx, wanted) and tx.get(r.Authorization, wanted.id) is None:
            self._check_total(tx, amount)
            self._ledger.hold(tx, wanted.run, amount, None)
            self._ledger.reserve(tx, wanted)
        return self._payment(tx, wanted)

    def _look(self, tx: Transaction, item: str) -> UploadPayment | None:
        _, attempt = _newest(tx, item)
        if attempt is None:
            return None
        if _fate(tx, attempt) == "unpaid" and self._ledger.is_reserved(tx, attempt):
            self._ledger.unreserve(tx, attempt)
            self._ledger.release(tx, attempt.run)
        return self._payment(tx, attempt)

    def _payment(self, tx: Transaction, attempt: Attempt) -> UploadPayment:
        body = self._rail.reserve(tx, attempt).body
        proof = Proof.model_validate(body["proof"])
        name = proof.authorization.nonce[:10]
        return UploadPayment(proof=proof, name=name, fate=_fate(tx, attempt))

    def _check_total(self, tx: Transaction, amount: Money) -> None:
        if self._total is None:
            return
        scopes = (f"provider:{PROVIDER}", f"open:{PROVIDER}")
        rows = [tx.get(r.Total, f"{scope}|{amount.asset.id}") for scope in scopes]
        needed = Money(sum(row.amount.units for row in rows if row), amount.asset) + amount
        if needed > self._total:
            raise OverBudget("memory.total", needed, self._total)


def _newest(tx: Transaction, item: str) -> tuple[int, Attempt | None]:
    """Return the number of the newest attempt to pay for an item, and the attempt; 0 for none."""
    n, attempt = 0, None
    while known := tx.get(r.Authorization, _id(item, n + 1)):
        n, attempt = n + 1, _attempt(item, n + 1, known.payee, known.amount)
    return n, attempt


def _fate(tx: Transaction, attempt: Attempt) -> Fate:
    known = tx.get(r.Authorization, attempt.id)
    fates: dict[str, Fate] = {"used": "paid", "expired": "unpaid"}
    return fates.get(known.outcome if known else "", "open")


def _id(item: str, n: int) -> str:
    return digest_of("upload", item, n)


def _attempt(item: str, n: int, payee: str, amount: Money) -> Attempt:
    return Attempt(
        id=_id(item, n),
        purchase=digest_of("upload", item),
        n=n,
        run=f"upload:{item}",
        node="upload",
        provider=PROVIDER,
        rail="x402",
        payee=payee,
        terms=digest_of(payee, amount.encode()),
        at_most=amount,
        task=item,
    )
