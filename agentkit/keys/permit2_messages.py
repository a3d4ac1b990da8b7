"""The typed message of x402 `upto`: a Permit2 transfer of at most so much, by one facilitator.

The type follows specs/schemes/upto/scheme_upto_evm.md of
https://github.com/x402-foundation/x402, the domain the documentation of Permit2, which has no
version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from agentkit.keys.messages import Domain, address_word, keccak, word

PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
"""The contract that moves tokens by its owners' signatures; one address on all chains."""

UPTO_PROXY = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002"
"""The contract that settles `upto` through Permit2; one address on all chains."""


def permit2_domain(chain_id: int) -> Domain:
    """Return the domain in which Permit2 takes signatures on a chain."""
    return Domain("Permit2", "", chain_id, PERMIT2)


@dataclass(frozen=True, slots=True)
class UptoPermit:
    """A payer's word that `facilitator` may move up to `units` of `token` to `payee`, once.

    Between `valid_after` and `deadline`, in unix seconds by the chain's clock.  Permit2 takes each
    `nonce` of a payer once, and takes it through `spender` alone.
    """

    TOKENS: ClassVar[bytes] = keccak(b"TokenPermissions(address token,uint256 amount)")
    WITNESS: ClassVar[bytes] = keccak(b"Witness(address to,address facilitator,uint256 validAfter)")
    TYPE: ClassVar[bytes] = keccak(
        b"PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,"
        b"uint256 deadline,Witness witness)"
        b"TokenPermissions(address token,uint256 amount)"
        b"Witness(address to,address facilitator,uint256 validAfter)"
    )
    token: str
    units: int
    spender: str
    nonce: int
    deadline: int
    payee: str
    facilitator: str
    valid_after: int = 0

    def struct_hash(self) -> bytes:
        """Return the hash of the type and the fields (EIP-712)."""
        tokens = keccak(self.TOKENS + address_word(self.token) + word(self.units))
        witness = keccak(
            self.WITNESS
            + address_word(self.payee)
            + address_word(self.facilitator)
            + word(self.valid_after)
        )
        return keccak(
            self.TYPE
            + tokens
            + address_word(self.spender)
            + word(self.nonce)
            + word(self.deadline)
            + witness
        )
