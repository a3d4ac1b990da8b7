"""How much of the journal is safe, in numbers and in the sentences that people see."""

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
    """What would be lost with this machine, and what keeps it from being safe.

    `unsealed`: events that nobody has taken yet; `oldest` is the age of the first of them in
    seconds.  `window` is the age of the oldest event that a reorg, or a gateway that forgets,
    could still take.  `segments` counts by state.  `reposted`: how often one was handed over
    again; `notes`: what is wrong with some, and with how many.  `trouble`: why uploads stand
    still, "" when they do not.
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
        """How many items of the log a gateway has taken."""
        return sum(count for state, count in self.segments.items() if state not in WAITING)

    @property
    def pending(self) -> int:
        """How many items do not lie deep enough to be there for good."""
        return sum(count for state, count in self.segments.items() if state not in SAFE)

    def document(self) -> dict[str, object]:
        """Return what programs read."""
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
        """Return what people read, the most important first."""
        return list(self._sentences(where))

    def _sentences(self, where: str) -> Iterator[str]:
        """Yield what a person should know of the backup, the most important first."""
        if self.unsealed:
            steps = "step" if self.unsealed == 1 else "steps"
            old = f", oldest {age(self.oldest)}" if self.oldest is not None else ""
            yield f"{self.unsealed} {steps} not yet on {where}{old}; safe on this machine"
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
    """Return an age as people say it: `12 s`, `4 min`, `3 h`, `2 d`."""
    left = max(0.0, seconds or 0.0)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if left >= size:
            return f"{int(left // size)} {unit}"
    return f"{int(left)} s"


def look(tx: JournalTransaction) -> BackupStatus:
    """Return how the journal stands now."""
    counts = tx.outbox.counts()
    open_ones = backlog(tx)
    untaken = sum(events for state, _, events, *_ in counts if state in WAITING)
    times = [open_ones.oldest, tx.outbox.oldest_event(*WAITING)]
    shaky = [*times, tx.outbox.oldest_event("accepted", "mined")]
    return BackupStatus(
        unsealed=open_ones.events + untaken,
        segments={state: count for state, count, *_ in counts},
        oldest=_age_of(tx, times),
        window=_age_of(tx, shaky),
        reposted=sum(again for *_, again in counts),
        notes=dict(tx.outbox.notes()),
        trouble=tx.outbox.trouble(),
    )


def _age_of(tx: JournalTransaction, times: list[int | None]) -> float | None:
    known = [at for at in times if at is not None]
    return max(0.0, tx.now - min(known) / 1e6) if known else None
