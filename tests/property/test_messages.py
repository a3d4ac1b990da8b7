"""Typed messages have the digests that other wallets give them, whatever is in them."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st
from support.drawn_cases import cases

from agentkit.keys import messages
from agentkit.keys.messages import Domain, checksummed, keccak, recover, typed_digest
from agentkit.keys.signer import KeySigner

SIGNER = KeySigner(bytes(31) + b"\x07")
MESSAGES: dict[str, tuple[str, str]] = {
    "Voucher": (
        "Voucher",
        "bytes32 channelId,uint128 cumulative,uint64 tasks,bytes32 receiptsRoot",
    ),
    "Release": ("Release", "bytes32 channelId,uint128 finalClaimed"),
    "Quote": (
        "Quote",
        "address payer,address provider,address arbiter,address token,uint128 price,"
        "uint40 deliverBy,uint40 judgeWindow,uint40 quoteExpiry,uint40 arbiterWindow,"
        "uint16 defaultBps,bytes32 taskId,bytes32 specHash",
    ),
    "Accept": ("Accept", "bytes32 jobId,uint128 pay,bytes32 resultHash"),
    "ReceiveAuthorization": (
        "ReceiveWithAuthorization",
        "address from,address to,uint256 value,"
        "uint256 validAfter,uint256 validBefore,bytes32 nonce",
    ),
    "TransferAuthorization": (
        "TransferWithAuthorization",
        "address from,address to,uint256 value,"
        "uint256 validAfter,uint256 validBefore,bytes32 nonce",
    ),
    "Delivery": ("Delivery", "bytes32 attempt,bytes32 result,uint256 price,bytes32 usage"),
}
"""Our class, what it is called on the wire, and its members there."""

words = st.binary(min_size=32, max_size=32)
addresses = st.binary(min_size=20, max_size=20).map(lambda b: checksummed("0x" + b.hex()))


def values_of(kind: str) -> st.SearchStrategy[Any]:
    if kind == "bytes32":
        return words
    return addresses if kind == "address" else st.integers(0, 2 ** int(kind[4:]) - 1)


domains = st.builds(
    Domain,
    st.sampled_from(["AgentChannels", "TaskEscrow", "USD Coin"]),
    st.sampled_from(["1", "2"]),
    st.integers(1, 2**64),
    addresses,
)


VERBS = {"ReceiveAuthorization": "sign_authorization", "TransferAuthorization": "sign_transfer"}
"""Signer's operations that are not called like the message they sign."""


def test_every_typed_message_is_compared() -> None:
    typed = {name for name, found in vars(messages).items() if hasattr(found, "TYPE")}
    assert typed == set(MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
@settings(max_examples=cases(30))
@given(data=st.data(), domain=domains)
def test_a_message_is_signed_as_other_wallets_sign_it(
    name: str, data: st.DataObject, domain: Domain
) -> None:
    wire, members = MESSAGES[name]
    types = [tuple(member.split()) for member in members.split(",")]
    said = {label: data.draw(values_of(kind), label) for kind, label in types}
    if name in ("ReceiveAuthorization", "TransferAuthorization"):
        said["validAfter"] = 0
    ours = getattr(messages, name)(*(v for label, v in said.items() if label != "validAfter"))
    theirs = encode_typed_data(
        domain_data={
            "name": domain.name,
            "version": domain.version,
            "chainId": domain.chain_id,
            "verifyingContract": domain.contract,
        },
        message_types={wire: [{"name": label, "type": kind} for kind, label in types]},
        message_data=said,
    )
    digest = typed_digest(domain, ours)
    assert digest == keccak(b"\x19\x01" + theirs.header + theirs.body)
    verb = VERBS.get(name, f"sign_{name.lower()}")
    signature = getattr(SIGNER, verb)(domain, ours)
    assert Account.recover_message(theirs, signature=signature) == SIGNER.address
    assert recover(digest, signature) == SIGNER.address
