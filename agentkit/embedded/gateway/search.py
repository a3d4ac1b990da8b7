"""What is looked for in the index, and the SQL that finds it.

The SQL consists of this file's own words; whatever comes from outside is bound as a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Test = tuple[str, Sequence[object]]
"""A condition and the values of its marks."""

# What no block holds yet is sorted behind everything that one does.
_HEIGHT = f"ifnull(height, {2**62})"
_PLACE = f"{_HEIGHT}, number"


@dataclass(frozen=True, slots=True)
class TagTest:
    """An entry has (or, negated, has not) a tag of this name with one of these values."""

    name: str
    values: Sequence[str]
    negated: bool = False

    def sql(self) -> Test:
        found = (
            "exists (select 1 from tag where tag.entry = entry.number"  # noqa: S608
            f" and name = ? and value in ({marks(self.values)}))"
        )
        return f"not {found}" if self.negated else found, [self.name, *self.values]


@dataclass(frozen=True, slots=True)
class Search:
    """Entries with any of each list that is there, all of the tag tests, within the heights.

    `after` is the number of the last entry on the page before.  What is in `hidden`, or arrived
    after number `upto`, is not found.
    """

    ids: Sequence[str] | None = None
    owners: Sequence[str] | None = None
    recipients: Sequence[str] | None = None
    bundles: Sequence[str] | None = None
    tags: Sequence[TagTest] = ()
    lowest: int | None = None
    highest: int | None = None
    newest_first: bool = True
    after: int | None = None
    limit: int = 10
    hidden: Sequence[str] = ()
    upto: int | None = None

    def sql(self) -> Test:
        """Return what follows `where`, order and limit included."""
        tests = list(self._tests())
        where = " and ".join(f"({condition})" for condition, _ in tests) or "true"
        order = "desc" if self.newest_first else "asc"
        values = [value for _, some in tests for value in some]
        return (
            f"{where} order by {_HEIGHT} {order}, number {order} limit ?",
            [*values, self.limit],
        )

    def _tests(self) -> Iterator[Test]:
        """Yield the SQL of every condition, with its parameters."""
        for column, wanted in (
            ("id", self.ids),
            ("address", self.owners),
            ("target", self.recipients),
            ("bundled_in", self.bundles),
        ):
            if wanted is not None:
                yield f"{column} in ({marks(wanted)})", wanted
        yield from (test.sql() for test in self.tags)
        if self.lowest is not None:
            yield "height >= ?", [self.lowest]
        if self.highest is not None:
            yield "height <= ?", [self.highest]
        if self.hidden:
            yield f"id not in ({marks(self.hidden)})", self.hidden
        if self.upto is not None:
            yield "number <= ?", [self.upto]
        if self.after is not None:
            # Looked up again, because a block may have taken that entry in the meantime.
            last = f"(select {_PLACE} from entry where number = ?)"  # noqa: S608
            yield f"({_PLACE}) {'<' if self.newest_first else '>'} {last}", [self.after]


def marks(values: Sequence[object]) -> str:
    """Return as many question marks as there are values."""
    return ", ".join("?" * len(values))
