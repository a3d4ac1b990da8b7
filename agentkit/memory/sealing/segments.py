"""Segments: stretches of a stream, sealed so that only the wallet's key opens them.

    rows and small artifacts -> JSON -> zstd -> AES-256-GCM (tags as AAD) -> ANS-104 item, signed

Tags say only what restoring needs: opaque stream name, event numbers, the chain's hashes.
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
from agentkit.memory.sealing.sealer import Sealer
from agentkit.memory.sealing.shred import LOCAL_KEY, Shredding, missing

OURS: Tags = (("App-Name", "agentkit"), ("Schema", "1"))
"""Tags of everything that an agent keeps on Arweave."""

APP: Tags = (*OURS, ("Kind", "segment"))
"""Tags under which every segment of every agent is found."""

MOST_PLAIN_BYTES = 64 * 1024 * 1024
"""The largest segment that is decompressed; a bomb stops here."""

MOST = 2**63 - 1
"""The largest number a row can hold."""

NONCE_BYTES = 12

LEVEL = 9
"""Of zstd: a segment of 100 KB takes some milliseconds, and a twelfth less than at level 3."""

UNREADABLE = (
    *(zstandard.ZstdError, ValueError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, RecursionError),
)
"""What reading something that is no document of ours may raise."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive events of one stream, with the small artifacts they name.

    `before` and `head` are the hashes of the chain before the first and after the last event;
    `instance` names the state file that sealed it.
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
    return close(signer, _document(segment), _tags(signer, segment))


def unseal(signer: Sealer, item: Item) -> Segment:
    """Return the segment of a verified item.

    Raises WrongKey when it does not open with this key, StateCorrupt when what is in it cannot
    be or does not follow the chain that its tags claim.
    """
    document = opened(signer, item)
    try:
        segment = _read(document)
    except UNREADABLE as error:
        raise StateCorrupt(f"segment {item.id} cannot be read: {error}") from error
    if _tags(signer, segment) != tuple(tag for tag in item.tags if tag[0] != LOCAL_KEY):
        raise StateCorrupt(f"segment {item.id} holds other events than its tags say")
    return segment


# -- sealed documents ----------------------------------------------------------------------------


def close(signer: Sealer, document: dict[str, Any], tags: Tags) -> Item:
    """Return the signed item of a document, sealed under its tags, `Run` among them."""
    plain = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    return close_bytes(signer, plain, tags)


def close_bytes(signer: Sealer, plain: bytes, tags: Tags) -> Item:
    """Return the signed item of a document that is written already."""
    if isinstance(signer, Shredding):
        tags = (*tags, (LOCAL_KEY, signer.name))
    if len(plain) > MOST_PLAIN_BYTES:
        raise StateCorrupt(f"{len(plain)} bytes are more than one item may hold")
    packed = zstandard.ZstdCompressor(level=LEVEL).compress(plain)
    nonce = secrets.token_bytes(NONCE_BYTES)
    sealed = AESGCM(_key(signer, dict(tags))).encrypt(nonce, packed, _aad(tags))
    return make_item(signer, nonce + sealed, tags)


def opened(signer: Sealer, item: Item) -> dict[str, Any]:
    """Return the document of a verified item; raises WrongKey, StateCorrupt."""
    try:
        aad, key = _aad(item.tags), _key(signer, dict(item.tags))
        packed = AESGCM(key).decrypt(item.data[:NONCE_BYTES], item.data[NONCE_BYTES:], aad)
    except (InvalidTag, KeyError, ValueError) as error:
        raise WrongKey(f"segment {item.id} does not open with this key") from error
    try:
        document = json.loads(_unpacked(packed))
    except UNREADABLE as error:
        raise StateCorrupt(f"segment {item.id} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise StateCorrupt(f"segment {item.id} cannot be read: it is not a document")
    return document


def _unpacked(packed: bytes) -> bytes:
    """Decompress; a frame that announces more than we read is not begun."""
    size = zstandard.get_frame_parameters(packed).content_size
    if not 0 <= size <= MOST_PLAIN_BYTES:
        raise ValueError(f"it would unpack to {size} bytes, more than {MOST_PLAIN_BYTES}")
    return zstandard.ZstdDecompressor().decompress(packed)


def written_blobs(blobs: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Return small artifacts as a document has them: text as it is, which packs better.

    Their names are not written: they follow from the bytes.
    """
    written: dict[str, list[str]] = {"texts": [], "bytes": []}
    for data in blobs.values():
        try:
            written["texts"].append(data.decode())
        except UnicodeDecodeError:
            written["bytes"].append(base64.b64encode(data).decode())
    return written


def read_blobs(written: Mapping[str, Any]) -> dict[str, bytes]:
    """Return small artifacts, each under its own digest; raises ValueError."""
    if "texts" not in written:
        return _read_named_blobs(written)
    blobs = [text.encode() for text in written["texts"]]
    blobs += [base64.b64decode(text, validate=True) for text in written["bytes"]]
    return {hashlib.sha256(data).hexdigest(): data for data in blobs}


def _read_named_blobs(written: Mapping[str, str]) -> dict[str, bytes]:
    """Read what state files of schema 1, 2 and the first of 3 sealed: base64 by digest."""
    blobs = {name: base64.b64decode(text, validate=True) for name, text in written.items()}
    for name, data in blobs.items():
        if hashlib.sha256(data).hexdigest() != name:
            raise ValueError(f"the artifact {name[:12]} is another than its name says")
    return blobs


def opaque(signer: Sealer, stream: str) -> str:
    """Return what a stream is called in public."""
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
    stream, before = str(document["stream"]), bytes.fromhex(document["before"])
    rows = tuple(_rows(stream, before, document["rows"]))
    if not rows:
        raise ValueError("it holds no event")
    blobs = read_blobs(document["blobs"])
    instance = str(document.get("instance", ""))
    return Segment(stream, rows, before, rows[-1].hash, blobs, instance)


def _rows(stream: str, before: bytes, columns: Sequence[Sequence[Any]]) -> list[Row]:
    """Return rows with their hashes, recomputed along the chain."""
    rows: list[Row] = []
    expected = int(columns[0][0]) if columns else 0
    for seq, at, kind, version, body in columns:
        if not (0 < seq <= MOST and 0 <= at <= MOST and 0 < version <= MOST):
            raise ValueError("a number is none that we write")
        if seq != expected:
            raise ValueError(f"event {seq} stands where {expected} does")
        cells = (stream, int(seq), int(at), str(kind), int(version), str(body))
        before = linked(before, cells)
        rows.append(Row(*cells, before))
        expected += 1
    return rows


def _tags(signer: Sealer, segment: Segment) -> Tags:
    """Return the tags by which a restore finds the segment; the stream's name is covered."""
    return (
        *APP,
        ("Content-Type", "application/octet-stream"),
        ("Run", opaque(signer, segment.stream)),
        ("Seq-First", str(segment.first)),
        ("Seq-Last", str(segment.last)),
        ("Prev", segment.before.hex()),
        ("Head", segment.head.hex()),
    )


def _key(signer: Sealer, tags: Mapping[str, str]) -> bytes:
    info, local = f"agentkit/memory/v1/enc/{tags['Run']}", tags.get(LOCAL_KEY)
    if local is None:
        return signer.derive(info)
    if not isinstance(signer, Shredding) or signer.name != local:
        raise missing(local)
    return signer.derive_mixed(info)


def _aad(tags: Sequence[tuple[str, str]]) -> bytes:
    return json.dumps(list(map(list, tags)), separators=(",", ":")).encode()
