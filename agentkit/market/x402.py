"""x402 v2 as both sides speak it: three headers of JSON in base64, bounded and checked.

Follows specs/x402-specification-v2.md, schemes/exact/scheme_exact_evm.md and
extensions/payment_identifier.md of https://github.com/coinbase/x402.  Only `exact` by EIP-3009 is
spoken here.  What a peer adds of its own is kept, so that what it said goes back to it unchanged.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from agentkit.errors import ProtocolBroken
from agentkit.market.chain import Network

VERSION: Literal[2] = 2
REQUIRED = "PAYMENT-REQUIRED"
SIGNATURE = "PAYMENT-SIGNATURE"
RESPONSE = "PAYMENT-RESPONSE"

MOST_HEADER = 16 * 1024
"""Characters of a header that are read."""

SETTLEMENT = "settlementKey"
"""Where a server's key at a facilitator stands."""

IDENTIFIER = "payment-identifier"
"""The extension by which a request presented again is known again."""

IDENTIFIER_SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "required": {"type": "boolean"},
        "id": {
            "type": "string",
            "minLength": 16,
            "maxLength": 128,
            "pattern": "^[a-zA-Z0-9_-]+$",
        },
    },
    "required": ["required"],
}

_IDENTIFIER = re.compile(r"[a-zA-Z0-9_-]{16,128}")

Digits = Annotated[str, Field(pattern=r"^[0-9]{1,39}$")]
"""An amount or a moment: decimal digits, as far as 2^128 needs them."""

Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]


class Wire(BaseModel):
    """What travels: frozen, strictly typed, with a peer's own fields kept."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="allow",
        alias_generator=to_camel,
        populate_by_name=True,
        protected_namespaces=(),
        hide_input_in_errors=True,
    )

    def document(self) -> dict[str, Any]:
        """Return the JSON object, without what was never said."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def header(self) -> str:
        """Return the value of the header that carries this."""
        text = self.model_dump_json(by_alias=True, exclude_none=True)
        return base64.b64encode(text.encode()).decode()

    @classmethod
    def read(cls, header: str) -> Self:
        """Read a header; raises ProtocolBroken for anything else than one header of this sort."""
        if len(header) > MOST_HEADER:
            raise ProtocolBroken(f"its payment header has more than {MOST_HEADER} characters")
        try:
            return cls.model_validate_json(base64.b64decode(header, validate=True))
        except (binascii.Error, ValueError, ValidationError) as error:
            raise ProtocolBroken(_story(error)) from error


class Requirement(Wire):
    """One way in which a request may be paid: whom, how much of what, on which network."""

    scheme: str = Field(max_length=64)
    network: str = Field(max_length=128)
    asset: str = Field(max_length=128)
    amount: Digits
    pay_to: str = Field(max_length=128)
    max_timeout_seconds: int = Field(ge=0, le=10**10)
    extra: dict[str, Any] = {}

    @classmethod
    def on(cls, network: Network, payee: str, units: int, *, timeout: int, flow: str = "") -> Self:
        """Return the requirement of `units` of a network's currency for `payee`."""
        extra = {"name": network.token_name, "version": network.token_version}
        return cls(
            scheme="exact",
            network=network.id,
            asset=network.token,
            amount=str(units),
            pay_to=payee,
            max_timeout_seconds=timeout,
            extra={**extra, "paymentFlow": flow} if flow else extra,
        )

    def with_key(self, key: str) -> Self:
        """Return what a facilitator is asked to settle under a server's own key.

        One of ours settles an authorization for one key only, so that two servers of the same
        payee cannot both be shown it.
        """
        return self.model_copy(update={"extra": {**self.extra, SETTLEMENT: key}})

    @property
    def key(self) -> str:
        """The key of `with_key`, "" for none."""
        found = self.extra.get(SETTLEMENT, "")
        return found if isinstance(found, str) and re.fullmatch("[0-9a-f]{32}", found) else ""

    def payable_on(self, network: Network) -> bool:
        """Whether a wallet of this network can pay so: our chain, our token, `exact`, EIP-3009."""
        domain = (self.extra.get("name"), self.extra.get("version"))
        return (
            (self.scheme, self.network) == ("exact", network.id)
            and self.asset.lower() == network.token.lower()
            and domain == (network.token_name, network.token_version)
            and self.extra.get("assetTransferMethod", "eip3009") == "eip3009"
            and int(self.amount) > 0
            and bool(self._address())
        )

    @property
    def payee(self) -> str:
        """Whom to pay, checksummed; raises ProtocolBroken for no such address."""
        if payee := self._address():
            return payee
        raise ProtocolBroken(f"{self.pay_to[:64]!r} is no address to pay to")

    def _address(self) -> str:
        from agentkit.keys.messages import payable

        return payable(self.pay_to)


class Challenge(Wire):
    """PAYMENT-REQUIRED: how a request may be paid."""

    x402_version: Literal[2] = Field(alias="x402Version")
    error: str | None = Field(default=None, max_length=1000)
    resource: dict[str, Any] | None = None
    accepts: list[dict[str, Any]] = Field(max_length=32)
    extensions: dict[str, Any] | None = None

    def payable_on(self, network: Network) -> Requirement | None:
        """Return the cheapest way that a wallet of this network can pay, if there is one."""
        read = [known for entry in self.accepts if (known := _requirement(entry))]
        ours = [one for one in read if one.payable_on(network)]
        return min(ours, key=lambda one: int(one.amount), default=None)

    @property
    def identifies(self) -> bool:
        """Whether a request presented again under its identifier is the same request."""
        announced = (self.extensions or {}).get(IDENTIFIER)
        info = announced.get("info") if isinstance(announced, dict) else None
        return isinstance(info, dict) and isinstance(info.get("required"), bool)


class Authorization(Wire):
    """An EIP-3009 TransferWithAuthorization as it travels."""

    sender: Address = Field(alias="from")
    to: Address
    value: Digits
    valid_after: Digits
    valid_before: Digits
    nonce: str = Field(pattern=r"^0x[0-9a-fA-F]{64}$")

    @property
    def key(self) -> str:
        """What the token lets happen once: payer and nonce."""
        return f"{self.sender}:{self.nonce}".lower()


class Proof(Wire):
    """What pays by `exact`: the authorization and its signature, 65 bytes in hex."""

    signature: str = Field(pattern=r"^0x[0-9a-fA-F]{130}$")
    authorization: Authorization


class Presented(Wire):
    """PAYMENT-SIGNATURE: a payment, presented with the request that it is for."""

    x402_version: Literal[2] = Field(alias="x402Version")
    resource: dict[str, Any] | None = None
    accepted: Requirement
    payload: Proof
    extensions: dict[str, Any] | None = None

    @classmethod
    def to(cls, challenge: Challenge, accepted: Requirement, proof: Proof, identifier: str) -> Self:
        """Return the payment that answers a challenge; `identifier` goes where it is announced."""
        extensions = dict(challenge.extensions or {})
        if challenge.identifies:
            announced = extensions[IDENTIFIER]
            info = {**announced["info"], "id": identifier}
            extensions[IDENTIFIER] = {**announced, "info": info}
        return cls(
            x402_version=VERSION,
            resource=challenge.resource,
            accepted=accepted,
            payload=proof,
            extensions=extensions or None,
        )

    @property
    def identifier(self) -> str:
        """The payer's own name for this payment, "" for none; raises ProtocolBroken."""
        extension = (self.extensions or {}).get(IDENTIFIER)
        info = extension.get("info") if isinstance(extension, dict) else None
        found = info.get("id") if isinstance(info, dict) else None
        if found is None:
            return ""
        if not isinstance(found, str) or not _IDENTIFIER.fullmatch(found):
            raise ProtocolBroken("the payment identifier is not 16 to 128 letters, digits, - or _")
        return found


class Settled(Wire):
    """PAYMENT-RESPONSE, or a facilitator's answer: what is said to have become of a payment.

    Said, not proven: the token's own log is the proof.
    """

    success: bool
    transaction: str = Field(max_length=128)
    network: str = Field(max_length=128)
    payer: str | None = Field(default=None, max_length=128)
    amount: str | None = Field(default=None, max_length=78)
    error_reason: str | None = Field(default=None, max_length=1000)

    def tells_of(self, proof: Proof, network: Network) -> bool:
        """Whether this speaks of the payment that was made, and of no other."""
        paid = proof.authorization
        return (
            self.success
            and self.network == network.id
            and (self.payer or paid.sender).lower() == paid.sender.lower()
            and (self.amount or paid.value) == paid.value
            and bool(re.fullmatch(r"0x[0-9a-fA-F]{64}", self.transaction))
        )


class Verified(Wire):
    """A facilitator's word on whether a payment would settle."""

    is_valid: bool
    invalid_reason: str | None = Field(default=None, max_length=1000)


W = TypeVar("W", bound=Wire)


def header_of(value: type[W], headers: Mapping[str, str], name: str) -> W | None:
    """Return what a header says, None without it; raises ProtocolBroken when it is not right.

    Repeated headers arrive joined by commas, which base64 does not have.
    """
    found = headers.get(name)
    return None if found is None else value.read(found)


def _requirement(entry: dict[str, Any]) -> Requirement | None:
    """Return an entry that can be read; one for another scheme may look different."""
    try:
        return Requirement.model_validate(entry)
    except ValidationError:
        return None


def _story(wrong: Exception) -> str:
    if isinstance(wrong, ValidationError):
        first = wrong.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"its payment header is wrong at {where or 'its beginning'}: {first['msg']}"
    return "its payment header is not base64 of JSON"
