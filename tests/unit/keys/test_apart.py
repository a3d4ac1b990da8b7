"""A key in a process of its own: the same signatures, and nothing but the named operations."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agentkit.keys import keystore
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
from agentkit.keys.signer import KeySigner

PASSPHRASE = "correct horse"
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
}
CALL = UnsignedTransaction(8453, 3, A, b"\x01\x02", 21_000, 10**9, 10**8, 5)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, KeySigner]:
    """A keystore, and the signer that has its key in this process."""
    path = tmp_path_factory.mktemp("keys") / "wallet.json"
    return path, keystore.create(path, PASSPHRASE)


class Seen:
    """Every local of every frame that signing went through, as tools that print them would."""

    def __init__(self, *secrets: str) -> None:
        self.secrets, self.frames, self.shown = secrets, 0, set[str]()

    def __call__(self, frame: Any, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != __file__:
            self.frames += 1
            said = ""
            with suppress(AttributeError):  # an object that is not made yet
                said = f"{frame.f_locals!r} {argument!r}".lower()
            if any(secret in said for secret in self.secrets):
                self.shown.add(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return self


def test_the_key_shows_in_no_frame_and_no_repr(here: tuple[Path, KeySigner]) -> None:
    signer = here[1]
    secret = signer._key.secret
    seen = Seen(secret.hex(), str(int.from_bytes(secret)), repr(secret)[2:-1].lower())
    sys.settrace(seen)
    try:
        for verb, message in MESSAGES.items():
            getattr(signer, verb)(DOMAIN, message)
        signer.sign_tx(CALL)
        with suppress(ValueError):
            signer.sign_tx(UnsignedTransaction(1, 1, "nobody", b"", 1, 1, 1))
    finally:
        sys.settrace(None)
    assert seen.frames > 50
    assert not seen.shown
    assert not any(known in f"{signer!r} {vars(signer)!r}" for known in seen.secrets)
