"""State files of every earlier version open, mean the same money, and can be gone on with."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from support.golden_files import SCHEMAS, all_rows, assert_same_money, figures, made_by, unpacked

from agentkit.embedded.gateway import Gateway, gateway_app
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.restore import wallet_restore

MAKE = made_by()
SIGNER = KeySigner(MAKE.KEY)


# -- what was sealed -----------------------------------------------------------------------------


@asynccontextmanager
async def gateway_with(folder: Path, items: Sequence[bytes]) -> AsyncIterator[Gateways]:
    """Serve a gateway that holds these items, and nothing else."""
    weave = Gateway.open(folder)
    runner = web.AppRunner(gateway_app(weave))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with Gateways([f"http://127.0.0.1:{runner.addresses[0][1]}"], rounds=1) as gateways:
            for item in items:
                await gateways.post_item(item)
            yield gateways
    finally:
        await runner.cleanup()
        weave.close()


def sealed(path: Path, *, snapshots: bool) -> list[bytes]:
    """Return the signed items that a state file's version sealed, as they went to Arweave."""
    rows = all_rows(path, "outbox", "stream, item, raw")
    return [raw for stream, _, raw in rows if snapshots or stream != "snapshots"]


@pytest.mark.parametrize("folder", SCHEMAS)
@pytest.mark.parametrize("snapshots", [False, True], ids=["segments", "snapshot"])
async def test_what_an_old_version_sealed_restores_the_wallet(
    tmp_path: Path, folder: str, snapshots: bool
) -> None:
    then, path = figures(folder, "agent"), unpacked(folder, "agent", tmp_path / "old")
    items = sealed(path, snapshots=snapshots)
    assert len(items) >= 4
    async with gateway_with(tmp_path / "weave", items) as gateways:
        found = await wallet_restore.fetch(SIGNER, gateways)
    has_snapshot = len(items) > len(sealed(path, snapshots=False))
    assert has_snapshot == (snapshots and SCHEMAS[folder] >= 3 and folder != "schema-3-early")
    assert (found.snapshot is not None) == has_snapshot
    assert found.problems == ()
    journal = await wallet_restore.restore(found, tmp_path / "new", SIGNER.address)
    try:
        await journal.check()
        assert found.events == then["checked"]
        now = await journal.commit(MAKE.read_money)
        assert_same_money(now, then)
    finally:
        await journal.close()
