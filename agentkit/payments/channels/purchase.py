"""A purchase over a channel as its seller sees it: what was sent, and what was kept of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from agentkit.errors import ProtocolBroken
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.subjects.channel_sales import answer_key
from agentkit.keys.channel_messages import ChannelConfig
from agentkit.market.batch_settlement import DepositPayload, SignedVoucher, VoucherPayload
from agentkit.market.seams import Transaction
from agentkit.payments.channels import contract
from agentkit.payments.x402.paywall import PRIVATE


@dataclass(frozen=True, slots=True)
class SellerTerms:
    """The terms on which a seller takes channels.

    `payee` is paid, `authorizer` signs claims and refunds, `delay` is the withdraw delay in
    seconds.  Up to `contract_wallets` units may be owed by a wallet that is a contract and signs
    vouchers itself: it can withdraw its word before we claim.
    """

    payee: str
    authorizer: str
    delay: int
    min_deposit: int = 0
    contract_wallets: int = 0


@dataclass(frozen=True, slots=True)
class Purchase:
    """A payment that was read: its channel, voucher and what it is for."""

    channel: bytes
    config: ChannelConfig
    payload: VoucherPayload | DepositPayload
    voucher: SignedVoucher
    request: str
    identifier: str

    @property
    def key(self) -> str:
        return self.channel.hex()


@dataclass(slots=True)
class Job:
    """A request at work on a channel; whoever sends the same again waits for it, too."""

    purchase: Purchase
    task: asyncio.Task[Reply]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to a request, to be sent to everybody who asked for it."""

    status: int
    body: bytes
    headers: dict[str, str]

    def response(self) -> web.Response:
        return web.Response(status=self.status, body=self.body, headers=self.headers)


class Unpaid(Exception):
    """A payment that does not count: an error code, and what the 402 adds to the requirement."""

    def __init__(self, code: str, **extra: Any) -> None:
        super().__init__(code)
        self.extra = extra


def same_purchase(one: Purchase, other: Purchase) -> bool:
    """Return whether two purchases are the same voucher for the same request."""
    return (one.voucher, one.request) == (other.voucher, other.request)


def kept_answer(tx: Transaction, purchase: Purchase) -> r.ChannelAnswer | None:
    """Return the answer that this payment, or the request by its identifier, has got already."""
    kept = tx.get(r.ChannelAnswer, answer_key(purchase.key, purchase.voucher.ceiling))
    if kept is not None and kept.request == purchase.request:
        return kept
    if purchase.identifier:
        name = tx.get(r.ChannelAnswerName, f"{purchase.config.payer.lower()}|{purchase.identifier}")
        named = tx.get(r.ChannelAnswer, answer_key(name.channel, name.ceiling)) if name else None
        if named is not None and named.request == purchase.request:
            # Anybody can name a payer in terms of a channel, with a key of their own to sign.
            channel = tx.get(r.SoldChannel, named.channel)
            return named if channel and _has_signer_of(channel, purchase) else None
    return None


def _has_signer_of(channel: r.SoldChannel, purchase: Purchase) -> bool:
    signer = str(channel.config["payerAuthorizer"])
    return signer.lower() == purchase.config.payer_authorizer.lower()


def state_for(tx: Transaction, purchase: Purchase) -> tuple[r.SoldChannel | None, bool]:
    """Return the channel of a purchase, and whether its voucher is public and was used before.

    A voucher does not say what it pays for.  One that was claimed, or came with a deposit, has
    been seen by others, and with what it left over anybody could pay for a request of their own.
    """
    channel = tx.get(r.SoldChannel, purchase.key)
    used = tx.get(r.ChannelAnswer, answer_key(purchase.key, purchase.voucher.ceiling))
    if channel is None or used is None or not used.charge:
        return channel, False
    return channel, bool(used.transaction) or channel.total_claimed >= used.total


def state_of(channel: r.SoldChannel) -> dict[str, Any]:
    """Return a channel as a payer is shown it."""
    on_chain = contract.OnChain(
        balance=channel.balance,
        total_claimed=channel.total_claimed,
        withdrawing=channel.withdrawing,
        withdraw_requested_at=channel.withdraw_requested_at,
        refund_nonce=channel.refund_nonce,
    )
    return on_chain.wire(bytes.fromhex(channel.channel), channel.charged).document()


def reply_of(response: web.Response) -> Reply:
    """Return a response that is not charged, to be sent to everybody who waits for it."""
    headers = {"Content-Type": response.headers.get("Content-Type", "application/json")}
    if "Retry-After" in response.headers:
        headers["Retry-After"] = response.headers["Retry-After"]
    body = bytes(response.body or b"")  # type: ignore[arg-type]
    return Reply(response.status, body, headers | PRIVATE)


def write_charge(
    tx: Transaction, charged: e.RequestCharged, body: bytes, receipt: dict[str, Any]
) -> r.ChannelAnswer:
    """Write voucher, charge, answer and its receipt, if there is one, in one transaction."""
    channel = tx.get(r.SoldChannel, charged.channel)
    if channel is None or channel.charged + charged.charge.units != charged.total:
        raise ProtocolBroken("the channel was charged by another request meanwhile")
    tx.put_blob(body)
    tx.append(e.NODE, charged)
    kept = tx.get(r.ChannelAnswer, answer_key(charged.channel, charged.ceiling))
    if kept is None:
        raise ProtocolBroken("the charge was not written")
    if receipt:
        tx.append(e.NODE, e.ReceiptIssued(payment=kept.key, receipt=receipt))
    return kept
