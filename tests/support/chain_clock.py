"""A real chain whose clock, with everybody else's, a test can move on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from agentkit.embedded.chain.rpc import RpcFront, rpc_app
from agentkit.embedded.chain.vm import CHAIN_ID
from agentkit.keys.signer import KeySigner
from agentkit.market.chain import Network
from agentkit.money import Asset
from support.chain_processes import KEYS
from support.deployed_chain import open_deployed

DEPLOYER, PAYER, SHOP, ARBITER = map(KeySigner, KEYS[:4])
MINTED = 10_000


class Clock:
    """The time of everybody here, which can be moved on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead, self._real = 0.0, time.time
        monkeypatch.setattr(time, "time", self.now)

    def now(self) -> float:
        return self._real() + self._ahead

    def skip(self, seconds: float) -> None:
        self._ahead += seconds


@asynccontextmanager
async def clocked(folder: Path, clock: Clock, *, minted: int = MINTED) -> AsyncIterator[Network]:
    """A chain with all contracts, on which the payer has `minted` units and all have coins."""
    chain, at = open_deployed(
        folder / "chain.db",
        rich=(DEPLOYER, PAYER, SHOP, ARBITER),
        minted=minted,
        clock=lambda: int(clock.now()),
    )
    async with TestServer(rpc_app(RpcFront(chain))) as server:
        here = f"eip155:{CHAIN_ID}"
        yield Network(
            name="test",
            chain_id=CHAIN_ID,
            rpc=str(server.make_url("/")),
            currency=Asset.named("USDC").bind(here, f"erc20:{at.token}"),
            coin=Asset.named("ETH").bind(here, "slip44:60"),
            token=at.token,
            token_name="USD Coin",
            token_version="1",
            channels=at.channels,
            escrow=at.escrow,
            test=True,
        )
    chain.close()
