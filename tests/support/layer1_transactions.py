"""A wallet of Arweave's, and a transaction of three chunks that it signed."""

from __future__ import annotations

import pytest

from agentkit.memory.arweave.base64url import b64url
from agentkit.memory.arweave.jwk import JwkWallet
from agentkit.memory.arweave.layer1 import WeaveTransaction, make_transaction
from agentkit.memory.arweave.merkle import Chunk
from support.arweave_wallet import arweave_key, arweave_wallet

ANCHOR = b64url(bytes(range(48)))


def filled(size: int) -> bytes:
    pattern = bytes((i * 31 + 7) & 255 for i in range(256))
    return (pattern * (size // 256 + 1))[:size]


@pytest.fixture
def jwk() -> dict[str, str]:
    return arweave_key()


@pytest.fixture(scope="module")
def wallet() -> JwkWallet:
    return arweave_wallet()


@pytest.fixture(scope="module")
def signed(wallet: JwkWallet) -> tuple[WeaveTransaction, tuple[Chunk, ...]]:
    return make_transaction(
        wallet, filled(600_000), [("Größe", "☕"), ("n", "")], anchor=ANCHOR, reward=7
    )
