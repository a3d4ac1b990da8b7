"""ANS-104 data items and bundles: the unit of everything that agentkit stores on Arweave.

The layout follows ANS-104; the signed message follows arbundles (`agentkit.keys.messages`).  Raw
bytes are untrusted, so every length is checked.  A parsed item is only a claim until `verify` has
checked its signature.
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
from agentkit.memory.sealer import Sealer

RSA = 1
ETHEREUM = 3
_LENGTHS = {RSA: (512, 512), ETHEREUM: (65, 65)}  # bytes of the signature and of the owner

BUNDLE_TAGS: Tags = (("Bundle-Format", "binary"), ("Bundle-Version", "2.0.0"))
MAX_BUNDLE_ITEMS = 100_000
_HEADER_ENTRY = 64  # bytes of an item's entry in a bundle's header: its size and its id


@dataclass(frozen=True, slots=True)
class Item:
    """A signed data item: `raw` is its bytes, the other fields are parsed from them."""

    raw: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    message: ItemMessage = field(repr=False)
    tags: Tags

    @property
    def id(self) -> str:
        """The item's id on Arweave: the hash of its signature."""
        return name_of(self.signature)

    @property
    def owner(self) -> bytes:
        """The raw public key of its signer."""
        return self.message.owner

    @property
    def address(self) -> str:
        """The owner's address as gateways index it, for keys of every type."""
        return name_of(self.owner)

    @property
    def data(self) -> bytes:
        """The content, without tags and signature."""
        return self.message.data

    @property
    def signature_type(self) -> int:
        """1 for RSA, 3 for Ethereum."""
        return self.message.signature_type


def make_item(signer: Sealer, data: bytes, tags: Sequence[tuple[str, str]] = ()) -> Item:
    """Return a signed item of `data` and its tags; raises StateError for tags that do not fit.

    The item is verified as a reader would verify it.  So a signer that signs wrongly raises
    StateCorrupt now, and not when a restore needs the item.
    """
    message = ItemMessage(
        owner=signer.public_key, target=b"", anchor=b"", tags=encode_tags(tags), data=data
    )
    signature = signer.sign_item(message)
    item = parse_item(_encode_item(message, signature, tag_count=len(tags)))
    verify(item)
    return item


def parse_item(raw: bytes) -> Item:
    """Parse an item without checking its signature; raises StateCorrupt."""
    reader = ByteReader(raw)
    signature_type = reader.number(2)
    if signature_type not in _LENGTHS:
        raise StateCorrupt(f"signature type {signature_type} is neither 1 (RSA) nor 3 (Ethereum)")
    signature_size, owner_size = _LENGTHS[signature_type]
    signature = reader.take(signature_size)
    owner = reader.take(owner_size)
    target = _read_optional(reader)
    anchor = _read_optional(reader)

    tag_count = reader.number(8)
    tags_size = reader.number(8)
    if tag_count > MAX_TAGS or tags_size > MAX_ENCODED:
        raise StateCorrupt(f"{tag_count} tags in {tags_size} bytes are more than an item may have")
    encoded_tags = reader.take(tags_size)

    message = ItemMessage(
        owner=owner,
        target=target,
        anchor=anchor,
        tags=encoded_tags,
        data=reader.rest(),
        signature_type=signature_type,
    )
    tags = decode_tags(encoded_tags, tag_count)
    return Item(raw=raw, signature=signature, message=message, tags=tags)


def verify(item: Item) -> None:
    """Check that the owner signed this data and these tags; raises StateCorrupt.

    This is stricter than the npm packages: the recovery byte must fit the key, and `s` must be
    low.  Otherwise anybody could turn a signature into a second valid one, and so make a copy of
    the item with another id.
    """
    if item.signature_type == RSA:
        verify_pss(item.owner, item.message.deep_hash(), item.signature)
        return
    # 4 marks an uncompressed key.  The address does not cover this byte, so it is checked here.
    if item.owner[0] != 4:
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
    """Rebuild an item from its fields in a GraphQL answer and its data, and verify it.

    Text fields are base64url.  Raises StateCorrupt.  The caller has to compare the item's `id`,
    which follows from its signature, with the id it asked for.
    """
    owner_key = unb64url(owner)
    signature_type = 0  # refused by `parse_item`
    for known_type, (_, owner_size) in _LENGTHS.items():
        if owner_size == len(owner_key):
            signature_type = known_type
            break
    try:
        encoded_tags = encode_tags(tags)
    except StateError as error:
        raise StateCorrupt(f"no item has these tags: {error}") from error

    message = ItemMessage(
        owner=owner_key,
        target=unb64url(target),
        anchor=unb64url(anchor),
        tags=encoded_tags,
        data=data,
        signature_type=signature_type,
    )
    item = parse_item(_encode_item(message, unb64url(signature), tag_count=len(tags)))
    # A field of a wrong length would be parsed as part of its neighbour.
    if item.message != message:
        raise StateCorrupt(f"item {item.id}: a field has the wrong length")
    verify(item)
    return item


def make_bundle(items: Sequence[Item]) -> bytes:
    """Return a binary bundle: the number of items, their sizes and ids, then the items.

    It is posted with the tags `BUNDLE_TAGS`.
    """
    header_entries = [
        _encode_size(len(item.raw)) + hashlib.sha256(item.signature).digest() for item in items
    ]
    raw_items = [item.raw for item in items]
    return b"".join([_encode_size(len(items)), *header_entries, *raw_items])


def split_bundle(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the id in the header and the bytes of every item; raises StateCorrupt.

    The whole header is checked before the first item is yielded.
    """
    reader = ByteReader(raw)
    count = reader.number(32)
    if count > MAX_BUNDLE_ITEMS:
        raise StateCorrupt(f"a bundle of {count} items is larger than {MAX_BUNDLE_ITEMS}")
    header = ByteReader(reader.take(_HEADER_ENTRY * count))
    entries = [(header.number(32), b64url(header.take(32))) for _ in range(count)]
    if sum(size for size, _ in entries) != reader.remaining:
        raise StateCorrupt("a bundle is not as long as its header says")
    for size, name in entries:
        yield name, reader.take(size)


def parse_bundle(raw: bytes) -> tuple[Item, ...]:
    """Parse and verify all items of a bundle; raises StateCorrupt at the first bad one."""
    return tuple(parse_entry(name, part) for name, part in split_bundle(raw))


def parse_entry(name: str, raw: bytes) -> Item:
    """Parse and verify one item of a bundle; raises StateCorrupt, also if `name` is not its id."""
    item = parse_item(raw)
    if item.id != name:
        raise StateCorrupt(f"the item announced as {name} is {item.id}")
    verify(item)
    return item


def _encode_item(message: ItemMessage, signature: bytes, *, tag_count: int) -> bytes:
    """Return a signed item in the byte layout of ANS-104."""
    return b"".join(
        [
            message.signature_type.to_bytes(2, "little"),
            signature,
            message.owner,
            _encode_optional(message.target),
            _encode_optional(message.anchor),
            tag_count.to_bytes(8, "little"),
            len(message.tags).to_bytes(8, "little"),
            message.tags,
            message.data,
        ]
    )


def _encode_optional(field_bytes: bytes) -> bytes:
    """Return an optional field: a byte that says whether it is present, then the field."""
    return b"\x01" + field_bytes if field_bytes else b"\x00"


def _read_optional(reader: ByteReader) -> bytes:
    """Read an optional field of 32 bytes; b"" if it is absent."""
    presence = reader.number(1)
    if presence > 1:
        raise StateCorrupt(f"a presence byte is {presence}, neither 0 nor 1")
    return reader.take(32) if presence else b""


def _encode_size(size: int) -> bytes:
    return size.to_bytes(32, "little")
