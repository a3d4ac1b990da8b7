"""A gateway over loopback with a weave of its own, and one wallet's way there and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from agentkit.embedded.gateway import Gateway, gateway_app
from agentkit.journal.journal import Journal
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.memory import Memory
from agentkit.memory.restore import wallet_restore
from agentkit.memory.restore.restored_wallet import RestoredWallet
from agentkit.memory.sealing import snapshots

SIGNER = KeySigner(b"\x55" * 32)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a snapshot made every few events, in the tests of a file that imports this."""
    monkeypatch.setattr(snapshots, "EVERY_EVENTS", 5)
    monkeypatch.setattr(snapshots, "OUTWEIGHED", 0)


@asynccontextmanager
async def weaving(folder: Path) -> AsyncIterator[tuple[Gateway, str]]:
    gateway = Gateway.open(folder / "weave")
    runner = web.AppRunner(gateway_app(gateway))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield gateway, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
        gateway.close()


async def sealed(journal: Journal, url: str) -> None:
    memory = Memory(journal, SIGNER, Gateways([url], rounds=1))
    await memory.checkpoint()
    await memory.close()


async def fetched(url: str, **how: object) -> RestoredWallet:
    async with Gateways([url], rounds=1) as gateways:
        return await wallet_restore.fetch(SIGNER, gateways, **how)  # type: ignore[arg-type]
