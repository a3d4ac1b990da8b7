"""The messages of x402 v2: three HTTP headers that carry JSON in base64, bounded and checked.

Follows specs/x402-specification-v2.md, schemes/exact/scheme_exact_evm.md and
extensions/payment_identifier.md of https://github.com/coinbase/x402.  Only the scheme `exact` by
EIP-3009 is supported.  Fields that a peer adds are kept, so that its own words go back to it
unchanged.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from agentkit import strict_json
from agentkit.errors import ProtocolBroken
from agentkit.market.chain import Network

VERSION: Literal[2] = 2
REQUIRED = "PAYMENT-REQUIRED"
SIGNATURE = "PAYMENT-SIGNATURE"
RESPONSE = "PAYMENT-RESPONSE"

MAX_HEADER = 16 * 1024
"""The most characters of a header that are read."""

SETTLEMENT = "settlementKey"
"""The field of `Requirement.extra` with a server's key at a facilitator; an addition of ours."""

IDENTIFIER = "payment-identifier"
"""The extension by which a server recognises a request that is presented again."""

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
"""An amount or a unix time: up to 39 decimal digits, as many as 2^128 has."""

Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]


class Wire(BaseModel):
    """Base of the messages: frozen, strictly typed, keeps fields that a peer adds."""

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
        """Return the JSON object, without fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def header(self) -> str:
        """Return the value of the header that carries this."""
        text = self.model_dump_json(by_alias=True, exclude_none=True)
        return base64.b64encode(text.encode()).decode()

    @classmethod
    def read(cls, header: str) -> Self:
        """Read a header; raises ProtocolBroken for anything else."""
        if len(header) > MAX_HEADER:
            raise ProtocolBroken(f"its payment header has more than {MAX_HEADER} characters")
        try:
            content = base64.b64decode(header, validate=True)
            strict_json.loads(content)  # what is taken here is stored, and sent on
            return cls.model_validate_json(content)
        except (binascii.Error, ValueError, ValidationError) as error:
            raise ProtocolBroken(problem_of(error)) from error


class Requirement(Wire):
    """One way in which a request may be paid: to whom, how much, and on which network."""

    scheme: str = Field(max_length=64)
    network: str = Field(max_length=128)
    asset: str = Field(max_length=128)
    amount: Digits
    pay_to: str = Field(max_length=128)
    max_timeout_seconds: int = Field(ge=0, le=10**10)
    extra: dict[str, Any] = {}

    @classmethod
    def on(cls, network: Network, payee: str, units: int, *, timeout: int, flow: str = "") -> Self:
        """Return the requirement of `units` of a network's currency for `payee`.

        `timeout`: the seconds in which to pay; `flow`: when a server settles, if it says so.
        """
        extra = {"name": network.token_name, "version": network.token_version}
        if flow:
            extra["paymentFlow"] = flow
        return cls(
            scheme="exact",
            network=network.id,
            asset=network.token,
            amount=str(units),
            pay_to=payee,
            max_timeout_seconds=timeout,
            extra=extra,
        )

    def with_key(self, key: str) -> Self:
        """Return the requirement with a server's own key, as a facilitator gets it.

        Our facilitator settles an authorization for one key only.  So two servers of one payee
        cannot both be told that the same payment is theirs.
        """
        return self.model_copy(update={"extra": {**self.extra, SETTLEMENT: key}})

    @property
    def key(self) -> str:
        """The key of `with_key`, "" for none."""
        key = self.extra.get(SETTLEMENT, "")
        # A peer may send anything here, and the key becomes part of an intent's name.
        is_key = isinstance(key, str) and re.fullmatch("[0-9a-f]{32}", key)
        return key if is_key else ""

    def payable_on(self, network: Network) -> bool:
        """Return whether a wallet of a network can pay so: its chain and token, by EIP-3009."""
        # The signature is over the token's EIP-712 domain, so that has to be the same, too.
        domain = (self.extra.get("name"), self.extra.get("version"))
        return (
            (self.scheme, self.network) == ("exact", network.id)
            and self.asset.lower() == network.token.lower()
            and domain == (network.token_name, network.token_version)
            and self.extra.get("assetTransferMethod", "eip3009") == "eip3009"
            and int(self.amount) > 0
            and self.is_to_an_address
        )

    @property
    def is_to_an_address(self) -> bool:
        """Whether the payee is an address that money can go to."""
        return bool(self._address())

    @property
    def payee(self) -> str:
        """The address to pay, checksummed; raises ProtocolBroken for another text."""
        payee = self._address()
        if not payee:
            raise ProtocolBroken(f"{self.pay_to[:64]!r} is not a valid address to pay to")
        return payee

    def _address(self) -> str:
        """Return the address to pay, checksummed, "" where it is not valid."""
        return _payable(self.pay_to)


class Challenge(Wire):
    """The header PAYMENT-REQUIRED of a 402: the ways in which a request may be paid."""

    x402_version: Literal[2] = Field(alias="x402Version")
    error: str | None = Field(default=None, max_length=1000)
    resource: dict[str, Any] | None = None
    accepts: list[dict[str, Any]] = Field(max_length=32)
    extensions: dict[str, Any] | None = None

    def payable_on(self, network: Network) -> Requirement | None:
        """Return the cheapest way that a wallet of a network can pay, None without one."""
        payable = [way for way in self.requirements if way.payable_on(network)]
        return min(payable, key=lambda requirement: int(requirement.amount), default=None)

    def why_not_payable_on(self, network: Network) -> str:
        """Say what is wrong with the first way to pay that names a network, "" without one."""
        here = [entry for entry in self.accepts if entry.get("network") == network.id]
        return _why_not_payable(here[0], network) if here else ""

    @property
    def requirements(self) -> list[Requirement]:
        """The ways to pay that have the form of one: other schemes have other fields."""
        found = (_requirement(entry) for entry in self.accepts)
        return [requirement for requirement in found if requirement]

    @property
    def identifies(self) -> bool:
        """Whether the server recognises a request by its identifier when it is sent again."""
        announced = (self.extensions or {}).get(IDENTIFIER)
        info = announced.get("info") if isinstance(announced, dict) else None
        return isinstance(info, dict) and isinstance(info.get("required"), bool)


class Authorization(Wire):
    """An EIP-3009 TransferWithAuthorization as x402 sends it."""

    sender: Address = Field(alias="from")
    to: Address
    value: Digits
    valid_after: Digits
    valid_before: Digits
    nonce: str = Field(pattern=r"^0x[0-9a-fA-F]{64}$")

    @property
    def key(self) -> str:
        """The payer and nonce, which the token accepts once."""
        return f"{self.sender}:{self.nonce}".lower()


class Proof(Wire):
    """The payload of the scheme `exact`: an authorization and its signature, 65 bytes in hex."""

    signature: str = Field(pattern=r"^0x[0-9a-fA-F]{130}$")
    authorization: Authorization


class Payment402(Wire):
    """The header PAYMENT-SIGNATURE: a payment, sent with the request that it pays for.

    Each scheme has a subclass that adds its `payload`.
    """

    x402_version: Literal[2] = Field(alias="x402Version")
    resource: dict[str, Any] | None = None
    accepted: Requirement
    extensions: dict[str, Any] | None = None

    @classmethod
    def to(
        cls, challenge: Challenge, accepted: Requirement, payload: Wire, identifier: str
    ) -> Self:
        """Return the payment that answers a challenge; `payload` is of this class's scheme.

        `identifier`, unless it is "", is sent where the server has announced the extension for it.
        """
        extensions = dict(challenge.extensions or {})
        if challenge.identifies and identifier:
            announced = extensions[IDENTIFIER]
            info = {**announced["info"], "id": identifier}
            extensions[IDENTIFIER] = {**announced, "info": info}
        return cls.model_validate(
            {
                "x402_version": VERSION,
                "resource": challenge.resource,
                "accepted": accepted,
                "payload": payload,
                "extensions": extensions or None,
            }
        )

    @property
    def identifier(self) -> str:
        """The payer's own name for this payment, "" for none; raises ProtocolBroken."""
        extension = (self.extensions or {}).get(IDENTIFIER)
        info = extension.get("info") if isinstance(extension, dict) else None
        identifier = info.get("id") if isinstance(info, dict) else None
        if identifier is None:
            return ""
        if not isinstance(identifier, str) or not _IDENTIFIER.fullmatch(identifier):
            raise ProtocolBroken("the payment identifier is not 16 to 128 letters, digits, - or _")
        return identifier


class Presented(Payment402):
    """A payment by the scheme `exact`."""

    payload: Proof


class Settled(Wire):
    """The header PAYMENT-RESPONSE, or a facilitator's answer: what it says became of a payment.

    This proves nothing; the proof is the token's own log (`payments.x402.proof`).
    """

    success: bool
    transaction: str = Field(max_length=128)
    network: str = Field(max_length=128)
    payer: str | None = Field(default=None, max_length=128)
    amount: str | None = Field(default=None, max_length=78)
    error_reason: str | None = Field(default=None, max_length=1000)
    extra: dict[str, Any] | None = None
    extensions: dict[str, Any] | None = None

    def tells_of(self, proof: Proof, network: Network) -> bool:
        """Return whether this reports the success of a certain payment; left out fields match."""
        authorization = proof.authorization
        payer = self.payer or authorization.sender
        amount = self.amount or authorization.value
        return (
            self.success
            and self.network == network.id
            and payer.lower() == authorization.sender.lower()
            and amount == authorization.value
            and bool(re.fullmatch(r"0x[0-9a-fA-F]{64}", self.transaction))
        )


class Verified(Wire):
    """A facilitator's answer to whether a payment would settle."""

    is_valid: bool
    invalid_reason: str | None = Field(default=None, max_length=1000)
    extra: dict[str, Any] | None = None


W = TypeVar("W", bound=Wire)


def is_address(text: object) -> bool:
    """Return whether a text is an address that money can go to, and not the address zero."""
    return isinstance(text, str) and bool(_payable(text))


def _payable(text: str) -> str:
    from agentkit.keys.messages import payable

    return payable(text)


def header_of(value: type[W], headers: Mapping[str, str], name: str) -> W | None:
    """Return the message in a header, None without the header; raises ProtocolBroken.

    A repeated header arrives joined by commas, which base64 does not have, so it is refused.
    """
    header = headers.get(name)
    return None if header is None else value.read(header)


def _requirement(entry: dict[str, Any]) -> Requirement | None:
    """Return a requirement, None for an entry of another form: other schemes have other fields."""
    try:
        return Requirement.model_validate(entry)
    except ValidationError:
        return None


def _why_not_payable(entry: dict[str, Any], network: Network) -> str:
    """Say why an entry of `accepts` that names a network cannot be paid there by `exact`."""
    try:
        way = Requirement.model_validate(entry)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])[:80]
        return f"its way to pay cannot be read, at {field!r}: {first['msg']}"
    if way.scheme != "exact":
        return ""
    if way.asset.lower() != network.token.lower():
        return f"it asks for the token {way.asset!r}, and {network.currency.symbol} is another"
    domain = (way.extra.get("name"), way.extra.get("version"))
    if domain != (network.token_name, network.token_version):
        ours = (network.token_name, network.token_version)
        return f"it names the token's domain {str(domain)[:80]}, and the token has {ours}"
    if way.extra.get("assetTransferMethod", "eip3009") != "eip3009":
        return f"it takes {str(way.extra['assetTransferMethod'])[:40]!r} only, and not EIP-3009"
    if int(way.amount) <= 0:
        return "it asks for nothing, and names a way to pay"
    return f"{way.pay_to[:64]!r} is not a valid address to pay to"


def problem_of(error: Exception) -> str:
    """Return in words why a header cannot be read."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        return f"its payment header is wrong at {field or 'its beginning'}: {first['msg']}"
    return "its payment header is not base64 of JSON"
