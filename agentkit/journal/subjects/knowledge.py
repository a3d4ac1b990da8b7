"""Knowledge: notes, facts and shelves of the agent, and how long they are kept.

Notes and values of facts are numbered from 1 within their topic or name.  The oldest are dropped
first, so `NoteCount` and `FactCount` say with two numbers which of them are kept.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from agentkit.journal.folding import Records, folds
from agentkit.market.seams import Event, Record
from agentkit.money import Money

Knowing = Literal["notes", "fact"]
"""The two kinds of knowledge that go by a name: a topic's notes, or a fact."""

FACT_VALUES = 100
"""Values of a fact that are kept where no retention is set; part of the format."""

# -- events --------------------------------------------------------------------------------------


class NoteAdded(Event):
    """The agent wrote something down under a topic."""

    stored_name: ClassVar[str] = "NoteAdded"
    topic: str
    text: str


class FactLearned(Event):
    """The agent learned that `key` is `value` (JSON), and from which run and node.

    `attempt` is the attempt whose receipt says what it cost.
    """

    stored_name: ClassVar[str] = "FactLearned"
    key: str
    value: Any
    run: str = ""
    node: str = ""
    price: Money | None = None
    attempt: str = ""


class Forgotten(Event):
    """A topic's notes, or a fact and its history, were dropped.

    This is a tombstone: what was sealed before stays sealed.
    """

    stored_name: ClassVar[str] = "Forgotten"
    what: Knowing
    name: str


class RetentionSet(Event):
    """Only the `newest` of a topic's notes or a fact's values are kept, for so many `seconds`.

    0 is no limit.
    """

    stored_name: ClassVar[str] = "RetentionSet"
    what: Knowing
    name: str
    newest: int = 0
    seconds: float = 0.0


class Shelved(Event):
    """Entries of a shelf were written: plain JSON by name."""

    stored_name: ClassVar[str] = "Shelved"
    shelf: str
    entries: dict[str, Any]


class Unshelved(Event):
    """Entries of a shelf were dropped: those with these names or prefixes; a tombstone."""

    stored_name: ClassVar[str] = "Unshelved"
    shelf: str
    names: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()


class Extra(Event):
    """Something that a plug-in wrote down; it has no fold."""

    stored_name: ClassVar[str] = "Extra"
    owner: str
    version: int
    json_text: str


# -- records -------------------------------------------------------------------------------------


class Note(Record):
    """One thing the agent wrote down; `number` counts within the topic."""

    stored_name: ClassVar[str] = "Note"
    topic: str
    number: int
    text: str
    at: float

    @property
    def key(self) -> str:
        return f"{self.topic}|{self.number:09d}"


class NoteCount(Record):
    """How many notes a topic ever had; those before number `first` are not kept."""

    stored_name: ClassVar[str] = "NoteCount"
    topic: str
    count: int = 0
    first: int = 1

    @property
    def key(self) -> str:
        return self.topic


class Fact(Record):
    """One value (JSON) of a fact, and where it came from; `number` counts its values."""

    stored_name: ClassVar[str] = "Fact"
    name: str
    number: int
    value: Any
    at: float
    run: str = ""
    node: str = ""
    price: Money | None = None
    attempt: str = ""

    @property
    def key(self) -> str:
        return f"{self.name}|{self.number:09d}"


class FactCount(Record):
    """How many values a fact ever had; those before number `first` are not kept."""

    stored_name: ClassVar[str] = "FactCount"
    name: str
    count: int = 0
    first: int = 1

    @property
    def key(self) -> str:
        return self.name


class Retention(Record):
    """How many notes of a topic, or values of a fact, are kept, and for how long; 0: no limit."""

    stored_name: ClassVar[str] = "Retention"
    what: Knowing
    name: str
    newest: int = 0
    seconds: float = 0.0

    @property
    def key(self) -> str:
        return f"{self.what}|{self.name}"

    def is_over(self, at: float, now: float) -> bool:
        """Return whether what was written at `at` is too old."""
        return bool(self.seconds) and at < now - self.seconds


class Entry(Record):
    """Plain JSON on a shelf, by its name there."""

    stored_name: ClassVar[str] = "Entry"
    shelf: str
    name: str
    value: Any
    at: float

    @property
    def key(self) -> str:
        return f"{self.shelf}|{self.name}"


# -- folds: notes and facts ----------------------------------------------------------------------


@folds(NoteAdded)
def _fold_note_added(event: NoteAdded, stream: str, at: float, records: Records) -> None:
    counted = _note_count(records, event.topic)
    counted = counted.model_copy(update={"count": counted.count + 1})
    records.put(Note(topic=event.topic, number=counted.count, text=event.text, at=at))
    _retain_notes(records, counted, at)


@folds(FactLearned)
def _fold_fact_learned(event: FactLearned, stream: str, at: float, records: Records) -> None:
    """Add the next value of a fact, and drop the oldest ones that its retention does not keep."""
    counted = _fact_count(records, event.key)
    counted = counted.model_copy(update={"count": counted.count + 1})
    records.put(
        Fact(
            name=event.key,
            number=counted.count,
            value=event.value,
            at=at,
            run=event.run,
            node=event.node,
            price=event.price,
            attempt=event.attempt,
        )
    )
    _retain_values(records, counted, at)


@folds(Forgotten)
def _fold_forgotten(event: Forgotten, stream: str, at: float, records: Records) -> None:
    keep_none = Retention(what=event.what, name=event.name, newest=-1)
    if event.what == "notes":
        _drop_oldest(records, Note, _note_count(records, event.name), keep_none, at)
    else:
        _drop_oldest(records, Fact, _fact_count(records, event.name), keep_none, at)


@folds(RetentionSet)
def _fold_retention_set(event: RetentionSet, stream: str, at: float, records: Records) -> None:
    records.put(Retention(**event.model_dump()))
    if event.what == "notes":
        _retain_notes(records, _note_count(records, event.name), at)
    else:
        _retain_values(records, _fact_count(records, event.name), at)


def _note_count(records: Records, topic: str) -> NoteCount:
    return records.get(NoteCount, topic) or NoteCount(topic=topic)


def _fact_count(records: Records, name: str) -> FactCount:
    return records.get(FactCount, name) or FactCount(name=name)


def _retain_notes(records: Records, counted: NoteCount, at: float) -> None:
    """Drop the notes of a topic that its retention does not keep; without one, keep all."""
    rule = records.get(Retention, f"notes|{counted.topic}")
    keep_all = Retention(what="notes", name=counted.topic)
    _drop_oldest(records, Note, counted, rule or keep_all, at)


def _retain_values(records: Records, counted: FactCount, at: float) -> None:
    """Drop the values of a fact that its retention, or the default one, does not keep."""
    rule = records.get(Retention, f"fact|{counted.name}")
    default = Retention(what="fact", name=counted.name, newest=FACT_VALUES)
    _drop_oldest(records, Fact, counted, rule or default, at)


def _drop_oldest(
    records: Records,
    record: type[Note] | type[Fact],
    counted: NoteCount | FactCount,
    rule: Retention,
    now: float,
) -> None:
    """Drop notes or values that a rule does not keep, oldest first, and write the new count.

    A rule whose `newest` is -1 keeps nothing.
    """
    first = counted.first
    while first <= counted.count:
        key = f"{counted.key}|{first:09d}"
        row = records.get(record, key)
        is_too_many = rule.newest != 0 and first <= counted.count - max(rule.newest, 0)
        if not is_too_many and row is not None and not rule.is_over(row.at, now):
            break
        records.drop(record, key)
        first += 1
    records.put(counted.model_copy(update={"first": first}))


# -- folds: shelves ------------------------------------------------------------------------------


@folds(Shelved)
def _fold_shelved(event: Shelved, stream: str, at: float, records: Records) -> None:
    for name, value in event.entries.items():
        records.put(Entry(shelf=event.shelf, name=name, value=value, at=at))


@folds(Unshelved)
def _fold_unshelved(event: Unshelved, stream: str, at: float, records: Records) -> None:
    """Drop the entries with these names, and those whose names begin with these prefixes."""
    for name in event.names:
        records.drop(Entry, f"{event.shelf}|{name}")
    if event.prefixes:
        # One query for all prefixes: a query for each would be slow where there are thousands.
        shared = _common_prefix(event.prefixes)
        for entry in records.every(Entry, f"{event.shelf}|{shared}"):
            if entry.name.startswith(event.prefixes):
                records.drop(Entry, entry.key)


def _common_prefix(names: tuple[str, ...]) -> str:
    """Return the longest prefix of all names: it is that of the first and the last in order."""
    first = min(names)
    last = max(names)
    for length, (left, right) in enumerate(zip(first, last, strict=False)):
        if left != right:
            return first[:length]
    return first
