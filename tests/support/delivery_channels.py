"""Channels that are paid on delivery: a payee that pays its own gas, and what payers send it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from agentkit.journal.journal import Journal
from agentkit.keys.channel_messages import ChannelVoucher, Order
from agentkit.keys.messages import ReceiveAuthorization
from agentkit.keys.signer import KeySigner
from agentkit.market.attempt import Message
from agentkit.market.batch_settlement import ERC3009_COLLECTOR
from agentkit.market.chain import Network
from agentkit.market.seams import Rail
from agentkit.money import Money
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels import contract
from agentkit.payments.channels.book import VoucherBook
from agentkit.payments.channels.claiming import Claiming, ClaimPolicy
from agentkit.payments.channels.mirror import ChannelMirror
from agentkit.payments.channels.terms import CLOSE_DELAY, ChannelTerms
from agentkit.payments.facilitator.own import OwnFacilitator

TASK = "cd" * 32
SALT = b"delivery".hex() + "5a" * 24


@dataclass(frozen=True)
class Payee:
    """A payee's book, and who claims for it."""

    book: VoucherBook
    claiming: Claiming


def payee_of(
    journal: Journal, chain: Web3Chain, signer: KeySigner, network: Network, window: Money
) -> Payee:
    """Open the book of a payee that pays for gas itself."""
    facilitator = OwnFacilitator(journal, chain, signer, network)
    mirror = ChannelMirror(journal, chain, delay=CLOSE_DELAY)
    claiming = Claiming(
        journal,
        chain,
        network,
        facilitator,
        signer,
        payee=signer.address,
        delay=CLOSE_DELAY,
        policy=ClaimPolicy(seconds=float("inf")),
        mirror=mirror,
    )
    book = VoucherBook(journal, signer, network, facilitator, window=window, mirror=mirror)
    return Payee(book, claiming)


def deposit_call(payer: KeySigner, terms: ChannelTerms, network: Network, units: int) -> bytes:
    """Return the call by which anybody puts a payer's deposit on the chain, with the salt 1."""
    channel = bytes.fromhex(terms.id(network))
    authorization = ReceiveAuthorization(
        payer=payer.address,
        payee=ERC3009_COLLECTOR,
        units=units,
        valid_before=int(time.time()) + 900,
        nonce=contract.erc3009_nonce(channel, 1),
    )
    signature = payer.sign_authorization(network.token_domain, authorization)
    data = contract.erc3009_data(0, authorization.valid_before, 1, signature)
    return contract.deposit_call(terms.config, units, ERC3009_COLLECTOR, data)


def body_of(
    payer: KeySigner, terms: ChannelTerms, network: Network, units: int = 0
) -> dict[str, Any]:
    """Return what a payer sends about its channel, with a voucher over `units`."""
    channel = terms.id(network)
    signed = signed_voucher(payer, network, channel, units) if units else ""
    return {
        "channel": channel,
        "payer": terms.payer,
        "token": terms.token,
        "close_delay": terms.close_delay,
        "salt": terms.salt,
        "cumulative": units,
        "tasks": units,
        "voucher": signed,
        "proof": signed_voucher(payer, network, channel, 0),
    }


def signed_voucher(payer: KeySigner, network: Network, channel: str, units: int) -> str:
    voucher = ChannelVoucher(bytes.fromhex(channel), units)
    return payer.sign_channel_voucher(network.settlement_domain, voucher).hex()


def ordered(
    payer: KeySigner, network: Network, body: dict[str, Any], at_most: Money, attempt: str
) -> dict[str, Any]:
    """Return a body with the payer's order of an attempt at `TASK`."""
    order = Order(
        channel=bytes.fromhex(body["channel"]),
        attempt=bytes.fromhex(attempt),
        at_most=at_most.units,
        request=bytes.fromhex(TASK),
    )
    return body | {"order": payer.sign_order(network.settlement_domain, order).hex()}


async def answer(rail: Rail, book: VoucherBook, message: Message) -> None:
    """Bring a rail's message to a payee's book, and the answer back."""
    verb, body = message.verb, message.body
    match verb:
        case "deposit":
            told = "deposited", await book.deposit(body)
        case "best":
            told = "best", await book.best(body)
        case "close":
            told = "closed", await book.close(body)
        case _:
            told = "acknowledged", {}
            await book.take(body)
    await rail.finish(message.model_copy(update={"verb": told[0], "body": told[1]}))
