"""The head anchor: one hash over all streams, on a chain that moves it only from where it stands.

    chosen (in the journal, sealed with what it stands for) -> taken by a gateway -> on the chain

A gateway that hides the newest steps cannot hide that hash, and of two machines with one key only
one can move it on from the hash that both know.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from agentkit.errors import (
    ConfigError,
    InsufficientFunds,
    IntentMismatch,
    OverBudget,
    ProtocolBroken,
    SettlementFailed,
    StateForked,
    StoreUnavailable,
)
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.journal.transaction import JournalTransaction
from agentkit.market.anchor import PURPOSE, HeadAnchor
from agentkit.memory.restore.wallet_restore import RestoredWallet
from agentkit.memory.sealing.backlog import is_quiet
from agentkit.memory.sealing.segment_chain import payments

log = logging.getLogger("agentkit")

BEHIND = "gateways are behind the anchored head"

LOOK_SECONDS = 5.0
"""How long a chain is asked before what does not depend on it goes on."""

MOST_STREAMS = 500
"""In one head, the wallet's first: what others there are waits for the next."""

UNSURE = "head not corroborated"


class Anchoring:
    """Moves the anchor on, and raises StateForked once it stands where this machine never put it.

    At most one transaction every `interval` seconds, and one whenever it is asked for.  Whoever
    dies in between leaves the head in the journal: what the chain has is compared with it first.
    """

    def __init__(self, journal: Journal, anchor: HeadAnchor, interval: float) -> None:
        self._journal = journal
        self._anchor = anchor
        self._interval = interval
        self._settled: str | None = None
        self._mine = ""
        self._held = False
        self._looked = float("-inf")
        self._forked: StateForked | None = None
        self.turn = asyncio.Lock()

    @property
    def held(self) -> bool:
        """Whether this process has moved the anchor, and nobody else is known to have since."""
        return self._held and self._forked is None

    async def check(self) -> None:
        """Raise StateForked when another machine moved the anchor; not when no chain answers."""
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self._look()

    async def prepare(self) -> None:
        """Find out where the anchor stands, if this process does not know: `choose` needs it."""
        if self._settled is None and self._journal.wrote:
            await self.check()

    async def is_due(self) -> bool:
        """Whether a head waits to be chosen, or to be anchored, and it was not tried just now."""
        now = time.monotonic()
        if not self._journal.wrote or now - self._looked < self._interval / 10:
            return False
        self._looked = now
        return await self._journal.commit(self._is_due)

    def choose(self, tx: JournalTransaction, *, now: bool = False, anyway: bool = False) -> None:
        """Write down what to anchor next, if anything went on, and it is time or wanted `now`.

        `anyway` even if nothing did.  The last one comes first.  What it stands for has to be
        sealed in this transaction.
        """
        newest = _heads(tx)[0]
        if newest != self._settled or not (now or self._is_time(tx)):
            return
        heads, busy = _unanchored(tx)
        if busy or anyway:
            event = e.HeadChosen(previous=newest, heads=heads, salt=secrets.token_hex(8))
            tx.append(e.WALLET, event)
            self._mine = event.head

    async def finish(self) -> None:
        """Anchor what was chosen last, its segment having been taken; raises StateError."""
        head, before = await self._look()
        if head != self._settled:
            await self._advance(before, head)
        self._held = self._held or bool(head and head == self._mine)

    # -- inside ----------------------------------------------------------------------------------

    async def _advance(self, before: str, head: str) -> None:
        try:
            with _told():
                await self._anchor.advance(before, head)
        except SettlementFailed as error:  # unless the same head came there by another way
            if (await self._look())[0] != self._settled:
                raise _unanchorable(error) from error
        self._settled = head

    async def _look(self) -> tuple[str, str]:
        """Return the newest head and the one before; raises StateForked, StoreUnavailable.

        The chain is read before the journal, where every head of ours is before it is sent.
        """
        if self._forked:
            raise self._forked
        with _told():
            there = await self._anchor.head()
        heads, sent = await self._journal.commit(lambda tx: (_heads(tx), _sent(tx)))
        if there not in heads:
            self._forked = await self._journal.commit(
                lambda tx: _fork(tx, there, self._journal.home)
            )
            log.error("%s; %s", self._forked, self._forked.hint)
            raise self._forked
        if there == heads[0] and (sent is None or sent.final):
            self._settled = there
        return heads[0], (*heads, "")[1]

    def _is_due(self, tx: JournalTransaction) -> bool:
        sent = _sent(tx)
        left = _heads(tx)[0] not in ("", self._settled) and not (sent and sent.final)
        return left or (self._is_time(tx) and _unanchored(tx)[1])

    def _is_time(self, tx: JournalTransaction) -> bool:
        known = tx.get(r.Anchor, "newest")
        # Chosen in the future: the clock went back, and would have it wait for as long again.
        return known is None or not 0 <= tx.now - known.at < self._interval


def corroborated(found: RestoredWallet, head: str, only: Sequence[str] = ()) -> RestoredWallet:
    """Return what was found, and whether it is all that the anchored head stands for.

    `only` names the streams that were asked for, the wallet's among them.
    """
    if not head:
        return found
    upto = _upto(found, head)
    problems = [_unknown(found, head)] if upto is None else list(_missing(found, upto, only))
    warnings = [told for told in found.warnings if not told.startswith(UNSURE)]
    return replace(
        found,
        problems=(*found.problems, *problems),
        warnings=(*warnings, *problems),
        anchored=head if problems else "",
        corroborated=not problems,
    )


def _upto(found: RestoredWallet, head: str) -> dict[str, tuple[int, str]] | None:
    """Return how far streams had come when a head was chosen, None if nothing tells of it."""
    upto: dict[str, tuple[int, str]] = {}
    for event in _anchorings(found):
        if isinstance(event, e.HeadChosen):
            upto |= event.heads
            if event.head == head:
                return upto
        elif event.anchor:  # what was missing then was given up
            upto = {}
            if event.anchor == head:
                return upto
    return {} if head in _earlier(found) else None


def _unknown(found: RestoredWallet, head: str) -> str:
    chosen = [event.head for event in _anchorings(found) if isinstance(event, e.HeadChosen)]
    newest = (*_earlier(found), *chosen[-1:])[-1:]
    theirs = f"the newest they have is {newest[0][:12]}" if newest else "they have none"
    return f"{BEHIND}: {head[:12]} is anchored, and {theirs}"


def _missing(
    found: RestoredWallet, upto: Mapping[str, tuple[int, str]], only: Sequence[str]
) -> Iterator[str]:
    """Say which streams are not there up to where an anchored head has them."""
    before = found.snapshot.heads if found.snapshot else {}
    for name, (seq, digest) in upto.items():
        if (only and name not in only) or before.get(name, (0, b""))[0] >= seq:
            continue
        hashes = {row.seq: row.hash.hex() for row in found.rows(name)}
        if hashes.get(seq) != digest:
            last = max(hashes, default=0)
            yield f"{BEHIND}: {name} is anchored up to event {seq}, and they have {last} of it"


def _anchorings(found: RestoredWallet) -> Iterator[e.HeadChosen | e.Restored]:
    for row in found.rows(e.WALLET):
        if row.kind in (e.HeadChosen.stored_name, e.Restored.stored_name):
            event = row.event()
            assert isinstance(event, e.HeadChosen | e.Restored)
            yield event


def _earlier(found: RestoredWallet) -> tuple[str, ...]:
    """Return the heads that a snapshot knows, the oldest first."""
    for kind, body in found.snapshot.records if found.snapshot else ():
        if kind == r.Anchor.stored_name:
            return r.Anchor.model_validate_json(body).heads[::-1]
    return ()


def _heads(tx: JournalTransaction) -> tuple[str, ...]:
    known = tx.get(r.Anchor, "newest")
    return known.heads if known else ("",)


def _sent(tx: JournalTransaction) -> r.EvmTransaction | None:
    return tx.get(r.EvmTransaction, f"{PURPOSE}:{_heads(tx)[0]}")


def _unanchored(tx: JournalTransaction) -> tuple[dict[str, tuple[int, str]], bool]:
    """Return the heads of streams that went on since the last choice, and if not only by it."""
    heads: dict[str, tuple[int, str]] = {}
    busy = False
    for stream in sorted(tx.streams(), key=lambda name: name != e.WALLET):
        known = tx.get(r.AnchoredStream, stream)
        after, (seq, digest) = known.seq if known else 0, tx.head(stream)
        if seq > after and len(heads) < MOST_STREAMS:
            heads[stream] = (seq, digest.hex())
            busy = busy or any(
                row.kind != e.HeadChosen.stored_name and not is_quiet(row)
                for row in tx.rows(stream, after)
            )
    return heads, busy


def _fork(tx: JournalTransaction, there: str, home: Path) -> StateForked:
    """Return the error that names both heads and what was paid here since the anchor moved."""
    known = tx.get(r.AnchoredStream, e.WALLET)
    after, mine = known.seq if known else 0, _heads(tx)[0]
    paid = payments(tx.rows(e.WALLET, after))
    told = (
        f"another machine goes on with this wallet: the anchored head is {there[:12] or 'none'},"
        f" and here by {tx.instance} it is {mine[:12] or 'none'}"
    )
    return StateForked(
        told,
        stream=e.WALLET,
        after=after,
        ours=(tx.instance, mine),
        theirs=("", there),
        payments=paid,
        home=home,
    )


@contextmanager
def _told() -> Iterator[None]:
    """Make of what keeps a head from its chain what keeps items from a gateway."""
    try:
        yield
    except (
        *(ConfigError, InsufficientFunds, IntentMismatch),
        *(OverBudget, ProtocolBroken),
    ) as error:
        raise _unanchorable(error) from error


def _unanchorable(wrong: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"the head cannot be anchored: {wrong}",
        hint=getattr(wrong, "hint", "") or "check chain.anchor and allowance.gas",
    )
