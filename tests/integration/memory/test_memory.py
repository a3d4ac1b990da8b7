"""Notes, the sealed log, and the way back from nothing but a key."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from support.memory_fixtures import SIGNER
from support.toy_market import toy

from agentkit.embedded.gateway import Gateway, gateway_app
from agentkit.errors import RunNotFound, StateCorrupt, StateError, StateTooNew
from agentkit.graph.builder import JobGraph
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.journal.produced import TINY_BYTES
from agentkit.journal.rows import genesis
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave.ans104 import make_item, parse_item
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.memory import Memory
from agentkit.memory.restore import wallet_restore
from agentkit.memory.restore.restored_wallet import RestoredWallet
from agentkit.memory.sealing.backlog import seal_all
from agentkit.memory.sealing.segments import APP, Segment, seal


@pytest.fixture
def weave(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway.open(tmp_path / "weave")
    yield gateway
    gateway.close()


@asynccontextmanager
async def served(weave: Gateway) -> AsyncIterator[str]:
    runner = web.AppRunner(gateway_app(weave))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def remembering(
    folder: Path, url: str, signer: KeySigner = SIGNER
) -> AsyncIterator[tuple[Journal, Memory]]:
    journal = await Journal.open(folder, signer.address)
    memory = Memory(journal, signer, Gateways([url], rounds=1))
    try:
        yield journal, memory
    finally:
        await memory.close()
        await journal.close()


async def fetched(url: str, signer: KeySigner = SIGNER) -> RestoredWallet:
    async with Gateways([url], rounds=1) as gateways:
        return await wallet_restore.fetch(signer, gateways)


async def test_notes_are_kept_by_topic_in_order(tmp_path: Path, weave: Gateway) -> None:
    async with served(weave) as url, remembering(tmp_path / "home", url) as (_, memory):
        assert await memory.latest("findings") is None
        for text in ("one", "two"):
            await memory.note("findings", text)
        await memory.note("find", "another topic")
        assert await memory.latest("findings") == "two"
        assert [note.text for note in await memory.notes("findings")] == ["one", "two"]


async def test_a_process_that_only_reads_seals_and_writes_nothing(
    tmp_path: Path, weave: Gateway
) -> None:
    """Else a look at a restored home would go on with the state, beside the machine it is of."""
    home = tmp_path / "home"
    journal = await Journal.open(home, SIGNER.address)
    await journal.commit(lambda tx: tx.append(e.WALLET, e.NoteAdded(topic="t", text="x")))
    await journal.close()
    before = (home / "state.db").read_bytes()
    async with served(weave) as url:
        async with remembering(home, url) as (_, memory):
            memory.start()
            assert await memory.latest("t") == "x"
            assert (await memory.backup_status()).unsealed == 1
        assert (home / "state.db").read_bytes() == before
        async with remembering(home, url) as (_, memory):
            await memory.note("t", "y")
        assert (await fetched(url)).events == 2  # whoever writes seals what was left, too


async def test_a_run_comes_back_with_its_artifacts_from_the_key_alone(
    tmp_path: Path, weave: Gateway
) -> None:
    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        graph.infer("hello", model="m", prompt="the secret prompt" + "!" * TINY_BYTES)
        result = await market.run(graph)
        before = {stream: await market.journal.rows(stream) for stream in (result.run_id, e.WALLET)}
        signer = KeySigner(b"\x22" * 32)
        async with served(weave) as url:
            memory = Memory(market.journal, signer, Gateways([url], rounds=1))
            standing = await memory.checkpoint()
            assert (standing.unsealed, standing.items) == (0, 2)
            assert (await memory.checkpoint()).items == 2  # nothing new, nothing posted
            await memory.close()
            found = await fetched(url, signer)
    assert {s: found.rows(s) for s in before} == before
    journal = await wallet_restore.restore(found, tmp_path / "another", signer.address)
    digest = result["hello"].digest
    assert await journal.commit(lambda tx: tx.get_blob(digest)) == result["hello"].read()
    assert [row.state for row in await journal.commit(lambda tx: tx.every(r.Run))] == ["done"]
    assert await wallet_restore.compare(found, journal) == []
    again = Memory(journal, signer, None)
    assert (await again.backup_status()).unsealed == 1  # that it was restored is the one new event
    await journal.close()


async def test_nothing_readable_leaves_the_machine(tmp_path: Path, weave: Gateway) -> None:
    async with served(weave) as url, remembering(tmp_path / "home", url) as (journal, memory):
        await memory.note("topic-in-clear", "a secret thought")
        await memory.checkpoint()
        (segment,) = await journal.commit(lambda tx: tx.outbox.in_states("accepted"))
    item = parse_item(segment.raw)
    told = segment.raw + str(item.tags).encode()
    for word in (b"secret", b"topic", b"wallet", b"NoteAdded"):
        assert word not in told


async def test_the_window_of_loss_is_visible_while_the_gateway_is_down(
    tmp_path: Path, weave: Gateway
) -> None:
    async with served(weave) as url:
        down = url
    async with remembering(tmp_path / "home", down) as (journal, memory):
        await memory.note("t", "safe here")
        with pytest.raises(StateError):
            await memory.checkpoint()
        standing = await memory.backup_status()
        assert standing.segments == {"sealed": 1}
        assert standing.items == 0
        raw = (await journal.commit(lambda tx: tx.outbox.in_states("sealed")))[0].raw
        async with served(weave) as up:
            later = Memory(journal, SIGNER, Gateways([up], rounds=1))
            await later.checkpoint()
            await later.close()
        sent = await journal.commit(lambda tx: tx.outbox.in_states("accepted"))
        assert [segment.raw for segment in sent] == [raw]  # the same bytes, the same item


async def test_many_events_go_into_few_segments_and_come_back_in_order(
    tmp_path: Path, weave: Gateway
) -> None:
    async with served(weave) as url, remembering(tmp_path / "home", url) as (journal, memory):
        await asyncio.gather(*(memory.note("t", f"note {n}") for n in range(350)))
        standing = await memory.checkpoint()
        assert standing.items == 4
        found = await fetched(url)
        assert found.rows(e.WALLET) == await journal.rows(e.WALLET)


# -- what must be refused ------------------------------------------------------------------------


async def test_another_key_finds_nothing_and_starts_nothing(tmp_path: Path, weave: Gateway) -> None:
    async with served(weave) as url, remembering(tmp_path / "home", url) as (_, memory):
        await memory.note("t", "x")
        await memory.checkpoint()
        with pytest.raises(RunNotFound, match="no gateway has any agentkit state"):
            await fetched(url, KeySigner(b"\x33" * 32))


async def test_a_gap_is_said_aloud_and_not_skipped(tmp_path: Path, weave: Gateway) -> None:
    async with served(weave) as url, remembering(tmp_path / "home", url) as (journal, memory):
        for text in ("one", "two", "three"):
            await memory.note("t", text)
            await memory.checkpoint()
        segments = await journal.commit(lambda tx: tx.outbox.in_states("accepted"))
    with_gap = Gateway.open(tmp_path / "forgetful")
    async with served(with_gap) as url:
        async with Gateways([url]) as gateways:
            for segment in (segments[0], segments[2]):
                await gateways.post_item(segment.raw)
        found = await fetched(url)
    with_gap.close()
    assert [row.seq for row in found.rows(e.WALLET)] == [1]
    told = "steps 2 to 2 of wallet are missing on the only gateway; the last good step is 1"
    assert found.problems == (told,)
    assert told in found.warnings
    with pytest.raises(StateCorrupt, match="steps 2 to 2 of wallet are missing") as raised:
        await wallet_restore.restore(found, tmp_path / "new", SIGNER.address)
    assert "--accept-loss" in raised.value.hint
    assert not (tmp_path / "new").exists()
    journal = await wallet_restore.restore(
        found, tmp_path / "new", SIGNER.address, accept_loss=True
    )
    assert [note.text for note in await Memory(journal, SIGNER, None).notes("t")] == ["one"]
    await journal.close()


async def test_of_two_ways_to_go_on_the_first_that_was_confirmed_counts(
    tmp_path: Path, weave: Gateway
) -> None:
    sides = []
    for name in ("one", "two"):
        journal = await Journal.open(tmp_path / name, SIGNER.address)
        note = e.NoteAdded(topic="t", text=f"I am {name}")
        await journal.commit(lambda tx, note=note: tx.append(e.WALLET, note))
        await journal.commit(lambda tx: seal_all(tx, SIGNER))
        (sealed,) = await journal.commit(lambda tx: tx.outbox.in_states("sealed"))
        sides.append((sealed.item, await journal.commit(lambda tx: tx.instance), note.text, sealed))
        await journal.close()
    sides.sort(key=lambda side: side[0], reverse=True)  # so that the id alone would decide wrongly
    for *_, sealed in sides:  # two machines, each without the other
        weave.post_item(sealed.raw)
        weave.mine()
    async with served(weave) as url:
        found = await fetched(url)
    (fork,) = found.forks
    (item, instance, text, _), (other, other_instance, *_) = sides
    told = str(fork)
    assert told in found.warnings
    assert "wallet goes on in two ways after event 0" in told
    assert f"item {item} (events 1 to 1 by {instance}) counts" in told
    assert f"item {other} (events 1 to 1 by {other_instance}) does not" in told
    journal = await wallet_restore.restore(found, tmp_path / "new", SIGNER.address)
    assert await Memory(journal, SIGNER, None).latest("t") == text
    await journal.close()


async def test_junk_under_our_name_is_refused_and_the_rest_restored(
    tmp_path: Path, weave: Gateway
) -> None:
    async with served(weave) as url, remembering(tmp_path / "home", url) as (_, memory):
        await memory.note("t", "x")
        await memory.checkpoint()
        junk = make_item(SIGNER, b"not a segment", [*APP, ("Run", "ab")])
        async with Gateways([url]) as gateways:
            await gateways.post_item(junk.raw)
        found = await fetched(url)
        assert found.events == 1
        assert any(told.startswith("refused: ") for told in found.warnings)


async def test_a_home_that_has_state_is_not_written_over(tmp_path: Path, weave: Gateway) -> None:
    async with served(weave) as url:
        async with remembering(tmp_path / "home", url) as (_, memory):
            await memory.note("t", "x")
        found = await fetched(url)
    with pytest.raises(StateError, match="already has state") as raised:
        await wallet_restore.restore(found, tmp_path / "home", SIGNER.address)
    assert "AGENTKIT_HOME" in raised.value.hint


async def test_a_sealed_event_of_a_newer_version_is_refused_by_name(
    tmp_path: Path, weave: Gateway
) -> None:
    """The sealed log is for ever: whoever restores with an old version must be told what to do."""
    journal = await Journal.open(tmp_path / "old", SIGNER.address)
    await journal.commit(lambda tx: tx.append(e.WALLET, e.NoteAdded(topic="t", text="x")))
    (row,) = await journal.rows(e.WALLET)
    row = row._replace(version=e.VERSION + 1)
    row = row._replace(hash=row.link(genesis(e.WALLET)))
    await journal.close()
    segment = Segment(e.WALLET, (row,), genesis(e.WALLET), row.hash, {})
    async with served(weave) as url:
        async with Gateways([url], rounds=1) as gateways:
            await gateways.post_item(seal(SIGNER, segment).raw)
        found = await fetched(url)
    with pytest.raises(StateTooNew, match=rf"wallet event 1 .*version {e.VERSION + 1}") as raised:
        await wallet_restore.restore(found, tmp_path / "new", SIGNER.address)
    assert "pip install --upgrade" in raised.value.hint
