"""Whatever is in a sealed document, reading it gives what was written or one of our errors."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.drawn_cases import cases

from agentkit.errors import StateCorrupt, WrongKey
from agentkit.journal import snapshot as moments
from agentkit.journal.rows import Row, genesis
from agentkit.journal.snapshot import Snapshot
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave.ans104 import make_bundle, parse_item, verify
from agentkit.memory.arweave.base64url import name_of
from agentkit.memory.arweave.unbundling import _owned_items
from agentkit.memory.restore.remote_log import piece_of
from agentkit.memory.sealing import segments, snapshots
from agentkit.memory.sealing.segments import Segment, public_stream_name, seal, unseal
from agentkit.memory.sealing.shred import Shredding

SIGNER = KeySigner(b"\x21" * 32)
ME = name_of(SIGNER.public_key)
SHREDDER = Shredding(SIGNER, b"\x42" * 32)
quick = settings(deadline=None, max_examples=cases(60))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
streams = texts.filter(bool)
numbers = st.integers(1, 2**63 - 200)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


TAGS = ("Seq-First", "Seq-Last", "Kind", "Run", "Prev", "Head")


def parts_of(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), json_values)


@st.composite
def written(draw: Any) -> Segment:
    """Draw a segment as an agent writes it."""
    stream, first = draw(streams), draw(numbers)
    bodies = draw(st.lists(texts, min_size=1, max_size=5))
    before = hash_ = draw(st.binary(min_size=32, max_size=32))
    rows = []
    for place, body in enumerate(bodies):
        row = Row(stream, first + place, draw(st.integers(0, 2**62)), "NoteAdded", 1, body)
        hash_ = row.link(hash_)
        rows.append(row._replace(hash=hash_))
    data = draw(st.lists(st.binary(max_size=50), max_size=3))
    blobs = {hashlib.sha256(blob).hexdigest(): blob for blob in data}
    return Segment(stream, tuple(rows), before, hash_, blobs, draw(texts))


@st.composite
def taken(draw: Any) -> Snapshot:
    """Draw a snapshot as far as reading it looks."""
    head = st.tuples(numbers, st.binary(min_size=32, max_size=32))
    heads = draw(st.dictionaries(streams, head, max_size=4))
    heads = {s: (n // 8, h) for s, (n, h) in heads.items() if n >= 8 and h != genesis(s)}
    runs = {s: draw(texts) for s in heads if s not in ("wallet", "node")}
    records = draw(st.lists(st.tuples(texts, texts), max_size=4))
    return Snapshot(heads, tuple(records), runs, {})


@quick
@given(written(), st.booleans())
def test_a_segment_goes_round(segment: Segment, local: bool) -> None:
    sealer = SHREDDER if local else SIGNER
    item = parse_item(seal(sealer, segment).raw)
    verify(item)
    assert unseal(sealer, item) == segment
    for text in (segment.stream, segment.instance, *(row.body for row in segment.rows)):
        if len(text) > 6:
            assert text.encode() not in item.raw
    if local:
        with pytest.raises(WrongKey):
            unseal(SIGNER, item)


@quick
@given(taken())
def test_a_snapshot_goes_round(snapshot: Snapshot) -> None:
    item = parse_item(snapshots.seal(SIGNER, snapshot).raw)
    verify(item)
    assert snapshots.unseal(SIGNER, item) == snapshot


@quick
@given(written(), st.data())
def test_a_sealed_item_with_a_changed_byte_never_opens(segment: Segment, data: Any) -> None:
    raw = bytearray(seal(SIGNER, segment).raw)
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises((StateCorrupt, WrongKey)):
        item = parse_item(bytes(raw))
        unseal(SIGNER, item)  # the seal alone refuses it, without the signature
        verify(item)


def only_ours(call: Any, *args: Any) -> Any:
    """Return what a call returns, None when it refuses; anything else it raises is a failure."""
    try:
        return call(*args)
    except (StateCorrupt, WrongKey):
        return None


@quick
@given(json_values, parts_of("stream", "before", "rows", "blobs"))
def test_no_document_breaks_the_reader_of_segments(value: Any, parts: dict[str, Any]) -> None:
    good = {"stream": "s", "before": "00" * 32, "rows": [], "blobs": {"texts": [], "bytes": []}}
    for document in (value, {**good, **parts}):
        plain = json.dumps(document).encode()
        item = segments.seal_bytes(
            SIGNER, plain, (*segments.APP, ("Run", public_stream_name(SIGNER, "s")))
        )
        only_ours(unseal, SIGNER, item)


@quick
@given(json_values, parts_of("heads", "records", "runs", "blobs"))
def test_no_document_breaks_the_reader_of_snapshots(value: Any, parts: dict[str, Any]) -> None:
    good = {"heads": {}, "records": [], "runs": {}, "blobs": {"texts": [], "bytes": []}}
    tags = (
        *segments.OURS,
        snapshots.KIND,
        ("Run", public_stream_name(SIGNER, snapshots.SNAPSHOTS)),
    )
    for document in (value, {**good, **parts}):
        item = segments.seal_bytes(SIGNER, json.dumps(document).encode(), tags)
        only_ours(snapshots.unseal, SIGNER, item)


@quick
@given(st.binary(max_size=300))
def test_no_bytes_break_the_opening(packed: bytes) -> None:
    item = segments.seal_bytes(SIGNER, packed, (*segments.APP, ("Run", "ab")))
    only_ours(segments.open_document, SIGNER, item)


@quick
@given(st.lists(st.tuples(st.sampled_from(TAGS), texts | st.integers().map(str))))
def test_no_tags_break_the_planning(tags: list[tuple[str, str]]) -> None:
    piece = only_ours(piece_of, "an id", tuple(tags), None)
    assert piece is None or 0 <= piece.first < 10**19


@quick
@given(written(), st.binary(max_size=300), st.data())
def test_no_bytes_break_the_unpacking_of_bundles(segment: Segment, junk: bytes, data: Any) -> None:
    item = seal(SIGNER, segment)
    raw = make_bundle([item])
    assert [i.id for i in _owned_items(raw, ME)] == [item.id]
    place = data.draw(st.integers(0, len(raw)))
    for damaged in (raw[:place] + junk + raw[place:], raw[:place] + junk, junk):
        only_ours(_owned_items, damaged, ME)


def test_the_local_key_is_part_of_every_key_that_it_is_mixed_into() -> None:
    other = Shredding(SIGNER, b"\x43" * 32)
    keys = {SIGNER.derive("x"), SHREDDER.derive_mixed("x"), other.derive_mixed("x")}
    assert len(keys) == 3
    assert SHREDDER.derive("x") == SIGNER.derive("x")
    assert SHREDDER.derive_mixed("y") not in keys


def test_a_snapshot_of_streams_that_cannot_be_is_refused() -> None:
    for heads in ({"": (1, b"x" * 32)}, {"s": (0, b"x" * 32)}, {"s": (1, b"x")}):
        with pytest.raises(ValueError, match="cannot stand"):
            moments.check(Snapshot(heads, (), {}, {}))
