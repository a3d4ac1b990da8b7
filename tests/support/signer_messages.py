"""A keystore, and one message for each operation that a signer has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentkit.keys.channel_messages import ChannelVoucher, ClaimBatch, Claimed, Order, Refund
from agentkit.keys.messages import (
    Accept,
    Delivery,
    Domain,
    Quote,
    ReceiveAuthorization,
    Release,
    TransferAuthorization,
    UnsignedTransaction,
    Voucher,
)
from agentkit.keys.permit2_messages import UptoPermit
from agentkit.keys.signer import KeySigner
from agentkit.keys.statement_messages import OfferStatement, ReceiptStatement
from support.keystore_files import write_keystore

DOMAIN = Domain("AgentChannels", "1", 8453, "0x" + "11" * 20)
A, B = "0x" + "22" * 20, "0x" + "33" * 20
W = b"\x07" * 32
MESSAGES: dict[str, Any] = {
    "sign_voucher": Voucher(W, 2**100, 2**40, b"\x01" * 32),
    "sign_release": Release(W, 5),
    "sign_quote": Quote(A, B, A, B, 5, 6, 7, 8, 9, 10, W, W),
    "sign_accept": Accept(W, 5, W),
    "sign_authorization": ReceiveAuthorization(A, B, 5, 2**40, W),
    "sign_transfer": TransferAuthorization(A, B, 5, 2**40, W),
    "sign_delivery": Delivery(W, W, 5, W),
    "sign_channel_voucher": ChannelVoucher(W, 2**127),
    "sign_refund": Refund(W, 2**200, 5),
    "sign_claims": ClaimBatch.of([Claimed(W, 9, 5), Claimed(W, 2**127, 2**126)]),
    "sign_order": Order(W, W, 5, W),
    "sign_upto": UptoPermit(A, 2**200, B, 2**255, 2**40, A, B, 5),
    "sign_offer": OfferStatement(1, "https://a.example/ü", "exact", "eip155:1", A, B, "5", 0),
    "sign_receipt": ReceiptStatement(1, "eip155:1", "https://a.example/", A, 2**40, ""),
}
CALL = UnsignedTransaction(8453, 3, A, b"\x01\x02", 21_000, 10**9, 10**8, 5)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, KeySigner]:
    """A keystore, and the signer that has its key in this process."""
    path = tmp_path_factory.mktemp("keys") / "wallet.json"
    return path, write_keystore(path)
