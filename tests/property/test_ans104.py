import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.drawn_cases import cases

from agentkit.errors import StateCorrupt
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave.ans104 import (
    from_fields,
    make_bundle,
    make_item,
    parse_bundle,
    parse_item,
    verify,
)
from agentkit.memory.arweave.base64url import b64url, unb64url
from agentkit.memory.arweave.layer1 import parse_transaction
from agentkit.memory.arweave.listing import read_page
from agentkit.memory.arweave.merkle import MAX_CHUNK, MIN_CHUNK, chunked, proven_range
from agentkit.memory.arweave.tags import decode_tags, encode_tags

quick = settings(deadline=None, max_examples=cases(150))
signers = st.binary(min_size=32, max_size=32).filter(lambda key: 0 < key[0] < 255).map(KeySigner)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
tags = (
    st.lists(st.tuples(texts, texts), max_size=20)
    .map(tuple)
    .filter(lambda tags: sum(len((n + v).encode()) + 6 for n, v in tags) < 4000)
)
items = st.builds(make_item, signers, st.binary(max_size=400), tags)


@quick
@given(signers, st.binary(max_size=5000), tags)
def test_an_item_goes_round(signer, data, tags):
    item = make_item(signer, data, tags)
    read = parse_item(item.raw)
    verify(read)
    assert read == item
    assert (read.data, read.tags, read.owner) == (data, tags, signer.public_key)
    owner, signature = b64url(item.owner), b64url(item.signature)
    assert from_fields(owner=owner, signature=signature, tags=tags, data=data) == item


@quick
@given(items, st.data())
def test_an_item_with_a_changed_byte_is_refused(item, data):
    place = data.draw(st.integers(0, len(item.raw) - 1))
    change = data.draw(st.integers(1, 255))
    raw = item.raw[:place] + bytes([item.raw[place] ^ change]) + item.raw[place + 1 :]
    with pytest.raises(StateCorrupt):
        verify(parse_item(raw))


@quick
@given(items, st.data())
def test_an_item_with_bytes_lost_or_added_is_refused(item, data):
    place = data.draw(st.integers(0, len(item.raw)))
    lost = data.draw(st.integers(0, 80))
    added = data.draw(st.binary(max_size=80))
    raw = item.raw[:place] + added + item.raw[place + lost :]
    if raw == item.raw:
        return
    with pytest.raises(StateCorrupt):
        verify(parse_item(raw))


def only_ours(call, *args):
    """Return what a call returns, None when it refuses; anything else it raises is a failure."""
    try:
        return call(*args)
    except StateCorrupt:
        return None


hostile = st.binary(max_size=2000) | st.builds(
    lambda head, rest: head + rest,
    st.sampled_from([b"\x01\x00", b"\x03\x00", b"\x03\x00" + bytes(130) + bytes(2)]),
    st.binary(max_size=2000),
)


@settings(quick, max_examples=cases(400))
@given(hostile)
def test_no_bytes_break_the_item_parser(raw):
    item = only_ours(parse_item, raw)
    if item is not None:
        only_ours(verify, item)


@settings(quick, max_examples=cases(400))
@given(st.binary(max_size=4200), st.integers(0, 2**64 - 1) | st.integers(0, 20))
def test_no_bytes_break_the_tag_parser(encoded, count):
    read = only_ours(decode_tags, encoded, count)
    if read:
        # Avro knows other spellings of the same tags; ours is read back to the same.
        assert decode_tags(encode_tags(read), count) == read


@quick
@given(st.lists(items, max_size=4), st.binary(max_size=300), st.data())
def test_no_bytes_break_the_bundle_parser(some, junk, data):
    raw = make_bundle(some)
    assert parse_bundle(raw) == tuple(some)
    place = data.draw(st.integers(0, len(raw)))
    only_ours(parse_bundle, raw[:place] + junk + raw[place:])
    only_ours(parse_bundle, raw[:place] + junk)
    only_ours(parse_bundle, junk)


@quick
@given(st.text(max_size=2000), st.text(max_size=2000), st.binary(max_size=100), tags | st.none())
def test_no_fields_break_the_rebuilding(owner, signature, data, tags):
    lies = {"owner": owner, "signature": signature, "tags": tags or (), "data": data}
    only_ours(lambda: from_fields(**lies))
    only_ours(lambda: from_fields(**{**lies, "owner": b64url(bytes(65)), "anchor": signature}))
    only_ours(lambda: from_fields(**{**lies, "owner": b64url(bytes(512)), "target": owner}))


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=12,
)


@quick
@given(st.binary(max_size=500) | json.map(lambda value: repr(value).encode()))
def test_no_bytes_break_the_json_parsers(document):
    only_ours(parse_transaction, document)
    only_ours(read_page, document)


@quick
@given(st.text(max_size=60))
def test_base64url_has_one_spelling(text):
    data = only_ours(unb64url, text)
    assert data is None or b64url(data) == text


@settings(deadline=None, max_examples=cases(30))
@given(st.integers(1, 5 * MAX_CHUNK) | st.sampled_from([MAX_CHUNK, MAX_CHUNK + MIN_CHUNK]))
def test_every_chunk_is_proven_at_its_place_and_at_no_other(size):
    data = b"\x07" * size
    root, chunks = chunked(data)
    assert b"".join(chunk.data for chunk in chunks) == data
    for chunk in chunks:
        for offset in {0, chunk.start, chunk.offset, chunk.offset + 1, size - 1}:
            told = only_ours(proven_range, root, size, offset, chunk.path, chunk.data)
            inside = chunk.start <= offset <= chunk.offset
            assert told == ((chunk.start, chunk.offset + 1) if inside else None)
