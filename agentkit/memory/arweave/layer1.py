"""Arweave's own transactions (layer 1, format 2), which need no upload service."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, StringConstraints, ValidationError

from agentkit.errors import StateCorrupt, StateError
from agentkit.keys.messages import deep_hash
from agentkit.memory.arweave.base64url import b64url, name_of, unb64url
from agentkit.memory.arweave.jwk import JwkWallet
from agentkit.memory.arweave.merkle import Chunk, chunked
from agentkit.memory.arweave.rsa import verify_pss
from agentkit.memory.arweave.tags import MAX_TAGS, Tags

MAX_TAG_BYTES = 2048
"""Bytes of all names and values; nodes refuse more."""


@dataclass(frozen=True, slots=True)
class WeaveTransaction:
    """A transaction of format 2; `reward` (the fee) and `quantity` are in winston, 10^-12 AR.

    `anchor` is a recent block's hash.  The transaction can be mined only in the 50 blocks after it,
    which take about 90 minutes.
    """

    owner: bytes
    anchor: bytes
    tags: Tags
    data_size: int
    data_root: bytes
    reward: int
    target: bytes = b""
    quantity: int = 0
    signature: bytes = b""

    @property
    def id(self) -> str:
        """The transaction's id: the hash of its signature."""
        return name_of(self.signature)

    @property
    def address(self) -> str:
        """The address of the wallet that pays."""
        return name_of(self.owner)

    def signed_part(self) -> bytes:
        """Return the deep hash that the signature covers."""
        # Typed Any because the tags are a list within the list.
        fields: list[Any] = [
            b"2",
            self.owner,
            self.target,
            b"%d" % self.quantity,
            b"%d" % self.reward,
            self.anchor,
            [[name.encode(), value.encode()] for name, value in self.tags],
            b"%d" % self.data_size,
            self.data_root,
        ]
        return deep_hash(fields)

    def document(self) -> dict[str, Any]:
        """Return the transaction's JSON as nodes accept it, without the data."""
        return {
            "format": 2,
            "id": self.id,
            "last_tx": b64url(self.anchor),
            "owner": b64url(self.owner),
            "tags": [{"name": _text(name), "value": _text(value)} for name, value in self.tags],
            "target": b64url(self.target),
            "quantity": str(self.quantity),
            "data": "",
            "data_size": str(self.data_size),
            "data_root": b64url(self.data_root),
            "reward": str(self.reward),
            "signature": b64url(self.signature),
        }


def make_transaction(
    wallet: JwkWallet,
    data: bytes,
    tags: Sequence[tuple[str, str]],
    *,
    anchor: str,
    reward: int,
) -> tuple[WeaveTransaction, tuple[Chunk, ...]]:
    """Return a signed transaction with `data`, and the chunks of that data.

    `anchor` and `reward` (winston) come from a gateway's `anchor` and `price`.  Raises StateError
    for tags that do not fit.  Signing again gives another id, and both transactions could be mined:
    store the result, and post it again rather than making it again.
    """
    data_root, chunks = chunked(data)
    unsigned = WeaveTransaction(
        owner=wallet.owner,
        anchor=unb64url(anchor),
        tags=_checked_tags(tags),
        data_size=len(data),
        data_root=data_root,
        reward=reward,
    )
    return replace(unsigned, signature=wallet.sign_tx(unsigned.signed_part())), chunks


def verify_transaction(tx: WeaveTransaction, data: bytes | None = None) -> None:
    """Check a transaction's signature, and with `data` that it is the signed data.

    Raises StateCorrupt.
    """
    verify_pss(tx.owner, tx.signed_part(), tx.signature)
    if data is None:
        return
    # The size first: it is cheap, and hashing a wrong body would be wasted.
    if len(data) != tx.data_size or chunked(data)[0] != tx.data_root:
        raise StateCorrupt(f"this is not the data of transaction {tx.id}")


def parse_transaction(document: bytes) -> tuple[WeaveTransaction, bytes]:
    """Parse a transaction's JSON and the data in it, without verifying; raises StateCorrupt."""
    try:
        wire = _Wire.model_validate_json(document)
        tags = tuple((_decode_text(tag.name), _decode_text(tag.value)) for tag in wire.tags)
        tx = _transaction(wire, _checked_tags(tags))
    except (ValidationError, StateError) as error:
        raise StateCorrupt("this is not a transaction of format 2") from error
    if tx.id != wire.id:
        raise StateCorrupt(f"the transaction announced as {wire.id} is {tx.id}")
    return tx, unb64url(wire.data)


_Number = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,20})$")]


class _Tag(BaseModel):
    name: str
    value: str


class _Wire(BaseModel):
    format: Literal[2]
    id: str
    last_tx: str
    owner: str
    tags: list[_Tag]
    target: str
    quantity: _Number
    data: str = ""
    data_size: _Number
    data_root: str
    reward: _Number
    signature: str


def _transaction(wire: _Wire, tags: Tags) -> WeaveTransaction:
    """Return a transaction from the fields of its JSON."""
    return WeaveTransaction(
        owner=unb64url(wire.owner),
        anchor=unb64url(wire.last_tx),
        tags=tags,
        data_size=int(wire.data_size),
        data_root=unb64url(wire.data_root),
        reward=int(wire.reward),
        target=unb64url(wire.target),
        quantity=int(wire.quantity),
        signature=unb64url(wire.signature),
    )


def _checked_tags(tags: Sequence[tuple[str, str]]) -> Tags:
    """Return tags that a transaction may have; raises StateError for too many or too long ones."""
    try:
        size = sum(len(name.encode()) + len(value.encode()) for name, value in tags)
    except UnicodeEncodeError as error:
        raise StateError("a tag cannot be written as UTF-8") from error
    if len(tags) > MAX_TAGS or size > MAX_TAG_BYTES:
        raise StateError(f"{len(tags)} tags of {size} bytes are more than a transaction may have")
    return tuple(tags)


def _text(part: str) -> str:
    return b64url(part.encode())


def _decode_text(part: str) -> str:
    try:
        return unb64url(part).decode()
    except UnicodeDecodeError as error:
        raise StateCorrupt("a tag is not UTF-8") from error


def chunk_body(tx: WeaveTransaction, chunk: Chunk) -> bytes:
    """Return the JSON in which nodes accept a chunk at `/chunk`."""
    document = {
        "data_root": b64url(tx.data_root),
        "data_size": str(tx.data_size),
        "data_path": b64url(chunk.path),
        "offset": str(chunk.offset),
        "chunk": b64url(chunk.data),
    }
    return json.dumps(document).encode()
