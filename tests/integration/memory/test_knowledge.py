"""What an agent knows: notes, facts with their source, retention, forgetting, searching."""

from pathlib import Path

from support.memory_fixtures import elsewhere, mind

from agentkit.journal import records as r


async def test_everything_known_comes_back_from_the_key_alone(tmp_path: Path) -> None:
    async with mind(tmp_path / "home") as one:
        known = one.memory
        await known.retain(topic="log", newest=2)
        await known.retain(key="price", newest=1)
        for n in range(4):
            await known.note("log", f"line {n}")
            await known.remember("price", {"usd": n})
        await known.note("gone", "forget me")
        await known.forget_notes("gone")
        await known.remember("also gone", 1)
        await known.forget("also gone")
        await known.shelf("kept").put({"a": [1, "zwei", None], "b": 2.5})
        await known.shelf("kept").drop("b")
        records = (r.Note, r.NoteCount, r.Fact, r.FactCount, r.Retention, r.Entry)
        before = [await one.journal.commit(lambda tx, x=x: tx.every(x)) for x in records]
        async with elsewhere(one, tmp_path) as other:
            after = [await other.journal.commit(lambda tx, x=x: tx.every(x)) for x in records]
            assert after == before
            assert [note.text for note in await other.memory.notes("log")] == ["line 2", "line 3"]
            assert [fact.value for fact in await other.memory.history("price")] == [{"usd": 3}]
            assert await other.memory.notes("gone") == []
            assert await other.memory.recall("also gone") is None
            assert await other.memory.shelf("kept").names() == ["a"]
            await other.memory.note("gone", "again")  # numbers go on where they were
            assert [note.number for note in await other.memory.notes("gone")] == [2]
            await other.journal.check()
