"""Classes of events and records may be renamed: what is stored goes by their stored names."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.folding import FOLDS
from agentkit.journal.journal import Journal
from agentkit.market.seams import Event, Record
from agentkit.runtime.run import line_of

WALLET = "0x" + "11" * 20


@pytest.mark.parametrize("kind", [*e.EVENTS.values(), *r.RECORDS.values(), e.Earlier])
def test_each_class_says_its_stored_name_itself(kind: type[Event | Record]) -> None:
    assert "stored_name" in vars(kind)
    assert "stored_name" not in kind.model_fields


def test_stored_names_are_unique() -> None:
    assert len(e.EVENTS) == 90
    assert len(r.RECORDS) == 48


class WrittenDown(e.NoteAdded):
    """An event class that was renamed."""


class Jotting(r.Note):
    """A record class that was renamed."""


async def test_renamed_classes_are_stored_under_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        FOLDS,
        WrittenDown,
        lambda event, stream, at, records: records.put(
            Jotting(topic=event.topic, number=1, text=event.text, at=at)
        ),
    )
    journal = await Journal.open(tmp_path, WALLET)
    event = WrittenDown(topic="t", text="hello")
    await journal.commit(lambda tx: tx.append(e.WALLET, event))
    (note,) = await journal.commit(lambda tx: tx.every(Jotting))
    assert note.text == "hello"
    await journal.close()
    with closing(sqlite3.connect(tmp_path / "state.db")) as db:
        assert db.execute("select kind from events").fetchall() == [("NoteAdded",)]
        assert db.execute("select kind from records").fetchall() == [("Note",)]
    assert json.loads(line_of(event))["event"] == "NoteAdded"
