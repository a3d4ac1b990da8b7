"""An agent that is at home on chain 10 and pays on chain 1 too, and shops on both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentkit.agent import Agent
from agentkit.keys.signer import KeySigner
from support import chain_processes
from support.channel_market import ChannelShop, channel_shop
from support.keystore_files import PASSPHRASE, write_keystore
from support.x402_market import PRICE, Shop, World, facilitator, shop, world_on

HOME, OTHER = 10, 1
NAMES = {HOME: "home", OTHER: "other"}
PATH = "/v1/chat/completions"


@contextmanager
def two_chains() -> Iterator[dict[int, chain_processes.Node]]:
    """Two chains of anvil, by their ids."""
    with (
        chain_processes.anvil(chain_id=HOME) as home,
        chain_processes.anvil(chain_id=OTHER) as other,
    ):
        yield {HOME: home, OTHER: other}


@dataclass
class Corner:
    """A chain, and two shops on it: one is paid by `exact`, one over channels."""

    world: World
    exact: Shop
    lanes: ChannelShop

    def url(self, scheme: str) -> str:
        """The address that sells, by the scheme that it takes."""
        return self.exact.url + PATH if scheme == "exact" else self.lanes.url

    async def earned(self) -> int:
        """What both shops have, once everything that was promised them is claimed."""
        await self.lanes.claiming.claim_all()
        return await self.world.earned() + await self.world.balance(self.lanes.signer.address)

    @property
    def works(self) -> int:
        """How often the shops worked."""
        return self.exact.counter.works + self.lanes.work.done


@asynccontextmanager
async def corner_on(
    node: chain_processes.Node, chain_id: int, folder: Path, key: bytes
) -> AsyncIterator[Corner]:
    """Shops on a chain, and the facilitator that settles for both; `key` is paid over channels."""
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(world_on(node, chain_id=chain_id))
        url = await stack.enter_async_context(facilitator(world, folder))
        exact = await stack.enter_async_context(shop(world, folder, url))
        lanes = await stack.enter_async_context(channel_shop(world, folder, url, key=key))
        yield Corner(world, exact, lanes)


@dataclass
class Wallet:
    """A wallet with money on both chains, and the settings that it is opened with."""

    folder: Path
    signer: KeySigner
    networks: dict[str, dict[str, Any]]

    def settings(self, **changes: Any) -> dict[str, Any]:
        """The settings, as arguments: both networks, counted together."""
        return {
            "network": NAMES[HOME],
            "networks": self.networks,
            "usd": "usdc",
            "home": self.folder / "agent",
            "wallet": {"keystore": self.folder / "wallet.json"},
            "passphrase": PASSPHRASE,
            **changes,
        }

    def agent(self, **changes: Any) -> Agent:
        """The agent, not open yet."""
        return Agent.from_config(**self.settings(**changes))


async def wallet_with(
    corners: Mapping[int, Corner], folder: Path, *, units: int = 100 * PRICE
) -> Wallet:
    """A new wallet with `units` on each chain."""
    signer = write_keystore(folder / "wallet.json")
    for corner in corners.values():
        await corner.world.mint(signer.address, units)
    networks = {NAMES[chain]: described(corner) for chain, corner in corners.items()}
    return Wallet(folder, signer, networks)


def described(corner: Corner, *rpc: str) -> dict[str, Any]:
    """Return a chain as `[networks.NAME]` describes it, behind its own address or others."""
    network = corner.world.network
    return {
        "chain_id": network.chain_id,
        "rpc": rpc or (network.rpc,),
        "token": network.token,
        "token_name": network.token_name,
        "token_version": network.token_version,
        "finality": 1,
    }
