"""What of other people's bytes a node keeps on its disk."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentkit.artifacts import Artifact
from agentkit.errors import ProtocolBroken, RateLimited, Refused
from agentkit.providers.wire import WireArtifact
from agentkit.serve import uploads as module
from agentkit.serve.uploads import MAX_SENDERS, Uploads


def wire_of(data: bytes, /, **changes: object) -> WireArtifact:
    about = {"digest": hashlib.sha256(data).hexdigest(), "size": len(data), **changes}
    return WireArtifact(kind="blob", media_type="x", **about)  # type: ignore[arg-type]


async def sent(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def put(uploads: Uploads, data: bytes) -> None:
    await uploads.receive(hashlib.sha256(data).hexdigest(), sent(data[:3], data[3:]))


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


async def test_what_no_job_waits_for_is_not_taken(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    with pytest.raises(Refused, match="submit the job first"):
        await put(uploads, b"anything")
    uploads.expect("job", [wire_of(b"wanted")])
    with pytest.raises(Refused):
        await put(uploads, b"anything")
    uploads.release("job")
    with pytest.raises(Refused):
        await put(uploads, b"wanted")
    assert on_disk(tmp_path) == 0


@pytest.mark.parametrize("data", [b"wantee", b"wante", b"wanted and more", b"", b"x" * 10**6])
async def test_what_is_not_as_declared_leaves_nothing(tmp_path: Path, data: bytes) -> None:
    uploads = Uploads(tmp_path)
    wanted = wire_of(b"wanted")
    uploads.expect("job", [wanted])
    with pytest.raises(ProtocolBroken):
        await uploads.receive(wanted.digest, sent(data))
    assert on_disk(tmp_path) == 0
    assert uploads.missing("job") == (wanted.digest,)
    await put(uploads, b"wanted")
    assert uploads.missing("job") == ()


async def test_a_job_waits_for_its_inputs_and_no_longer_than_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = Uploads(tmp_path)
    uploads.expect("job", [wire_of(b"one"), wire_of(b"two"), wire_of(b"in", data="aW4=")])
    arrival = asyncio.create_task(uploads.arrival("job"))
    await put(uploads, b"one")
    assert not arrival.done()
    await put(uploads, b"two")
    await arrival
    artifact = uploads.artifact(wire_of(b"one"))
    assert (artifact.read(), artifact.size) == (b"one", 3)

    monkeypatch.setattr(module, "ARRIVAL_SECONDS", 0.05)
    uploads.expect("late", [wire_of(b"three")])
    with pytest.raises(Refused, match="did not arrive"):
        await uploads.arrival("late")


async def test_a_job_that_is_called_off_waits_no_longer(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    uploads.expect("job", [wire_of(b"one")])
    arrival = asyncio.create_task(uploads.arrival("job"))
    await asyncio.sleep(0)
    uploads.give_up("job")
    with pytest.raises(Refused, match="cancelled"):
        await arrival


async def test_room_is_made_of_what_no_open_job_needs_the_longest_unused_first(
    tmp_path: Path,
) -> None:
    uploads = Uploads(tmp_path, quota=1000)
    for number, data in enumerate((b"a" * 400, b"b" * 300, b"c" * 300)):
        uploads.expect(f"{number}", [wire_of(data)])
        await put(uploads, data)
        os.utime(tmp_path / wire_of(data).digest, (number, number))
    uploads.release("1")
    uploads.release("2")
    uploads.expect("new", [wire_of(b"d" * 200)])  # b goes: a, which is older, is needed
    kept = {path.read_bytes()[:1] for path in tmp_path.iterdir()}
    assert kept == {b"a", b"c"}
    with pytest.raises(RateLimited):
        uploads.expect("large", [wire_of(b"e" * 500)])
    assert uploads.missing("large") == ()
    uploads.release("0")
    uploads.expect("large", [wire_of(b"e" * 500)])
    await put(uploads, b"d" * 200)
    await put(uploads, b"e" * 500)
    assert on_disk(tmp_path) <= 1000


async def test_what_was_uploaded_before_is_not_asked_for_again(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    uploads.expect("first", [wire_of(b"data")])
    await put(uploads, b"data")
    uploads.release("first")
    again = Uploads(tmp_path)  # as the next process finds it
    again.expect("second", [wire_of(b"data")])
    assert again.missing("second") == ()
    await put(again, b"data")  # whoever sends it all the same is not refused
    await again.arrival("second")


async def test_a_sender_that_dawdles_keeps_no_other_out(tmp_path: Path) -> None:
    uploads, gate = Uploads(tmp_path), asyncio.Event()
    wanted = wire_of(b"wanted")
    uploads.expect("job", [wanted])

    async def dawdling() -> AsyncIterator[bytes]:
        yield b"w"
        await gate.wait()

    slow = [
        asyncio.create_task(uploads.receive(wanted.digest, dawdling()))
        for _ in range(MAX_SENDERS - 1)
    ]
    await asyncio.sleep(0)
    await put(uploads, b"wanted")
    await uploads.arrival("job")
    gate.set()
    outcomes = await asyncio.gather(*slow, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ProtocolBroken}
    assert uploads.artifact(wanted).read() == b"wanted"


async def test_a_draft_of_a_process_that_died_is_removed(tmp_path: Path) -> None:
    (tmp_path / "draft-1").write_bytes(b"half")
    Uploads(tmp_path)
    assert on_disk(tmp_path) == 0


async def test_one_digest_has_one_size(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    uploads.expect("job", [wire_of(b"data")])
    with pytest.raises(Refused, match="not of 9 bytes"):
        uploads.expect("other", [wire_of(b"data", size=9)])
    assert isinstance(uploads.artifact(wire_of(b"data")), Artifact)
