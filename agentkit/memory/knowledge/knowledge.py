"""What an agent knows: notes by topic, facts with where they are from, and shelves.

All of it is folded from events in the wallet's stream.  To forget is to write a tombstone: the row
is gone here and after every restore, and the bytes that were sealed before stay on Arweave, which
cannot forget.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from agentkit.errors import RunNotFound, WrongInput
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.journal.run_state import RunState
from agentkit.journal.transaction import JournalTransaction
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Event
from agentkit.memory.knowledge.kv_store import Shelf
from agentkit.memory.knowledge.search import Embed, Match, by_embedding, by_words
from agentkit.memory.knowledge.validation import check_json, check_name, check_text
from agentkit.money import Money

Row = TypeVar("Row", r.Note, r.Fact)


class Knowledge:
    """What an agent knows, over its journal; usable from any loop of the process."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    # -- notes -----------------------------------------------------------------------------------

    async def note(self, topic: str, text: str) -> None:
        """Write something down under a topic, up to 64 KiB; raises WrongInput."""
        check_name(topic, "topic")
        check_text(text, "note")
        await self._append(e.NoteAdded(topic=topic, text=text))

    async def latest(self, topic: str) -> str | None:
        """Return the newest note of a topic, None when there is none."""
        note = await self._journal.commit(lambda tx: _newest(tx, r.NoteCount, r.Note, topic))
        return note.text if note else None

    async def notes(self, topic: str | None = None) -> list[r.Note]:
        """Return a topic's notes, oldest first, or the notes of all topics, one after another."""
        return await self._journal.commit(lambda tx: _notes(tx, topic))

    # -- facts -----------------------------------------------------------------------------------

    async def remember(
        self,
        key: str,
        value: Any,
        *,
        receipt: Receipt | None = None,
        run: str | None = None,
        node: str | None = None,
        price: Money | None = None,
    ) -> None:
        """Learn that `key` is `value`, JSON of up to 64 KiB; the values before stay in `history`.

        Where it is from is given by `receipt`, or by the run, its node and what that cost.  Raises
        WrongInput, RunNotFound for a run that this wallet never had.
        """
        check_name(key, "fact")
        check_json(value, "fact")
        learned = e.FactLearned(key=key, value=value, **_source(receipt, run, node, price))
        await self._journal.commit(lambda tx: _learn(tx, learned))

    async def recall(self, key: str) -> r.Fact | None:
        """Return the newest value of a fact with where it is from, None when it is not known."""
        return await self._journal.commit(lambda tx: _newest(tx, r.FactCount, r.Fact, key))

    async def facts(self, prefix: str = "") -> list[r.Fact]:
        """Return the newest value of every fact whose key begins with `prefix`, by key."""
        found = await self._journal.commit(lambda tx: _facts(tx, prefix))
        return list({fact.name: fact for fact in found}.values())

    async def history(self, key: str) -> list[r.Fact]:
        """Return the values of a fact that are kept, oldest first; the newest 100 by default."""
        return await self._journal.commit(
            lambda tx: [fact for fact in _facts(tx, f"{key}|") if fact.name == key]
        )

    async def receipts_of(self, fact: r.Fact) -> list[Receipt]:
        """Return the receipts that a fact can be traced to, none when nothing was paid for it."""
        if not fact.run:
            return []
        state = RunState.of(fact.run, await self._journal.history(fact.run))
        return [
            receipt
            for receipt in state.receipts
            if fact.attempt in ("", receipt.attempt.id) and fact.node in ("", receipt.attempt.node)
        ]

    # -- forgetting ------------------------------------------------------------------------------

    async def forget(self, key: str) -> None:
        """Forget a fact and its history: a tombstone, what was sealed stays sealed on Arweave."""
        check_name(key, "fact")
        await self._append(e.Forgotten(what="fact", name=key))

    async def forget_notes(self, topic: str) -> None:
        """Forget a topic's notes: a tombstone, what was sealed stays sealed on Arweave."""
        check_name(topic, "topic")
        await self._append(e.Forgotten(what="notes", name=topic))

    async def retain(
        self,
        *,
        topic: str | None = None,
        key: str | None = None,
        newest: int | None = None,
        within: timedelta | None = None,
    ) -> None:
        """Keep of a topic's notes, or of a fact's values, only the newest, or those within a time.

        From now on and for what is there already; neither limit keeps everything.  What falls out
        is not known any more, as after `forget`; what gets too old is not returned any more, and
        its row goes with the next note or value.  Raises WrongInput.
        """
        if (topic is None) == (key is None):
            raise WrongInput("retention is for one topic or one fact", hint="pass topic= or key=")
        seconds = within.total_seconds() if within is not None else 0.0
        bad = newest is not None and (type(newest) is not int or newest < 1)
        if bad or (within is not None and seconds <= 0):
            raise WrongInput(
                "retention keeps at least one, for longer than nothing",
                hint="use forget() or forget_notes() to drop everything",
            )
        name = topic if topic is not None else key
        check_name(name, "topic" if key is None else "fact")
        what: e.Knowing = "notes" if key is None else "fact"
        rule = e.RetentionSet(what=what, name=str(name), newest=newest or 0, seconds=seconds)
        await self._append(rule)

    # -- searching -------------------------------------------------------------------------------

    async def search(self, text: str, k: int = 5, *, embed: Embed | None = None) -> list[Match]:
        """Return the `k` notes and facts that fit `text` best, best first.

        By words (BM25); with `embed`, an async callable from texts to vectors, by the cosine of
        their embeddings.  A text is embedded once; its vector is kept beside the journal, under
        `embed.name` or the function's own, and may be deleted at any time.
        """
        check_text(text, "query")
        notes, facts = await self._journal.commit(lambda tx: (_notes(tx, None), _facts(tx, "")))
        newest = {fact.name: fact for fact in facts}
        rows: Sequence[r.Note | r.Fact] = [*notes, *newest.values()]
        if embed is None:
            return await by_words(rows, text, k)
        return await by_embedding(rows, text, k, embed, self.vectors)

    @property
    def vectors(self) -> Path:
        """The folder of vectors that were bought before; a cache, to be deleted at any time."""
        return self._journal.home / "vectors"

    def shelf(self, name: str) -> Shelf:
        """Return a shelf of plain JSON by name, for what stands on this memory."""
        return Shelf(self._journal, name)

    async def _append(self, event: Event) -> None:
        await self._journal.commit(lambda tx: tx.append(e.WALLET, event))


# -- inside --------------------------------------------------------------------------------------


def _notes(tx: JournalTransaction, topic: str | None) -> list[r.Note]:
    found = tx.every(r.Note, "" if topic is None else f"{topic}|")
    rules = _rules(tx, "notes")
    return [
        note
        for note in found
        if topic in (None, note.topic) and not _is_over(rules.get(note.topic), note.at, tx.now)
    ]


def _facts(tx: JournalTransaction, prefix: str) -> list[r.Fact]:
    rules = _rules(tx, "fact")
    return [
        fact
        for fact in tx.every(r.Fact, prefix)
        if not _is_over(rules.get(fact.name), fact.at, tx.now)
    ]


def _newest(
    tx: JournalTransaction, count: type[r.NoteCount | r.FactCount], row: type[Row], name: str
) -> Row | None:
    """Return the newest note or value without reading those before it."""
    known = tx.get(count, name)
    found = tx.get(row, f"{name}|{known.count:09d}") if known else None
    what: e.Knowing = "notes" if row is r.Note else "fact"
    rule = tx.get(r.Retention, f"{what}|{name}")
    return None if found is None or _is_over(rule, found.at, tx.now) else found


def _rules(tx: JournalTransaction, what: e.Knowing) -> dict[str, r.Retention]:
    return {rule.name: rule for rule in tx.every(r.Retention, f"{what}|")}


def _is_over(rule: r.Retention | None, at: float, now: float) -> bool:
    return rule is not None and rule.is_over(at, now)


def _source(
    receipt: Receipt | None, run: str | None, node: str | None, price: Money | None
) -> dict[str, Any]:
    """Return what an event says of where a fact is from, fields that are not known left out."""
    if receipt is not None:
        if (run, node, price) != (None, None, None):
            raise WrongInput("the receipt says run, node and price", hint="pass only receipt=")
        known = receipt.attempt
        return {"run": known.run, "node": known.node, "price": receipt.amount, "attempt": known.id}
    if run is None and (node is not None or price is not None):
        raise WrongInput("a node and a price are a run's", hint="pass run= too")
    given = {"run": run, "node": node, "price": price}
    return {name: value for name, value in given.items() if value is not None}


def _learn(tx: JournalTransaction, learned: e.FactLearned) -> None:
    if learned.run and tx.get(r.Run, learned.run) is None:
        raise RunNotFound(f"there is no run {learned.run!r} that a fact could be from")
    tx.append(e.WALLET, learned)
