"""Sells by the scheme `batch-settlement`: requests that are charged to a payer's channel.

The payer's voucher lets us claim up to what was charged so far and the most that this request may
cost.  The request is done, and what it came to is charged with the answer, in one transaction of
the state file.  So the same voucher with the same request again gets the same answer, a voucher
that is behind gets a 402 that says where its channel stands, and one channel serves one request at
a time, as the scheme demands.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import Any

from aiohttp import web

from agentkit.errors import ProtocolBroken, ProviderError, RateLimited, StateError
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.channel_messages import ZERO_ADDRESS, ChannelConfig, ChannelVoucher
from agentkit.keys.messages import recover, typed_digest
from agentkit.keys.signer import Signer
from agentkit.market.batch_settlement import (
    SCHEME,
    ChannelPayment,
    DepositPayload,
    RefundPayload,
    SignedVoucher,
    VoucherState,
    requirement,
)
from agentkit.market.chain import ChainClient, Network
from agentkit.market.x402 import RESPONSE, Requirement, Settled
from agentkit.money import Money
from agentkit.payments.channels import contract
from agentkit.payments.channels.mirror import ChannelMirror
from agentkit.payments.channels.purchase import (
    Job,
    Purchase,
    Reply,
    SellerTerms,
    Unpaid,
    kept_answer,
    reply_of,
    same_purchase,
    state_for,
    state_of,
    write_charge,
)
from agentkit.payments.channels.refunds import Refunds
from agentkit.payments.channels.terms import is_on_delivery
from agentkit.payments.x402.paywall import (
    CHARGE,
    PAID,
    PAY_WITHIN,
    PRIVATE,
    Price,
    Sale,
    answered_by,
    refuse,
    request_digest,
    with_receipt,
)
from agentkit.payments.x402.remote import Facilitation

ERROR = "invalid_batch_settlement_evm_"
"""How the scheme's error codes begin."""

MISMATCH = f"{ERROR}cumulative_amount_mismatch"
BUSY = f"{ERROR}channel_busy"

log = logging.getLogger(__name__)


class ChannelSeller:
    """Sells requests over channels; see `payments.x402.paywall.SellerScheme`.

    What was charged and answered is stored in `journal`, in the stream of a provider node.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        network: Network,
        facilitator: Facilitation,
        signer: Signer,
        *,
        terms: SellerTerms,
        mirror: ChannelMirror,
    ) -> None:
        """Have deposits and refunds put on the chain by `facilitator`, the latter by `signer`."""
        self._journal = journal
        self._chain = chain
        self._network = network
        self._domain = network.settlement_domain
        self._facilitator = facilitator
        self._refunds = Refunds(journal, network, facilitator, signer)
        self._mirror = mirror
        self._terms = terms
        self._jobs: dict[str, Job] = {}  # by channel
        self._refunding: set[str] = set()  # channels

    @property
    def name(self) -> str:
        return SCHEME

    def requirement(self, price: Price) -> Requirement:
        """Return the requirement of the most that a request may cost."""
        return requirement(
            self._network,
            self._terms.payee,
            price.at_most.units,
            authorizer=self._terms.authorizer,
            delay=self._terms.delay,
            timeout=PAY_WITHIN,
            min_deposit=self._terms.min_deposit,
        )

    async def sell(self, sale: Sale) -> web.StreamResponse:
        """Answer a request that came with a payment."""
        payment = ChannelPayment.read(sale.header)
        try:
            if isinstance(payment.payload, RefundPayload):
                return await self._refund(sale, payment.payload)
            purchase = self._purchase(payment, await request_digest(sale.request, payment))
            return (await self._buy(sale, payment, purchase)).response()
        except Unpaid as unpaid:
            return sale.unpaid(str(unpaid), **unpaid.extra)
        except RateLimited as error:
            answer = refuse(429, str(error))
            answer.headers["Retry-After"] = str(max(1, round(error.retry_after)))
            return answer
        except (StateError, ProviderError) as error:
            log.warning("a payment over a channel: %s", error)
            return refuse(503, "whether it is paid cannot be told now; send the same again")

    # -- a purchase ------------------------------------------------------------------------------

    def _purchase(self, payment: ChannelPayment, request: str) -> Purchase:
        """Return what a payment says; raises Unpaid for one that is not to this seller."""
        payload = payment.payload
        assert not isinstance(payload, RefundPayload)
        config = payload.channel_config.terms()
        return Purchase(
            channel=self._channel_of(config, payload.voucher),
            config=config,
            payload=payload,
            voucher=payload.voucher,
            request=request,
            identifier=payment.identifier,
        )

    def _channel_of(self, config: ChannelConfig, voucher: SignedVoucher) -> bytes:
        """Return the id of a channel that is with this seller; raises Unpaid for any other."""
        channel = config.id(self._domain)
        terms = self._terms
        expected: tuple[tuple[str, object, object], ...] = (
            ("channel_id_mismatch", voucher.channel_id.lower(), "0x" + channel.hex()),
            ("receiver_mismatch", config.receiver.lower(), terms.payee.lower()),
            (
                "receiver_authorizer_mismatch",
                config.receiver_authorizer.lower(),
                terms.authorizer.lower(),
            ),
            ("token_mismatch", config.token.lower(), self._network.token.lower()),
            ("withdraw_delay_mismatch", config.withdraw_delay, terms.delay),
        )
        for code, has, needs in expected:
            if has != needs:
                raise Unpaid(f"{ERROR}{code}")
        if is_on_delivery(config):  # what its vouchers pay was delivered before
            raise Unpaid(f"{ERROR}channel_id_mismatch")
        return channel

    async def _buy(self, sale: Sale, payment: ChannelPayment, purchase: Purchase) -> Reply:
        """Answer a purchase, once; raises Unpaid."""
        job = self._jobs.get(purchase.key)
        if job is not None and same_purchase(job.purchase, purchase):
            return await asyncio.shield(job.task)  # the same bytes again join the running job

        # What a channel is charged, and its newest voucher, are shown to nobody else.
        await self._check_signature(purchase.config, purchase.channel, purchase.voucher)
        kept = await self._journal.commit(lambda tx: kept_answer(tx, purchase))
        if kept is not None:
            return await self._repeat(kept, purchase)
        self._check_not_busy(purchase.key)
        stored, is_public = await self._journal.commit(lambda tx: state_for(tx, purchase))
        self._check_ceiling(purchase, stored, int(sale.requirement.amount))
        if stored is not None and is_public:
            raise self._behind(stored)
        if purchase.key in self._jobs:  # another request was quicker while we looked at this one
            return await self._buy(sale, payment, purchase)
        self._check_not_busy(purchase.key)  # or a refund was

        task = asyncio.create_task(self._do(sale, payment, purchase))
        self._jobs[purchase.key] = Job(purchase, task)
        task.add_done_callback(lambda _: self._jobs.pop(purchase.key, None))
        return await asyncio.shield(task)

    def _check_ceiling(
        self, purchase: Purchase, channel: r.SoldChannel | None, at_most: int
    ) -> None:
        """Raise Unpaid unless a voucher is over what was charged and this request's most.

        Where nothing is known of the channel, it may have been charged before our books began.
        """
        ceiling = purchase.voucher.ceiling
        if channel is not None and ceiling != channel.charged + at_most:
            raise self._behind(channel)
        if ceiling < at_most:
            raise Unpaid(MISMATCH)

    def _check_not_busy(self, key: str) -> None:
        """Raise Unpaid while a request or a refund of a channel is at work."""
        if key in self._jobs or key in self._refunding:
            raise Unpaid(BUSY)

    async def _check_signature(
        self, config: ChannelConfig, channel: bytes, voucher: SignedVoucher
    ) -> None:
        """Raise Unpaid unless a channel's payer, or who signs for it, signed a voucher."""
        if not await self._is_signed(config, channel, voucher):
            raise Unpaid(f"{ERROR}voucher_signature")

    async def _is_signed(
        self, config: ChannelConfig, channel: bytes, voucher: SignedVoucher
    ) -> bool:
        """Return whether a channel's payer, or who signs for it, signed a voucher."""
        message = ChannelVoucher(channel, voucher.ceiling)
        digest = typed_digest(self._domain, message)
        signature = bytes.fromhex(voucher.signature.removeprefix("0x"))
        if config.payer_authorizer != ZERO_ADDRESS:
            return recover(digest, signature).lower() == config.payer_authorizer.lower()
        if recover(digest, signature).lower() == config.payer.lower():
            return True  # an ordinary wallet that signs for itself
        if not self._terms.contract_wallets:
            return False  # and no stranger has us call contracts of its own
        return await contract.is_signed_by_contract(self._chain, config.payer, digest, signature)

    async def _do(self, sale: Sale, payment: ChannelPayment, purchase: Purchase) -> Reply:
        """Check that a request will be paid, have it done, and charge for it; raises Unpaid."""
        at_most = int(sale.requirement.amount)
        channel = await self._mirror.known(purchase.channel, purchase.payload.channel_config)
        self._check_ceiling(purchase, channel, at_most)
        if channel is None and purchase.voucher.ceiling != at_most:
            raise Unpaid(MISMATCH)
        await self._check_payable(sale, payment, purchase, channel)
        refusal = await sale.refusal()
        if refusal is not None:
            return reply_of(refusal)

        transaction = ""
        if isinstance(purchase.payload, DepositPayload):
            transaction, channel = await self._deposit(sale, payment, purchase)
        channel = self._affordable(channel, purchase)
        sale.request[PAID] = f"{purchase.key}:{purchase.voucher.ceiling}"
        response = await answered_by(sale.handler, sale.request)
        if response.status >= 400:
            return reply_of(response)  # nothing is charged, and the same voucher may come again

        currency = self._network.currency
        charge = sale.request.get(CHARGE, Money(at_most, currency))
        if charge.units > at_most:
            log.error("a request came to %s, above its at most", charge)
            charge = Money(at_most, currency)
        body = bytes(response.body or b"")  # type: ignore[arg-type]  # bytes, as was checked
        charged = e.RequestCharged(
            channel=purchase.key,
            ceiling=purchase.voucher.ceiling,
            signature=purchase.voucher.signature,
            charge=charge,
            total=purchase.voucher.ceiling - at_most + charge.units,
            request=purchase.request,
            identifier=purchase.identifier,
            transaction=transaction,
            status=response.status,
            media_type=response.headers.get("Content-Type", ""),
            digest=hashlib.sha256(body).hexdigest(),
        )
        receipt = sale.receipt(purchase.config.payer) if charge else {}
        kept = await self._journal.commit(lambda tx: write_charge(tx, charged, body, receipt))
        return await self._repeat(kept, purchase)

    async def _check_payable(
        self,
        sale: Sale,
        payment: ChannelPayment,
        purchase: Purchase,
        channel: r.SoldChannel | None,
    ) -> None:
        """Raise Unpaid for a payment that would not count, before anything is done for it."""
        if not isinstance(purchase.payload, DepositPayload):
            self._affordable(channel, purchase)
            return
        if channel is not None and purchase.voucher.ceiling <= channel.spendable:
            return  # the deposit was drawn, or there was enough without it
        verified = await self._facilitator.verify(payment, sale.requirement)
        if not verified.is_valid:
            # It may have been drawn, and the answer about it lost.
            channel = await self._mirror.read(purchase.channel, purchase.payload.channel_config)
            if purchase.voucher.ceiling > channel.spendable:
                raise Unpaid(verified.invalid_reason or f"{ERROR}deposit_payload")

    async def _deposit(
        self, sale: Sale, payment: ChannelPayment, purchase: Purchase
    ) -> tuple[str, r.SoldChannel]:
        """Have a deposit put on the chain; returns its transaction, and the channel as it is then.

        What the facilitator says proves nothing: the chain is read whatever it answers.  So a
        deposit that arrived counts, also when the answer about it was lost.
        """
        assert isinstance(purchase.payload, DepositPayload)
        if int(purchase.payload.deposit.amount) < self._terms.min_deposit:
            raise Unpaid(f"{ERROR}deposit_below_min_deposit")
        settled: Settled | None = None
        try:
            settled = await self._facilitator.settle(payment, sale.requirement)
        except ProtocolBroken as error:
            log.warning("the facilitator's answer to a deposit: %s", error)
        channel = await self._mirror.read(purchase.channel, purchase.payload.channel_config)
        if channel.spendable < purchase.voucher.ceiling and settled and not settled.success:
            raise Unpaid(settled.error_reason or f"{ERROR}deposit_transaction_failed")
        return (settled.transaction if settled and settled.success else ""), channel

    def _affordable(self, channel: r.SoldChannel | None, purchase: Purchase) -> r.SoldChannel:
        """Return the channel of a purchase, if it holds what the voucher promises.

        Raises Unpaid.  What a payer has asked back does not count: it may be gone before we claim.
        """
        if channel is None or not channel.balance:
            raise Unpaid(f"{ERROR}channel_not_found")
        if purchase.voucher.ceiling > channel.spendable:
            raise Unpaid(f"{ERROR}cumulative_exceeds_balance")
        owed = purchase.voucher.ceiling - channel.total_claimed
        if purchase.config.payer_authorizer == ZERO_ADDRESS and owed > self._terms.contract_wallets:
            raise Unpaid(f"{ERROR}voucher_signature")
        return channel

    def _behind(self, channel: r.SoldChannel) -> Unpaid:
        """Return the error that tells a payer where its channel stands, by its own signature."""
        extra: dict[str, Any] = {"channelState": state_of(channel)}
        if channel.signature:
            proof = VoucherState(
                signed_max_claimable=str(channel.ceiling), signature=channel.signature
            )
            extra["voucherState"] = proof.document()
        return Unpaid(MISMATCH, **extra)

    # -- answers ---------------------------------------------------------------------------------

    async def _repeat(self, kept: r.ChannelAnswer, purchase: Purchase) -> Reply:
        """Return a kept answer, with the header that says what it cost."""
        body = await self._journal.commit(lambda tx: tx.get_blob(kept.digest))
        channel = await self._journal.commit(lambda tx: tx.get(r.SoldChannel, kept.channel))
        issued = await self._journal.commit(lambda tx: tx.get(r.IssuedReceipt, kept.key))
        assert channel is not None
        state = state_of(channel.model_copy(update={"charged": kept.total}))
        deposit = purchase.payload
        amount = deposit.deposit.amount if isinstance(deposit, DepositPayload) else ""
        settled = Settled(
            success=True,
            transaction=kept.transaction,
            network=self._network.id,
            payer=purchase.config.payer,
            amount=amount,
            extra={"chargedAmount": str(kept.charge.units), "channelState": state},
        )
        settled = with_receipt(settled, issued.receipt if issued else {})
        headers = {RESPONSE: settled.header(), **PRIVATE}
        if kept.media_type:
            headers["Content-Type"] = kept.media_type
        return Reply(kept.status, body or b"", headers)

    # -- refunds ---------------------------------------------------------------------------------

    async def _refund(self, sale: Sale, payload: RefundPayload) -> web.StreamResponse:
        """Give a channel's payer back what it has left; raises Unpaid."""
        config = payload.channel_config.terms()
        channel = self._channel_of(config, payload.voucher)
        # Before the channel is taken: nobody else's request holds its purchases up.
        await self._check_signature(config, channel, payload.voucher)
        self._check_not_busy(channel.hex())
        self._refunding.add(channel.hex())
        try:
            return await self._give_back(config, channel, payload)
        finally:
            self._refunding.discard(channel.hex())

    async def _give_back(
        self, config: ChannelConfig, channel: bytes, payload: RefundPayload
    ) -> web.StreamResponse:
        """Check what a payer wants back of its channel and give it; raises Unpaid."""
        known = await self._mirror.known(channel, payload.channel_config)
        if known is None or not known.balance:
            raise Unpaid(f"{ERROR}channel_not_found")
        if payload.voucher.ceiling != known.charged:
            raise self._behind(known)
        settled = await self._order_refund(known, payload)
        if not settled.success:
            raise Unpaid(settled.error_reason or f"{ERROR}refund_transaction_failed")
        after = await self._mirror.read(channel, payload.channel_config)
        told = Settled(
            success=True,
            transaction=settled.transaction,
            network=self._network.id,
            payer=config.payer,
            amount=settled.amount,
            extra={"channelState": state_of(after)},
        )
        body = {"message": "the refund is on the chain", "channelId": "0x" + channel.hex()}
        return web.json_response(body, headers={RESPONSE: told.header(), **PRIVATE})

    async def _order_refund(self, channel: r.SoldChannel, payload: RefundPayload) -> Settled:
        """Have a refund put on the chain; raises Unpaid for an amount that is not there.

        One that was signed before can still be put on the chain by whoever has it: only a larger
        one takes its place.
        """
        free = channel.balance - channel.charged
        units = int(payload.amount) if payload.amount is not None else free
        if units <= 0 and payload.amount is not None:
            raise Unpaid(f"{ERROR}refund_amount_invalid")
        if not 0 < units <= free:
            raise Unpaid(f"{ERROR}refund_no_balance")
        if units <= channel.refunding:
            return await self._refunds.send(channel)
        return await self._refunds.give_back(channel, units, payload.voucher.signature)
