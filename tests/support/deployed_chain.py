"""Embedded chains on which our contracts are deployed: once in a process, for all tests a copy."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.genesis import Deployed, deploy
from agentkit.embedded.chain.vm import GENESIS_TIME
from agentkit.keys.signer import KeySigner
from support.chain_processes import KEYS, WEALTH

DEPLOYER, PAYER = map(KeySigner, KEYS[:2])


def open_deployed(
    path: Path,
    *,
    rich: tuple[KeySigner, ...],
    minted: int,
    clock: Callable[[], float] = time.time,
) -> tuple[Chain, Deployed]:
    """Open a new chain in `path`, whose first block deployed the contracts and minted for `PAYER`.

    `rich` own coins. The block is one second younger than the first of any chain, so that `clock`
    may tell any time after it.
    """
    content, at = _first_block(tuple(who.address for who in rich), minted)
    path.write_bytes(content)
    return Chain.open(path, rich={}, clock=clock), at


@cache
def _first_block(rich: tuple[str, ...], minted: int) -> tuple[bytes, Deployed]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chain.db"
        coins = dict.fromkeys(rich, WEALTH)
        chain = Chain.open(path, rich=coins, clock=lambda: GENESIS_TIME + 1)
        at = deploy(chain, KEYS[0], {PAYER.address: minted})
        chain.close()
        return path.read_bytes(), at
