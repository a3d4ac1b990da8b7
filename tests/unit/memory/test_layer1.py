import dataclasses
import json
import pickle
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from support.layer1_transactions import ANCHOR, filled

from agentkit.errors import StateCorrupt, StateError, WrongKey
from agentkit.memory.arweave.base64url import b64url, unb64url
from agentkit.memory.arweave.jwk import JwkWallet
from agentkit.memory.arweave.layer1 import make_transaction, parse_transaction, verify_transaction
from agentkit.memory.arweave.merkle import MAX_CHUNK, MIN_CHUNK, chunk_ranges, chunked, proven_range
from agentkit.memory.arweave.rsa import verify_pss

# What npm arweave 1.15.7 computes for `filled`.
ROOTS = {
    1: "JIK3SDDlKjjt_JzGUajGEVDAYS2klcOz3BwUxUeqql4",
    MAX_CHUNK - 1: "_f-D6f1M6vqW0tfM1d0Gc_q1Add3aZNmBsLjhxNJE6k",
    MAX_CHUNK: "9caFXo8ZSLO0FkhNX--ThqiAjqDnmbHqI0OoDvCidIA",
    MAX_CHUNK + 1: "KfnRhfK7kS37cw4IEIQQSNjDn2JkPlLpn8MLHfgYFw4",
    MAX_CHUNK + MIN_CHUNK - 1: "PM7Pmayz5fQSG2SerA944F44h9sx06-D-WvMnW8oIX4",
    MAX_CHUNK + MIN_CHUNK: "iKpYJyk-CWLCd6bRrIEQefIDzyEiyXOgZnGEQnfeL0M",
    2 * MAX_CHUNK: "Jp4EJ4ivkK4uaFAyO7jdOl9l5CBJ5WjljFzziUgIaCw",
    12_000_000: "YeUXP-d05g_-U9yObK7IDKnFylXcQ5IorBb7XluA2o8",
}


# -- chunks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ROOTS)
def test_the_data_root_is_the_one_of_arweave_js(size):
    root, chunks = chunked(filled(size))
    assert b64url(root) == ROOTS[size]
    assert b"".join(chunk.data for chunk in chunks) == filled(size)
    for chunk in chunks:
        told = proven_range(root, size, chunk.offset, chunk.path, chunk.data)
        assert told == (chunk.start, chunk.start + len(chunk.data))


def test_no_data_has_no_chunks():
    assert chunked(b"") == (b"", ())


def test_no_chunk_but_a_lone_one_is_small():
    for size in range(MAX_CHUNK, 5 * MAX_CHUNK, 7919):
        ranges = chunk_ranges(size)
        lengths = [end - start for start, end in ranges if end > start]
        assert min(lengths) >= MIN_CHUNK
        assert max(lengths) <= MAX_CHUNK
        assert [start for start, _ in ranges][1:] == [end for _, end in ranges][:-1]


def forgeries():
    size = 3 * MAX_CHUNK - 5
    root, chunks = chunked(filled(size))
    one, two = chunks[0], chunks[1]
    good = (root, size, one.offset, one.path, one.data)
    last = chunks[-1]
    yield "another root", (bytes(32), *good[1:])
    yield "another chunk's data", (*good[:4], one.data[:-1] + b"!")
    yield "another chunk's path", (*good[:3], two.path, one.data)
    yield "another chunk's place", (*good[:2], two.offset, *good[3:])
    yield "before the data", (*good[:2], -1, *good[3:])
    yield "behind the data", (*good[:2], size, *good[3:])
    yield "less data than there is", (root, size - 1, last.offset - 1, last.path, last.data)
    yield "more data than there is", (root, size + 1, last.offset, last.path, last.data)
    yield "no path", (*good[:3], b"", one.data)
    yield "half a path", (*good[:3], one.path[:64], one.data)
    yield "a longer path", (*good[:3], one.path + bytes(96), one.data)
    yield "a path without end", (*good[:3], bytes(96 * 1000), one.data)


@pytest.mark.parametrize("forged", [pytest.param(args, id=name) for name, args in forgeries()])
def test_a_chunk_is_not_taken_on_another_proof(forged):
    with pytest.raises(StateCorrupt):
        proven_range(*forged)


@pytest.mark.parametrize(
    ("end", "size", "proven"),
    [(5, 5, True), (999, 5, False), (4, 5, False), (10, 10, False), (5, 10, False)],
)
def test_a_leaf_ends_where_it_says_and_is_as_long_as_its_place(end, size, proven):
    # Trees are made by whoever posts the data, so a proof may be consistent and still wrong.
    def digest(*parts):
        return sha256(b"".join(sha256(part).digest() for part in parts)).digest()

    path = sha256(b"chunk").digest() + end.to_bytes(32, "big")
    root = digest(path[:32], path[32:])
    if proven:
        assert proven_range(root, size, 0, path, b"chunk") == (0, 5)
        return
    with pytest.raises(StateCorrupt, match="fit"):
        proven_range(root, size, 0, path, b"chunk")


def test_equal_chunks_are_proven_at_their_own_places():
    size = 3 * MAX_CHUNK
    root, chunks = chunked(bytes(size))
    for chunk in chunks:
        other = (chunk.offset + MAX_CHUNK) % size
        with pytest.raises(StateCorrupt):
            proven_range(root, size, other, chunk.path, chunk.data)


def test_data_in_the_document_is_returned(signed):
    document = {**signed[0].document(), "data": b64url(b"abc"), "unknown": [1]}
    assert parse_transaction(json.dumps(document).encode())[1] == b"abc"


@pytest.mark.parametrize(
    "change",
    [
        {"owner": bytes(511) + b"\x01"},
        {"owner": b"short"},
        {"anchor": bytes(48)},
        {"tags": ()},
        {"tags": (("n", ""), ("Größe", "☕"))},
        {"data_size": 599_999},
        {"data_root": bytes(32)},
        {"reward": 6},
        {"target": bytes(32)},
        {"quantity": 1},
        {"signature": bytes(512)},
        {"signature": b""},
    ],
)
def test_a_changed_transaction_is_refused(signed, change):
    with pytest.raises(StateCorrupt):
        verify_transaction(dataclasses.replace(signed[0], **change))


def test_data_of_another_size_than_was_signed_is_refused(signed, wallet):
    tx = dataclasses.replace(signed[0], data_size=5)
    tx = dataclasses.replace(tx, signature=wallet.sign_tx(tx.signed_part()))
    verify_transaction(tx)
    with pytest.raises(StateCorrupt):
        verify_transaction(tx, filled(600_000))


def test_other_data_is_refused(signed):
    data = filled(600_000)
    for other in (b"", data[:-1], data + b"!", data[:-1] + b"!"):
        with pytest.raises(StateCorrupt):
            verify_transaction(signed[0], other)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 1},
        {"id": b64url(bytes(32))},
        {"reward": "-1"},
        {"reward": 7},
        {"reward": "07"},
        {"reward": "9" * 22},
        {"data_size": "1e3"},
        {"owner": "=" * 683},
        {"tags": [{"name": b64url(b"\xff"), "value": ""}]},
        {"tags": [{"name": "bg"}]},
        {"tags": [{"name": "", "value": ""}] * 129},
        {"tags": [{"name": b64url(b"n" * 2049), "value": ""}]},
        {"signature": None},
        {"data": "?"},
    ],
)
def test_a_document_that_is_not_a_transaction_is_refused(signed, change):
    with pytest.raises(StateCorrupt):
        parse_transaction(json.dumps({**signed[0].document(), **change}).encode())


@pytest.mark.parametrize(
    "document", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"a":' * 100_000]
)
def test_other_json_is_refused(document):
    with pytest.raises(StateCorrupt):
        parse_transaction(document)


@pytest.mark.parametrize(
    "tags", [[("n", "v" * 2048)], [("n", "v")] * 129, [("n", "\ud800")]], ids=range(3)
)
def test_tags_a_node_would_refuse_are_not_signed(wallet, tags):
    with pytest.raises(StateError):
        make_transaction(wallet, b"", tags, anchor=ANCHOR, reward=7)


# -- wallets -------------------------------------------------------------------------------------


def test_the_wallet_that_signs_is_the_one_of_arweave_python_client(jwk, monkeypatch):
    import arweave

    messages = []
    sign = arweave.Wallet.sign
    monkeypatch.setattr(
        arweave.Wallet,
        "sign",
        lambda self, message: messages.append(message) or sign(self, message),
    )
    tx, _ = make_transaction(JwkWallet(jwk), b"data", [], anchor=ANCHOR, reward=7)
    assert messages == [tx.signed_part()]
    verify_transaction(tx, b"data")


def test_a_wallet_is_loaded_from_a_file(jwk, wallet, tmp_path):
    path = tmp_path / "wallet.json"
    path.write_text(json.dumps(jwk))
    assert JwkWallet.load(path).address == wallet.address


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "{"])
def test_a_file_that_is_not_a_wallet_is_refused(tmp_path, text):
    path = tmp_path / "wallet.json"
    path.write_text(text)
    with pytest.raises(WrongKey):
        JwkWallet.load(path)
    with pytest.raises(WrongKey):
        JwkWallet.load(tmp_path / "missing.json")


@pytest.mark.parametrize(
    "change", [{"kty": "EC"}, {"n": "AQAB"}, {"d": None}, {"p": ""}, {"q": "AQAB"}, {"e": "é"}]
)
def test_a_jwk_that_is_not_an_rsa_key_is_refused(jwk, change):
    with pytest.raises(WrongKey):
        JwkWallet({**jwk, **change})


def test_a_smaller_key_is_refused():
    key = generate_private_key(65537, 2048).private_numbers()
    public = key.public_numbers
    numbers = (public.n, public.e, key.d, key.p, key.q, key.dmp1, key.dmq1, key.iqmp)
    texts = [b64url(n.to_bytes((n.bit_length() + 7) // 8, "big")) for n in numbers]
    names = ("n", "e", "d", "p", "q", "dp", "dq", "qi")
    with pytest.raises(WrongKey, match="4096"):
        JwkWallet({"kty": "RSA", **dict(zip(names, texts, strict=True))})
    signature = key.private_key().sign(b"message", PSS(MGF1(SHA256()), 32), SHA256())
    with pytest.raises(StateCorrupt, match="256 bytes"):
        verify_pss(public.n.to_bytes(256, "big"), b"message", signature)


def test_a_wallet_tells_its_address_and_nothing_else(jwk, wallet):
    assert repr(wallet) == f"JwkWallet({wallet.address})"
    assert unb64url(jwk["n"]) == wallet.owner
    with pytest.raises(TypeError):
        pickle.dumps(wallet)
