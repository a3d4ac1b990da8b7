"""Reads what a payer sends of a channel and its newest voucher, and checks who sends it.

A voucher that `AgentChannels.vy` would not take is worth nothing, whoever signed it.  So the fields
have the widths of the contract's types, and one spelling each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentkit.errors import Refused
from agentkit.keys.messages import Voucher, recover, typed_digest
from agentkit.market import tree
from agentkit.market.chain import Network
from agentkit.market.value import Digest
from agentkit.payments.channels.terms import CLOSE_DELAY, ChannelTerms

MAX_CLOSE_DELAY = 30 * 24 * 60 * 60
"""The contract's MAX_DELAY, in seconds."""

MAX_AMOUNT = 2**104 - 1
"""The contract's MAX_AMOUNT: no channel holds more units."""

MAX_TASKS = 2**64 - 1
"""The largest count of tasks in a voucher, a uint64."""

Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]
Signature = Annotated[str, Field(pattern=r"^([0-9a-f]{130})?$")]
Root = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]


class ChannelBody(BaseModel):
    """A payment by channel, or a message about one; `voucher` is "" where nothing was promised."""

    model_config = ConfigDict(frozen=True, strict=True)

    channel: Digest
    payer: Address
    token: Address
    close_delay: int = Field(ge=CLOSE_DELAY, le=MAX_CLOSE_DELAY)
    salt: Digest
    cumulative: int = Field(ge=0, le=MAX_AMOUNT)
    tasks: int = Field(ge=0, le=MAX_TASKS)
    root: Root = ""
    voucher: Signature
    proof: Signature = ""


def read_body(body: dict[str, Any], payee: str, network: Network) -> tuple[ChannelTerms, Voucher]:
    """Return the channel and the voucher of a payment; the voucher's signature is not checked.

    Raises Refused for what cannot be read, and for a channel that is not with `payee`, in the
    network's currency.
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
    channel_id = terms.id(network)
    if channel_id != fields.channel or terms.token.lower() != network.token.lower():
        raise Refused("the channel is not one with this provider node in its currency")

    voucher = Voucher(
        channel=bytes.fromhex(channel_id),
        cumulative=fields.cumulative,
        tasks=fields.tasks,
        receipts_root=bytes.fromhex(fields.root) or tree.EMPTY,
    )
    return terms, voucher


def check_voucher(voucher: Voucher, signature: str, payer: str, network: Network) -> None:
    """Raise Refused unless a voucher is signed by its channel's payer."""
    digest = typed_digest(network.channels_domain, voucher)
    try:
        signer = recover(digest, bytes.fromhex(signature))
    except (ValueError, OverflowError) as error:
        raise Refused("the voucher cannot be read") from error
    if signer.lower() != payer.lower():
        raise Refused("the voucher is not signed by the channel's payer")


def check_payer(body: Mapping[str, Any], terms: ChannelTerms, network: Network) -> None:
    """Raise Refused unless a channel's payer itself asks for its voucher or its end.

    A channel's terms are on the chain for everybody to read, so they prove nothing.  The payer
    signs a voucher over nothing instead: it shows who asks, and it is worth no money.
    """
    zero = Voucher(bytes.fromhex(terms.id(network)), cumulative=0, tasks=0)
    try:
        proof = bytes.fromhex(str(body.get("proof")))
        signer = recover(typed_digest(network.channels_domain, zero), proof)
    except (ValueError, OverflowError) as error:
        raise Refused("the proof that the payer asks cannot be read") from error
    if signer.lower() != terms.payer.lower():
        raise Refused("only the channel's payer may ask for this")
