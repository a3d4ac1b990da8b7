"""Segments: consecutive events of a stream, encrypted so that only the wallet's key opens them.

    rows and small artifacts -> JSON -> zstd -> AES-256-GCM (tags as AAD) -> ANS-104 item, signed

The tags are public.  They contain only what a restore needs: a hashed stream name, the numbers of
the events, and the hashes of the chain before and after them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agentkit.errors import StateCorrupt, WrongKey
from agentkit.journal.rows import Row, linked
from agentkit.memory.arweave.ans104 import Item, make_item
from agentkit.memory.arweave.tags import Tags
from agentkit.memory.sealer import Sealer
from agentkit.memory.sealing.shred import LOCAL_KEY, Shredding, local_key_missing

OURS: Tags = (("App-Name", "agentkit"), ("Schema", "1"))
"""Tags of everything that an agent stores on Arweave."""

APP: Tags = (*OURS, ("Kind", "segment"))
"""Tags of every segment of every agent."""

MOST_PLAIN_BYTES = 64 * 1024 * 1024
"""The largest document that is decompressed, so that a zip bomb cannot fill the memory."""

MOST = 2**63 - 1
"""The largest number in a row: SQLite stores 64-bit signed integers."""

NONCE_BYTES = 12

LEVEL = 9
"""The level of zstd: 100 KB take some milliseconds, and come out a twelfth smaller than at 3."""

UNREADABLE = (
    zstandard.ZstdError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""The errors that reading a malformed document may raise."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive events of one stream, with the small artifacts that they name.

    `before` is the hash of the chain before the first event, `head` the one after the last.
    `blobs` maps the digests of artifacts to their bytes.  `instance` names the state file that
    sealed the segment.
    """

    stream: str
    rows: tuple[Row, ...] = field(repr=False)
    before: bytes = field(repr=False)
    head: bytes = field(repr=False)
    blobs: Mapping[str, bytes] = field(repr=False)
    instance: str = ""

    @property
    def first(self) -> int:
        return self.rows[0].seq

    @property
    def last(self) -> int:
        return self.rows[-1].seq


def seal(signer: Sealer, segment: Segment) -> Item:
    """Return the signed item of a segment."""
    return seal_document(signer, _document(segment), _tags(signer, segment))


def unseal(signer: Sealer, item: Item) -> Segment:
    """Return the segment of an item whose signature was verified.

    The hashes of the chain are computed anew and compared with the tags.  Raises WrongKey if the
    item does not open with this key, and StateCorrupt if its content is malformed or does not fit
    its tags.
    """
    document = open_document(signer, item)
    try:
        segment = _read(document)
    except UNREADABLE as error:
        raise StateCorrupt(f"segment {item.id} cannot be read: {error}") from error
    if _tags(signer, segment) != tuple(tag for tag in item.tags if tag[0] != LOCAL_KEY):
        raise StateCorrupt(f"segment {item.id} holds other events than its tags say")
    return segment


# -- sealed documents ----------------------------------------------------------------------------


def seal_document(signer: Sealer, document: dict[str, Any], tags: Tags) -> Item:
    """Return the signed item of a document; the tag `Run` chooses the key."""
    plain = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    return seal_bytes(signer, plain, tags)


def seal_bytes(signer: Sealer, plain: bytes, tags: Tags) -> Item:
    """Return the signed item of a document that is JSON already; raises StateCorrupt if too big."""
    if isinstance(signer, Shredding):
        tags = (*tags, (LOCAL_KEY, signer.name))
    if len(plain) > MOST_PLAIN_BYTES:
        raise StateCorrupt(f"{len(plain)} bytes are more than one item may hold")

    packed = zstandard.ZstdCompressor(level=LEVEL).compress(plain)
    nonce = secrets.token_bytes(NONCE_BYTES)
    # The tags are authenticated too, so that nobody can move a sealed text under other tags.
    encrypted = AESGCM(_key(signer, dict(tags))).encrypt(nonce, packed, _aad(tags))
    return make_item(signer, nonce + encrypted, tags)


def open_document(signer: Sealer, item: Item) -> dict[str, Any]:
    """Decrypt and read the document of a verified item; raises WrongKey, StateCorrupt."""
    nonce = item.data[:NONCE_BYTES]
    encrypted = item.data[NONCE_BYTES:]
    try:
        key = _key(signer, dict(item.tags))
        packed = AESGCM(key).decrypt(nonce, encrypted, _aad(item.tags))
    except (InvalidTag, KeyError, ValueError) as error:
        raise WrongKey(f"segment {item.id} does not open with this key") from error
    try:
        document = json.loads(_decompress(packed))
    except UNREADABLE as error:
        raise StateCorrupt(f"segment {item.id} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise StateCorrupt(f"segment {item.id} cannot be read: it is not a document")
    return document


def _decompress(packed: bytes) -> bytes:
    """Decompress a document; raises ValueError if its header announces too many bytes."""
    size = zstandard.get_frame_parameters(packed).content_size
    if not 0 <= size <= MOST_PLAIN_BYTES:
        raise ValueError(f"it would unpack to {size} bytes, more than {MOST_PLAIN_BYTES}")
    return zstandard.ZstdDecompressor().decompress(packed)


def written_blobs(blobs: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Return small artifacts as they stand in a document: text as it is, other bytes in base64.

    Text compresses better than its base64.  Digests are left out: a reader computes them.
    """
    written: dict[str, list[str]] = {"texts": [], "bytes": []}
    for data in blobs.values():
        try:
            written["texts"].append(data.decode())
        except UnicodeDecodeError:
            written["bytes"].append(base64.b64encode(data).decode())
    return written


def read_blobs(written: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the small artifacts of a document by digest; raises ValueError."""
    if "texts" not in written:  # the older form
        return _read_named_blobs(written)
    blobs = [text.encode() for text in written["texts"]]
    blobs += [base64.b64decode(text, validate=True) for text in written["bytes"]]
    return {hashlib.sha256(data).hexdigest(): data for data in blobs}


def _read_named_blobs(written: Mapping[str, str]) -> dict[str, bytes]:
    """Read the form that schemas 1, 2 and the first of schema 3 sealed: base64 by digest."""
    blobs = {name: base64.b64decode(text, validate=True) for name, text in written.items()}
    for name, data in blobs.items():
        if hashlib.sha256(data).hexdigest() != name:
            raise ValueError(f"the artifact {name[:12]} is another than its name says")
    return blobs


def public_stream_name(signer: Sealer, stream: str) -> str:
    """Return the name of a stream in public tags: a keyed hash that only the wallet can compute."""
    key = signer.derive("agentkit/memory/v1/tag")
    return hmac.new(key, stream.encode(), hashlib.sha256).hexdigest()[:32]


# -- inside --------------------------------------------------------------------------------------


def _document(segment: Segment) -> dict[str, Any]:
    return {
        "stream": segment.stream,
        "before": segment.before.hex(),
        "instance": segment.instance,
        "rows": [[row.seq, row.at, row.kind, row.version, row.body] for row in segment.rows],
        "blobs": written_blobs(segment.blobs),
    }


def _read(document: dict[str, Any]) -> Segment:
    """Return a segment from its document; raises one of UNREADABLE."""
    stream = str(document["stream"])
    before = bytes.fromhex(document["before"])
    rows = tuple(_rows(stream, before, document["rows"]))
    if not rows:
        raise ValueError("it holds no event")
    return Segment(
        stream=stream,
        rows=rows,
        before=before,
        head=rows[-1].hash,
        blobs=read_blobs(document["blobs"]),
        instance=str(document.get("instance", "")),
    )


def _rows(stream: str, before: bytes, documents: Sequence[Sequence[Any]]) -> list[Row]:
    """Return the rows of a document, each with its hash; raises ValueError.

    A hash covers the row and the hash before it, so the last one covers the whole chain.
    """
    rows: list[Row] = []
    expected_seq = int(documents[0][0]) if documents else 0
    previous_hash = before
    for seq, at, kind, version, body in documents:
        if not (0 < seq <= MOST and 0 <= at <= MOST and 0 < version <= MOST):
            raise ValueError("a number is none that we write")
        if seq != expected_seq:
            raise ValueError(f"event {seq} stands where {expected_seq} does")
        cells = (stream, int(seq), int(at), str(kind), int(version), str(body))
        previous_hash = linked(previous_hash, cells)
        rows.append(Row(*cells, previous_hash))
        expected_seq += 1
    return rows


def _tags(signer: Sealer, segment: Segment) -> Tags:
    """Return the tags by which a restore finds the segment."""
    return (
        *APP,
        ("Content-Type", "application/octet-stream"),
        ("Run", public_stream_name(signer, segment.stream)),
        ("Seq-First", str(segment.first)),
        ("Seq-Last", str(segment.last)),
        ("Prev", segment.before.hex()),
        ("Head", segment.head.hex()),
    )


def _key(signer: Sealer, tags: Mapping[str, str]) -> bytes:
    """Return the key of an item; raises WrongKey if it needs a local key that is not here."""
    info = f"agentkit/memory/v1/enc/{tags['Run']}"
    local_key_name = tags.get(LOCAL_KEY)
    if local_key_name is None:
        return signer.derive(info)
    if not isinstance(signer, Shredding) or signer.name != local_key_name:
        raise local_key_missing(local_key_name)
    return signer.derive_mixed(info)


def _aad(tags: Sequence[tuple[str, str]]) -> bytes:
    return json.dumps(list(map(list, tags)), separators=(",", ":")).encode()
