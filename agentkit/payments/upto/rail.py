"""The payer's rail for x402 `upto`: one Permit2 signature for each attempt, over its at most.

What is signed is in the journal before it can leave, and its nonce follows from the attempt, so
whatever process dies, Permit2 lets it happen once.  What was drawn of it is what the chain shows:
until then the whole most counts as spent, whatever the server says that it charged.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from agentkit.errors import InsufficientFunds, IntentMismatch, NotAllowed, SettlementFailed
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import keccak, payable, word
from agentkit.keys.permit2_messages import PERMIT2, UPTO_PROXY, UptoPermit, permit2_domain
from agentkit.keys.signer import Signer
from agentkit.market import upto
from agentkit.market.attempt import Attempt, Message, Payment, Result
from agentkit.market.batch_settlement import MAX_UNITS
from agentkit.market.chain import ChainClient, Network
from agentkit.market.offer import Offer, Pays
from agentkit.market.plan import Fee
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Fate, Transaction, Wanted
from agentkit.market.upto import Permit2Authorization, Permitted, UptoPayload, Witness
from agentkit.money import Money
from agentkit.payments.balance import token_balance
from agentkit.payments.upto import contract, transfers

PERMIT_LASTS = 900
"""Seconds for which a permit can be used, and its attempt be tried again."""

FUNDS_LAST = 30.0
"""Seconds for which balance and allowance that were read count: other payments lower them."""

MAX_TERMS = 256
"""Of how many offers it is remembered who settles them."""


class UptoRail:
    """Pays with the request, up to what each attempt may cost; see `market.seams.Rail`."""

    def __init__(
        self, journal: Journal, chain: ChainClient, signer: Signer, network: Network
    ) -> None:
        """Make the rail of one wallet; the first `fund` reads what it has."""
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network = network
        self._funds = 0
        self._block = 0
        self._read_at = -FUNDS_LAST
        self._settlers: OrderedDict[str, str] = OrderedDict()  # by an offer's terms
        self._asked: set[str] = set()  # attempts of which the chain was asked what was drawn

    @property
    def name(self) -> str:
        return upto.SCHEME

    @property
    def pays(self) -> Pays:
        return "with_request"

    async def quote(self, offers: Sequence[Offer], amounts: Sequence[Money]) -> Sequence[Fee]:
        """Return no fee: the server's facilitator pays for gas."""
        return []

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        """Check that `need` can be signed beside what is promised; nothing is put in place.

        Raises InsufficientFunds where the wallet holds less, or has not let Permit2 move it.
        """
        settler = payable(str(offer.channel.get(upto.FACILITATOR, "")))
        if not settler:
            raise NotAllowed(f"the offer of {offer.label} does not say who settles it")
        self._settlers[offer.terms] = settler
        if len(self._settlers) > MAX_TERMS:
            self._settlers.popitem(last=False)
        attempt = wanted.attempt.id
        signed = await self._journal.commit(lambda tx: tx.get(r.UptoPermitRow, attempt))
        await self.reconcile()
        if signed is not None:
            self._asked.add(attempt)
        await self._check_funds(need)
        return []

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        """Return the attempt's payment, the same each time; `again` says it may have left before.

        Raises InsufficientFunds, IntentMismatch, NotAllowed (to pay oneself).
        """
        earlier = tx.get(r.UptoPermitRow, attempt.id)
        row = earlier or self._sign(tx, attempt)
        if (row.payee, row.amount) != (attempt.payee, attempt.at_most):
            raise IntentMismatch(
                f"attempt {attempt.id[:12]} pays {row.amount} to {row.payee} already"
            )
        payload = payload_of(row, self._signer.address, self._network).document()
        return Payment(rail=self.name, body={"payload": payload, "again": earlier is not None})

    def settle(
        self, tx: Transaction, attempt: Attempt, result: Result
    ) -> tuple[Receipt, Sequence[Message]]:
        """Return a receipt over what the chain shows was drawn, or else over the at most.

        A server can draw more than it says it charged, so its word does not count.  Raises
        SettlementFailed, and InsufficientFunds until `fund` has asked the chain.
        """
        row = tx.get(r.UptoPermitRow, attempt.id)
        if row is None:
            raise SettlementFailed(f"nothing was signed for attempt {attempt.id[:12]}")
        if result.price > row.amount:
            raise SettlementFailed(f"{result.price} is above the at most of {row.amount}")
        if not row.outcome and attempt.id not in self._asked:
            raise InsufficientFunds("the chain has to be asked first what was drawn")
        self._asked.discard(attempt.id)
        amount = row.amount if row.drawn is None else row.drawn
        return Receipt.of(attempt, result, at=tx.now, amount=amount), []

    def release(self, tx: Transaction, attempt: Attempt, *, uncertain: bool) -> bool:
        """Return False: what was signed counts against the balance until it has an outcome."""
        return False

    async def questions(self, attempt: Attempt) -> Sequence[Message]:
        """Return nothing to ask: the chain shows what was drawn."""
        return []

    async def lookup(self, attempt: Attempt) -> Fate:
        """Return what the chain says became of an attempt's payment; raises as `reconcile`."""
        await self.reconcile()
        row = await self._journal.commit(lambda tx: tx.get(r.UptoPermitRow, attempt.id))
        if row is None:
            return "unpaid"
        self._asked.add(attempt.id)
        fates: dict[str, Fate] = {"used": "paid", "expired": "unpaid", "": "open"}
        return fates[row.outcome]

    def charged(self, tx: Transaction, attempt: Attempt) -> Money | None:
        """Return what was drawn for an attempt, None while nobody knows."""
        row = tx.get(r.UptoPermitRow, attempt.id)
        return row.drawn if row and row.outcome == "used" else None

    async def reconcile(self) -> None:
        """Write down the outcome of every permit that the chain shows as used or expired.

        An unused one has expired once a final block is past its deadline.  Raises
        StoreUnavailable, ProtocolBroken.
        """
        outstanding = await self._journal.commit(_outstanding)
        if not outstanding:
            return
        depth = max(self._network.finality, 1)
        final_block = max(0, await self._chain.head() - depth + 1)
        # Read before the nonces, so that a use between the two reads is seen as a use.
        final_time = await self._chain.time(final_block)
        for row in outstanding:
            ended = await self._ended(row, final_time)
            if ended is not None:
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

    async def _check_funds(self, need: Money) -> None:
        """Read what the wallet holds and Permit2 may move; raises InsufficientFunds for less."""
        payer = self._signer.address
        currency = self._network.currency
        balance = await token_balance(self._chain, self._network, payer)
        allowance = await contract.allowance(self._chain, self._network, payer)
        self._funds = min(balance, allowance)
        self._block = await self._chain.head()
        self._read_at = time.monotonic()

        promised = Money(await self._journal.commit(self._promised), currency)
        wanted = promised + need
        if wanted.units > balance:
            raise InsufficientFunds(
                f"{need} are needed, and the wallet holds {Money(balance, currency)},"
                f" of which {promised} are promised"
            )
        if need and wanted.units > allowance:
            raise InsufficientFunds(
                f"{need} are needed, and Permit2 may move {Money(allowance, currency)} of this"
                f" wallet, of which {promised} are promised; nothing was signed",
                hint=f"send one approval of {PERMIT2} on the token {self._network.token} from"
                f" {payer}, which costs gas, or leave this provider out with a policy",
            )

    def _sign(self, tx: Transaction, attempt: Attempt) -> r.UptoPermitRow:
        """Sign a permit over an attempt's at most, and write it down before it can leave.

        Raises NotAllowed (to pay oneself), and InsufficientFunds (`fund` has to come first).
        """
        if attempt.payee.lower() == self._signer.address.lower():
            raise NotAllowed("a payment to this wallet itself buys nothing")
        settler = self._settlers.get(attempt.terms)
        if settler is None or time.monotonic() - self._read_at > FUNDS_LAST:
            raise InsufficientFunds("what the wallet has must be read first")
        if self._promised(tx) + attempt.at_most.units > self._funds:
            raise InsufficientFunds("what the wallet has is promised already")

        permit = UptoPermit(
            token=self._network.token,
            units=attempt.at_most.units,
            spender=UPTO_PROXY,
            nonce=nonce_of(attempt),
            deadline=int(tx.now) + PERMIT_LASTS,
            payee=attempt.payee,
            facilitator=settler,
        )
        if permit.units > MAX_UNITS:
            raise NotAllowed(f"{attempt.at_most} is more than a payment can be of")
        domain = permit2_domain(self._network.chain_id)
        signed = e.UptoPermitSigned(
            attempt=attempt.id,
            provider=attempt.provider,
            payee=attempt.payee,
            amount=attempt.at_most,
            facilitator=settler,
            deadline=permit.deadline,
            block=self._block,
            nonce=f"{permit.nonce:064x}",
            signature=self._signer.sign_upto(domain, permit).hex(),
        )
        tx.append(e.WALLET, signed)
        return r.UptoPermitRow(**signed.model_dump())

    async def _ended(self, row: r.UptoPermitRow, final_time: int) -> e.UptoPermitEnded | None:
        """Return how a permit has ended, None while it may still be used."""
        payer = self._signer.address
        if not await contract.is_used(self._chain, payer, int(row.nonce, 16)):
            if final_time <= row.deadline:
                return None
            nothing = row.amount.asset.zero()
            return e.UptoPermitEnded(attempt=row.attempt, outcome="expired", drawn=nothing)
        payload = payload_of(row, payer, self._network)
        transfer = await transfers.drawn_by(self._chain, self._network, payload, row.block)
        return e.UptoPermitEnded(
            attempt=row.attempt,
            outcome="used",
            drawn=Money(transfer.units, row.amount.asset) if transfer else row.amount,
            transaction=transfer.transaction if transfer else "",
        )

    def _promised(self, tx: Transaction) -> int:
        """Return how many units payees may still draw by what was signed, by `exact` too."""
        total = tx.get(r.Total, f"signed|{self._network.currency.id}")
        return total.amount.units if total else 0


def nonce_of(attempt: Attempt) -> int:
    """Return the nonce of an attempt's permit: a function of what it pays for."""
    parts = bytes.fromhex(attempt.id) + bytes.fromhex(attempt.payee[2:])
    return int.from_bytes(keccak(b"agentkit/upto/1" + parts + word(attempt.at_most.units)), "big")


def payload_of(row: r.UptoPermitRow, payer: str, network: Network) -> UptoPayload:
    """Return a stored permit as x402 sends it."""
    authorization = Permit2Authorization(
        sender=payer,
        permitted=Permitted(token=network.token, amount=str(row.amount.units)),
        spender=UPTO_PROXY,
        nonce=str(int(row.nonce, 16)),
        deadline=str(row.deadline),
        witness=Witness(to=row.payee, facilitator=row.facilitator, valid_after="0"),
    )
    return UptoPayload(signature=f"0x{row.signature}", permit2_authorization=authorization)


def _outstanding(tx: Transaction) -> list[r.UptoPermitRow]:
    """Return the permits that have no outcome yet."""
    rows = [tx.get(r.UptoPermitRow, row.attempt) for row in tx.every(r.OutstandingUpto)]
    return [row for row in rows if row is not None]


def _write_outcome(tx: Transaction, ended: e.UptoPermitEnded) -> None:
    """Write an outcome once: another process of this wallet may have read the chain too."""
    row = tx.get(r.UptoPermitRow, ended.attempt)
    if row and not row.outcome:
        tx.append(e.WALLET, ended)
