"""The inputs of admitted jobs, on disk: what a payer may upload, and for how long it stays.

An upload is taken only while an admitted job waits for it: its digest and size were declared, and
priced, before a byte of it arrives.  So nobody fills the disk who does not pay.  What was uploaded
stays for later jobs until room is needed; what an open job needs is never removed.
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
"""Bytes of the largest input of a job, and of all inputs of one."""

QUOTA = 2 * 1024 * 1024 * 1024
"""Bytes that inputs may take on disk in all."""

ARRIVAL_SECONDS = 60.0
ARRIVAL_BYTES_PER_SECOND = 256 * 1024
"""How long a job waits for its inputs: so many seconds, and as long as they take at this rate."""

MAX_SENDERS = 4
"""How many may send the same input at once."""


@dataclass(slots=True)
class _Expected:
    """An input that open jobs need."""

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
        self._folder, self._quota = folder, quota
        self._expected: dict[str, _Expected] = {}
        self._waiting: dict[str, asyncio.Task[None]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for draft in folder.glob("draft-*"):  # of an earlier process
            draft.unlink(missing_ok=True)

    def expect(self, job: str, inputs: Iterable[WireArtifact]) -> None:
        """Keep and wait for the inputs of a job until `release`.

        Raises RateLimited while open jobs need all the room there is, and Refused for an input
        that another job declares with another size.
        """
        wanted = {wire.digest: wire.size for wire in inputs if wire.data is None}
        for digest, size in wanted.items():
            known = self._expected.get(digest)
            if known and known.size != size:
                raise Refused(f"the input {digest[:12]} is not of {size} bytes")
        self._make_room(wanted)
        for digest, size in wanted.items():
            expected = self._expected.setdefault(digest, _Expected(size))
            expected.jobs.add(job)
            if self._is_here(digest, size):
                expected.arrived.set()

    def missing(self, job: str) -> tuple[str, ...]:
        """Return the digests of the inputs that a job still waits for."""
        return tuple(
            digest
            for digest, expected in self._expected.items()
            if job in expected.jobs and not expected.arrived.is_set()
        )

    def release(self, job: str) -> None:
        """Let go of the inputs of a job; they stay on disk while there is room."""
        for digest, expected in list(self._expected.items()):
            expected.jobs.discard(job)
            if not expected.jobs:
                del self._expected[digest]

    async def arrival(self, job: str) -> None:
        """Return once all inputs of a job are here.

        Raises Refused when they do not come, or the job gives up.
        """
        waited = [expected for expected in self._expected.values() if job in expected.jobs]
        size = sum(expected.size for expected in waited if not expected.arrived.is_set())
        seconds = ARRIVAL_SECONDS + size / ARRIVAL_BYTES_PER_SECOND
        arrival = asyncio.create_task(_all_arrived(waited))
        self._waiting[job] = arrival
        await asyncio.wait([arrival], timeout=seconds)
        del self._waiting[job]
        if not arrival.done():
            arrival.cancel()
            raise Refused(f"its inputs did not arrive within {seconds:.0f} s")
        if arrival.cancelled():
            raise Refused("it was cancelled before its inputs were here")

    def give_up(self, job: str) -> None:
        """Have a job that waits for its inputs wait no longer."""
        if job in self._waiting:
            self._waiting[job].cancel()

    async def receive(self, digest: str, chunks: AsyncIterator[bytes]) -> None:
        """Store an input that a job waits for.

        Raises Refused when none does, RateLimited when others send it, and ProtocolBroken for
        bytes that are not those of the digest.
        """
        expected = self._expected.get(digest)
        if expected is None:
            raise Refused("no job here waits for this input: submit the job first, then its inputs")
        if expected.arrived.is_set():
            async for _ in chunks:  # so that the answer is read
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
        """Return an input: with its bytes if they came inline, else with where they lie.

        Raises ProtocolBroken for a kind or bytes that are not what the input says.
        """
        if wire.data is not None:
            return wire.artifact()
        kind = KINDS.get(wire.kind)
        if kind is None:
            raise ProtocolBroken(f"there is no kind of artifact called {wire.kind!r}")
        path = self._folder / wire.digest
        content = path if self._is_here(wire.digest, wire.size) else None
        return kind(wire.digest, wire.size, wire.media_type, (), content)

    # -- inside ----------------------------------------------------------------------------------

    async def _write(
        self, draft: Path, digest: str, expected: _Expected, chunks: AsyncIterator[bytes]
    ) -> None:
        """Write an input to disk while it arrives; raises for one that is not what was declared."""
        total, size = hashlib.sha256(), 0
        with draft.open("wb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > expected.size:
                    raise ProtocolBroken("the input is longer than its job declares")
                if not expected.jobs:
                    raise Refused("the job that waited for this input has ended")
                total.update(chunk)
                await asyncio.to_thread(file.write, chunk)
        if total.hexdigest() != digest or size != expected.size:
            raise ProtocolBroken("the bytes do not hash to the name they were put under")

    def _is_here(self, digest: str, size: int) -> bool:
        """Whether an input lies here; notes that it was asked for, so that it stays longer."""
        path = self._folder / digest
        try:
            if path.stat().st_size != size:
                return False
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def _make_room(self, wanted: dict[str, int]) -> None:
        """Remove what was not asked for longest until the wanted inputs fit as well."""
        files = {path.name: path.stat() for path in self._folder.iterdir()}
        coming = {name: known.size for name, known in self._expected.items()} | wanted
        total = sum(coming.values())
        total += sum(stat.st_size for name, stat in files.items() if name not in coming)
        idle = [name for name in files if name not in coming]
        for name in sorted(idle, key=lambda name: files[name].st_mtime):
            if total <= self._quota:
                return
            (self._folder / name).unlink(missing_ok=True)
            total -= files[name].st_size
        if total > self._quota:
            raise RateLimited("the inputs of other jobs take all the room", retry_after=5.0)
