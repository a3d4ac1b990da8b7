"""The canaries beside channels: escrow, upload, restore."""

from __future__ import annotations

import tempfile
from pathlib import Path

from agentkit.cli.field.canary import CannotTry, expect
from agentkit.cli.field.ground import Ground
from agentkit.cli.field.stall import DEPOSIT
from agentkit.cli.memory import Where, where_of
from agentkit.errors import RunNotFound
from agentkit.market.carrying import carry
from agentkit.memory.restore import wallet_restore
from agentkit.runtime.history import read as read_run


async def escrow(ground: Ground) -> str:
    """Buy a call whose price is locked in escrow, and have the rest back."""
    if not ground.network.escrow:
        raise CannotTry("no escrow contract is set (chain.escrow)")
    await ground.need_gas("escrow")
    before = await ground.wealth()
    result = await ground.purse.buy_from_escrow(DEPOSIT)
    (receipt,) = result.receipts
    expect(receipt.attempt.rail == "escrow", f"it was paid by {receipt.attempt.rail}")
    rail = ground.parts.resources.rails["escrow"]
    for message in await rail.close():
        if message.body.get("attempt") == receipt.attempt.id:
            await carry(ground.parts.resources.providers, rail, message, seconds=300.0)
    await ground.becomes(ground.wealth, before - receipt.amount.units, "the wallet's balance")
    return f"paid {receipt.amount} out of escrow {ground.network.escrow}; the rest came back"


async def upload(ground: Ground) -> str:
    """Seal what was done so far, and have a gateway take it."""
    if not (ground.settings.memory.gateways or ground.network.test):
        raise CannotTry("no Arweave gateway is set (memory.gateways)")
    status = await ground.parts.memory.checkpoint()
    expect(not status.trouble, status.trouble)
    expect(not status.unsealed, f"{status.unsealed} events are not on Arweave")
    return f"{status.items} sealed segments were taken by a gateway"


async def restore(ground: Ground) -> str:
    """Restore the wallet into an empty folder, and compare the runs of this field run."""
    ground.need("upload")
    where = _where(ground)
    async with where.client() as client:
        try:
            found = await wallet_restore.fetch(where.sealer, client, whole=True)
        except RunNotFound as error:
            raise CannotTry("gateways do not list the upload yet; run it again later") from error
    missing = [run for run in ground.purse.runs if run not in found.streams]
    if missing and not ground.network.test:
        raise CannotTry(f"gateways do not list {len(missing)} runs yet; run it again later")
    expect(not missing, f"gateways have no step of {len(missing)} runs")
    with tempfile.TemporaryDirectory() as folder:
        journal = await wallet_restore.restore(found, Path(folder), where.sealer.address)
        try:
            for run in ground.purse.runs:
                here = await read_run(ground.parts.journal, run)
                there = await read_run(journal, run)
                expect(here.receipts == there.receipts, f"the receipts of run {run} differ")
        finally:
            await journal.close()
    return f"restored {found.events} events; the receipts of {len(ground.purse.runs)} runs agree"


def _where(ground: Ground) -> Where:
    return where_of(ground.settings, None, None)
