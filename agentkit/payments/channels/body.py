"""Reads what a payer sends of a channel and its newest voucher, and checks who sends it.

A voucher that the contract would not take is worth nothing, whoever signed it.  So the fields have
the widths of the contract's types, and one spelling each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentkit.errors import Refused
from agentkit.keys.channel_messages import ChannelVoucher, Order
from agentkit.keys.messages import Typed, recover, typed_digest
from agentkit.market.batch_settlement import MAX_DELAY, MAX_UNITS
from agentkit.market.chain import Network
from agentkit.market.value import Digest
from agentkit.payments.channels.terms import CLOSE_DELAY, ChannelTerms, is_on_delivery

Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]
Signature = Annotated[str, Field(pattern=r"^([0-9a-f]{130})?$")]


class ChannelBody(BaseModel):
    """A payment by channel, or a message about one; `voucher` is "" where nothing was promised.

    `order` is the payer's signature under what it orders, `proof` one under a voucher over nothing.
    `tasks` is the payer's own count of what the voucher pays.  `root` stands in vouchers of earlier
    versions, which signed both (`payments.legacy`).
    """

    model_config = ConfigDict(frozen=True, strict=True)

    channel: Digest
    payer: Address
    token: Address
    close_delay: int = Field(ge=CLOSE_DELAY, le=MAX_DELAY)
    salt: Digest
    cumulative: int = Field(ge=0, le=MAX_UNITS)
    voucher: Signature
    order: Signature = ""
    proof: Signature = ""
    tasks: int = Field(default=0, ge=0, lt=2**64)
    root: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""


def read_body(
    body: Mapping[str, Any], payee: str, network: Network
) -> tuple[ChannelTerms, ChannelVoucher]:
    """Return the channel and the voucher of a payment; the voucher's signature is not checked.

    Raises Refused for what cannot be read, and for a channel that is not paid on delivery to
    `payee`, in the network's currency.
    """
    try:
        fields = ChannelBody.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise Refused(f"this is not a valid channel payment: {field}: {first['msg']}") from None

    terms = ChannelTerms(
        payer=fields.payer,
        payee=payee,
        token=fields.token,
        close_delay=fields.close_delay,
        salt=fields.salt,
    )
    # The id is a hash of the terms, so a channel with another payee has another id.
    channel = terms.id(network)
    if channel != fields.channel or terms.token.lower() != network.token.lower():
        raise Refused("the channel is not one with this provider node in its currency")
    if not is_on_delivery(terms.config):
        raise Refused("the channel is not one that is paid on delivery")
    return terms, ChannelVoucher(bytes.fromhex(channel), fields.cumulative)


def check_voucher(voucher: ChannelVoucher, signature: str, payer: str, network: Network) -> None:
    """Raise Refused unless a voucher is signed by its channel's payer."""
    if not _is_signed(voucher, signature, payer, network):
        raise Refused("the voucher is not signed by the channel's payer")


def check_order(body: Mapping[str, Any], order: Order, payer: str, network: Network) -> None:
    """Raise Refused unless a channel's payer itself orders this.

    A channel's terms are on the chain for everybody to read, so they prove nothing.
    """
    if not _is_signed(order, str(body.get("order")), payer, network):
        raise Refused("the order is not signed by the channel's payer")


def check_payer(body: Mapping[str, Any], terms: ChannelTerms, network: Network) -> None:
    """Raise Refused unless a channel's payer itself asks for its voucher or its end.

    The payer signs a voucher over nothing: it shows who asks, and it is worth no money.
    """
    zero = ChannelVoucher(bytes.fromhex(terms.id(network)), 0)
    if not _is_signed(zero, str(body.get("proof")), terms.payer, network):
        raise Refused("only the channel's payer may ask for this")


def _is_signed(message: Typed, signature: str, payer: str, network: Network) -> bool:
    """Return whether a message is signed by a payer; a signature that cannot be read is not."""
    try:
        digest = typed_digest(network.settlement_domain, message)
        return recover(digest, bytes.fromhex(signature)).lower() == payer.lower()
    except (ValueError, OverflowError):
        return False
