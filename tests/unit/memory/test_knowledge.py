"""What an agent knows: notes, facts with their source, retention, forgetting, searching."""

import json
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.drawn_cases import cases
from support.memory_fixtures import SIGNER, mind
from support.toy_market import toy, usdc

from agentkit.errors import ProtocolBroken, RunNotFound, WrongInput
from agentkit.graph.builder import JobGraph
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal import store
from agentkit.journal.subjects.knowledge import FACT_VALUES
from agentkit.journal.transaction import JournalTransaction
from agentkit.memory.knowledge.validation import (
    MOST_DEPTH,
    MOST_ENTRY,
    MOST_TEXT,
    check_json,
)
from agentkit.memory.memory import Memory


async def test_a_topic_does_not_see_notes_of_topics_whose_names_it_begins(tmp_path: Path) -> None:
    async with mind(tmp_path) as one:
        await one.memory.note("a", "mine")
        await one.memory.note("a|b", "not mine")
        await one.memory.remember("a", 1)
        await one.memory.remember("a|b", 2)
        assert [note.text for note in await one.memory.notes("a")] == ["mine"]
        assert [fact.value for fact in await one.memory.history("a")] == [1]
        assert [fact.value for fact in await one.memory.facts("a")] == [1, 2]


# -- where facts are from ------------------------------------------------------------------------


async def test_a_fact_is_traced_to_the_receipt_it_came_from(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        for name in ("first", "second"):
            graph.infer(name, model="m", prompt="Say hello.")
        result = await market.run(graph)
        memory = Memory(market.journal, SIGNER, None)
        receipt = next(x for x in result.receipts if x.attempt.node == "second")
        await memory.remember("answer", result["second"].text, receipt=receipt)
        await memory.remember("both", True, run=result.run_id, price=usdc("0.01"))
        fact = await memory.recall("answer")
        assert fact is not None
        assert (fact.run, fact.node, fact.price) == (result.run_id, "second", receipt.amount)
        assert await memory.receipts_of(fact) == [receipt]
        both = await memory.recall("both")
        assert both is not None
        assert await memory.receipts_of(both) == list(result.receipts)
        with pytest.raises(RunNotFound, match="no run 'nowhere'"):
            await memory.remember("answer", 1, run="nowhere")
        with pytest.raises(WrongInput, match="the receipt says"):
            await memory.remember("answer", 1, run=result.run_id, receipt=receipt)
        with pytest.raises(WrongInput, match="are a run's"):
            await memory.remember("answer", 1, node="second")
        assert len(await memory.history("answer")) == 1


# -- retention -----------------------------------------------------------------------------------


async def test_what_is_kept_is_bounded_and_what_falls_out_is_gone(tmp_path: Path) -> None:
    async with mind(tmp_path) as one:
        for n in range(FACT_VALUES + 7):
            await one.memory.remember("price", n)
            await one.memory.note("log", f"line {n}")
        assert [fact.value for fact in await one.memory.history("price")][:1] == [7]
        assert len(await one.memory.notes("log")) == FACT_VALUES + 7
        await one.memory.retain(topic="log", newest=5)
        await one.memory.retain(key="price", newest=5)
        for record in (r.Note, r.Fact):
            assert len(await one.journal.commit(lambda tx, x=record: tx.every(x))) == 5
        await one.journal.check()


async def test_what_is_too_old_is_not_returned_and_its_row_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(store.time, "time", lambda: now)
    async with mind(tmp_path) as one:
        await one.memory.retain(topic="log", within=timedelta(hours=1))
        await one.memory.note("log", "old")
        now += 3000
        await one.memory.note("log", "newer")
        now += 1000
        assert [note.text for note in await one.memory.notes("log")] == ["newer"]
        assert await one.memory.latest("log") == "newer"
        assert [match.row for match in await one.memory.search("old")] == []
        assert len(await one.journal.commit(lambda tx: tx.every(r.Note))) == 2
        await one.memory.note("log", "newest")
        assert len(await one.journal.commit(lambda tx: tx.every(r.Note))) == 2
        now += 4000
        assert await one.memory.latest("log") is None
        await one.journal.check()


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"topic": "a", "key": "b", "newest": 1},
        {"topic": "a", "newest": 0},
        {"topic": "a", "newest": 1.5},
        {"topic": "a", "within": timedelta(0)},
        {"topic": "", "newest": 1},
    ],
)
async def test_a_retention_that_means_nothing_is_refused(
    tmp_path: Path, rule: dict[str, Any]
) -> None:
    async with mind(tmp_path) as one:
        with pytest.raises(WrongInput) as raised:
            await one.memory.retain(**rule)
        assert raised.value.hint
        assert await one.journal.rows(e.WALLET) == []


# -- what may be remembered ----------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=cases(50))
@given(json_values)
def test_json_that_is_taken_reads_back_as_it_was(value: Any) -> None:
    check_json(value, "value")
    event = e.FactLearned(key="k", value=value)
    assert json.dumps(e.FactLearned.model_validate_json(event.encode()).value) == json.dumps(value)


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = {"a": value}
    return value


def test_what_is_nested_as_deep_as_may_be_still_reads_back() -> None:
    event = e.Shelved(shelf="s", entries={"n": nested(MOST_DEPTH)})
    check_json(nested(MOST_DEPTH), "value")
    assert e.Shelved.model_validate_json(event.encode()) == event


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        (1, 2),
        {1: 2},
        {"a": b"bytes"},
        {1},
        2**2000,
        "\ud800",
        nested(MOST_DEPTH + 1),
        "x" * MOST_TEXT,
    ],
    ids=lambda value: f"{value!r:.20}",
)
async def test_what_would_not_read_back_is_refused_and_nothing_written(
    tmp_path: Path, value: Any
) -> None:
    async with mind(tmp_path) as one:
        with pytest.raises(WrongInput) as raised:
            await one.memory.remember("key", value)
        assert raised.value.hint
        assert len(str(raised.value)) < 300
        with pytest.raises(WrongInput):
            await one.memory.shelf("s").put({"good": 1, "bad": [value, "x" * MOST_ENTRY]})
        assert await one.journal.rows(e.WALLET) == []


@pytest.mark.parametrize("name", ["", "x" * 257, "a\0b", "\ud800", 7])
async def test_what_names_nothing_is_refused(tmp_path: Path, name: Any) -> None:
    async with mind(tmp_path) as one:
        for act in (
            lambda: one.memory.note(name, "text"),
            lambda: one.memory.remember(name, 1),
            lambda: one.memory.forget(name),
        ):
            with pytest.raises(WrongInput):
                await act()
        with pytest.raises(WrongInput):
            one.memory.shelf(name)
        with pytest.raises(WrongInput):
            one.memory.shelf("a|b")


async def test_a_large_write_to_a_shelf_is_one_transaction_of_bounded_events(
    tmp_path: Path,
) -> None:
    async with mind(tmp_path) as one:
        shelf = one.memory.shelf("s")
        await shelf.put({f"n{n}": "x" * 400_000 for n in range(5)})
        assert len(await shelf.names()) == 5
        sizes = [len(row.body) for row in await one.journal.rows(e.WALLET)]
        assert len(sizes) == 3
        assert max(sizes) <= MOST_ENTRY + 100
        await shelf.put({"other": 1, "a": 2, "ab": 3, "b": 4})
        await shelf.drop("never there", prefixes=["n", "ab"])
        assert await shelf.names() == ["a", "b", "other"]
        await shelf.drop("never there", prefixes=["n"])
        assert len(await one.journal.rows(e.WALLET)) == 5  # nothing to drop, nothing written
        await one.journal.check()


@settings(max_examples=cases(25))
@given(st.lists(st.text("ab|\ud7ff\ue000\U0010ffff", max_size=4), unique=True), st.data())
def test_a_prefix_finds_what_begins_with_it_and_nothing_else(
    names: list[str], data: st.DataObject
) -> None:
    prefix = data.draw(st.text("ab|\ud7ff\ue000\U0010ffff", max_size=3))
    with closing(store.connect(":memory:")) as db:
        db.executescript(store.SCHEMA)
        tx = JournalTransaction(store.SqliteStorage(db, "here"))
        for name in names:
            tx.put(r.Entry(shelf="s", name=name, value=0, at=0.0))
        for about in ("r", "t"):
            tx.put(r.Entry(shelf=about, name="", value=0, at=0.0))
        found = [entry.name for entry in tx.every(r.Entry, f"s|{prefix}")]
    assert found == sorted(name for name in names if name.startswith(prefix))


# -- searching -----------------------------------------------------------------------------------


async def test_words_find_what_holds_the_rarer_of_them_more_often(tmp_path: Path) -> None:
    async with mind(tmp_path) as one:
        for text in ("the cat sat", "the dog sat", "the dog chased the dog", "nothing of it"):
            await one.memory.note("animals", text)
        await one.memory.remember("favourite dog", {"name": "Rex"})
        await one.memory.remember("favourite dog", {"name": "Bello"})
        found = [match.text for match in await one.memory.search("Dog, chased", k=2)]
        assert found[0] == "the dog chased the dog"
        assert [match.text for match in await one.memory.search("bello")] == [
            'favourite dog: {"name": "Bello"}'
        ]
        assert await one.memory.search("rex") == []  # not what is held true any more
        assert len(await one.memory.search("animals")) == 4  # a topic's name counts
        assert await one.memory.search("zebra") == []


class Letters:
    """An embedding that counts letters, and what it was asked."""

    name = "letters"

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked += texts
        return [[1.0 + text.count(x) for x in "abcdefgh"] for text in texts]


async def test_an_embedding_finds_by_meaning_and_embeds_each_text_once(tmp_path: Path) -> None:
    async with mind(tmp_path) as one:
        for text in ("aaaa", "bbbb", "cccc"):
            await one.memory.note("letters", text)
        embed = Letters()
        (best,) = await one.memory.search("bb", 1, embed=embed)
        assert (best.text, sorted(embed.asked)) == ("bbbb", ["aaaa", "bb", "bbbb", "cccc"])
        assert 0.9 < best.score <= 1.001
        await one.memory.note("letters", "dddd")
        again = Letters()
        (best,) = await one.memory.search("cc", 1, embed=again)
        assert (best.text, sorted(again.asked)) == ("cccc", ["cc", "dddd"])
        (path,) = (tmp_path / "vectors").iterdir()
        path.write_bytes(path.read_bytes()[:-5] + b"junk!")  # the last row does not fit any more
        damaged = Letters()
        await one.memory.search("aa", 1, embed=damaged)
        assert len(damaged.asked) == 2


@pytest.mark.parametrize(
    "answer", [[], [[0.0, 0.0]], [[float("nan"), 1.0]], ["word"], [[1.0], [2.0, 3.0]], [[]]]
)
async def test_what_are_no_vectors_is_refused(tmp_path: Path, answer: Any) -> None:
    async def embed(texts: Sequence[str]) -> Any:
        return answer

    async with mind(tmp_path) as one:
        await one.memory.note("t", "text")
        with pytest.raises(ProtocolBroken, match="the embedding gave"):
            await one.memory.search("x", embed=embed)
