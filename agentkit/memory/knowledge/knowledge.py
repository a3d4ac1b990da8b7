"""What an agent knows: notes by topic, facts with their source, and key-value stores.

All of it is folded from events in the wallet's stream.  To forget something writes a tombstone.
The row is then gone on this machine and after every restore, but bytes that were sealed before
stay on Arweave, where nothing can be deleted.
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
from agentkit.memory.knowledge.effects import Effects
from agentkit.memory.knowledge.kv_store import Shelf
from agentkit.memory.knowledge.search import Embed, Match, search_vectors, search_words
from agentkit.memory.knowledge.validation import check_json, check_name, check_text
from agentkit.money import Money

Row = TypeVar("Row", r.Note, r.Fact)


class Knowledge:
    """What an agent knows, stored in its journal; usable from any event loop of the process."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    # -- notes -----------------------------------------------------------------------------------

    async def note(self, topic: str, text: str) -> None:
        """Add a note of up to 64 KiB to a topic; raises WrongInput."""
        check_name(topic, "topic")
        check_text(text, "note")
        await self._append(e.NoteAdded(topic=topic, text=text))

    async def latest(self, topic: str) -> str | None:
        """Return the newest note of a topic, None if it has none."""
        note = await self._journal.commit(lambda tx: _newest(tx, r.NoteCount, r.Note, topic))
        return note.text if note else None

    async def notes(self, topic: str | None = None) -> list[r.Note]:
        """Return a topic's notes, oldest first; without a topic, the notes of topic after topic."""
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
        """Store that `key` is `value`, JSON of up to 64 KiB; earlier values stay in `history`.

        The source of the fact is given by a `receipt`, or by a run, its node and what that cost.
        Raises WrongInput, and RunNotFound for a run that this wallet never had.
        """
        check_name(key, "fact")
        check_json(value, "fact")
        source = _source_fields(receipt=receipt, run=run, node=node, price=price)
        learned = e.FactLearned(key=key, value=value, **source)
        await self._journal.commit(lambda tx: _append_fact(tx, learned))

    async def recall(self, key: str) -> r.Fact | None:
        """Return the newest value of a fact with its source, None if there is no such fact."""
        return await self._journal.commit(lambda tx: _newest(tx, r.FactCount, r.Fact, key))

    async def facts(self, prefix: str = "") -> list[r.Fact]:
        """Return the newest value of every fact whose key begins with `prefix`, in key order."""
        values = await self._journal.commit(lambda tx: _facts(tx, prefix))
        return list(_newest_of_each(values).values())

    async def history(self, key: str) -> list[r.Fact]:
        """Return the stored values of a fact, oldest first; 100 are stored unless `retain` says."""
        return await self._journal.commit(
            lambda tx: [fact for fact in _facts(tx, f"{key}|") if fact.name == key]
        )

    async def receipts_of(self, fact: r.Fact) -> list[Receipt]:
        """Return the receipts of the node that a fact is from; none if nothing was paid for it."""
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
        """Forget a fact and its history, here and after a restore.

        Earlier bytes stay on Arweave, sealed.
        """
        check_name(key, "fact")
        await self._append(e.Forgotten(what="fact", name=key))

    async def forget_notes(self, topic: str) -> None:
        """Forget a topic's notes, here and after a restore.

        Earlier bytes stay on Arweave, sealed.
        """
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
        """Limit how many notes of a topic, or values of a fact, are stored, and for how long.

        The limit holds for later entries and for those that are stored already; without `newest`
        and `within` everything is stored.  An entry beyond `newest` is forgotten as by `forget`.
        One older than `within` is not returned any more, and its row is deleted when the next
        note or value is added.  Raises WrongInput.
        """
        if (topic is None) == (key is None):
            raise WrongInput("retention is for one topic or one fact", hint="pass topic= or key=")
        seconds = within.total_seconds() if within is not None else 0.0
        is_bad_count = newest is not None and (type(newest) is not int or newest < 1)
        is_bad_time = within is not None and seconds <= 0
        if is_bad_count or is_bad_time:
            raise WrongInput(
                "retention keeps at least one, for longer than nothing",
                hint="use forget() or forget_notes() to drop everything",
            )

        name = topic if topic is not None else key
        what: e.Knowing = "notes" if key is None else "fact"
        check_name(name, "topic" if key is None else "fact")
        rule = e.RetentionSet(what=what, name=str(name), newest=newest or 0, seconds=seconds)
        await self._append(rule)

    # -- searching -------------------------------------------------------------------------------

    async def search(self, text: str, k: int = 5, *, embed: Embed | None = None) -> list[Match]:
        """Return the `k` notes and facts that match `text` best, best first.

        They are ranked by their words (BM25).  With `embed`, an async callable from texts to
        vectors, they are ranked by the cosine of their embeddings.  Each text is embedded once.
        Its vector is cached beside the journal, under `embed.name` or the function's own name.
        """
        check_text(text, "query")
        notes, facts = await self._journal.commit(lambda tx: (_notes(tx, None), _facts(tx, "")))
        rows: Sequence[r.Note | r.Fact] = [*notes, *_newest_of_each(facts).values()]
        if embed is None:
            return await search_words(rows, text, k)
        return await search_vectors(rows, text, k, embed=embed, folder=self.vectors)

    @property
    def vectors(self) -> Path:
        """The folder of cached vectors; it may be deleted at any time."""
        return self._journal.home / "vectors"

    def shelf(self, name: str) -> Shelf:
        """Return a key-value store of JSON by name, for libraries that store in this memory."""
        return Shelf(self._journal, name)

    @property
    def effects(self) -> Effects:
        """What is on record of the effects of tools, for `agentkit.tools.once`."""
        return Effects(self._journal)

    async def _append(self, event: Event) -> None:
        await self._journal.commit(lambda tx: tx.append(e.WALLET, event))


# -- inside --------------------------------------------------------------------------------------


def _notes(tx: JournalTransaction, topic: str | None) -> list[r.Note]:
    """Return the notes of one topic, or of all, without those that are too old."""
    rules = _retention_rules(tx, "notes")
    # The prefix "a|" also finds the topic "a|b", so topics are compared too.
    return [
        note
        for note in tx.every(r.Note, "" if topic is None else f"{topic}|")
        if topic in (None, note.topic) and not _is_too_old(rules.get(note.topic), note.at, tx.now)
    ]


def _facts(tx: JournalTransaction, prefix: str) -> list[r.Fact]:
    """Return all values of facts by key, the newest last, without those that are too old."""
    rules = _retention_rules(tx, "fact")
    return [
        fact
        for fact in tx.every(r.Fact, prefix)
        if not _is_too_old(rules.get(fact.name), fact.at, tx.now)
    ]


def _newest_of_each(facts: Sequence[r.Fact]) -> dict[str, r.Fact]:
    """Return the newest value of each fact by its key; later values replace earlier ones."""
    return {fact.name: fact for fact in facts}


def _newest(
    tx: JournalTransaction, count: type[r.NoteCount | r.FactCount], row: type[Row], name: str
) -> Row | None:
    """Return the newest note or value of `name` without reading those before it.

    Rows are numbered, and `count` holds the number of the newest.
    """
    counted = tx.get(count, name)
    if counted is None:
        return None
    newest = tx.get(row, f"{name}|{counted.count:09d}")
    if newest is None:
        return None
    what: e.Knowing = "notes" if row is r.Note else "fact"
    rule = tx.get(r.Retention, f"{what}|{name}")
    return None if _is_too_old(rule, newest.at, tx.now) else newest


def _retention_rules(tx: JournalTransaction, what: e.Knowing) -> dict[str, r.Retention]:
    return {rule.name: rule for rule in tx.every(r.Retention, f"{what}|")}


def _is_too_old(rule: r.Retention | None, at: float, now: float) -> bool:
    return rule is not None and rule.is_over(at, now)


def _source_fields(
    *, receipt: Receipt | None, run: str | None, node: str | None, price: Money | None
) -> dict[str, Any]:
    """Return the fields of FactLearned that name a fact's source; raises WrongInput.

    Fields without a value are left out, so that the event's own defaults stand.
    """
    if receipt is not None:
        if (run, node, price) != (None, None, None):
            raise WrongInput("the receipt says run, node and price", hint="pass only receipt=")
        attempt = receipt.attempt
        return {
            "run": attempt.run,
            "node": attempt.node,
            "price": receipt.amount,
            "attempt": attempt.id,
        }
    if run is None and (node is not None or price is not None):
        raise WrongInput("a node and a price are a run's", hint="pass run= too")
    fields = {"run": run, "node": node, "price": price}
    return {name: value for name, value in fields.items() if value is not None}


def _append_fact(tx: JournalTransaction, learned: e.FactLearned) -> None:
    """Append a fact; raises RunNotFound if it names a run that this wallet never had."""
    if learned.run and tx.get(r.Run, learned.run) is None:
        raise RunNotFound(f"there is no run {learned.run!r} that a fact could be from")
    tx.append(e.WALLET, learned)
