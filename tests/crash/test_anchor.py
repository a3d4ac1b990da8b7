"""Killed between the signature and the receipt of its anchor, a machine goes on with that one."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from support.anchor_fixtures import machine, made_chain, world
from support.local_gateway import SIGNER
from support.processes import PROGRAMS
from support.timing import limit

from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.memory.restore import wallet_restore

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("point", "restored"),
    [("before", False), ("after", False), ("after", True)],
    ids=["before it left", "after it left", "after, and restored elsewhere"],
)
async def test_a_head_is_anchored_once_whoever_dies(
    tmp_path: Path, point: str, restored: bool
) -> None:
    path = tmp_path / "made.db"
    async with world(tmp_path, (path, made_chain(path))) as here:
        started, network = here.chain.number, here.network
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, str(PROGRAMS / "anchoring_machine.py"), str(tmp_path / "home")),
            *(network.rpc, network.anchor, here.url, point),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"},
        )
        told, _ = await asyncio.wait_for(child.communicate(), limit(60))
        assert (child.returncode, told) == (-signal.SIGKILL, b"killed\n")
        assert here.chain.number - started == (point == "after")

        home = tmp_path / "home"
        if restored:
            home = tmp_path / "another"
            found = await here.found()
            assert found.corroborated == (point == "after")  # before it nothing is anchored
            await (await wallet_restore.restore(found, home, SIGNER.address)).close()
        async with machine(network, here.url, home) as (journal, memory):
            await memory.check_alone()
            history = await journal.history(e.WALLET)
            heads = [event.head for event in history if isinstance(event, e.HeadChosen)]
            assert await here.head() == heads[-1]
            assert len(heads) == 2  # what it died over, and that this life was first
            assert here.chain.number - started == 2
            rows = await journal.commit(lambda tx: tx.every(r.EvmTransaction))
            assert all(row.final and row.succeeded for row in rows)
