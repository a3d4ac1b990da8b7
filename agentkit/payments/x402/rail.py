"""The payer's half: one authorization for each attempt, signed once, presented again at will.

The nonce is a function of the attempt, its payee and its amount, and what was signed is in the
journal before it can leave; so whatever dies, the payment of an attempt stays the same one, and
the token lets it happen once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from agentkit.errors import InsufficientFunds, IntentMismatch, NotAllowed, SettlementFailed
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import Transfer, keccak, word
from agentkit.keys.signer import Signer
from agentkit.market.attempt import Attempt, Message, Payment, Result
from agentkit.market.chain import ChainClient, Network
from agentkit.market.offer import Offer, Pays
from agentkit.market.plan import Fee
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Fate, Transaction, Wanted
from agentkit.market.x402 import Authorization, Proof
from agentkit.money import Money
from agentkit.payments.channels.terms import token_balance
from agentkit.payments.x402.proof import is_used

AUTHORIZATION_LASTS = 900
"""Seconds for which an authorization can be drawn, and its attempt be tried again."""

BALANCE_LASTS = 30.0
"""Seconds for which a balance that was read counts: what else the wallet pays lowers it."""


class X402Rail:
    """Pays with the request, by authorizations that are bound to attempts; see `market.seams.Rail`.

    Money leaves the wallet when the payee draws it, so what was signed and not drawn yet is
    counted against the balance before anything more is signed.
    """

    def __init__(
        self, journal: Journal, chain: ChainClient, signer: Signer, network: Network
    ) -> None:
        self._journal, self._chain = journal, chain
        self._signer, self._network = signer, network
        self._balance, self._read_at = 0, -BALANCE_LASTS

    @property
    def name(self) -> str:
        return "x402"

    @property
    def pays(self) -> Pays:
        return "with_request"

    async def quote(self, offers: Sequence[Offer], amounts: Sequence[Money]) -> Sequence[Fee]:
        return []  # the facilitator pays for gas

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        await self.ready(need)
        return []

    async def ready(self, need: Money) -> None:
        """Read the wallet's balance, and what became of earlier authorizations.

        Raises InsufficientFunds unless `need` is left beside what is promised.
        """
        await self.reconcile()
        self._balance = await token_balance(self._chain, self._network, self._signer.address)
        self._read_at = time.monotonic()
        signed = await self._journal.commit(self._signed)
        if signed + need.units > self._balance:
            held, promised = self._money(self._balance), self._money(signed)
            raise InsufficientFunds(
                f"{need} are needed, and the wallet holds {held}, of which {promised} are promised"
            )

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        """Return the attempt's payment, the same each time; `again` says it may have left before.

        Raises InsufficientFunds, IntentMismatch, NotAllowed (to pay oneself).
        """
        known = tx.get(r.Authorization, attempt.id)
        again = known is not None
        if known is None:
            known = self._sign(tx, attempt)
        if (known.payee, known.amount) != (attempt.payee, attempt.at_most):
            raise IntentMismatch(
                f"attempt {attempt.id[:12]} pays {known.amount} to {known.payee} already"
            )
        return Payment(rail=self.name, body={"proof": self._proof(known), "again": again})

    def settle(
        self, tx: Transaction, attempt: Attempt, result: Result
    ) -> tuple[Receipt, Sequence[Message]]:
        """Book what was signed: it is out of our hands, whatever the answer says it cost."""
        known = tx.get(r.Authorization, attempt.id)
        if known is None:
            raise SettlementFailed(f"nothing was signed for attempt {attempt.id[:12]}")
        if result.price > known.amount:
            raise SettlementFailed(f"{result.price} is above the at most of {known.amount}")
        receipt = Receipt.of(attempt, result, at=tx.now, amount=known.amount)
        return receipt, []

    def release(self, tx: Transaction, attempt: Attempt, *, uncertain: bool) -> bool:
        return False  # until the chain says what became of it, it counts against the balance

    async def lookup(self, attempt: Attempt) -> Fate:
        await self.reconcile()
        known = await self._journal.commit(lambda tx: tx.get(r.Authorization, attempt.id))
        if known is None:
            return "unpaid"
        fates: dict[str, Fate] = {"used": "paid", "expired": "unpaid", "": "open"}
        return fates[known.outcome]

    async def reconcile(self) -> None:
        """Write down what the chain says of every authorization that has no outcome yet.

        One that is unused is at its end once a final block is past its time; until then its payee
        may still draw it.  Raises StoreUnavailable, ProtocolBroken.
        """
        open_ones = await self._journal.commit(_outstanding)
        if not open_ones:
            return
        depth = max(self._network.finality, 1)
        final = await self._chain.time(max(0, await self._chain.head() - depth + 1))
        for known in open_ones:
            nonce = bytes.fromhex(known.nonce)
            used = await is_used(self._chain, self._network, self._signer.address, nonce)
            if used or final >= known.valid_before:
                ended = e.AuthorizationEnded(
                    attempt=known.attempt, outcome="used" if used else "expired"
                )
                await self._journal.commit(partial(_end, ended=ended))

    async def balance(self) -> dict[str, Money]:
        """Return nothing, for money lies in the wallet until it is drawn; see what was."""
        await self.reconcile()
        return {}

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        return []

    async def insist(self, message: Message) -> str:
        return ""

    async def finish(self, answer: Message) -> None:
        return

    # -- inside ----------------------------------------------------------------------------------

    def _sign(self, tx: Transaction, attempt: Attempt) -> r.Authorization:
        """Sign what an attempt costs and write it down."""
        payee = attempt.payee
        if payee.lower() == self._signer.address.lower():
            raise NotAllowed("a payment to this wallet itself buys nothing")
        if time.monotonic() - self._read_at > BALANCE_LASTS:
            raise InsufficientFunds("the wallet's balance has to be read first")
        if self._signed(tx) + attempt.at_most.units > self._balance:
            raise InsufficientFunds("the wallet's balance is promised already")
        transfer = Transfer(
            payer=self._signer.address,
            payee=payee,
            units=attempt.at_most.units,
            valid_before=int(tx.now) + AUTHORIZATION_LASTS,
            nonce=nonce_of(attempt),
        )
        signature = self._signer.sign_transfer(self._network.token_domain, transfer)
        signed = e.AuthorizationSigned(
            attempt=attempt.id,
            provider=attempt.provider,
            payee=payee,
            amount=attempt.at_most,
            valid_before=transfer.valid_before,
            nonce=transfer.nonce.hex(),
            signature=signature.hex(),
        )
        tx.append(e.WALLET, signed)
        return r.Authorization(**signed.model_dump())

    def _proof(self, known: r.Authorization) -> dict[str, object]:
        authorization = Authorization(
            sender=self._signer.address,
            to=known.payee,
            value=str(known.amount.units),
            valid_after="0",
            valid_before=str(known.valid_before),
            nonce=f"0x{known.nonce}",
        )
        return Proof(signature=f"0x{known.signature}", authorization=authorization).document()

    def _signed(self, tx: Transaction) -> int:
        """Return the units that payees may still draw."""
        row = tx.get(r.Total, f"signed|{self._network.currency.id}")
        return row.amount.units if row else 0

    def _money(self, units: int) -> Money:
        return Money(units, self._network.currency)


def nonce_of(attempt: Attempt) -> bytes:
    """Return the nonce of an attempt's authorization: a function of what it pays for.

    24 bytes of a hash and 8 of zeros, which tokens with random nonces take and those with keyed
    sequential ones too (OpenZeppelin's NoncesKeyed: key, then number).
    """
    payee, amount = bytes.fromhex(attempt.payee[2:]), word(attempt.at_most.units)
    return keccak(b"agentkit/1" + bytes.fromhex(attempt.id) + payee + amount)[:24] + bytes(8)


def _outstanding(tx: Transaction) -> list[r.Authorization]:
    rows = [tx.get(r.Authorization, row.attempt) for row in tx.every(r.Outstanding)]
    return [row for row in rows if row is not None]


def _end(tx: Transaction, ended: e.AuthorizationEnded) -> None:
    """Write an outcome once: another process of this wallet may have read the chain too."""
    known = tx.get(r.Authorization, ended.attempt)
    if known and not known.outcome:
        tx.append(e.WALLET, ended)
