"""A gateway whose blocks and faults a test has in its hands, and memories that upload to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.test_utils import TestServer

from agentkit.embedded.gateway import Faults, Gateway, gateway_app
from agentkit.journal.journal import Journal
from agentkit.journal.outbox_tables import OUTBOX_STATES, OutgoingSegment
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave.base64url import name_of
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.arweave.jwk import JwkWallet
from agentkit.memory.memory import Memory, MemoryPace
from agentkit.memory.uploads.bundler import Layer1, UploadLimits
from agentkit.memory.uploads.confirmation import Waits
from agentkit.memory.uploads.outbox import Outbox
from agentkit.memory.uploads.upload_paths import UploadPath
from support.timing import limit

SIGNER = KeySigner(b"\x11" * 32)
ME = name_of(SIGNER.public_key)
PATIENT: dict[str, Any] = {"timeout": 5.0, "rounds": 1, "backoff": 0.001}

LISTED = """
query ($o: [String!]) {
  transactions(owners: $o, first: 100, sort: HEIGHT_ASC) { edges { node { id } } }
}"""

MakePath = Callable[[Outbox, Gateways], UploadPath]


TOKEN = "test"  # of a gateway that holds nothing but test data


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Weave:
    """A gateway behind HTTP; blocks come when a test mines."""

    gateway: Gateway
    url: str
    clock: Clock

    def fault(self, **faults: Any) -> None:
        """Have these go wrong from now on; blocks still come when a test mines."""
        self.gateway.set_faults(Faults(block_seconds=120.0, **faults))

    async def mine_meanwhile(self) -> None:
        """Mine a block while a memory may be talking to the gateway: one thread may be in it."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{self.url}/mine") as answer,
        ):
            assert answer.status == 200

    def mine(self, blocks: int = 1) -> None:
        for _ in range(blocks):
            self.gateway.mine()

    def listed(self, owner: str = ME) -> list[str]:
        """Return the ids that an owner is listed with."""
        answer = self.gateway.query(LISTED, {"o": [owner]})["data"]["transactions"]
        return [edge["node"]["id"] for edge in answer["edges"]]

    def reached(self, name: str) -> int:
        return self.gateway.bench.reached[name]


@asynccontextmanager
async def weave_at(folder: Path) -> AsyncIterator[Weave]:
    clock = Clock()
    gateway = Gateway.open(folder, block_seconds=120.0, clock=clock)
    async with TestServer(gateway_app(gateway, token=TOKEN)) as server:
        yield Weave(gateway, str(server.make_url("")).rstrip("/"), clock)
    gateway.close()


@dataclass
class Mind:
    """A memory with its journal."""

    journal: Journal
    memory: Memory
    folder: Path
    gateways: Gateways
    path: UploadPath | None = None
    notes: int = field(default=0)

    async def note(self, count: int = 1, size: int = 10) -> None:
        for _ in range(count):
            self.notes += 1
            await self.memory.note("t", f"{self.notes} " + "x" * size)

    async def items(self) -> list[OutgoingSegment]:
        return await self.journal.commit(lambda tx: tx.outbox.in_states(*OUTBOX_STATES))

    async def states(self) -> list[str]:
        return [item.state for item in await self.items()]

    async def until(self, state: str) -> None:
        """Wait until all items are in a state, what brings them there runs in the background."""
        async with asyncio.timeout(limit(10)):
            while set(await self.states()) != {state}:
                await asyncio.sleep(0.01)

    async def said(self) -> list[str]:
        return (await self.memory.backup_status()).sentences()


@asynccontextmanager
async def minds(
    folder: Path,
    *urls: str,
    path: MakePath | None = None,
    pace: MemoryPace | None = None,
    patience: Waits | None = None,
) -> AsyncIterator[Mind]:
    """Open the memory of a folder over some gateways, with nothing running in the background."""
    async with AsyncExitStack() as stack:
        journal = await Journal.open(folder, SIGNER.address)
        stack.push_async_callback(journal.close)
        gateways = Gateways(urls, **PATIENT)
        made = path(Outbox(journal), gateways) if path else None
        memory = Memory(
            journal,
            SIGNER,
            gateways,
            made,
            pace=pace or MemoryPace(look=0.02, confirm=0.02, close=5.0),
            patience=patience or Waits(lost=0.0, seed=0.0),
        )
        stack.push_async_callback(memory.close)
        yield Mind(journal, memory, folder, gateways, made)


def layer1(wallet: JwkWallet, limits: UploadLimits | None = None, rest: float = 600.0) -> MakePath:
    return lambda outbox, gateways: Layer1(outbox, gateways, wallet, limits or UploadLimits(), rest)
