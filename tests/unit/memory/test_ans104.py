import dataclasses
import hashlib

import pytest
from support.arweave_wallet import arweave_wallet

from agentkit.errors import StateCorrupt, StateError
from agentkit.keys.messages import HALF_ORDER, ItemMessage
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave import ans104
from agentkit.memory.arweave.ans104 import (
    from_fields,
    make_bundle,
    make_item,
    parse_bundle,
    parse_item,
    split_bundle,
)
from agentkit.memory.arweave.base64url import b64url, name_of, unb64url
from agentkit.memory.arweave.byte_reader import ByteReader
from agentkit.memory.arweave.tags import decode_tags, encode_tags

SIGNER = KeySigner(bytes(range(1, 33)))
TAGS = (("App-Name", "agentkit"), ("Größe", "☕"))
# What npm arbundles 0.11.2 makes of the key 01 02 … 20, "hello permaweb" and TAGS.
REFERENCE = unb64url(
    "AwBO46Is7p7MsvhsXvLqINzNIF7h5dhoqrqojvsBrEXjPXtV9eZR92Nh2EUvlOT4wUTOr9bIomgyYs8LvI0Vb8fmHASE"
    "v3ViJiu9aUAIV0jzvmr6Uq4xcVUYHs4xtmNRzP-ksIzEPWOyhZ1Gn-4V8xye21MkJm5v0EB-hzgtYPxFEazYAAACAAAA"
    "AAAAACAAAAAAAAAABBBBcHAtTmFtZRBhZ2VudGtpdA5HcsO2w59lBuKYlQBoZWxsbyBwZXJtYXdlYg"
)
ORDER = 2 * HALF_ORDER + 1
SIGNATURE, OWNER, COUNT, ENCODED = 2, 67, 134, 150  # where the parts of a type 3 item start


def replaced(raw: bytes, place: int, part: bytes) -> bytes:
    return raw[:place] + part + raw[place + len(part) :]


def checked(raw: bytes):
    item = parse_item(raw)
    ans104.verify(item)
    return item


def with_target(target: bytes, anchor: bytes, data: bytes) -> bytes:
    """An item with both optional parts, as we read but do not write them."""
    message = ItemMessage(SIGNER.public_key, target, anchor, b"", data)
    head = [b"\x03\x00", SIGNER.sign_item(message), SIGNER.public_key]
    optional = [b"\x01" + part if part else b"\x00" for part in (target, anchor)]
    return b"".join([*head, *optional, bytes(16), data])


def fields(item, **changes):
    told = {
        "owner": b64url(item.owner),
        "signature": b64url(item.signature),
        "tags": item.tags,
        "data": item.data,
    }
    return {**told, **changes}


# -- making and reading --------------------------------------------------------------------------


def test_an_item_is_byte_for_byte_the_one_arbundles_makes():
    assert make_item(SIGNER, b"hello permaweb", TAGS).raw == REFERENCE


def test_a_read_item_says_what_was_written():
    item = checked(REFERENCE)
    assert (item.data, item.tags, item.signature_type) == (b"hello permaweb", TAGS, 3)
    assert item.owner == SIGNER.public_key
    assert item.id == b64url(hashlib.sha256(REFERENCE[2:67]).digest())
    assert item.address == b64url(hashlib.sha256(SIGNER.public_key).digest())


def test_an_item_may_be_empty():
    item = checked(make_item(SIGNER, b"").raw)
    assert (item.data, item.tags, item.message.tags) == (b"", (), b"")


def test_a_signer_that_signs_something_else_is_found_out():
    class Broken(KeySigner):
        def sign_item(self, item):
            return super().sign_item(dataclasses.replace(item, data=b"other"))

    with pytest.raises(StateCorrupt):
        make_item(Broken(bytes([7] * 32)), b"data")


def test_a_type_1_item_of_an_rsa_wallet_is_verified():
    wallet = arweave_wallet()
    message = ItemMessage(wallet.owner, b"t" * 32, b"a" * 32, encode_tags(TAGS), b"data", 1)
    signature = wallet.sign_tx(message.deep_hash())
    head = [b"\x01\x00", signature, wallet.owner, b"\x01", b"t" * 32, b"\x01", b"a" * 32]
    sizes = [(2).to_bytes(8, "little"), len(message.tags).to_bytes(8, "little")]
    raw = b"".join([*head, *sizes, message.tags, b"data"])
    item = checked(raw)
    assert (item.tags, item.data, item.address) == (TAGS, b"data", wallet.address)
    for place in (2, 600, 1030, 1080, len(raw) - 1):
        with pytest.raises(StateCorrupt):
            checked(replaced(raw, place, bytes([raw[place] ^ 1])))
    with pytest.raises(StateCorrupt):  # an even modulus, which no key has
        checked(replaced(raw, 2 + 512, bytes(512)))


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "part"),
    [
        pytest.param(0, b"\x02", id="type 2"),
        pytest.param(0, b"\x04", id="type 4"),
        pytest.param(0, b"\x01", id="type 1, whose parts are longer than the item"),
        pytest.param(132, b"\x02", id="presence byte 2"),
        pytest.param(133, b"\x01", id="an anchor that is not there"),
        pytest.param(COUNT, b"\x01", id="fewer tags announced"),
        pytest.param(COUNT, b"\x03", id="more tags announced"),
        pytest.param(COUNT, b"\xff" * 8, id="2^64 tags"),
        pytest.param(COUNT + 8, b"\xff" * 8, id="2^64 bytes of tags"),
        pytest.param(COUNT + 8, b"\x21", id="a byte of data counted as tags"),
        pytest.param(ENCODED, b"\xff" * 10, id="a number without end"),
        pytest.param(ENCODED + 2, b"\xff", id="a tag that is not UTF-8"),
        pytest.param(ENCODED + 1, b"\x00", id="an empty name"),
        pytest.param(ENCODED + 1, b"\x01", id="a name of -1 bytes"),
        pytest.param(ENCODED + 1, b"\x7e", id="a name longer than the tags"),
    ],
)
def test_what_is_not_an_item_is_not_even_parsed(place, part):
    with pytest.raises(StateCorrupt):
        parse_item(replaced(REFERENCE, place, part))


def test_a_presence_byte_is_0_or_1():
    raw = with_target(b"t" * 32, b"a" * 32, b"data")
    assert checked(raw).message.anchor == b"a" * 32
    for place in (132, 165):  # neither is covered by the signature
        with pytest.raises(StateCorrupt):
            parse_item(replaced(raw, place, b"\x02"))


@pytest.mark.parametrize("length", [0, 1, 2, 66, 133, 149, 181])
def test_a_truncated_item_is_refused(length):
    with pytest.raises(StateCorrupt):
        parse_item(REFERENCE[:length])


def test_truncated_data_is_refused():
    with pytest.raises(StateCorrupt):
        checked(REFERENCE[:-1])


@pytest.mark.parametrize("last", [0, 1, 26, 27, 29, 35])
def test_another_recovery_byte_is_refused(last):
    with pytest.raises(StateCorrupt):
        checked(replaced(REFERENCE, OWNER - 1, bytes([last])))


def test_the_other_half_of_the_curve_is_refused():
    high = ORDER - int.from_bytes(REFERENCE[34:66], "big")
    forged = replaced(REFERENCE, 34, high.to_bytes(32, "big"))
    for last in (27, 28):
        with pytest.raises(StateCorrupt):
            checked(replaced(forged, OWNER - 1, bytes([last])))


def test_an_item_in_another_owners_name_is_refused():
    other = KeySigner(bytes([7] * 32))
    with pytest.raises(StateCorrupt):
        checked(replaced(REFERENCE, OWNER, other.public_key))


def test_an_owner_that_is_not_an_uncompressed_key_is_refused():
    class Odd(KeySigner):
        public_key = b"\x05" + SIGNER.public_key[1:]

    with pytest.raises(StateCorrupt, match="uncompressed"):
        make_item(Odd(bytes(range(1, 33))), b"data")


# -- tags ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tags",
    [
        (),
        (("n", "v"),) * 128,
        (("n" * 1024, "v" * 3000),),
        (("n", "v" * 3072),),
        (("é" * 512, "☕" * 1000),),
        (("same", "1"), ("same", "2")),
    ],
)
def test_tags_up_to_the_limits_go_round(tags):
    encoded = encode_tags(tags)
    assert len(encoded) <= 4096
    assert decode_tags(encoded, len(tags)) == tags


@pytest.mark.parametrize(
    "tags",
    [
        (("n", "v"),) * 129,
        (("n" * 1025, "v"),),
        (("é" * 513, "v"),),
        (("n", "v" * 3073),),
        (("n" * 1024, "v" * 3072),),
        (("", "v"),),
        (("n", ""),),
        (("n", "\ud800"),),
    ],
)
def test_tags_beyond_a_limit_are_not_written(tags):
    with pytest.raises(StateError) as caught:
        make_item(SIGNER, b"", tags)
    assert not isinstance(caught.value, StateCorrupt)


def test_avro_blocks_with_their_size_in_front_are_read():
    pair = b"\x02n\x02v"
    assert decode_tags(b"\x03\x08" + pair * 2 + b"\x02" + pair + b"\x00", 3) == (("n", "v"),) * 3


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(b"\x02\x02n\x02v\x00!", id="bytes after the end"),
        pytest.param(b"\x02\x00\x02v\x00", id="an empty name"),
        pytest.param(b"\x02\x02n\x00\x00", id="an empty value"),
        pytest.param(b"\x82" + b"\x80" * 9 + b"\x00\x02n\x02v\x00", id="a number of 11 bytes"),
        pytest.param(b"\x02\x02n\x02v", id="no end"),
        pytest.param(b"\x02\x02n\x02v\x02\x02n\x02v\x00", id="a second tag"),
        pytest.param(b"\xfe\xff\xff\xff\x0f\x02n\x02v\x00", id="2^31 tags"),
        pytest.param(b"\x02\x82\x10" + b"n" * 1025 + b"\x02v\x00", id="a name of 1025 bytes"),
        pytest.param(b"\x02\x02n\x82\x30" + b"v" * 3073 + b"\x00", id="a value of 3073 bytes"),
    ],
)
def test_other_bytes_than_the_announced_tags_are_refused(encoded):
    with pytest.raises(StateCorrupt):
        decode_tags(encoded, 1)


def test_more_tags_than_an_item_may_have_are_not_read():
    long = b"\x02n\xf0\x2e" + b"v" * 3000
    assert decode_tags(b"\x02" + long + b"\x00", 1) == (("n", "v" * 3000),)
    with pytest.raises(StateCorrupt, match="more than an item may have"):
        decode_tags(b"\x04" + long * 2 + b"\x00", 2)
    with pytest.raises(StateCorrupt, match="more than an item may have"):
        decode_tags(b"\x82\x02" + b"\x02n\x02v" * 129 + b"\x00", 129)


def test_a_cursor_never_goes_back():
    with pytest.raises(StateCorrupt):
        ByteReader(b"abc").take(-1)


# -- from GraphQL --------------------------------------------------------------------------------


def test_an_item_is_rebuilt_from_its_fields():
    item = parse_item(REFERENCE)
    assert from_fields(**fields(item)) == item


@pytest.mark.parametrize(
    "lie",
    [
        {"data": b"hello permaweB"},
        {"data": b""},
        {"tags": (TAGS[1], TAGS[0])},
        {"tags": TAGS[:1]},
        {"tags": (*TAGS, ("more", "1"))},
        {"tags": (("App-Name", ""),)},
        {"tags": (("n", "v" * 5000),)},
        {"anchor": b64url(bytes(32))},
        {"anchor": b64url(b"short")},
        {"target": b64url(bytes(32))},
        {"owner": b64url(KeySigner(bytes([7] * 32)).public_key)},
        {"owner": ""},
        {"owner": b64url(bytes(64))},
        {"signature": ""},
        {"signature": "not base64url!"},
        {"signature": b64url(REFERENCE[2:67] + b"\x04")},
    ],
)
def test_a_field_that_is_not_true_is_refused(lie):
    with pytest.raises(StateCorrupt):
        from_fields(**fields(parse_item(REFERENCE), **lie))


def test_fields_cannot_be_shifted_into_one_another():
    # Signature and owner read as one string of bytes; moving their border must not help.
    item = parse_item(REFERENCE)
    joined = item.signature + item.owner
    with pytest.raises(StateCorrupt):
        from_fields(
            **fields(item, signature=b64url(joined[:64]), owner=b64url(joined[64:])),
        )


def test_no_field_can_lend_its_bytes_to_another():
    # Read one byte on, this item says the same signed things; but then its data is not what came.
    target = b"t" * 31 + b"\x00"
    genuine = checked(with_target(target, b"", b"data"))
    assert from_fields(**fields(genuine, target=b64url(target))) == genuine
    with pytest.raises(StateCorrupt, match="length"):
        from_fields(**fields(genuine, target=b64url(target[:31]), data=b"\x00data"))


# -- bundles -------------------------------------------------------------------------------------


ITEMS = [make_item(SIGNER, bytes([n]) * n, [("n", str(n))]) for n in range(1, 4)]
BUNDLE = make_bundle(ITEMS)


def test_a_bundle_of_too_many_items_is_not_begun():
    raw = (100_001).to_bytes(32, "little") + bytes(64 * 100_001)
    with pytest.raises(StateCorrupt, match="100001 items"):
        next(split_bundle(raw))


def test_a_bundle_goes_round():
    assert parse_bundle(BUNDLE) == tuple(ITEMS)
    assert parse_bundle(make_bundle([])) == ()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(BUNDLE[:-1], id="truncated"),
        pytest.param(BUNDLE + b"!", id="more than announced"),
        pytest.param(replaced(BUNDLE, 0, b"\x04"), id="one item too many"),
        pytest.param(replaced(BUNDLE, 0, b"\xff" * 32), id="2^256 items"),
        pytest.param(replaced(BUNDLE, 32, b"\xff" * 32), id="an item of 2^256 bytes"),
        pytest.param(replaced(BUNDLE, 32, bytes([BUNDLE[32] + 1])), id="a border moved"),
        pytest.param(replaced(BUNDLE, 64, bytes(32)), id="another id announced"),
        pytest.param(replaced(BUNDLE, len(BUNDLE) - 1, b"!"), id="a forged item"),
    ],
)
def test_a_damaged_bundle_is_refused(raw):
    with pytest.raises(StateCorrupt):
        parse_bundle(raw)


# -- base64url -----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\xfb\xff", b"a", b"ab", b"abc", bytes(range(256))])
def test_base64url_goes_round(data):
    assert unb64url(b64url(data)) == data


@pytest.mark.parametrize("text", ["+/8", "YQ==", "YR", "Y", "Y Q", "YQ\n", "ÿ", "YWJj=", "Y-_+"])
def test_any_other_spelling_of_base64url_is_refused(text):
    with pytest.raises(StateCorrupt):
        unb64url(text)


def test_a_name_is_the_base64url_of_a_sha256():
    assert name_of(b"") == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
