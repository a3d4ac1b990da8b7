"""Sells by the scheme `upto`: the work is done under a signed most, and what it came to is taken.

402 -> payment presented -> taken (durable) -> done -> charged with its answer -> settled -> sent

The money cannot be moved before the work, because its amount is not known.  So a payment is
checked against all that its payer has promised here already, and the answer goes out only once the
chain shows the transfer.  What was charged is settled by `watch` also after a crash.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from aiohttp import web

from agentkit.errors import ProtocolBroken, ProviderError, StateError
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import recover, typed_digest
from agentkit.keys.permit2_messages import UPTO_PROXY, permit2_domain
from agentkit.market import upto
from agentkit.market.chain import ChainClient, Network
from agentkit.market.seams import Transaction
from agentkit.market.upto import UptoPayload, UptoPayment
from agentkit.market.x402 import RESPONSE, VERSION, Requirement, Settled
from agentkit.money import Money
from agentkit.payments.balance import token_balance
from agentkit.payments.channels.contract import is_signed_by_contract
from agentkit.payments.upto import contract, transfers
from agentkit.payments.x402.paywall import (
    CHARGE,
    PAID,
    PRIVATE,
    Price,
    Sale,
    answered_by,
    refuse,
    request_digest,
    with_receipt,
)
from agentkit.payments.x402.remote import Facilitator

DONE_WITHIN = 600
"""Seconds that a payment is good for, as payers are told: the work has to be done and settled."""

MIN_VALIDITY = 60
MAX_VALIDITY = 86_400
"""Seconds from now between which a payment has to end."""

log = logging.getLogger(__name__)


class UptoSeller:
    """Sells requests by `upto`; see `payments.x402.paywall.SellerScheme`.

    What was taken, charged and settled is stored in `journal`, in the stream of a provider node.
    It is offered once `prepare` has learned who settles for this seller.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        network: Network,
        facilitator: Facilitator,
        *,
        payee: str,
    ) -> None:
        """Have payments to `payee` settled by `facilitator`, and look for them on `chain`."""
        self._journal = journal
        self._chain = chain
        self._network = network
        self._facilitator = facilitator
        self._payee = payee
        self._settler = ""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def name(self) -> str:
        return upto.SCHEME

    async def prepare(self) -> None:
        """Ask the facilitator by which address it settles; raises StoreUnavailable."""
        self._settler = await self._facilitator.upto_address(self._network.id)

    def requirement(self, price: Price) -> Requirement | None:
        """Return the requirement of the most that a request may cost, None before `prepare`."""
        if not self._settler or not price.at_most:
            return None
        return self._required(price.at_most.units, self._settler)

    async def sell(self, sale: Sale) -> web.StreamResponse:
        """Answer a request that came with a payment."""
        payment = UptoPayment.read(sale.header)
        request = await request_digest(sale.request, payment)
        key = payment.payload.permit2_authorization.key
        payer = _payer_of(payment)

        # The same payment may be presented many times at once; one of them does the work, and the
        # others wait for its answer.  Locks are taken in one order, so they cannot deadlock.
        name = f"{payer}|{payment.identifier}" if payment.identifier else ""
        async with AsyncExitStack() as stack:
            for lock in filter(None, (name, key)):
                await stack.enter_async_context(self._locks.setdefault(lock, asyncio.Lock()))
            try:
                return await self._sell_once(sale, payment, request)
            except _Unpaid as unpaid:
                return sale.unpaid(str(unpaid))
            except (StateError, ProviderError) as error:
                log.warning("payment %s: %s", key, error)
                return refuse(
                    503, "whether it is paid cannot be told now; present the same payment again"
                )

    async def watch(self) -> None:
        """Settle what is charged and not settled yet, and end what can never be any more.

        The node calls this regularly, and after a crash.
        """
        rows = await self._journal.commit(lambda tx: tx.every(r.OpenUpto))
        for row in rows:
            async with self._locks.setdefault(row.payment, asyncio.Lock()):
                sold = await self._stored(row.payment)
                if sold is not None and not sold.outcome:
                    await self._bring_to_its_end(sold)

    # -- a sale, step by step --------------------------------------------------------------------

    async def _sell_once(
        self, sale: Sale, payment: UptoPayment, request: str
    ) -> web.StreamResponse:
        """Take a payment through the steps that it has not been through yet, and answer.

        Each step is written down when it is done, so after a crash the same payment goes on
        where it was.
        """
        sold = await self._journal.commit(lambda tx: _sale_of(tx, payment))
        if sold and sold.request != request:
            return refuse(409, "this payment, or its identifier, belongs to another request")
        if sold is None or sold.outcome == "unused":
            # Before the payer is held up: nobody else's request does that.
            await self._check_signed(payment, sale.requirement)
            # One by one, so that none is taken on a balance that another has used meanwhile.
            async with self._locks.setdefault(_payer_of(payment), asyncio.Lock()):
                funds = await self._check_good(payment, sale.requirement)
                refusal = await sale.refusal()
                if refusal is not None:
                    return refusal
                sold = await self._take(payment, request, funds)
        if sold.outcome == "expired":
            raise _Unpaid("what was delivered for this payment was not settled in time")
        if sold.charge is None:
            response = await self._do_work(sale, sold)
            if response is not None:
                return response
            sold = await self._existing(sold.payment)
        if sold.outcome != "settled":
            await self._settle(sold)
            sold = await self._existing(sold.payment)
        return await self._answer(sale, sold)

    async def _take(self, payment: UptoPayment, request: str, funds: _Funds) -> r.UptoSale:
        """Write a payment down before the work begins; raises _Unpaid."""
        authorization = payment.payload.permit2_authorization
        taken = e.UptoTaken(
            payment=authorization.key,
            payer=authorization.sender.lower(),
            identifier=payment.identifier,
            request=request,
            settlement=secrets.token_hex(16),
            at_most=Money(int(authorization.permitted.amount), self._network.currency),
            deadline=int(authorization.deadline),
            block=await self._chain.head(),
            payload=payment.payload.document(),
        )

        def store(tx: Transaction) -> r.UptoSale:
            _check_funds(tx, payment, funds)  # another payment may have been taken meanwhile
            tx.append(e.NODE, taken)
            return r.UptoSale(**taken.model_dump())

        return await self._journal.commit(store)

    async def _do_work(self, sale: Sale, sold: r.UptoSale) -> web.Response | None:
        """Have the request done, and charge for it; returns the answer if it costs nothing.

        An answer that is an error is not charged, and the same payment may come again.
        """
        sale.request[PAID] = sold.payment
        response = await answered_by(sale.handler, sale.request)
        if response.status >= 400:
            ended = e.UptoEnded(payment=sold.payment, outcome="unused")
            await self._journal.commit(lambda tx: tx.append(e.NODE, ended))
            response.headers.update(PRIVATE)
            return response
        charge = sale.request.get(CHARGE, sold.at_most)
        if charge > sold.at_most:
            log.error("a request came to %s, above its at most", charge)
            charge = sold.at_most
        await self._charge(sold, response, charge)
        return None

    async def _charge(self, sold: r.UptoSale, response: web.Response, charge: Money) -> None:
        """Write down what a request came to, with its answer, in one transaction."""
        body = bytes(response.body or b"")  # type: ignore[arg-type]  # bytes, as was checked
        charged = e.UptoCharged(
            payment=sold.payment,
            charge=charge,
            status=response.status,
            media_type=response.headers.get("Content-Type", ""),
            digest=hashlib.sha256(body).hexdigest(),
        )

        def store(tx: Transaction) -> None:
            tx.put_blob(body)
            tx.append(e.NODE, charged)
            if not charge:  # nothing has to move, and what was signed ends unused
                tx.append(e.NODE, e.UptoEnded(payment=sold.payment, outcome="settled"))

        await self._journal.commit(store)

    async def _answer(self, sale: Sale, sold: r.UptoSale) -> web.Response:
        """Return the kept answer of a sale that is settled; the same one each time."""
        body = await self._journal.commit(lambda tx: tx.get_blob(sold.digest))
        receipt = await self._receipt(sale, sold)
        authorization = UptoPayload.model_validate(sold.payload).permit2_authorization
        settled = Settled(
            success=True,
            transaction=sold.transaction,
            network=self._network.id,
            payer=authorization.sender,
            amount=str(sold.charge.units if sold.charge else 0),
        )
        headers = {RESPONSE: with_receipt(settled, receipt).header(), **PRIVATE}
        if sold.media_type:
            headers["Content-Type"] = sold.media_type
        return web.Response(body=body or b"", status=sold.status, headers=headers)

    async def _receipt(self, sale: Sale, sold: r.UptoSale) -> dict[str, Any]:
        """Return the signed receipt of a sale, made when its answer is first sent; {} for none."""
        issued = await self._journal.commit(lambda tx: tx.get(r.IssuedReceipt, sold.payment))
        if issued is not None:
            return issued.receipt
        authorization = UptoPayload.model_validate(sold.payload).permit2_authorization
        receipt = sale.receipt(authorization.sender, sold.transaction) if sold.charge else {}
        if receipt:
            event = e.ReceiptIssued(payment=sold.payment, receipt=receipt)
            await self._journal.commit(lambda tx: tx.append(e.NODE, event))
        return receipt

    # -- the money -------------------------------------------------------------------------------

    async def _settle(self, sold: r.UptoSale) -> None:
        """Have what a sale came to moved, and write that down once the chain shows it.

        Raises _Unpaid when the chain does not show the transfer, whatever the facilitator says,
        and StoreUnavailable.
        """
        assert sold.charge is not None
        payload = UptoPayload.model_validate(sold.payload)
        authorization = payload.permit2_authorization
        required = self._required(sold.charge.units, authorization.witness.facilitator)
        most = self._required(sold.at_most.units, authorization.witness.facilitator)
        payment = UptoPayment(x402_version=VERSION, accepted=most, payload=payload)
        # With this server's own key, so that a second server cannot be shown the same payment.
        settled = await self._facilitator.settle(payment, required.with_key(sold.settlement))
        transaction = settled.transaction if settled.success else ""
        if not await self._shows(sold, transaction):
            transaction = await transfers.find_settlement(
                self._chain, self._network, payload, sold.charge.units, since=sold.block
            )
        if not transaction:
            raise _Unpaid(settled.error_reason or "the chain does not show the payment")
        await self._book(sold, transaction)

    async def _shows(self, sold: r.UptoSale, transaction: str) -> bool:
        """Return whether a transaction that a facilitator names is the settlement of this sale."""
        assert sold.charge is not None
        payload = UptoPayload.model_validate(sold.payload)
        return await transfers.is_settlement(
            self._chain, self._network, payload, sold.charge.units, transaction
        )

    async def _book(self, sold: r.UptoSale, transaction: str) -> None:
        """Write down that a sale is paid."""
        assert sold.charge is not None
        ended = e.UptoEnded(payment=sold.payment, outcome="settled", transaction=transaction)
        paid = e.RequestPaid(payment=sold.payment, scheme=self.name, amount=sold.charge)

        def store(tx: Transaction) -> None:
            tx.append(e.NODE, ended)
            tx.append(e.NODE, paid)

        await self._journal.commit(store)

    async def _bring_to_its_end(self, sold: r.UptoSale) -> None:
        """Settle a sale that is charged; end one that the chain takes no more."""
        if sold.charge is not None:
            try:
                await self._settle(sold)
            except _Unpaid as unpaid:
                log.warning("payment %s is not settled: %s", sold.payment, unpaid)
            except (StateError, ProviderError) as error:
                log.warning("payment %s: %s", sold.payment, error)
                return
            else:
                return
        depth = max(self._network.finality, 1)
        final_block = max(0, await self._chain.head() - depth + 1)
        if await self._chain.time(final_block) > sold.deadline:
            ended = e.UptoEnded(payment=sold.payment, outcome="expired")
            await self._journal.commit(lambda tx: tx.append(e.NODE, ended))

    # -- checks ----------------------------------------------------------------------------------

    async def _check_signed(self, payment: UptoPayment, required: Requirement) -> None:
        """Raise _Unpaid for a payment of something else, or that its payer has not signed."""
        mismatch = _mismatch(payment, required)
        if mismatch:
            raise _Unpaid(mismatch)
        if not await self._is_signed(payment.payload):
            raise _Unpaid("invalid_permit2_signature")

    async def _check_good(self, payment: UptoPayment, required: Requirement) -> _Funds:
        """Return what the payer has, before anything is written of a payment.

        Raises _Unpaid for a payment that would not settle.
        """
        authorization = payment.payload.permit2_authorization
        if await contract.is_used(self._chain, authorization.sender, authorization.nonce_number):
            raise _Unpaid("the nonce was used already")
        promised = await self._journal.commit(lambda tx: _promised(tx, _payer_of(payment)))
        funds = _Funds(
            promised=promised,
            balance=await token_balance(self._chain, self._network, authorization.sender),
            allowance=await contract.allowance(self._chain, self._network, authorization.sender),
        )
        await self._journal.commit(lambda tx: _check_funds(tx, payment, funds))
        verified = await self._facilitator.verify(payment, required)
        if not verified.is_valid:
            raise _Unpaid(verified.invalid_reason or "the payment is not valid")
        return funds

    async def _is_signed(self, payload: UptoPayload) -> bool:
        """Return whether a payer signed: an ordinary wallet, or one that is a contract."""
        authorization = payload.permit2_authorization
        digest = typed_digest(permit2_domain(self._network.chain_id), authorization.permit())
        signature = payload.signature_bytes
        payer = authorization.sender
        if recover(digest, signature).lower() == payer.lower():
            return True
        return await is_signed_by_contract(self._chain, payer, digest, signature)

    # -- inside ----------------------------------------------------------------------------------

    def _required(self, units: int, settler: str) -> Requirement:
        return upto.requirement(
            self._network, self._payee, units, facilitator=settler, timeout=DONE_WITHIN
        )

    async def _stored(self, payment: str) -> r.UptoSale | None:
        return await self._journal.commit(lambda tx: tx.get(r.UptoSale, payment))

    async def _existing(self, payment: str) -> r.UptoSale:
        """Return a sale as it is stored now; raises ProtocolBroken without one."""
        sold = await self._stored(payment)
        if sold is None:
            raise ProtocolBroken("the sale was not written")
        return sold


@dataclass(frozen=True, slots=True)
class _Funds:
    """What a payer holds, and what of it Permit2 may move, in base units.

    `promised`, by payment, is what the payer had promised here just before that was read.
    """

    promised: Mapping[str, int]
    balance: int
    allowance: int


class _Unpaid(Exception):
    """A payment that did not arrive, and why; it is answered with the 402."""


def _check_funds(tx: Transaction, payment: UptoPayment, funds: _Funds) -> None:
    """Raise _Unpaid unless a payer has all that it has promised here at once.

    One balance can be shown with many payments, and each of them alone would verify.  One that
    was settled since the balance was read counts as well: its money may be gone by now.
    """
    authorization = payment.payload.permit2_authorization
    others = {**funds.promised, **_promised(tx, _payer_of(payment))}
    others.pop(authorization.key, None)
    promised = sum(others.values()) + int(authorization.permitted.amount)
    if promised > funds.allowance:
        raise _Unpaid("permit2_allowance_required")
    if promised > funds.balance:
        raise _Unpaid("permit2_insufficient_balance")


def _payer_of(payment: UptoPayment) -> str:
    """Return a payment's payer in lower case, as it stands in the books."""
    return payment.payload.permit2_authorization.sender.lower()


def _promised(tx: Transaction, payer: str) -> dict[str, int]:
    """Return what a payer, in lower case, has promised here and not ended, by payment."""
    return {row.payment: row.at_most.units for row in tx.every(r.OpenUpto, f"{payer}|")}


def _sale_of(tx: Transaction, payment: UptoPayment) -> r.UptoSale | None:
    """Return the sale that a payment came with before, or one of the same identifier."""
    authorization = payment.payload.permit2_authorization
    sold = tx.get(r.UptoSale, authorization.key)
    if sold is None and payment.identifier:
        name = tx.get(r.UptoName, f"{authorization.sender.lower()}|{payment.identifier}")
        named = tx.get(r.UptoSale, name.payment) if name else None
        # Another payment of this name counts only if it was answered: this one pays for itself.
        sold = named if named and named.charge is not None else None
    return sold


def _mismatch(payment: UptoPayment, required: Requirement) -> str:
    """Return why a payment is not what is required, "" when it is."""
    accepted = payment.accepted
    authorization = payment.payload.permit2_authorization
    if (accepted.scheme, accepted.network) != (required.scheme, required.network):
        return "the payment is for another network or scheme"
    if {accepted.asset.lower(), authorization.permitted.token.lower()} != {required.asset.lower()}:
        return "the payment is in another asset"
    if {accepted.pay_to.lower(), authorization.witness.to.lower()} != {required.pay_to.lower()}:
        return "the payment is to somebody else"
    if {accepted.amount, authorization.permitted.amount} != {required.amount}:
        return "the payment is of another amount"
    if authorization.spender.lower() != UPTO_PROXY.lower():
        return "invalid_permit2_spender"
    if authorization.witness.facilitator.lower() != required.extra[upto.FACILITATOR].lower():
        return "upto_facilitator_mismatch"

    now = time.time()
    if not now + MIN_VALIDITY <= int(authorization.deadline) <= now + MAX_VALIDITY:
        return f"the payment has to be valid for {MIN_VALIDITY} to {MAX_VALIDITY} seconds from now"
    if int(authorization.witness.valid_after) > now:
        return "the payment is not valid yet"
    return ""
