"""The messages of the x402 scheme `batch-settlement`: payments over channels, bounded and checked.

Follows specs/schemes/batch-settlement/scheme_batch_settlement_evm.md of
https://github.com/x402-foundation/x402.  Each number has the width of the contract's type that
finally takes it, so what is read here is never refused there for its form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, TypeAdapter, ValidationError

from agentkit.errors import ProtocolBroken
from agentkit.market.chain import Network
from agentkit.market.x402 import (
    VERSION,
    Address,
    Challenge,
    Payment402,
    Requirement,
    Settled,
    Wire,
    is_address,
    problem_of,
)

if TYPE_CHECKING:  # planning reads no payment, and its libraries are slow to import
    from agentkit.keys.channel_messages import ChannelConfig

SCHEME = "batch-settlement"

ERC3009_COLLECTOR = "0x4020806089470a89826cB9fB1f4059150b550004"
PERMIT2_COLLECTOR = "0x4020425FAf3B746C082C2f942b4E5159887B0005"
"""The contracts that draw a deposit by the payer's signature; one address on all chains."""

MIN_DELAY = 15 * 60
MAX_DELAY = 30 * 24 * 60 * 60
"""The contract's bounds for a withdraw delay, in seconds."""

MAX_UNITS = 2**128 - 1
"""The contract's amounts are uint128."""

MAX_SIGNATURE = 1024
"""The most bytes of a signature that are read: one of a contract wallet (EIP-1271) may be long."""

USUAL_DEPOSIT = 10
"""For how many requests of the same price a client is told to deposit."""

MAX_ROWS = 100
"""The most claims in one call of the contract."""


def _fits_uint128(digits: str) -> str:
    if int(digits) > MAX_UNITS:
        raise ValueError("this is more than a uint128 holds")
    return digits


def _fits_uint256(text: str) -> str:
    if int(text, 0) >= 2**256:
        raise ValueError("this is more than a uint256 holds")
    return text


Units = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,38})$"), AfterValidator(_fits_uint128)]
"""An amount in base units, as decimal digits in one spelling."""

Nonce = Annotated[
    str,
    Field(pattern=r"^(0x[0-9a-fA-F]{1,64}|0|[1-9][0-9]{0,77})$"),
    AfterValidator(_fits_uint256),
]
"""A nonce of Permit2, a uint256 in hex or decimal: clients write both."""

Time = Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]
Bytes32 = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{64}$")]
Salt = Annotated[str, Field(pattern=r"^(0x[0-9a-fA-F]{1,64}|[0-9]{1,77})$")]
"""A uint256, in hex or decimal: clients write both."""

Signature = Annotated[
    str, Field(pattern=r"^0x([0-9a-fA-F]{2})*$", max_length=2 + 2 * MAX_SIGNATURE)
]


class Config(Wire):
    """The terms of a channel as they travel."""

    payer: Address
    payer_authorizer: Address
    receiver: Address
    receiver_authorizer: Address
    token: Address
    withdraw_delay: int = Field(ge=MIN_DELAY, le=MAX_DELAY)
    salt: Bytes32

    @classmethod
    def of(cls, config: ChannelConfig) -> Config:
        """Return a channel's terms as they travel, its addresses with their checksums."""
        from agentkit.keys.messages import checksummed

        return cls(
            payer=checksummed(config.payer),
            payer_authorizer=checksummed(config.payer_authorizer),
            receiver=checksummed(config.receiver),
            receiver_authorizer=checksummed(config.receiver_authorizer),
            token=checksummed(config.token),
            withdraw_delay=config.withdraw_delay,
            salt="0x" + config.salt.hex(),
        )

    def terms(self) -> ChannelConfig:
        """Return the terms as they are hashed."""
        from agentkit.keys.channel_messages import ChannelConfig

        return ChannelConfig(
            payer=self.payer,
            payer_authorizer=self.payer_authorizer,
            receiver=self.receiver,
            receiver_authorizer=self.receiver_authorizer,
            token=self.token,
            withdraw_delay=self.withdraw_delay,
            salt=bytes.fromhex(self.salt[2:]),
        )


class SignedVoucher(Wire):
    """A voucher: up to how much the receiver may claim in all.

    A voucher over 0 without signature asks for the channel's state; it promises nothing.
    """

    channel_id: Bytes32
    max_claimable_amount: Units
    signature: Annotated[
        str, Field(pattern=r"^(0x([0-9a-fA-F]{2})*)?$", max_length=2 + 2 * MAX_SIGNATURE)
    ]

    @property
    def ceiling(self) -> int:
        """Up to how many base units may be claimed in all."""
        return int(self.max_claimable_amount)


# -- deposits ------------------------------------------------------------------------------------


class Erc3009(Wire):
    """A deposit drawn by EIP-3009; its nonce follows from the channel and `salt`."""

    valid_after: Time
    valid_before: Time
    salt: Salt
    signature: Signature

    @property
    def salt_number(self) -> int:
        """The salt as the collector takes it, a uint256."""
        return int(self.salt, 16 if self.salt.startswith("0x") else 10)


class Permit2Tokens(Wire):
    """Which tokens a Permit2 signature lets be drawn, and how many."""

    token: Address
    amount: Units


class Permit2Witness(Wire):
    """For which channel a Permit2 signature was made."""

    channel_id: Bytes32


class Permit2(Wire):
    """A deposit drawn through Permit2, for tokens without EIP-3009."""

    owner: Address = Field(alias="from")
    permitted: Permit2Tokens
    spender: Address
    nonce: Nonce
    deadline: Time
    witness: Permit2Witness
    signature: Signature

    @property
    def nonce_number(self) -> int:
        """The nonce as the contract takes it."""
        return int(self.nonce, 0)


class Drawing(Wire):
    """How a deposit is drawn: exactly one of the two."""

    erc3009_authorization: Erc3009 | None = None
    permit2_authorization: Permit2 | None = None


class DepositFields(Wire):
    """A deposit: how much, and the payer's signature that lets it be drawn."""

    amount: Units
    authorization: Drawing


# -- payloads ------------------------------------------------------------------------------------


class VoucherPayload(Wire):
    """Pays for a request out of a channel."""

    type: Literal["voucher"] = "voucher"
    channel_config: Config
    voucher: SignedVoucher


class DepositPayload(Wire):
    """Opens a channel, or adds to it, and pays for a request out of it."""

    type: Literal["deposit"] = "deposit"
    channel_config: Config
    voucher: SignedVoucher
    deposit: DepositFields


class RefundPayload(Wire):
    """Asks for what a channel has left, or for `amount` of it; its voucher promises no more."""

    type: Literal["refund"] = "refund"
    channel_config: Config
    voucher: SignedVoucher
    amount: Units | None = None


class ClaimVoucher(Wire):
    """The voucher of a claim, with its channel's terms."""

    channel: Config
    max_claimable_amount: Units


class ClaimRow(Wire):
    """One claim: a voucher, its signature, and how much is claimed under it in all."""

    voucher: ClaimVoucher
    signature: Signature
    total_claimed: Units


class ClaimPayload(Wire):
    """Claims of a receiver; nothing moves yet."""

    type: Literal["claim"] = "claim"
    claims: list[ClaimRow] = Field(min_length=1, max_length=MAX_ROWS)
    claim_authorizer_signature: Signature | None = None


class SettlePayload(Wire):
    """Moves to a receiver what was claimed for it."""

    type: Literal["settle"] = "settle"
    receiver: Address
    token: Address


class RefundOrder(RefundPayload):
    """A refund as the receiver completes it: with its claims, nonce and signatures."""

    amount: Units
    refund_nonce: Annotated[str, Field(pattern=r"^[0-9]{1,39}$")]
    claims: list[ClaimRow] = Field(default=[], max_length=MAX_ROWS)
    refund_authorizer_signature: Signature | None = None
    claim_authorizer_signature: Signature | None = None


Payload = Annotated[VoucherPayload | DepositPayload | RefundPayload, Discriminator("type")]
"""What a client sends with a request."""


class ChannelPayment(Payment402):
    """The header PAYMENT-SIGNATURE with a payment over a channel."""

    payload: Payload


class FacilitatorOrder(Payment402):
    """What a seller itself asks of a facilitator, in the form of a payment."""

    payload: ClaimPayload | SettlePayload | RefundOrder

    @classmethod
    def of(
        cls, required: Requirement, payload: ClaimPayload | SettlePayload | RefundOrder
    ) -> FacilitatorOrder:
        """Return the order to carry `payload` out."""
        return cls(x402_version=VERSION, accepted=required, payload=payload)


class ChannelState(Wire):
    """A channel as the seller or a facilitator knows it."""

    channel_id: Bytes32
    balance: Units
    total_claimed: Units
    withdraw_requested_at: int = Field(default=0, ge=0, lt=2**40)
    refund_nonce: Annotated[str, Field(pattern=r"^[0-9]{1,39}$")] = "0"
    charged_cumulative_amount: Units | None = None


class VoucherState(Wire):
    """The newest voucher that a seller has, as it shows it to its payer."""

    signed_max_claimable: Units
    signature: Signature


def requirement(
    network: Network,
    payee: str,
    units: int,
    *,
    authorizer: str,
    delay: int,
    timeout: int,
    min_deposit: int,
) -> Requirement:
    """Return how a request of at most `units` is paid over a channel with `payee`.

    `authorizer` signs claims and refunds, `delay` is the withdraw delay in seconds, `timeout` the
    seconds in which to pay, `min_deposit` the least deposit that is taken, in base units.  Clients
    are told to deposit more than that: gas for many requests, as the SDK's servers do.
    """
    return Requirement(
        scheme=SCHEME,
        network=network.id,
        asset=network.token,
        amount=str(units),
        pay_to=payee,
        max_timeout_seconds=timeout,
        extra={
            "receiverAuthorizer": authorizer,
            "withdrawDelay": delay,
            "name": network.token_name,
            "version": network.token_version,
            "minDeposit": str(max(units * USUAL_DEPOSIT, min_deposit)),
        },
    )


def payable_on(challenge: Challenge, network: Network) -> Requirement | None:
    """Return the cheapest way in which a challenge may be paid over a channel, None without one.

    On the wallet's chain, in its token by EIP-3009, on terms that the contract takes.
    """
    ways = [way for way in challenge.requirements if _is_payable(way, network)]
    return min(ways, key=lambda way: int(way.amount), default=None)


def _is_payable(way: Requirement, network: Network) -> bool:
    extra = way.extra
    domain = (extra.get("name"), extra.get("version"))
    delay = extra.get("withdrawDelay")
    min_deposit = extra.get("minDeposit", "0")
    return (
        (way.scheme, way.network) == (SCHEME, network.id)
        and way.asset.lower() == network.token.lower()
        and domain == (network.token_name, network.token_version)
        and extra.get("assetTransferMethod", "eip3009") == "eip3009"
        and 0 < int(way.amount) <= MAX_UNITS
        and way.is_to_an_address
        and is_address(extra.get("receiverAuthorizer"))
        and type(delay) is int
        and MIN_DELAY <= delay <= MAX_DELAY
        and isinstance(min_deposit, str)
        and bool(re.fullmatch("[0-9]{1,38}", min_deposit))
    )


def terms_of(way: Requirement) -> dict[str, str | int]:
    """Return what an offer says of the channel that pays it."""
    extra = way.extra
    return {
        "receiverAuthorizer": str(extra["receiverAuthorizer"]),
        "withdrawDelay": int(extra["withdrawDelay"]),
        "minDeposit": str(extra.get("minDeposit", "0")),
    }


_PAYLOADS: TypeAdapter[VoucherPayload | DepositPayload | RefundPayload] = TypeAdapter(Payload)


def payload_in(body: Mapping[str, Any]) -> VoucherPayload | DepositPayload | RefundPayload:
    """Return the payload in a rail's payment or message; raises ProtocolBroken."""
    try:
        return _PAYLOADS.validate_python(body.get("payload"))
    except ValidationError as error:
        raise ProtocolBroken("the rail's payment is not one over a channel") from error


def agreed_in(
    body: Mapping[str, Any], network: Network, units: int, *, timeout: int
) -> Requirement:
    """Return the requirement that a payment was made for, from the channel's own terms.

    `timeout` as in `requirement`.  Raises ProtocolBroken.
    """
    config = payload_in(body).channel_config
    return requirement(
        network,
        config.receiver,
        units,
        authorizer=config.receiver_authorizer,
        delay=config.withdraw_delay,
        timeout=timeout,
        min_deposit=0,
    )


def charge_in(settled: Settled | None, body: Mapping[str, Any], at_most: int) -> int | None:
    """Return what a seller says it charged for a payment of `at_most`, in base units.

    None where it says nothing, or what does not fit the voucher that it was sent.
    """
    extra = settled.extra if settled and settled.success else None
    if not extra:
        return None
    voucher = payload_in(body).voucher
    try:
        state = ChannelState.model_validate(extra.get("channelState"))
        charge = int(_UNITS.validate_python(extra.get("chargedAmount")))
    except ValidationError:
        return None
    before = voucher.ceiling - at_most
    fits = (
        0 <= charge <= at_most
        and state.channel_id.lower() == voucher.channel_id.lower()
        and int(state.charged_cumulative_amount or -1) == before + charge
    )
    return charge if fits else None


_UNITS: TypeAdapter[str] = TypeAdapter(Units)


_SETTLE_PAYLOADS: TypeAdapter[DepositPayload | ClaimPayload | SettlePayload | RefundOrder] = (
    TypeAdapter(
        Annotated[
            DepositPayload | ClaimPayload | SettlePayload | RefundOrder, Discriminator("type")
        ]
    )
)


def settle_payload(
    document: Mapping[str, Any],
) -> DepositPayload | ClaimPayload | SettlePayload | RefundOrder:
    """Read what a facilitator is asked to put on the chain; raises ProtocolBroken."""
    try:
        return _SETTLE_PAYLOADS.validate_python(document)
    except ValidationError as error:
        raise ProtocolBroken(problem_of(error)) from error
