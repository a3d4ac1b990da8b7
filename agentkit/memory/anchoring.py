"""The head anchor: one hash over all streams, stored in a contract on a chain.

    chosen (an event, sealed with the steps it covers) -> taken by a gateway -> on the chain

A restore compares what gateways list with that hash, so a gateway cannot hide the newest steps.
The contract replaces the hash only if the caller names the present one, so of two machines with
one key only one can advance it.
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
from agentkit.memory.restore.restored_wallet import RestoredWallet
from agentkit.memory.sealing.backlog import is_quiet
from agentkit.memory.sealing.segment_chain import payments

log = logging.getLogger("agentkit")

BEHIND = "gateways are behind the anchored head"

LOOK_SECONDS = 5.0
"""How long the chain is asked before steps that do not depend on it go on."""

MOST_STREAMS = 500
"""Streams in one head, the wallet's first; the rest wait for the next head."""

UNSURE = "head not corroborated"


class Anchoring:
    """Advances the anchor, and raises StateForked if it holds a head that is not of this machine.

    It sends at most one transaction every `interval` seconds, and one whenever it is asked to.  A
    head is in the journal before it is sent.  So after a crash the head on the chain is known, and
    it is compared with the journal before anything else is done.
    """

    def __init__(self, journal: Journal, anchor: HeadAnchor, interval: float) -> None:
        self._journal = journal
        self._anchor = anchor
        self._interval = interval
        self._anchored: str | None = None  # the head on the chain; None until it was read
        self._chosen_here = ""
        self._advanced_here = False
        self._last_checked = float("-inf")
        self._forked: StateForked | None = None
        self.lock = asyncio.Lock()

    @property
    def is_ours(self) -> bool:
        """Whether this process has advanced the anchor, and no other is known to have since."""
        return self._advanced_here and self._forked is None

    async def check(self) -> None:
        """Raise StateForked if another machine advanced the anchor; a silent chain is no error."""
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self._compare_with_chain()

    async def prepare(self) -> None:
        """Read the anchor from the chain if it was not read yet: `choose` needs to know it."""
        if self._anchored is None and self._journal.wrote:
            await self.check()

    async def is_due(self) -> bool:
        """Whether a head has to be chosen or sent; after a yes or no, not again at once."""
        now = time.monotonic()
        if not self._journal.wrote or now - self._last_checked < self._interval / 10:
            return False
        self._last_checked = now
        return await self._journal.commit(self._is_due)

    def choose(
        self, tx: JournalTransaction, *, immediately: bool = False, even_if_idle: bool = False
    ) -> None:
        """Record which head to anchor next, once the interval has passed or `immediately`.

        Nothing is chosen while an earlier choice is not on the chain, nor if no stream has gone
        on, unless `even_if_idle`.  The caller seals all streams in the same transaction, since a
        restore must find everything that the head covers.
        """
        newest = _heads(tx)[0]
        if newest != self._anchored or not (immediately or self._is_time(tx)):
            return
        heads, has_new_steps = _unanchored(tx)
        if has_new_steps or even_if_idle:
            event = e.HeadChosen(previous=newest, heads=heads, salt=secrets.token_hex(8))
            tx.append(e.WALLET, event)
            self._chosen_here = event.head

    async def finish(self) -> None:
        """Anchor the head that was chosen last, once a gateway took its segment.

        Raises StateError.
        """
        newest, previous = await self._compare_with_chain()
        if newest != self._anchored:
            await self._advance(previous, newest)
        if newest and newest == self._chosen_here:
            self._advanced_here = True

    # -- inside ----------------------------------------------------------------------------------

    async def _advance(self, previous: str, newest: str) -> None:
        """Replace one head by the next on the chain; raises StoreUnavailable."""
        try:
            with _as_store_errors():
                await self._anchor.advance(previous, newest)
        except SettlementFailed as error:
            # The contract refuses a head that is there already: an earlier transaction of ours,
            # whose answer was lost, may have put it there.
            if (await self._compare_with_chain())[0] != self._anchored:
                raise _cannot_anchor(error) from error
        self._anchored = newest

    async def _compare_with_chain(self) -> tuple[str, str]:
        """Return our newest head and the one before it; raises StateForked, StoreUnavailable.

        The chain is read before the journal.  Every head of ours is in the journal before it is
        sent, so a head on the chain that the journal lacks is another machine's.
        """
        if self._forked:
            raise self._forked
        with _as_store_errors():
            on_chain = await self._anchor.head()
        heads, sent = await self._journal.commit(lambda tx: (_heads(tx), _sent(tx)))

        if on_chain not in heads:
            home = self._journal.home
            self._forked = await self._journal.commit(lambda tx: _fork(tx, on_chain, home))
            log.error("%s; %s", self._forked, self._forked.hint)
            raise self._forked

        # While a transaction is not final, a reorg may still take the head off the chain again.
        if on_chain == heads[0] and (sent is None or sent.final):
            self._anchored = on_chain
        newest = heads[0]
        previous = heads[1] if len(heads) > 1 else ""
        return newest, previous

    def _is_due(self, tx: JournalTransaction) -> bool:
        sent = _sent(tx)
        newest = _heads(tx)[0]
        is_unsent = newest not in ("", self._anchored) and not (sent and sent.final)
        if is_unsent:
            return True
        return self._is_time(tx) and _unanchored(tx)[1]

    def _is_time(self, tx: JournalTransaction) -> bool:
        """Whether the interval has passed since the last head was chosen."""
        anchor = tx.get(r.Anchor, "newest")
        # A choice in the future means that the clock was set back; do not wait for that long.
        return anchor is None or not 0 <= tx.now - anchor.at < self._interval


def corroborated(restored: RestoredWallet, head: str, only: Sequence[str] = ()) -> RestoredWallet:
    """Return a restored wallet with the result of comparing it to the anchored head.

    `only` names the streams that were asked for; the wallet's stream is always among them.
    """
    if not head:
        return restored
    covered = _covered_by(restored, head)
    if covered is None:
        problems = [_unknown_head(restored, head)]
    else:
        problems = list(_missing_steps(restored, covered, only))
    warnings = [warning for warning in restored.warnings if not warning.startswith(UNSURE)]
    return replace(
        restored,
        problems=(*restored.problems, *problems),
        warnings=(*warnings, *problems),
        anchored=head if problems else "",
        corroborated=not problems,
    )


def _covered_by(restored: RestoredWallet, head: str) -> dict[str, tuple[int, str]] | None:
    """Return the last event and its hash, by stream, that a head covers; None if it is unknown.

    Each HeadChosen lists only the streams that went on since the one before, so they add up.
    """
    covered: dict[str, tuple[int, str]] = {}
    for event in _anchor_events(restored):
        if isinstance(event, e.HeadChosen):
            covered |= event.heads
            if event.head == head:
                return covered
        elif event.anchor:
            # A restore with --accept-loss gave up what was missing under this head.
            covered = {}
            if event.anchor == head:
                return covered
    # A head from before the snapshot covers nothing that the snapshot does not contain.
    return {} if head in _snapshot_heads(restored) else None


def _unknown_head(restored: RestoredWallet, head: str) -> str:
    """Say that no step of what was restored chose the anchored head."""
    chosen = [event.head for event in _anchor_events(restored) if isinstance(event, e.HeadChosen)]
    heads = [*_snapshot_heads(restored), *chosen]
    listed = f"the newest they have is {heads[-1][:12]}" if heads else "they have none"
    return f"{BEHIND}: {head[:12]} is anchored, and {listed}"


def _missing_steps(
    restored: RestoredWallet, covered: Mapping[str, tuple[int, str]], only: Sequence[str]
) -> Iterator[str]:
    """Say which streams end before the event up to which an anchored head covers them."""
    in_snapshot = restored.snapshot.heads if restored.snapshot else {}
    for name, (seq, digest) in covered.items():
        if only and name not in only:
            continue
        if name in in_snapshot and in_snapshot[name][0] >= seq:
            continue
        hashes = {row.seq: row.hash.hex() for row in restored.rows(name)}
        if hashes.get(seq) != digest:
            last = max(hashes, default=0)
            yield f"{BEHIND}: {name} is anchored up to event {seq}, and they have {last} of it"


def _anchor_events(restored: RestoredWallet) -> Iterator[e.HeadChosen | e.Restored]:
    """Yield the events of the wallet's stream that choose a head or give up an anchored one."""
    for row in restored.rows(e.WALLET):
        if row.kind in (e.HeadChosen.stored_name, e.Restored.stored_name):
            event = row.event()
            assert isinstance(event, e.HeadChosen | e.Restored)
            yield event


def _snapshot_heads(restored: RestoredWallet) -> tuple[str, ...]:
    """Return the heads in a restored snapshot, the oldest first."""
    records = restored.snapshot.records if restored.snapshot else ()
    for kind, body in records:
        if kind == r.Anchor.stored_name:
            return r.Anchor.model_validate_json(body).heads[::-1]
    return ()


def _heads(tx: JournalTransaction) -> tuple[str, ...]:
    """Return the heads of this journal, the newest first; "" stands for none yet."""
    anchor = tx.get(r.Anchor, "newest")
    return anchor.heads if anchor else ("",)


def _sent(tx: JournalTransaction) -> r.EvmTransaction | None:
    """Return the transaction that sends the newest head, if it was signed."""
    return tx.get(r.EvmTransaction, f"{PURPOSE}:{_heads(tx)[0]}")


def _unanchored(tx: JournalTransaction) -> tuple[dict[str, tuple[int, str]], bool]:
    """Return the ends of streams that went on since the last head, and whether that is news.

    Choosing and sending a head writes events too.  They are no news, or every head would be a
    reason for the next one.
    """
    heads: dict[str, tuple[int, str]] = {}
    has_new_steps = False
    for stream in sorted(tx.streams(), key=lambda name: name != e.WALLET):
        anchored = tx.get(r.AnchoredStream, stream)
        anchored_seq = anchored.seq if anchored else 0
        seq, digest = tx.head(stream)
        if seq <= anchored_seq or len(heads) >= MOST_STREAMS:
            continue
        heads[stream] = (seq, digest.hex())
        has_new_steps = has_new_steps or any(
            row.kind != e.HeadChosen.stored_name and not is_quiet(row)
            for row in tx.rows(stream, anchored_seq)
        )
    return heads, has_new_steps


def _fork(tx: JournalTransaction, on_chain: str, home: Path) -> StateForked:
    """Return the error that names both heads and what was paid here since the anchor moved."""
    anchored = tx.get(r.AnchoredStream, e.WALLET)
    after = anchored.seq if anchored else 0
    our_head = _heads(tx)[0]
    message = (
        "another machine goes on with this wallet: the anchored head is"
        f" {on_chain[:12] or 'none'}, and here by {tx.instance} it is {our_head[:12] or 'none'}"
    )
    return StateForked(
        message,
        stream=e.WALLET,
        after=after,
        ours=(tx.instance, our_head),
        theirs=("", on_chain),
        payments=payments(tx.rows(e.WALLET, after)),
        home=home,
    )


@contextmanager
def _as_store_errors() -> Iterator[None]:
    """Turn errors of the chain into StoreUnavailable, which callers treat like a silent gateway."""
    try:
        yield
    except (
        ConfigError,
        InsufficientFunds,
        IntentMismatch,
        OverBudget,
        ProtocolBroken,
    ) as error:
        raise _cannot_anchor(error) from error


def _cannot_anchor(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"the head cannot be anchored: {error}",
        hint=getattr(error, "hint", "") or "check chain.anchor and allowance.gas",
    )
