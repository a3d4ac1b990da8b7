"""How much of the journal is backed up on Arweave, in numbers and in sentences for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from agentkit.journal.outbox_tables import OUTBOX_STATES
from agentkit.journal.transaction import JournalTransaction
from agentkit.memory.sealing.backlog import backlog
from agentkit.memory.uploads.outbox import WAITING

SAFE = ("stable", "read back")


@dataclass(frozen=True, slots=True)
class BackupStatus:
    """What would be lost with this machine, and why it is not backed up yet.

    `unsealed` counts the events that no gateway has taken yet; `oldest` is the age of the oldest of
    them, in seconds.  `window` is the age of the oldest event that could still be lost, because no
    gateway has taken it, or because a reorg or a forgetful gateway may undo its upload.
    `segments` counts segments by state.  `reposted` says how often a segment had to be sent again.
    `notes` maps a problem to the number of segments that have it.  `trouble` says why uploads have
    stopped; it is "" while they work.
    """

    unsealed: int
    segments: dict[str, int]
    oldest: float | None = None
    window: float | None = None
    reposted: int = 0
    notes: dict[str, int] = field(default_factory=dict)
    trouble: str = ""

    @property
    def items(self) -> int:
        """How many segments a gateway has taken."""
        return sum(count for state, count in self.segments.items() if state not in WAITING)

    @property
    def pending(self) -> int:
        """How many segments a reorg could still undo."""
        return sum(count for state, count in self.segments.items() if state not in SAFE)

    def document(self) -> dict[str, object]:
        """Return the JSON that `agentkit status --json` prints."""
        return {
            "not_yet_on_arweave": self.unsealed,
            "oldest_s": self.oldest,
            "window_s": self.window,
            "segments": {state: self.segments.get(state, 0) for state in OUTBOX_STATES},
            "reposted": self.reposted,
            "notes": self.notes,
            "trouble": self.trouble,
        }

    def sentences(self, where: str = "Arweave") -> list[str]:
        """Return the status in sentences, the most important first; `where` names the storage."""
        return list(self._sentences(where))

    def _sentences(self, where: str) -> Iterator[str]:
        """Yield the sentences that apply, the most important first."""
        if self.unsealed:
            steps = "step" if self.unsealed == 1 else "steps"
            oldest = f", oldest {age(self.oldest)}" if self.oldest is not None else ""
            yield f"{self.unsealed} {steps} not yet on {where}{oldest}; safe on this machine"
        else:
            yield f"everything is on {where}, in {self.items} items" + self._depth()
        if self.trouble:
            yield self.trouble
        for note, count in self.notes.items():
            yield f"{count} of them: {note}"
        if self.reposted:
            yield f"re-posted {self.reposted} times"

    def _depth(self) -> str:
        if not self.pending:
            return ""
        return f", {self.pending} of them not yet 18 blocks deep (oldest {age(self.window)})"


def age(seconds: float | None) -> str:
    """Return an age in its largest unit, rounded down: `12 s`, `4 min`, `3 h`, `2 d`."""
    seconds = max(0.0, seconds or 0.0)
    for unit, unit_seconds in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= unit_seconds:
            return f"{int(seconds // unit_seconds)} {unit}"
    return f"{int(seconds)} s"


def read_backup_status(tx: JournalTransaction) -> BackupStatus:
    """Return how much of the journal is backed up now."""
    unsealed = backlog(tx)
    segments: dict[str, int] = {}
    waiting_events = 0
    reposted = 0
    for state, segment_count, event_count, repost_count in tx.outbox.counts():
        segments[state] = segment_count
        reposted += repost_count
        if state in WAITING:
            waiting_events += event_count

    not_taken = [unsealed.oldest, tx.outbox.oldest_event(*WAITING)]
    undoable = [*not_taken, tx.outbox.oldest_event("accepted", "mined")]
    return BackupStatus(
        unsealed=unsealed.events + waiting_events,
        segments=segments,
        oldest=_age_of_oldest(tx, not_taken),
        window=_age_of_oldest(tx, undoable),
        reposted=reposted,
        notes=dict(tx.outbox.notes()),
        trouble=tx.outbox.trouble(),
    )


def _age_of_oldest(tx: JournalTransaction, times: list[int | None]) -> float | None:
    """Return the age in seconds of the earliest time (microseconds); None if there is no time."""
    present = [at for at in times if at is not None]
    return max(0.0, tx.now - min(present) / 1e6) if present else None
