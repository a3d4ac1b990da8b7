"""What the agent remembers: notes in its journal, and the journal sealed on Arweave.

journal -> seal (signed bytes in the outbox) -> accepted by a gateway -> mined -> stable
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from agentkit.errors import StateError, StateForked, StoreUnavailable
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.journal.store import Outgoing, Row, Tx
from agentkit.memory import snapshots
from agentkit.memory.b64 import name_of
from agentkit.memory.forks import check_alone
from agentkit.memory.gateways import Gateways
from agentkit.memory.sealer import Sealer
from agentkit.memory.segments import Segment, seal
from agentkit.memory.shred import told

log = logging.getLogger("agentkit")

MOST_EVENTS = 100
MOST_BYTES = 96 * 1024
MOST_SECONDS = 60.0
LOOK_SECONDS = 5.0
CONFIRM_SECONDS = 60.0
STABLE_DEPTH = 18
"""Confirmations after which a block is never undone (Arweave's checkpoint depth)."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of the journal is safe: events not yet on Arweave, and segments by state."""

    unsealed: int
    segments: dict[str, int]

    @property
    def items(self) -> int:
        """How many items of the log a gateway has taken."""
        return sum(count for state, count in self.segments.items() if state != "sealed")


class Memory:
    """The agent's memory over its journal; without gateways it is local only."""

    def __init__(self, journal: Journal, signer: Sealer, gateways: Gateways | None) -> None:
        self._journal, self._signer, self._gateways = journal, signer, gateways
        self._uploading = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._closing = False
        self._confirmed = time.monotonic()
        self._told = self._was_alone = False
        self._forked: StateForked | None = None

    @property
    def sealed_with(self) -> str:
        """What opens that which is sealed from now on, in words."""
        return told(self._signer)

    @property
    def address(self) -> str:
        """What gateways index this wallet's items under."""
        return name_of(self._signer.public_key)

    def wake(self) -> None:
        """Have everything sealed soon: something came to an end."""
        self._woken.set()

    def start(self) -> None:
        """Seal in the background whenever enough has gathered, or enough time has passed."""
        if self._gateways is not None:
            self._watch = asyncio.create_task(self._seal_regularly())

    async def close(self) -> None:
        """Seal and upload what there is, as far as gateways let us, and stop."""
        self._closing = True
        self.wake()
        if self._watch:
            await self._watch
        try:
            await self.checkpoint()
        except StateError as wrong:
            log.warning("not everything is on Arweave yet, it is safe here: %s", wrong)
        if self._gateways is not None:
            await self._gateways.close()

    # -- notes -----------------------------------------------------------------------------------

    async def note(self, topic: str, text: str) -> None:
        """Write something down under a topic."""
        noted = e.NoteAdded(topic=topic, text=text)
        await self._journal.commit(lambda tx: tx.append(e.WALLET, noted))

    async def latest(self, topic: str) -> str | None:
        """Return the newest note of a topic, None when there is none."""
        notes = await self.notes(topic)
        return notes[-1].text if notes else None

    async def notes(self, topic: str) -> list[r.Note]:
        """Return a topic's notes, oldest first."""
        return await self._journal.commit(lambda tx: tx.every(r.Note, f"{topic}|"))

    # -- the sealed log --------------------------------------------------------------------------

    async def checkpoint(self) -> Standing:
        """Seal everything now and hand it to a gateway.

        Raises StoreUnavailable when none takes it; the signed bytes stay in the outbox.
        """
        if self._gateways is not None:
            await self._journal.commit(self._seal_all)
            await self._alone(self._gateways)
            await self._upload()
        return await self.standing()

    async def check_alone(self) -> None:
        """Before the first purchase of this life: nobody else goes on with this wallet's state.

        Raises StateForked.  Where no gateway answers nobody can tell, and that is only logged.
        """
        if self._forked:
            raise self._forked
        if self._gateways is None or self._was_alone:
            return
        try:
            await self._alone(self._gateways)
        except StoreUnavailable as silent:
            log.warning("whether another machine uses this wallet cannot be told: %s", silent)

    async def _alone(self, gateways: Gateways) -> None:
        """Raise StateForked once another machine was found, and from then on."""
        if self._forked is None:
            try:
                await check_alone(self._signer, gateways, self._journal)
            except StateForked as forked:
                log.error("%s; %s", forked, forked.hint)  # noqa: TRY400  # no traceback for people
                self._forked = forked
        if self._forked:
            raise self._forked
        self._was_alone = True

    async def standing(self) -> Standing:
        """Return how much of the journal is on Arweave."""

        def look(tx: Tx) -> Standing:
            states: dict[str, int] = {}
            for segment in tx.outgoing("sealed", "accepted", "mined", "stable"):
                states[segment.state] = states.get(segment.state, 0) + 1
            unsealed = sum(tx.head(s)[0] - tx.last_sealed(s) for s in tx.streams())
            sealed = [s for s in tx.outgoing("sealed") if s.stream != snapshots.SNAPSHOTS]
            waiting = sum(s.last - s.first + 1 for s in sealed)
            return Standing(unsealed + waiting, states)

        return await self._journal.commit(look)

    async def confirm(self) -> Standing:
        """Ask how deep the segments lie, and note it."""
        if self._gateways is None:
            return await self.standing()
        waiting = await self._journal.commit(lambda tx: tx.outgoing("accepted", "mined"))
        for segment in waiting:
            status = await self._gateways.status(segment.item)
            if status.height is not None:
                stable = status.confirmations >= STABLE_DEPTH
                await self._mark(segment, "stable" if stable else "mined")
        return await self.standing()

    # -- inside ----------------------------------------------------------------------------------

    async def _seal_regularly(self) -> None:
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._woken.wait()
            if self._closing:
                return
            with contextlib.suppress(StateError):  # the next look tries again
                await self._look()

    async def _look(self) -> None:
        if self._woken.is_set() or await self._journal.commit(self._is_due):
            self._woken.clear()
            await self.checkpoint()
        if time.monotonic() - self._confirmed > CONFIRM_SECONDS:
            self._confirmed = time.monotonic()
            await self.confirm()

    def _is_due(self, tx: Tx) -> bool:
        if tx.outgoing("sealed"):
            return True
        for stream in tx.streams():
            rows = list(tx.rows(stream, tx.last_sealed(stream), MOST_EVENTS))
            old = rows and time.time() - rows[0].at / 1e6 > MOST_SECONDS
            if old or len(rows) == MOST_EVENTS:
                return True
        return False

    def _seal_all(self, tx: Tx) -> int:
        """Seal every event that is in no segment yet, signed bytes and all, in one transaction."""
        count = events = 0
        for stream in tx.streams():
            for segment in _segments(tx, stream):
                item = seal(self._signer, segment)
                outgoing = Outgoing(
                    item.id,
                    stream,
                    segment.first,
                    segment.last,
                    item.raw,
                    "sealed",
                    int(tx.now * 1e6),
                )
                tx.put_outgoing(outgoing)
                count, events = count + 1, events + len(segment.rows)
        if count and not self._told:
            log.info(self.sealed_with)
            self._told = True
        snapshots.seal_due(tx, self._signer, events)
        return count

    async def _upload(self) -> None:
        """Send the outbox; the same bytes again are the same item, so answers may get lost.

        The wallet goes before its runs: whoever restores must not know less of the money than of
        what was bought with it.
        """
        gateways = self._gateways
        if gateways is None:
            return
        async with self._uploading:
            waiting = await self._journal.commit(lambda tx: tx.outgoing("sealed"))
            for segment in sorted(waiting, key=lambda s: (s.at, s.stream != e.WALLET)):
                await gateways.post_item(segment.raw)
                await self._mark(segment, "accepted")

    async def _mark(self, segment: Outgoing, state: str) -> None:
        moved = segment._replace(state=state)
        await self._journal.commit(lambda tx: tx.put_outgoing(moved))


def _segments(tx: Tx, stream: str) -> Iterator[Segment]:
    """Yield the unsealed events of a stream in stretches of bounded size."""
    after = tx.last_sealed(stream)
    before = _hash_at(tx, stream, after)
    gathered: list[Row] = []
    size = 0
    for row in list(tx.rows(stream, after)):
        if gathered and (len(gathered) == MOST_EVENTS or size + len(row.body) > 4 * MOST_BYTES):
            yield _segment(tx, stream, gathered, before)
            before, gathered, size = gathered[-1].hash, [], 0
        gathered.append(row)
        size += len(row.body)
    if gathered:
        yield _segment(tx, stream, gathered, before)


def _segment(tx: Tx, stream: str, rows: list[Row], before: bytes) -> Segment:
    blobs = {}
    for digest in (digest for row in rows for digest in named_in(row)):
        data = tx.kept(digest)
        if data is not None:
            blobs[digest] = data
    return Segment(stream, tuple(rows), before, rows[-1].hash, blobs, tx.instance)


def _hash_at(tx: Tx, stream: str, seq: int) -> bytes:
    start, before = tx.start(stream)
    if seq == start:
        return before
    (row,) = tx.rows(stream, seq - 1, 1)
    return row.hash


def named_in(row: Row) -> list[str]:
    """Return the digests of the artifacts that an event names and does not hold."""
    if row.kind not in ("NodeDone", "NodesEnded", "ItemDone", "JobEnded"):
        return []
    body = json.loads(row.body)
    parts = body.get("done", ()) if row.kind == "NodesEnded" else (body,)
    outputs = [output for part in parts for output in part.get("outputs", ())]
    return [str(output["digest"]) for output in outputs if "text" not in output]
