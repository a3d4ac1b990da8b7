"""Memories over a journal on disk, and the way back to one from nothing but its key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from agentkit.embedded.gateway import Gateway, gateway_app
from agentkit.journal.journal import Journal
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.memory import Memory
from agentkit.memory.restore import wallet_restore

SIGNER = KeySigner(b"\x11" * 32)


@dataclass(frozen=True)
class Mind:
    """What LangChain's and LangGraph's side needs of an agent: its memory."""

    memory: Memory
    journal: Journal


@asynccontextmanager
async def mind(home: Path, gateways: Gateways | None = None) -> AsyncIterator[Mind]:
    """Open the memory of the wallet `SIGNER` in a home."""
    journal = await Journal.open(home, SIGNER.address)
    memory = Memory(journal, SIGNER, gateways)
    try:
        yield Mind(memory, journal)
    finally:
        await memory.close()
        await journal.close()


@asynccontextmanager
async def elsewhere(one: Mind, folder: Path) -> AsyncIterator[Mind]:
    """Seal a mind's journal, and open what another home gets back from the key alone."""
    weave = Gateway.open(folder / "weave")
    runner = web.AppRunner(gateway_app(weave))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        sealing = Memory(one.journal, SIGNER, Gateways([url], rounds=1))
        await sealing.checkpoint()
        await sealing.close()
        async with Gateways([url], rounds=1) as gateways:
            found = await wallet_restore.fetch(SIGNER, gateways)
        journal = await wallet_restore.restore(found, folder / "elsewhere", SIGNER.address)
        await journal.close()
    finally:
        await runner.cleanup()
        weave.close()
    async with mind(folder / "elsewhere") as other:
        yield other
