"""Segments: stretches of a stream, sealed so that only the wallet's key opens them.

    rows and small artifacts -> JSON -> zstd -> AES-256-GCM (tags as AAD) -> ANS-104 item, signed

Tags say only what restoring needs: opaque stream name, event numbers, the chain's hashes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agentkit.errors import StateCorrupt, WrongKey
from agentkit.journal.store import Row
from agentkit.keys.signer import Signer
from agentkit.memory.ans104 import Item, make_item

APP: tuple[tuple[str, str], ...] = (("App-Name", "agentkit"), ("Schema", "1"), ("Kind", "segment"))
"""Tags under which every segment of every agent is found."""

MOST_PLAIN_BYTES = 64 * 1024 * 1024
"""The largest segment that is decompressed; a bomb stops here."""

NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive events of one stream, with the small artifacts they name.

    `before` and `head` are the hashes of the chain before the first and after the last event.
    """

    stream: str
    rows: tuple[Row, ...]
    before: bytes
    head: bytes
    blobs: Mapping[str, bytes]

    @property
    def first(self) -> int:
        return self.rows[0].seq

    @property
    def last(self) -> int:
        return self.rows[-1].seq


def seal(signer: Signer, segment: Segment) -> Item:
    """Return the signed item of a segment."""
    tags = _tags(signer, segment)
    plain = json.dumps(_document(segment), separators=(",", ":")).encode()
    packed = zstandard.ZstdCompressor(level=3).compress(plain)
    nonce = secrets.token_bytes(NONCE_BYTES)
    sealed = AESGCM(_key(signer, dict(tags)["Run"])).encrypt(nonce, packed, _aad(tags))
    return make_item(signer, nonce + sealed, tags)


def unseal(signer: Signer, item: Item) -> Segment:
    """Return the segment of a verified item.

    Raises WrongKey when it does not open with this key, StateCorrupt when what is in it cannot
    be or does not follow the chain that its tags claim.
    """
    tags = dict(item.tags)
    try:
        aad, key = _aad(item.tags), _key(signer, tags["Run"])
        packed = AESGCM(key).decrypt(item.data[:NONCE_BYTES], item.data[NONCE_BYTES:], aad)
    except (InvalidTag, KeyError, ValueError) as wrong:
        raise WrongKey(f"segment {item.id} does not open with this key") from wrong
    segment = _read(item.id, packed)
    if _tags(signer, segment) != tuple(item.tags):
        raise StateCorrupt(f"segment {item.id} holds other events than its tags say")
    return segment


def _document(segment: Segment) -> dict[str, Any]:
    blobs = {name: base64.b64encode(data).decode() for name, data in segment.blobs.items()}
    rows = [[row.seq, row.at, row.kind, row.version, row.body] for row in segment.rows]
    return {
        "stream": segment.stream,
        "before": segment.before.hex(),
        "rows": rows,
        "blobs": blobs,
    }


def _read(name: str, packed: bytes) -> Segment:
    try:
        plain = zstandard.ZstdDecompressor().decompress(packed, MOST_PLAIN_BYTES)
        document = json.loads(plain)
        stream, before = str(document["stream"]), bytes.fromhex(document["before"])
        blobs = {
            digest: base64.b64decode(text, validate=True)
            for digest, text in document["blobs"].items()
        }
        rows = tuple(_rows(stream, before, document["rows"]))
    except (
        zstandard.ZstdError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        binascii.Error,
    ) as wrong:
        raise StateCorrupt(f"segment {name} cannot be read: {wrong}") from wrong
    if not rows or any(hashlib.sha256(data).hexdigest() != d for d, data in blobs.items()):
        raise StateCorrupt(f"segment {name} holds what it does not say")
    return Segment(stream, rows, before, rows[-1].hash, blobs)


def _rows(stream: str, before: bytes, columns: Sequence[Sequence[Any]]) -> list[Row]:
    """Return rows with their hashes, recomputed along the chain."""
    rows = []
    for seq, at, kind, version, body in columns:
        row = Row(stream, int(seq), int(at), str(kind), int(version), str(body))
        before = row.link(before)
        rows.append(row._replace(hash=before))
    return rows


def _tags(signer: Signer, segment: Segment) -> tuple[tuple[str, str], ...]:
    return (
        *APP,
        ("Content-Type", "application/octet-stream"),
        ("Run", opaque(signer, segment.stream)),
        ("Seq-First", str(segment.first)),
        ("Seq-Last", str(segment.last)),
        ("Prev", segment.before.hex()),
        ("Head", segment.head.hex()),
    )


def opaque(signer: Signer, stream: str) -> str:
    """Return what a stream is called in public."""
    key = signer.derive("agentkit/memory/v1/tag")
    return hmac.new(key, stream.encode(), hashlib.sha256).hexdigest()[:32]


def _key(signer: Signer, run: str) -> bytes:
    return signer.derive(f"agentkit/memory/v1/enc/{run}")


def _aad(tags: Sequence[tuple[str, str]]) -> bytes:
    return json.dumps(list(map(list, tags)), separators=(",", ":")).encode()
