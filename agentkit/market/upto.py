"""The messages of the x402 scheme `upto`: up to so much by Permit2, bounded and checked.

Follows specs/schemes/upto/scheme_upto_evm.md of https://github.com/x402-foundation/x402.  Each
number has the width of the contract's type that finally takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from agentkit.errors import ProtocolBroken
from agentkit.market.batch_settlement import MAX_UNITS, Nonce, Signature, Time, Units
from agentkit.market.chain import Network
from agentkit.market.x402 import Address, Challenge, Payment402, Requirement, Wire, is_address

if TYPE_CHECKING:  # planning reads no payment, and its libraries are slow to import
    from agentkit.keys.permit2_messages import UptoPermit

SCHEME = "upto"

FACILITATOR = "facilitatorAddress"
"""The field of `Requirement.extra`, and of a facilitator's list, with who alone may settle."""


class Permitted(Wire):
    """Which tokens may be moved, and how many at most."""

    token: Address
    amount: Units


class Witness(Wire):
    """To whom, by which facilitator, and from when on."""

    to: Address
    facilitator: Address
    valid_after: Time


class Permit2Authorization(Wire):
    """A Permit2 transfer as x402 `upto` sends it."""

    sender: Address = Field(alias="from")
    permitted: Permitted
    spender: Address
    nonce: Nonce
    deadline: Time
    witness: Witness

    @property
    def nonce_number(self) -> int:
        """The nonce as the contract takes it."""
        return int(self.nonce, 0)

    @property
    def key(self) -> str:
        """The payer and nonce, which Permit2 accepts once."""
        return f"{self.sender.lower()}:{self.nonce_number:064x}"

    def permit(self) -> UptoPermit:
        """Return the message that is signed."""
        from agentkit.keys.permit2_messages import UptoPermit

        return UptoPermit(
            token=self.permitted.token,
            units=int(self.permitted.amount),
            spender=self.spender,
            nonce=self.nonce_number,
            deadline=int(self.deadline),
            payee=self.witness.to,
            facilitator=self.witness.facilitator,
            valid_after=int(self.witness.valid_after),
        )


class UptoPayload(Wire):
    """The payload of the scheme: a Permit2 transfer and its signature."""

    signature: Signature
    permit2_authorization: Permit2Authorization

    @property
    def signature_bytes(self) -> bytes:
        return bytes.fromhex(self.signature[2:])


class UptoPayment(Payment402):
    """The header PAYMENT-SIGNATURE with a payment by `upto`."""

    payload: UptoPayload


def requirement(
    network: Network, payee: str, units: int, *, facilitator: str, timeout: int
) -> Requirement:
    """Return how a request of at most `units` is paid by `upto`, settled by one facilitator.

    `timeout`: the seconds in which the work has to be done and settled.
    """
    return Requirement(
        scheme=SCHEME,
        network=network.id,
        asset=network.token,
        amount=str(units),
        pay_to=payee,
        max_timeout_seconds=timeout,
        extra={
            "name": network.token_name,
            "version": network.token_version,
            "assetTransferMethod": "permit2",
            FACILITATOR: facilitator,
        },
    )


def is_payable(way: Requirement, network: Network) -> bool:
    """Return whether a wallet of a network can pay so: its chain and token, by Permit2."""
    return (
        (way.scheme, way.network) == (SCHEME, network.id)
        and way.asset.lower() == network.token.lower()
        and way.extra.get("assetTransferMethod", "permit2") == "permit2"
        and 0 < int(way.amount) <= MAX_UNITS
        and way.is_to_an_address
        and is_address(way.extra.get(FACILITATOR))
    )


def payable_on(challenge: Challenge, network: Network) -> Requirement | None:
    """Return the cheapest way in which a challenge may be paid by `upto`, None without one."""
    ways = [way for way in challenge.requirements if is_payable(way, network)]
    return min(ways, key=lambda way: int(way.amount), default=None)


def payload_in(body: Mapping[str, Any]) -> UptoPayload:
    """Return the payload in a rail's payment; raises ProtocolBroken."""
    try:
        return UptoPayload.model_validate(body.get("payload"))
    except ValidationError as error:
        raise ProtocolBroken("the rail's payment is not one by 'upto'") from error
