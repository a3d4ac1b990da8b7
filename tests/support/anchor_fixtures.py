"""One chain with a head anchor, one weave, and machines of one wallet that use both."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.genesis import deploy
from agentkit.embedded.chain.rpc import RpcFront, rpc_app
from agentkit.embedded.gateway import Gateway
from agentkit.journal.journal import Journal
from agentkit.keys.signer import KeySigner
from agentkit.market.chain import Network
from agentkit.memory.anchoring import Anchoring, corroborated
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.memory import Memory, MemoryPace
from agentkit.memory.restore import wallet_restore
from agentkit.memory.restore.restored_wallet import RestoredWallet
from agentkit.money import Asset, Money
from agentkit.payments.anchor import EvmAnchor, anchored_head
from agentkit.payments.chain import Web3Chain
from agentkit.payments.sender import Sender
from support.local_gateway import SIGNER, weaving

DEPLOYER = b"\x01" * 32
CHAIN_ID = 1337
ETHER = 10**18


@dataclass
class World:
    """What all machines share; `chain` is looked at past everybody's client."""

    weave: Gateway
    url: str
    chain: Chain
    network: Network

    async def head(self) -> str:
        eyes = Web3Chain(self.network)
        try:
            return await anchored_head(eyes, self.network, SIGNER.address)
        finally:
            await eyes.close()

    async def found(self, **how: object) -> RestoredWallet:
        """What a new machine finds, and what the anchor says to it."""
        async with Gateways([self.url], rounds=1) as gateways:
            read = await wallet_restore.fetch(SIGNER, gateways, **how)  # type: ignore[arg-type]
        return corroborated(read, await self.head())


def network_at(rpc: str, anchor: str) -> Network:
    here = f"eip155:{CHAIN_ID}"
    return Network(
        name="test",
        chain_id=CHAIN_ID,
        rpc=rpc,
        currency=Asset.named("USDC").bind(here, "erc20:0x" + "11" * 20),
        coin=Asset.named("ETH").bind(here, "slip44:60"),
        token="",
        token_name="",
        token_version="",
        channels="",
        anchor=anchor,
        test=True,
    )


def made_chain(path: Path) -> str:
    """Make a chain with the contracts on it, and return where the anchor is."""
    rich = {KeySigner(DEPLOYER).address: ETHER, SIGNER.address: ETHER}
    chain = Chain.open(path, rich=rich)
    anchor = deploy(chain, DEPLOYER, {}).anchor
    chain.close()
    return anchor


@asynccontextmanager
async def world(folder: Path, made: tuple[Path, str]) -> AsyncIterator[World]:
    shutil.copy(made[0], folder / "chain.db")
    chain = Chain.open(folder / "chain.db", rich={})
    runner = web.AppRunner(rpc_app(RpcFront(chain)), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    rpc = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with weaving(folder) as (weave, url):
            yield World(weave, url, chain, network_at(rpc, made[1]))
    finally:
        await runner.cleanup()
        chain.close()


@asynccontextmanager
async def machine(
    network: Network,
    url: str,
    home: Path,
    *,
    interval: float = 600.0,
    gas: Money | None = None,
    client: Callable[[Network], Web3Chain] = Web3Chain,
    pace: MemoryPace | None = None,
) -> AsyncIterator[tuple[Journal, Memory]]:
    """A machine with this wallet; it anchors when it has to, every `interval` and at its end."""
    journal, chain = await Journal.open(home, SIGNER.address), client(network)
    sender = Sender(journal, chain, SIGNER, network, gas)
    anchor = EvmAnchor(chain, network, SIGNER.address, sender)
    gateways = Gateways([url], rounds=1)
    anchoring = Anchoring(journal, anchor, interval)
    memory = Memory(journal, SIGNER, gateways, anchoring=anchoring, pace=pace)
    try:
        yield journal, memory
    finally:
        await memory.close()
        await chain.close()
        await journal.close()
