"""The head anchor: what is hidden is missed, and of two machines with one key one goes on."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pytest
from support.anchor_fixtures import World, machine, made_chain, world
from support.local_gateway import SIGNER, weaving
from support.timing import limit

from agentkit.embedded.gateway import Faults
from agentkit.errors import StateCorrupt, StateForked, StoreUnavailable
from agentkit.journal import events as e
from agentkit.journal.journal import Journal
from agentkit.memory.anchoring import BEHIND, UNSURE
from agentkit.memory.memory import MemoryPace
from agentkit.memory.restore import wallet_restore
from agentkit.money import Money
from agentkit.payments.chain import Web3Chain


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("chain") / "chain.db"
    return path, made_chain(path)


@pytest.fixture
async def here(tmp_path: Path, made: tuple[Path, str]) -> AsyncIterator[World]:
    async with world(tmp_path, made) as opened:
        yield opened


async def chosen(journal: Journal) -> list[str]:
    history = await journal.history(e.WALLET)
    return [event.head for event in history if isinstance(event, e.HeadChosen)]


async def revived(here: World, home: Path, **how: bool) -> None:
    """Restore on another machine what can be found."""
    found = await here.found()
    await (await wallet_restore.restore(found, home, SIGNER.address, **how)).close()


# -- what is anchored ----------------------------------------------------------------------------


async def test_what_was_sealed_is_anchored_once(here: World, tmp_path: Path) -> None:
    async with machine(here.network, here.url, tmp_path / "one", interval=0) as (journal, memory):
        await memory.note("t", "one")
        await memory.checkpoint()
        (first,) = await chosen(journal)
        assert await here.head() == first
        block = here.chain.number
        for _ in range(2):  # its own transaction is nothing new
            await memory.checkpoint()
        assert (here.chain.number, await here.head()) == (block, first)
        await memory.note("t", "two")
        await memory.checkpoint()
        assert await here.head() == (await chosen(journal))[1] != first
    for whole in (False, True):
        found = await here.found(whole=whole)
        assert found.corroborated
        assert not [told for told in found.warnings if UNSURE in told]


async def test_it_moves_no_more_often_than_it_may_and_at_the_end(
    here: World, tmp_path: Path
) -> None:
    async with machine(here.network, here.url, tmp_path / "one") as (journal, memory):
        for text in ("one", "two", "three"):
            await memory.note("t", text)
            await memory.checkpoint()
        (first,) = await chosen(journal)
        assert await here.head() == first
    assert await here.head() not in ("", first)
    head = await here.head()
    async with machine(here.network, here.url, tmp_path / "one") as (_, memory):
        await memory.backup_status()
    assert await here.head() == head  # whoever only looked pays nothing


async def test_what_was_sealed_too_early_is_anchored_when_it_is_time(
    here: World, tmp_path: Path
) -> None:
    pace, home = MemoryPace(look=0.05), tmp_path / "one"
    async with machine(here.network, here.url, home, interval=1, pace=pace) as (journal, memory):
        for text in ("one", "two"):
            await memory.note("t", text)
            await memory.checkpoint()
        (first,) = await chosen(journal)
        memory.start()
        async with asyncio.timeout(limit(10)):
            while await here.head() == first:
                await asyncio.sleep(0.1)
        assert await here.head() == (await chosen(journal))[-1]


async def test_gas_has_its_limit_and_what_is_sealed_goes_up_all_the_same(
    here: World, tmp_path: Path
) -> None:
    none = Money.parse("0 ETH")
    async with machine(here.network, here.url, tmp_path / "one", gas=none) as (_, memory):
        await memory.note("t", "one")
        with pytest.raises(StoreUnavailable, match=r"cannot be anchored.*limit gas") as raised:
            await memory.check_alone()
        assert "gas" in raised.value.hint
        assert (await memory.backup_status()).unsealed == 0
    assert await here.head() == ""


async def test_where_no_chain_answers_uploads_go_on_and_purchases_wait(
    here: World, tmp_path: Path
) -> None:
    async with machine(here.network, here.url, tmp_path / "one", client=Silent) as (_, memory):
        await memory.note("t", "one")
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await memory.checkpoint()
        assert (await memory.backup_status()).unsealed == 0
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await memory.check_alone()
    assert (await here.found()).rows(e.WALLET)


# -- rollback ------------------------------------------------------------------------------------


async def test_a_gateway_that_hides_the_newest_is_behind_the_anchor(
    here: World, tmp_path: Path
) -> None:
    async with machine(here.network, here.url, tmp_path / "one", interval=0) as (journal, memory):
        for text in ("one", "two"):
            await memory.note("t", text)
            await memory.checkpoint()
        old, new = await chosen(journal)
        newest = (await journal.commit(lambda tx: tx.outbox.in_states("accepted")))[-1]
    here.weave.set_faults(Faults(hide=frozenset([newest.item])))
    found = await here.found()
    (told,) = found.problems
    assert told == f"{BEHIND}: {new[:12]} is anchored, and the newest they have is {old[:12]}"
    assert told in found.warnings
    assert not [said for said in found.warnings if UNSURE in said]
    with pytest.raises(StateCorrupt, match=BEHIND) as raised:
        await wallet_restore.restore(found, tmp_path / "two", SIGNER.address)
    assert "--accept-loss" in raised.value.hint

    await revived(here, tmp_path / "three", accept_loss=True)
    async with machine(here.network, here.url, tmp_path / "three") as (_, memory):
        await memory.check_alone()  # from what was given up the new life goes on
        assert await here.head() not in (old, new)
    assert (await here.found()).corroborated


async def test_a_run_that_is_hidden_is_missed_though_the_wallet_is_not(
    here: World, tmp_path: Path
) -> None:
    async with machine(here.network, here.url, tmp_path / "one", interval=0) as (journal, memory):
        await journal.commit(lambda tx: tx.append("r1", e.NodeSkipped(node="a", why="one")))
        await memory.checkpoint()
        items = await journal.commit(lambda tx: tx.outbox.in_states("accepted"))
        (run,) = [item.item for item in items if item.stream == "r1"]
    assert (await here.found()).corroborated
    here.weave.set_faults(Faults(hide=frozenset([run])))
    found = await here.found()
    assert found.problems == (f"{BEHIND}: r1 is anchored up to event 1, and they have 0 of it",)

    await revived(here, tmp_path / "two", accept_loss=True)
    async with machine(here.network, here.url, tmp_path / "two") as (_, memory):
        await memory.check_alone()
    assert (await here.found()).corroborated  # what was given up is not missed again


class Silent(Web3Chain):
    """Nobody is there."""

    async def call(self, to: str, data: bytes) -> bytes:
        raise StoreUnavailable("the chain does not answer")


class Late(Web3Chain):
    """Shows what stood on the chain before, as often as it is told to."""

    shows: ClassVar[list[bytes]] = []

    async def call(self, to: str, data: bytes) -> bytes:
        return self.shows.pop() if self.shows else await super().call(to, data)


# -- forks ---------------------------------------------------------------------------------------


async def test_of_two_machines_that_see_no_common_gateway_one_buys(
    here: World, tmp_path: Path
) -> None:
    async with machine(here.network, here.url, tmp_path / "one") as (_, memory):
        await memory.note("t", "before")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    async with weaving(tmp_path / "elsewhere") as (_, elsewhere):
        async with machine(here.network, here.url, tmp_path / "one") as (_, memory):
            await memory.note("t", "here")
            await memory.check_alone()
            head = await here.head()
            async with machine(here.network, elsewhere, tmp_path / "two") as (_, other):
                await other.note("t", "there")
                with pytest.raises(StateForked, match="another machine goes on") as raised:
                    await other.check_alone()
                assert raised.value.theirs == ("", head)
                assert "agentkit memory restore" in raised.value.hint
                with pytest.raises(StateForked):
                    await other.checkpoint()
                assert (await other.backup_status()).unsealed > 0
            await memory.check_alone()  # the one that was first goes on
            await memory.note("t", "and on")
        assert await here.head() != head


async def test_two_that_saw_the_same_head_cannot_both_move_it(here: World, tmp_path: Path) -> None:
    async with machine(here.network, here.url, tmp_path / "one") as (_, memory):
        await memory.note("t", "before")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    async with (
        weaving(tmp_path / "elsewhere") as (_, elsewhere),
        machine(here.network, here.url, tmp_path / "one") as (_, first),
        machine(here.network, elsewhere, tmp_path / "two", client=Late) as (_, second),
    ):
        await second.note("t", "there")
        await second._seal(anchor=True)  # it has chosen where to go on
        old = await here.head()
        await first.note("t", "here")
        await first.check_alone()
        Late.shows = [bytes.fromhex(old)] * 2  # and looked, before the other moved the head
        with pytest.raises(StateForked) as raised:
            await second.check_alone()
        assert Late.shows == []
        assert raised.value.theirs == ("", await here.head())


async def test_a_restored_machine_takes_over_and_the_old_one_stops(
    here: World, tmp_path: Path
) -> None:
    async with machine(here.network, here.url, tmp_path / "one") as (_, old):
        await old.note("t", "before")
        await old.check_alone()
        await revived(here, tmp_path / "two")
        async with machine(here.network, here.url, tmp_path / "two") as (_, new):
            await new.check_alone()
            await old.note("t", "still here")
            with pytest.raises(StateForked):
                await old.checkpoint()
            with pytest.raises(StateForked):
                await old.check_alone()
