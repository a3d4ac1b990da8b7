"""The payer's x402 rail: one authorization for each attempt, signed once, presented repeatedly.

The nonce is a function of the attempt, its payee and its amount, and what was signed is in the
journal before it can leave.  So whatever process dies, the payment of an attempt stays the same
one, and the token lets it happen once (EIP-3009).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Literal

from agentkit.errors import InsufficientFunds, IntentMismatch, NotAllowed, SettlementFailed
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import TransferAuthorization, keccak, word
from agentkit.keys.signer import Signer
from agentkit.market.attempt import Attempt, Message, Payment, Result
from agentkit.market.chain import ChainClient, Network
from agentkit.market.offer import Offer, Pays
from agentkit.market.plan import Fee
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Fate, Transaction, Wanted
from agentkit.market.x402 import Authorization, Proof
from agentkit.money import Money
from agentkit.payments.balance import own_amount, token_balance
from agentkit.payments.x402.proof import is_used

RAIL = "x402"
"""The name of the rail on the home network."""

AUTHORIZATION_LASTS = 900
"""Seconds for which an authorization can be drawn, and its attempt be tried again."""

BALANCE_LASTS = 30.0
"""Seconds for which a balance that was read counts: other payments of the wallet lower it."""


class X402Rail:
    """Pays with the request, by authorizations that are bound to attempts; see `market.seams.Rail`.

    Money leaves the wallet when the payee draws it.  So what was signed and not drawn yet counts
    against the balance before anything more is signed.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        name: str = RAIL,
    ) -> None:
        """Make the rail of one wallet on `network`; the first `ready` reads its balance."""
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network = network
        self._name = name
        self._balance = 0
        self._balance_read_at = -BALANCE_LASTS

    @property
    def name(self) -> str:
        return self._name

    @property
    def pays(self) -> Pays:
        return "with_request"

    async def quote(self, offers: Sequence[Offer], amounts: Sequence[Money]) -> Sequence[Fee]:
        """Return no fee: the facilitator pays for gas."""
        return []

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        """Check that the wallet can pay `need` beside what is promised; raises as `ready`."""
        await self.ready(need)
        return []

    async def ready(self, need: Money) -> None:
        """Read the wallet's balance, and what became of earlier authorizations.

        Raises InsufficientFunds unless `need` is left beside what is promised.
        """
        await self.reconcile()
        self._balance = await token_balance(self._chain, self._network, self._signer.address)
        self._balance_read_at = time.monotonic()

        promised = await self._journal.commit(self._promised)
        if promised + need.units > self._balance:
            currency = self._network.currency
            raise InsufficientFunds(
                f"{need} are needed, and the wallet holds {Money(self._balance, currency)} on"
                f" {self._network.name}, of which {Money(promised, currency)} are promised"
            )

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        """Return the attempt's payment, the same each time; `again` says it may have left before.

        Raises InsufficientFunds, IntentMismatch, NotAllowed (to pay oneself).
        """
        earlier = tx.get(r.Authorization, attempt.id)
        authorization = earlier or self._sign(tx, attempt)
        signed_for = (authorization.payee, authorization.amount)
        if signed_for != (attempt.payee, self._own(attempt.at_most)):
            raise IntentMismatch(
                f"attempt {attempt.id[:12]} pays {authorization.amount} to"
                f" {authorization.payee} already"
            )
        proof = self._proof(authorization)
        return Payment(rail=self.name, body={"proof": proof, "again": earlier is not None})

    def settle(
        self, tx: Transaction, attempt: Attempt, result: Result
    ) -> tuple[Receipt, Sequence[Message]]:
        """Return a receipt over the signed amount: the payee can draw all of it.

        That holds even if the answer names a lower price.  Raises SettlementFailed for a higher
        one.
        """
        authorization = tx.get(r.Authorization, attempt.id)
        if authorization is None:
            raise SettlementFailed(f"nothing was signed for attempt {attempt.id[:12]}")
        if result.price > attempt.at_most:
            raise SettlementFailed(f"{result.price} is above the at most of {attempt.at_most}")
        receipt = Receipt.of(attempt, result, at=tx.now, amount=attempt.at_most)
        return receipt, []

    def release(self, tx: Transaction, attempt: Attempt, *, uncertain: bool) -> bool:
        """Return False: what was signed counts against the balance until it has an outcome."""
        return False

    async def questions(self, attempt: Attempt) -> Sequence[Message]:
        """Return nothing to ask: the chain shows what was drawn."""
        return []

    def charged(self, tx: Transaction, attempt: Attempt) -> Money | None:
        """Return None: what was drawn is the whole at most."""
        return None

    async def lookup(self, attempt: Attempt) -> Fate:
        """Return what the chain says became of an attempt's payment; raises as `reconcile`."""
        await self.reconcile()
        row = await self._journal.commit(lambda tx: tx.get(r.Authorization, attempt.id))
        if row is None:
            return "unpaid"
        fates: dict[str, Fate] = {"used": "paid", "expired": "unpaid", "": "open"}
        return fates[row.outcome]

    async def reconcile(self) -> None:
        """Write down the outcome of every authorization that the chain shows as used or expired.

        An unused one has expired once a final block is past its time.  Our own clock does not
        count: until that block the payee may still draw it.  Raises StoreUnavailable,
        ProtocolBroken.
        """
        outstanding = await self._journal.commit(self._outstanding)
        if not outstanding:
            return
        depth = max(self._network.finality, 1)
        final_block = max(0, await self._chain.head() - depth + 1)
        # Read before the authorizations, so that a use between the two reads is seen as a use.
        final_time = await self._chain.time(final_block)
        for row in outstanding:
            nonce = bytes.fromhex(row.nonce)
            used = await is_used(self._chain, self._network, self._signer.address, nonce)
            if used or final_time >= row.valid_before:
                outcome: Literal["used", "expired"] = "used" if used else "expired"
                ended = e.AuthorizationEnded(attempt=row.attempt, outcome=outcome)
                await self._journal.commit(partial(_write_outcome, ended=ended))

    async def balance(self) -> dict[str, Money]:
        """Return nothing: money lies in the wallet until it is drawn.  Outcomes are read first."""
        await self.reconcile()
        return {}

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        """Return no message: nothing lies with a payee."""
        return []

    async def insist(self, message: Message) -> str:
        """Return "": there is nothing to close."""
        return ""

    async def finish(self, answer: Message) -> None:
        """Do nothing: this rail sends no messages."""

    # -- inside ----------------------------------------------------------------------------------

    def _sign(self, tx: Transaction, attempt: Attempt) -> r.Authorization:
        """Sign an authorization over an attempt's at most, and write it down before it can leave.

        Raises NotAllowed (to pay oneself), and InsufficientFunds (`ready` has to come first).
        """
        payee = attempt.payee
        if payee.lower() == self._signer.address.lower():
            raise NotAllowed("a payment to this wallet itself buys nothing")
        if time.monotonic() - self._balance_read_at > BALANCE_LASTS:
            raise InsufficientFunds("the wallet's balance has to be read first")
        if self._promised(tx) + attempt.at_most.units > self._balance:
            raise InsufficientFunds("the wallet's balance is promised already")

        transfer = TransferAuthorization(
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
            amount=self._own(attempt.at_most),
            valid_before=transfer.valid_before,
            nonce=transfer.nonce.hex(),
            signature=signature.hex(),
        )
        tx.append(e.WALLET, signed)
        return r.Authorization(**signed.model_dump())

    def _proof(self, row: r.Authorization) -> dict[str, object]:
        """Return a stored authorization as x402 sends it."""
        authorization = Authorization(
            sender=self._signer.address,
            to=row.payee,
            value=str(row.amount.units),
            valid_after="0",
            valid_before=str(row.valid_before),
            nonce=f"0x{row.nonce}",
        )
        return Proof(signature=f"0x{row.signature}", authorization=authorization).document()

    def _promised(self, tx: Transaction) -> int:
        """Return how many units payees may still draw by what was signed."""
        total = tx.get(r.Total, f"signed|{self._network.currency.id}")
        return total.amount.units if total else 0

    def _outstanding(self, tx: Transaction) -> list[r.Authorization]:
        """Return the authorizations on this network that have no outcome yet."""
        rows = [tx.get(r.Authorization, row.attempt) for row in tx.every(r.Outstanding)]
        currency = self._network.currency
        return [row for row in rows if row is not None and row.amount.asset == currency]

    def _own(self, amount: Money) -> Money:
        """Return an amount of the budget in this network's currency."""
        return own_amount(self.name, amount, self._network)


def nonce_of(attempt: Attempt) -> bytes:
    """Return the nonce of an attempt's authorization: a function of what it pays for.

    It is 24 bytes of a hash and 8 zeros.  Tokens with random nonces take it, and those with keyed
    sequential nonces do, too (OpenZeppelin's NoncesKeyed: key, then number).
    """
    attempt_id = bytes.fromhex(attempt.id)
    payee = bytes.fromhex(attempt.payee[2:])
    amount = word(attempt.at_most.units)
    return keccak(b"agentkit/1" + attempt_id + payee + amount)[:24] + bytes(8)


def _write_outcome(tx: Transaction, ended: e.AuthorizationEnded) -> None:
    """Write an outcome once: another process of this wallet may have read the chain too."""
    row = tx.get(r.Authorization, ended.attempt)
    if row and not row.outcome:
        tx.append(e.WALLET, ended)
