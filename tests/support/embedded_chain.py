"""An embedded chain on disk, on which three people have coins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.vm import CHAIN_ID
from agentkit.keys.messages import UnsignedTransaction
from agentkit.keys.signer import KeySigner
from support.chain_processes import KEYS, WEALTH

ANNE, BOB, CARL, *_ = map(KeySigner, KEYS)
RICH = {KeySigner(key).address: WEALTH for key in KEYS}
NEXT_TIME = "0x425f5260205ff3"
"""Creation code that answers the timestamp of its block."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chain.db"


@pytest.fixture
def chain(path: Path) -> Iterator[Chain]:
    opened = Chain.open(path, rich=RICH)
    yield opened
    opened.close()


def transfer(nonce: int, who: KeySigner = ANNE, **changed: Any) -> bytes:
    fields: dict[str, Any] = {
        "to": BOB.address,
        "data": b"",
        "gas": 21_000,
        "value": 1,
        "max_tip": 1,
    }
    fields |= {"chain_id": CHAIN_ID, "nonce": nonce, "max_fee": 10**10, **changed}
    return who.sign_tx(UnsignedTransaction(**fields))[1]
