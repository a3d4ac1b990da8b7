"""How nodes end: many ends become durable at once, and then whatever waited for them may start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from agentkit.artifacts import Artifact
from agentkit.journal.blobs import blobs_of
from agentkit.journal.events import NodeDone, NodesEnded, NodeSkipped
from agentkit.journal.produced import Produced
from agentkit.market.seams import Transaction
from agentkit.runtime.run_log import RunLog

MOST_IN_ONE_EVENT = 64
"""Nodes that are recorded by one event: one row, one hash and one insert for all of them."""


class NodeEnd(NamedTuple):
    """A node that has ended and is not recorded yet; `blobs` are bytes that go into the journal."""

    node: str
    event: NodeDone | NodeSkipped
    outputs: tuple[Artifact, ...] = ()
    blobs: tuple[bytes, ...] = ()

    @classmethod
    def done(cls, node: str, outputs: tuple[Artifact, ...]) -> NodeEnd:
        """Return the end of a node that produced outputs, which are stored already."""
        produced = tuple(map(Produced.of, outputs))
        return cls(
            node, NodeDone(node=node, outputs=produced), outputs, blobs_of(outputs, produced)
        )

    @classmethod
    def skipped(cls, node: str, why: str) -> NodeEnd:
        """Return the end of a node that is not done."""
        return cls(node, NodeSkipped(node=node, why=why))


class Endings:
    """Records the ends of nodes in batches; `recorded` is called with each batch that is durable.

    A batch is written when no further node is ready to run (`is_more_ready`), or else as soon as
    the event loop gets around to it.  `failed` is called with the first node of a batch that could
    not be written.
    """

    def __init__(
        self,
        log: RunLog,
        *,
        recorded: Callable[[Sequence[NodeEnd]], None],
        failed: Callable[[str, BaseException], None],
        is_more_ready: Callable[[], bool],
    ) -> None:
        self._log = log
        self._recorded = recorded
        self._failed = failed
        self._is_more_ready = is_more_ready
        self._waiting: list[NodeEnd] = []
        self._writing = 0

    @property
    def busy(self) -> bool:
        """Whether some end is not durable yet."""
        return bool(self._waiting or self._writing)

    def add(self, end: NodeEnd) -> None:
        """Record the end of a node, together with others that end at about the same time."""
        self._waiting.append(end)
        if not self._is_more_ready():
            self._write()
        elif len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        """Write everything that waits as one batch."""
        if not self._waiting:
            return
        batch, self._waiting = self._waiting, []
        self._writing += 1

        def keep_blobs(tx: Transaction) -> None:
            for end in batch:
                for data in end.blobs:
                    tx.put_blob(data)

        self._log.post(keep_blobs, _as_events(batch), lambda error: self._written(batch, error))

    def _written(self, batch: Sequence[NodeEnd], error: Exception | None) -> None:
        self._writing -= 1
        if error is not None:
            self._failed(batch[0].node, error)
        else:
            self._recorded(batch)


def _as_events(batch: Sequence[NodeEnd]) -> list[NodesEnded]:
    """Return the ends of nodes as few events, in their order."""
    events = []
    for start in range(0, len(batch), MOST_IN_ONE_EVENT):
        ends = [end.event for end in batch[start : start + MOST_IN_ONE_EVENT]]
        done = tuple([end for end in ends if isinstance(end, NodeDone)])
        skipped = tuple([end for end in ends if isinstance(end, NodeSkipped)])
        events.append(NodesEnded(done=done, skipped=skipped))
    return events
