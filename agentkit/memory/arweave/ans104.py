"""ANS-104 data items and bundles: the unit of everything agentkit keeps on Arweave.

The layout is the one of ANS-104; what is signed is what implementations sign
(`agentkit.keys.messages`).  Raw bytes are parsed as if an enemy had written them; a parsed item
is only a claim until `verify` has passed it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from agentkit.errors import StateCorrupt, StateError
from agentkit.keys.messages import ItemMessage, address_of, recover
from agentkit.memory.arweave.base64url import b64url, name_of, unb64url
from agentkit.memory.arweave.byte_reader import ByteReader
from agentkit.memory.arweave.rsa import verify_pss
from agentkit.memory.arweave.tags import MAX_ENCODED, MAX_TAGS, Tags, decode_tags, encode_tags
from agentkit.memory.sealing.sealer import Sealer

RSA = 1
ETHEREUM = 3
_LENGTHS = {RSA: (512, 512), ETHEREUM: (65, 65)}  # bytes of the signature and of the owner

BUNDLE_TAGS: Tags = (("Bundle-Format", "binary"), ("Bundle-Version", "2.0.0"))
MAX_BUNDLE_ITEMS = 100_000


@dataclass(frozen=True, slots=True)
class Item:
    """A signed data item: `raw` is its bytes, the rest is what they say."""

    raw: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    message: ItemMessage = field(repr=False)
    tags: Tags

    @property
    def id(self) -> str:
        """The name under which Arweave knows it: the hash of its signature."""
        return name_of(self.signature)

    @property
    def owner(self) -> bytes:
        """Raw public key of who signed it."""
        return self.message.owner

    @property
    def address(self) -> str:
        """What gateways index as the owner, for keys of every type."""
        return name_of(self.owner)

    @property
    def data(self) -> bytes:
        return self.message.data

    @property
    def signature_type(self) -> int:
        """1 for RSA, 3 for Ethereum."""
        return self.message.signature_type


def make_item(signer: Sealer, data: bytes, tags: Sequence[tuple[str, str]] = ()) -> Item:
    """Sign `data` and its tags; raises StateError for tags that do not fit.

    The item is checked as a reader will check it, so a signer that signs anything else is found
    before its bytes count as kept: StateCorrupt.
    """
    message = ItemMessage(signer.public_key, b"", b"", encode_tags(tags), data)
    item = parse_item(_assembled(message, signer.sign_item(message), len(tags)))
    verify(item)
    return item


def parse_item(raw: bytes) -> Item:
    """Read an item without judging its signature; raises StateCorrupt."""
    cursor = ByteReader(raw)
    kind = cursor.number(2)
    if kind not in _LENGTHS:
        raise StateCorrupt(f"signature type {kind} is neither 1 (RSA) nor 3 (Ethereum)")
    signature, owner = (cursor.take(length) for length in _LENGTHS[kind])
    target, anchor = _optional(cursor), _optional(cursor)
    count, length = cursor.number(8), cursor.number(8)
    if count > MAX_TAGS or length > MAX_ENCODED:
        raise StateCorrupt(f"{count} tags in {length} bytes are more than an item may have")
    encoded = cursor.take(length)
    message = ItemMessage(owner, target, anchor, encoded, cursor.rest(), kind)
    return Item(raw, signature, message, decode_tags(encoded, count))


def verify(item: Item) -> None:
    """Check that the owner signed this data and these tags; raises StateCorrupt.

    Stricter than the npm packages: the recovery byte is bound to the key and `s` is low, so that
    nobody else can make a second valid item, with another id, out of this one.
    """
    if item.signature_type == RSA:
        verify_pss(item.owner, item.message.deep_hash(), item.signature)
        return
    if item.owner[0] != 4:  # the mark of an uncompressed key, which the recovery does not cover
        raise StateCorrupt("the owner is not an uncompressed public key")
    if recover(item.message.digest(), item.signature) != address_of(item.owner):
        raise StateCorrupt(f"item {item.id}: the signature does not cover this content")


def from_fields(
    *,
    owner: str,
    signature: str,
    tags: Sequence[tuple[str, str]],
    data: bytes,
    anchor: str = "",
    target: str = "",
) -> Item:
    """Rebuild an item from what GraphQL says of it and its data, and verify it.

    Texts are base64url.  Raises StateCorrupt.  Its `id` follows from the signature: compare it
    with the one that was asked for.
    """
    key = unb64url(owner)
    kind = next((kind for kind, (_, size) in _LENGTHS.items() if size == len(key)), 0)
    try:
        encoded = encode_tags(tags)
    except StateError as error:
        raise StateCorrupt(f"no item has these tags: {error}") from error
    message = ItemMessage(key, unb64url(target), unb64url(anchor), encoded, data, kind)
    item = parse_item(_assembled(message, unb64url(signature), len(tags)))
    if item.message != message:
        raise StateCorrupt(f"item {item.id}: a field has the wrong length")
    verify(item)
    return item


def make_bundle(items: Sequence[Item]) -> bytes:
    """Return a binary bundle, to be posted under `BUNDLE_TAGS`."""
    heads = (_size(len(item.raw)) + hashlib.sha256(item.signature).digest() for item in items)
    return b"".join([_size(len(items)), *heads, *(item.raw for item in items)])


def split_bundle(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the announced id and the bytes of every item; raises StateCorrupt.

    The header is checked whole before the first item is yielded.
    """
    cursor = ByteReader(raw)
    count = cursor.number(32)
    if count > MAX_BUNDLE_ITEMS:
        raise StateCorrupt(f"a bundle of {count} items is larger than {MAX_BUNDLE_ITEMS}")
    head = ByteReader(cursor.take(64 * count))
    entries = [(head.number(32), b64url(head.take(32))) for _ in range(count)]
    if sum(size for size, _ in entries) != cursor.left:
        raise StateCorrupt("a bundle is not as long as its header says")
    for size, name in entries:
        yield name, cursor.take(size)


def parse_bundle(raw: bytes) -> tuple[Item, ...]:
    """Read and verify all items of a bundle; raises StateCorrupt at the first bad one."""
    return tuple(parse_entry(name, part) for name, part in split_bundle(raw))


def parse_entry(name: str, raw: bytes) -> Item:
    """Read and verify one item announced under an id; raises StateCorrupt."""
    item = parse_item(raw)
    if item.id != name:
        raise StateCorrupt(f"the item announced as {name} is {item.id}")
    verify(item)
    return item


def _assembled(message: ItemMessage, signature: bytes, tags: int) -> bytes:
    """Return a signed item in the byte layout of ANS-104."""
    return b"".join(
        [
            message.signature_type.to_bytes(2, "little"),
            signature,
            message.owner,
            _presence(message.target),
            _presence(message.anchor),
            tags.to_bytes(8, "little"),
            len(message.tags).to_bytes(8, "little"),
            message.tags,
            message.data,
        ]
    )


def _presence(part: bytes) -> bytes:
    return b"\x01" + part if part else b"\x00"


def _optional(cursor: ByteReader) -> bytes:
    flag = cursor.number(1)
    if flag > 1:
        raise StateCorrupt(f"a presence byte is {flag}, neither 0 nor 1")
    return cursor.take(32) if flag else b""


def _size(count: int) -> bytes:
    return count.to_bytes(32, "little")
