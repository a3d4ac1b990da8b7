"""Two machines with one key: whoever finds that the other went on stops, and says all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.local_gateway import SIGNER, fetched, weaving
from support.toy_market import usdc

from agentkit.embedded.gateway import Faults
from agentkit.errors import StateForked
from agentkit.journal import events as e
from agentkit.journal.journal import Journal
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.memory import Memory
from agentkit.memory.restore import wallet_restore


@asynccontextmanager
async def machine(folder: Path, url: str) -> AsyncIterator[tuple[Journal, Memory]]:
    journal = await Journal.open(folder, SIGNER.address)
    memory = Memory(journal, SIGNER, Gateways([url], rounds=1))
    try:
        yield journal, memory
    finally:
        await memory.close()
        await journal.close()


async def pay(journal: Journal, amount: str) -> None:
    """Write a purchase into the wallet's stream as the budget does."""
    money = usdc(amount)
    held = e.Held(run="r1", amount=money)
    attempt = f"{amount} attempt"
    reserved = e.Reserved(
        attempt=attempt, run="r1", rail="toy", account="a", amount=money, provider="one"
    )
    spent = e.Spent(attempt=attempt, provider="one", amount=money, standing="paid")
    for event in (held, reserved, spent):
        await journal.commit(lambda tx, event=event: tx.append(e.WALLET, event))


async def test_a_machine_that_was_thought_dead_stops_before_it_pays(tmp_path: Path) -> None:
    async with weaving(tmp_path) as (_, url):
        async with machine(tmp_path / "one", url) as (here, memory):
            await memory.note("t", "before")
            await memory.checkpoint()
            await memory.check_alone()
            ours = await here.commit(lambda tx: tx.instance)

            found = await fetched(url)
            journal = await wallet_restore.restore(found, tmp_path / "two", SIGNER.address)
            theirs = await journal.commit(lambda tx: tx.instance)
            await journal.close()
            async with machine(tmp_path / "two", url) as (_, other):
                await other.note("t", "the other went on")
            await pay(here, "0.5")  # of this nobody else knows
            await memory.note("t", "and went on here")

            with pytest.raises(StateForked) as raised:
                await memory.checkpoint()
            told = str(raised.value)
            assert "another machine goes on with wallet after event 1" in told
            assert f"by {theirs}" in told
            assert f"here by {ours} it is at event 5" in told
            assert "paid here since: 0.50 USDC to one" in told
            assert raised.value.payments == ("0.50 USDC to one",)
            assert raised.value.stream == "wallet"
            assert "agentkit memory restore" in raised.value.hint
            with pytest.raises(StateForked):  # and from then on, whoever asks
                await memory.check_alone()
            standing = await memory.backup_status()
            assert standing.unsealed == 4  # nothing of the losing side was posted
        assert (await fetched(url)).forks == ()


async def test_a_new_life_asks_before_its_first_purchase(tmp_path: Path) -> None:
    async with weaving(tmp_path) as (_, url):
        async with machine(tmp_path / "one", url) as (_, memory):
            await memory.note("t", "before")
        found = await fetched(url)
        for name in ("two", "three"):
            journal = await wallet_restore.restore(found, tmp_path / name, SIGNER.address)
            await journal.close()
        async with machine(tmp_path / "two", url) as (_, memory):
            await memory.check_alone()
            await memory.checkpoint()
        async with machine(tmp_path / "three", url) as (_, memory):
            with pytest.raises(StateForked, match="after event 1"):
                await memory.check_alone()


async def test_where_no_gateway_answers_a_purchase_does_not_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with machine(tmp_path / "one", "http://127.0.0.1:1") as (_, memory):
        await memory.check_alone()
    assert "no gateway can tell whether another machine uses this wallet" in caplog.text


async def test_junk_at_our_place_is_no_fork(tmp_path: Path) -> None:
    async with weaving(tmp_path) as (weave, url), machine(tmp_path / "one", url) as (_, memory):
        await memory.note("t", "before")
        await memory.checkpoint()
        weave.set_faults(Faults(forge={"Head": "ab" * 32}))
        await memory.note("t", "after")
        await memory.checkpoint()
        assert weave.bench.reached["forge"]
        assert (await memory.backup_status()).unsealed == 0


async def test_lives_are_counted(tmp_path: Path) -> None:
    async with weaving(tmp_path) as (_, url):
        async with machine(tmp_path / "one", url) as (_, memory):
            await memory.note("t", "first life")
        for epoch in (1, 2):
            journal = await wallet_restore.restore(
                await fetched(url), tmp_path / f"life {epoch}", SIGNER.address
            )
            (*_, last) = await journal.history(e.WALLET)
            assert isinstance(last, e.Restored)
            assert last.epoch == epoch
            assert last.instance == await journal.commit(lambda tx: tx.instance)
            await journal.close()
            async with machine(tmp_path / f"life {epoch}", url) as (_, memory):
                await memory.checkpoint()


@pytest.mark.parametrize("test", [False, True])
async def test_a_second_start_from_nothing_stops_unless_it_is_test_money(
    tmp_path: Path, test: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with weaving(tmp_path) as (_, url):
        async with machine(tmp_path / "one", url) as (_, memory):
            await memory.note("t", "the first")
        journal = await Journal.open(tmp_path / "two", SIGNER.address)
        memory = Memory(journal, SIGNER, Gateways([url], rounds=1), test=test)
        await memory.note("t", "another")
        if test:
            await memory.checkpoint()
            assert "test money only, so both go on" in caplog.text
        else:
            with pytest.raises(StateForked, match="after event 0"):
                await memory.checkpoint()
        await memory.close()
        await journal.close()
