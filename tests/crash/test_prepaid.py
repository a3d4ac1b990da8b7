"""SIGKILL of a payer around a top-up: afterwards it is the same transfer, credited once."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from support.chain_clock import PAYER, SHOP, Clock, clocked
from support.processes import PROGRAMS

from agentkit.embedded.stand_ins import hyperbolic
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.payments.balance import token_balance
from agentkit.payments.chain import Web3Chain

CENT = 10_000
BUYER = PROGRAMS / "credit_buyer.py"


@pytest.mark.parametrize("moment", ["signed", "sent", "mined", "seen", "booked"])
async def test_killed_at_any_moment_it_is_one_transfer_and_one_credit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    account = hyperbolic.Credit(tmp_path / "hyperbolic.db")
    async with clocked(tmp_path, Clock(monkeypatch), minted=5 * CENT) as network:
        nothing: Any = None  # no model is asked here
        app = hyperbolic.hyperbolic_app(
            nothing, account, network, key="account-key", payee=SHOP.address
        )
        async with TestServer(app) as server:

            async def buy(until: str) -> tuple[int, bytes]:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    str(BUYER),
                    *(str(tmp_path / "payer"), str(server.make_url("")), network.rpc),
                    *(network.token, str(network.chain_id), until),
                    stdout=asyncio.subprocess.PIPE,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                )
                said, _ = await process.communicate()
                return process.returncode or 0, said

            assert await buy(moment) == (-9, b""), "the kill was not reached"
            for _ in range(2):  # the second finds enough
                assert await buy("never") == (0, b"done\n")
        line = Web3Chain(network)
        assert await token_balance(line, network, SHOP.address) == CENT
        await line.close()
    assert account.topped_up == CENT
    account.close()

    journal = await Journal.open(tmp_path / "payer", PAYER.address)
    (books,) = await journal.commit(lambda tx: tx.every(r.Account, "prepaid|"))
    (transfer,) = await journal.commit(lambda tx: tx.every(r.CreditTransfer))
    assert books.funded.units == CENT
    assert (transfer.standing, transfer.amount.units) == ("credited", CENT)
    await journal.close()
