"""Snapshots: what a machine that goes on from one has, and what it brings back later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.local_gateway import SIGNER, fetched, often, sealed, weaving
from support.timing import until
from support.toy_market import WALLET, Toy, toy

from agentkit.embedded.gateway import Faults
from agentkit.errors import JournalDamaged, RunNotFound, StateCorrupt
from agentkit.graph.builder import JobGraph
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal import snapshot as moments
from agentkit.journal.journal import Journal
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.memory import Memory
from agentkit.memory.restore import remote_log, wallet_restore
from agentkit.memory.sealing import snapshots
from agentkit.memory.sealing.backlog import seal_all
from agentkit.runtime import history
from agentkit.runtime import run as runs
from agentkit.testing.fakes import FakeProvider

__all__ = ["often"]


def row(name: str, length: int) -> JobGraph:
    """Nodes whose answers are too long to stand in their events."""
    graph = JobGraph(name)
    for number in range(length):
        graph.infer(f"n{number}", model="m", prompt=f"{number} " + "x" * 600)
    return graph


async def test_a_run_goes_on_from_a_snapshot_and_its_past_comes_back_when_asked_for(
    tmp_path: Path,
) -> None:
    async with weaving(tmp_path) as (_, url):
        async with toy(tmp_path / "old") as market:
            ended = await market.run(row("ended", 2))
            slow = FakeProvider("one", tmp_path / "old" / "one", delay=0.05, lanes=1)
            halted = replace_provider(market, slow)
            run = await runs.start(halted.means, await halted.plan(row("open", 4)))
            await until(lambda: len(run.status.done) >= 2)
            await run.stop()
            done = dict(run.status.done)
            await sealed(market.journal, url)  # and a snapshot of all of it
            note = e.NoteAdded(topic="t", text="after the snapshot")
            await market.journal.commit(lambda tx: tx.append(e.WALLET, note))
            await sealed(market.journal, url)
            everything = {s: await market.journal.rows(s) for s in (e.WALLET, run.id, ended.run_id)}
            records = await market.journal.commit(lambda tx: dict(enumerate(tx.all_records())))

        found = await fetched(url)
        assert found.snapshot is not None
        assert set(found.streams) == {e.WALLET}  # one segment was read, and nothing before it
        assert [row.event() for row in found.rows(e.WALLET)] == [note]
        assert found.events == sum(map(len, everything.values()))
        journal = await wallet_restore.restore(found, tmp_path / "new" / "home", WALLET)
        await journal.check()
        there = await journal.commit(lambda tx: dict(enumerate(tx.all_records())))
        assert set(records.values()) - set(there.values()) == set()
        with pytest.raises(RunNotFound, match="on Arweave, not here") as raised:
            await journal.history(ended.run_id)
        assert f"agentkit memory restore {ended.run_id}" in raised.value.hint
        await journal.close()

        async with toy(tmp_path / "new") as market:
            again = await runs.resume(market.means, run.id)
            assert dict(again.status.done) == done
            result = await again.result()
            assert len(result.artifacts) == 4
            assert sum(len(p.executions) for p in market.providers.values()) == 4 - len(done)
            await market.journal.check()
            await sealed(market.journal, url)

            whole = await fetched(url, whole=True)
            assert await wallet_restore.compare(whole, market.journal) == []
            for stream, rows in everything.items():
                assert whole.rows(stream)[: len(rows)] == rows
            only = await fetched(url, only=[ended.run_id])
            assert set(only.streams) == {ended.run_id}
            assert await wallet_restore.bring_earlier_events(
                only, market.journal, [ended.run_id]
            ) == len(everything[ended.run_id])
            state = await history.read(market.journal, ended.run_id)
            assert state.outcome == "done"
            await market.journal.check()
            assert (await Memory(market.journal, SIGNER, None).backup_status()).unsealed == 0
            digest = ended["n1"].digest
            assert await market.journal.commit(lambda tx: tx.get_blob(digest)) == ended["n1"].read()


def replace_provider(market: Toy, provider: FakeProvider) -> Toy:
    return replace(market, providers={provider.name: provider})


async def notes(home: Path, texts: list[str], url: str) -> None:
    journal = await Journal.open(home, SIGNER.address)
    for text in texts:
        event = e.NoteAdded(topic="t", text=text)
        await journal.commit(lambda tx, event=event: tx.append(e.WALLET, event))
        await sealed(journal, url)
    await journal.close()


async def test_a_restore_reads_no_more_than_the_newest_snapshot_and_its_tail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = remote_log.Pieces._fetch

    async def watched(self: remote_log.Pieces, piece: remote_log.Piece, make: object) -> object:
        read.append(f"{piece.kind} {piece.first}")
        return await real(self, piece, make)  # type: ignore[arg-type]

    monkeypatch.setattr(remote_log.Pieces, "_fetch", watched)
    async with weaving(tmp_path) as (_, url):
        await notes(tmp_path / "home", [f"note {n}" for n in range(12)], url)
        found = await fetched(url)
        assert read == ["snapshot 10", "segment 11", "segment 12"]
        journal = await wallet_restore.restore(found, tmp_path / "new", SIGNER.address)
        kept = await journal.commit(lambda tx: tx.every(r.Note, "t|"))
        assert [note.text for note in kept] == [f"note {n}" for n in range(12)]
        await journal.close()


async def test_a_snapshot_that_is_damaged_is_passed_over(tmp_path: Path) -> None:
    async with weaving(tmp_path) as (weave, url):
        await notes(tmp_path / "home", [f"note {n}" for n in range(12)], url)
        newest = max(await listed(url), key=lambda piece: (piece.kind, piece.last))
        assert newest.kind == "snapshot"
        weave.set_faults(Faults(flip=frozenset([newest.id])))
        found = await fetched(url)
        assert found.snapshot is not None
        assert found.snapshot.count == 5
        assert found.events == 12
        assert any("snapshot 10" in told and "failed" in told for told in found.warnings)


async def listed(url: str) -> list[remote_log.Piece]:
    async with Gateways([url], rounds=1) as gateways:
        known = remote_log.Pieces(SIGNER, gateways)
        await known.find()
    return list(known.all.values())


async def test_what_a_snapshot_stands_for_cannot_be_swapped(tmp_path: Path) -> None:
    async with weaving(tmp_path) as (_, url):
        await notes(tmp_path / "home", [f"note {n}" for n in range(6)], url)
        found = await fetched(url)
        journal = await wallet_restore.restore(found, tmp_path / "new", SIGNER.address)

        def swap(tx: object) -> None:
            base = tx.base(moments.ALL)  # type: ignore[attr-defined]
            tx.put_base(base._replace(body="[]"))  # type: ignore[attr-defined]

        await journal.commit(swap)
        with pytest.raises(JournalDamaged, match="fold into something else"):
            await journal.check()
        await journal.close()
        snapshot = found.snapshot
        assert snapshot is not None
        odd = replace(snapshot, records=(*snapshot.records, ("Nonesuch", "{}")))
        with pytest.raises(StateCorrupt, match="Nonesuch"):
            await wallet_restore.restore(
                replace(found, snapshot=odd), tmp_path / "odd", SIGNER.address
            )


async def test_a_fork_below_a_snapshot_is_not_hidden_by_it(tmp_path: Path) -> None:
    """The snapshot is of the side that lost: what it stands for does not count."""
    async with weaving(tmp_path) as (weave, url):
        other = await Journal.open(tmp_path / "other", SIGNER.address)
        note = e.NoteAdded(topic="t", text="the other machine's")
        await other.commit(lambda tx: tx.append(e.WALLET, note))
        await other.commit(lambda tx: seal_all(tx, SIGNER))
        (first,) = await other.commit(lambda tx: tx.outbox.in_states("sealed"))
        await other.close()
        mine = await Journal.open(tmp_path / "mine", SIGNER.address)
        for number in range(6):
            noted = e.NoteAdded(topic="t", text=f"note {number}")
            await mine.commit(lambda tx, noted=noted: tx.append(e.WALLET, noted))
            await mine.commit(lambda tx: seal_all(tx, SIGNER))
        waiting = await mine.commit(lambda tx: tx.outbox.in_states("sealed"))
        await mine.close()
        assert any(item.stream == snapshots.SNAPSHOTS for item in waiting)
        weave.post_item(first.raw)
        weave.mine()
        for item in waiting:
            weave.post_item(item.raw)
        weave.mine()
        found = await fetched(url)
    assert found.snapshot is None
    assert [row.event() for row in found.rows(e.WALLET)] == [note]
    (fork,) = found.forks
    assert len(fork.lost) == 6
    assert f"item {first.item}" in str(fork.winner)
