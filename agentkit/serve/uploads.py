"""Stores the inputs that payers upload for admitted jobs.

An upload is taken only while an admitted job waits for it.  Its digest and size were declared and
paid for before its first byte arrives, so nobody can fill the disk without paying.  An input stays
on disk for later jobs until room is needed; one that an open job needs is never removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from agentkit.artifacts import KINDS, Artifact
from agentkit.errors import ProtocolBroken, RateLimited, Refused
from agentkit.providers.wire import WireArtifact

MAX_INPUT = 256 * 1024 * 1024
"""The most bytes of one input, and of all inputs of one job together."""

QUOTA = 2 * 1024 * 1024 * 1024
"""The most bytes that all inputs may take on disk."""

ARRIVAL_SECONDS = 60.0
ARRIVAL_BYTES_PER_SECOND = 256 * 1024
"""A job waits for its inputs for ARRIVAL_SECONDS, plus the time that they take at this rate."""

MAX_SENDERS = 4
"""How many requests may send the same input at once."""


@dataclass(slots=True)
class _Expected:
    """An input of a declared size, the open jobs that need it, and how many requests send it."""

    size: int
    jobs: set[str] = field(default_factory=set)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    senders: int = 0


async def _all_arrived(inputs: Iterable[_Expected]) -> None:
    for expected in inputs:
        await expected.arrived.wait()


class Uploads:
    """A folder of inputs by digest, of at most `quota` bytes."""

    def __init__(self, folder: Path, quota: int = QUOTA) -> None:
        self._folder = folder
        self._quota = quota
        self._expected: dict[str, _Expected] = {}
        self._waiting: dict[str, asyncio.Task[None]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for draft in folder.glob("draft-*"):  # left by an earlier process
            draft.unlink(missing_ok=True)

    def expect(self, job: str, inputs: Iterable[WireArtifact]) -> None:
        """Accept uploads of a job's inputs, and keep them on disk, until `release`.

        Raises RateLimited if the inputs of open jobs leave no room, and Refused for an input that
        another job declares with another size.
        """
        sizes = {wire.digest: wire.size for wire in inputs if wire.data is None}
        for digest, size in sizes.items():
            expected = self._expected.get(digest)
            if expected and expected.size != size:
                raise Refused(f"the input {digest[:12]} is not of {size} bytes")

        self._make_room(sizes)
        for digest, size in sizes.items():
            expected = self._expected.setdefault(digest, _Expected(size))
            expected.jobs.add(job)
            if self._is_stored(digest, size):
                expected.arrived.set()

    def missing(self, job: str) -> tuple[str, ...]:
        """Return the digests of the inputs that a job still waits for."""
        return tuple(
            digest
            for digest, expected in self._expected.items()
            if job in expected.jobs and not expected.arrived.is_set()
        )

    def release(self, job: str) -> None:
        """Stop to expect the inputs of a job; they stay on disk while there is room."""
        for digest, expected in list(self._expected.items()):
            expected.jobs.discard(job)
            if not expected.jobs:
                del self._expected[digest]

    async def arrival(self, job: str) -> None:
        """Wait until all inputs of a job have arrived.

        Raises Refused if they do not come in time, or `give_up` is called for the job.
        """
        inputs = [expected for expected in self._expected.values() if job in expected.jobs]
        missing_bytes = sum(expected.size for expected in inputs if not expected.arrived.is_set())
        seconds = ARRIVAL_SECONDS + missing_bytes / ARRIVAL_BYTES_PER_SECOND
        arrival = asyncio.create_task(_all_arrived(inputs))
        self._waiting[job] = arrival
        await asyncio.wait([arrival], timeout=seconds)
        del self._waiting[job]
        if not arrival.done():
            arrival.cancel()
            raise Refused(f"its inputs did not arrive within {seconds:.0f} s")
        if arrival.cancelled():
            raise Refused("it was cancelled before its inputs were here")

    def give_up(self, job: str) -> None:
        """End the wait of a job for its inputs, if it waits."""
        if job in self._waiting:
            self._waiting[job].cancel()

    async def receive(self, digest: str, chunks: AsyncIterator[bytes]) -> None:
        """Store an input that a job waits for, from the body of a request.

        Raises Refused if no job waits for it, RateLimited if too many requests send it already, and
        ProtocolBroken if the bytes do not have this digest and the declared size.
        """
        expected = self._expected.get(digest)
        if expected is None:
            raise Refused("no job here waits for this input: submit the job first, then its inputs")
        if expected.arrived.is_set():
            # Many clients read an answer only after they have sent their whole body.
            async for _ in chunks:
                pass
            return
        if expected.senders >= MAX_SENDERS:
            raise RateLimited("this input is being sent already", retry_after=1.0)
        expected.senders += 1
        draft = self._folder / f"draft-{secrets.token_hex(6)}"
        try:
            await self._write(draft, digest, expected, chunks)
            draft.replace(self._folder / digest)
        finally:
            draft.unlink(missing_ok=True)
            expected.senders -= 1
        expected.arrived.set()

    def artifact(self, wire: WireArtifact) -> Artifact:
        """Return an input with its inline bytes, or with the path of its upload if that is there.

        Raises ProtocolBroken for an unknown kind, and for inline bytes of another digest.
        """
        if wire.data is not None:
            return wire.artifact()
        artifact_class = KINDS.get(wire.kind)
        if artifact_class is None:
            raise ProtocolBroken(f"there is no kind of artifact called {wire.kind!r}")
        path = self._folder / wire.digest
        content = path if self._is_stored(wire.digest, wire.size) else None
        return artifact_class(wire.digest, wire.size, wire.media_type, (), content)

    # -- inside ----------------------------------------------------------------------------------

    async def _write(
        self, draft: Path, digest: str, expected: _Expected, chunks: AsyncIterator[bytes]
    ) -> None:
        """Write an input to disk while it arrives; raises ProtocolBroken, Refused."""
        hasher = hashlib.sha256()
        size = 0
        with draft.open("wb") as file:
            async for chunk in chunks:
                # The size is checked while it grows: the digest can only be checked at the end, and
                # until then a sender could fill the disk.
                size += len(chunk)
                if size > expected.size:
                    raise ProtocolBroken("the input is longer than its job declares")
                if not expected.jobs:
                    raise Refused("the job that waited for this input has ended")
                hasher.update(chunk)
                await asyncio.to_thread(file.write, chunk)
        if hasher.hexdigest() != digest or size != expected.size:
            raise ProtocolBroken("the bytes do not hash to the name they were put under")

    def _is_stored(self, digest: str, size: int) -> bool:
        """Whether an input is on disk; marks it as used now, so that it is removed later."""
        path = self._folder / digest
        try:
            if path.stat().st_size != size:
                return False
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def _make_room(self, new_sizes: dict[str, int]) -> None:
        """Remove unused inputs until new ones of these sizes fit; raises RateLimited.

        Those that were not used for the longest time are removed first.
        """
        files = {path.name: path.stat() for path in self._folder.iterdir()}
        needed_sizes = {digest: expected.size for digest, expected in self._expected.items()}
        needed_sizes |= new_sizes
        unused = [name for name in files if name not in needed_sizes]
        total_size = sum(needed_sizes.values()) + sum(files[name].st_size for name in unused)

        for name in sorted(unused, key=lambda name: files[name].st_mtime):
            if total_size <= self._quota:
                return
            (self._folder / name).unlink(missing_ok=True)
            total_size -= files[name].st_size
        if total_size > self._quota:
            raise RateLimited("the inputs of other jobs take all the room", retry_after=5.0)
