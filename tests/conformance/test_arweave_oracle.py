"""Arweave's own npm packages judge what we make, and we judge what they make."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from support.arweave_wallet import arweave_key
from support.gateway_fixtures import layer1, minds, weave_at
from support.timing import limit

from agentkit.embedded.gateway import Gateway, gateway_app
from agentkit.errors import StateCorrupt
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave.ans104 import make_bundle, make_item, parse_bundle, parse_item, verify
from agentkit.memory.arweave.base64url import b64url, unb64url
from agentkit.memory.arweave.jwk import JwkWallet
from agentkit.memory.arweave.layer1 import make_transaction, parse_transaction, verify_transaction
from agentkit.memory.arweave.merkle import MAX_CHUNK, MIN_CHUNK, chunked
from agentkit.memory.arweave.unbundling import find_bundled_items

NPM = Path(__file__).parents[1] / "npm"
INSTALL = "npm install --prefix tests/npm --no-package-lock --no-audit --no-fund"
pytestmark = pytest.mark.skipif(
    not (NPM / "node_modules" / "arbundles").is_dir() or not shutil.which("node"),
    reason=f"the oracles are not installed: {INSTALL}",
)

KEY = bytes(range(1, 33))
SIZES = [
    *(1, 1000, MAX_CHUNK - 1, MAX_CHUNK, MAX_CHUNK + 1, MAX_CHUNK + MIN_CHUNK - 1),
    *(MAX_CHUNK + MIN_CHUNK, 2 * MAX_CHUNK, 2 * MAX_CHUNK + 1, 1_000_003, 12_000_000),
]
CONTENTS = [
    (b"", ()),
    (b"hello permaweb", (("App-Name", "agentkit"), ("Größe", "☕ " * 100))),
    (os.urandom(300_000), tuple((f"n{i}", "v") for i in range(128))),
    (b"x", (("n" * 1024, "v" * 3000),)),
]


def filled(size: int) -> bytes:
    pattern = bytes((i * 31 + 7) & 255 for i in range(256))
    return (pattern * (size // 256 + 1))[:size]


def flipped(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


def ask(request):
    run = subprocess.run(
        ["node", NPM / "arweave-oracle.cjs"],
        input=json.dumps(request).encode(),
        capture_output=True,
        check=False,
        timeout=limit(100),
    )
    assert run.returncode == 0, run.stderr.decode()
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def jwk():
    return arweave_key()


@pytest.fixture(scope="module")
def ours(jwk):
    signer, wallet = KeySigner(KEY), JwkWallet(jwk)
    items = [make_item(signer, data, tags) for data, tags in CONTENTS]
    transactions = [
        make_transaction(
            wallet, filled(size), [("Größe", "☕")], anchor=b64url(bytes(48)), reward=5
        )[0]
        for size in (0, *SIZES)
    ]
    return items, transactions


@pytest.fixture(scope="module")
def theirs(ours, jwk):
    items, transactions = ours
    bundle = make_bundle(items)
    documents = [tx.document() for tx in transactions]
    extra = {"target": "t" * 43, "anchor": "a" * 32}
    wanted = [
        {"signer": signer, "data": b64url(data), "tags": tags, **more}
        for signer in ("ethereum", "arweave")
        for data, tags in CONTENTS
        for more in ({}, extra)
    ]
    return ask(
        {
            "items": [b64url(i.raw) for i in items]
            + [b64url(flipped(items[1].raw, len(items[1].raw) - 1))],
            "bundles": [b64url(bundle), b64url(flipped(bundle, len(bundle) - 1))],
            "transactions": [*documents, {**documents[1], "reward": "6"}],
            "sizes": SIZES,
            "make": {"jwk": jwk, "ethereum": KEY.hex(), "items": wanted},
        }
    )


def test_arbundles_verifies_every_item_we_make(ours, theirs):
    *judged, forged = theirs["items"]
    assert [told["valid"] for told in judged] == [True] * len(CONTENTS)
    assert forged["valid"] is False  # so the oracle does look
    for item, told, (data, tags) in zip(ours[0], judged, CONTENTS, strict=True):
        assert told["id"] == item.id
        assert told["owner"] == b64url(item.owner)
        assert tuple(map(tuple, told["tags"])) == tags
        assert unb64url(told["data"]) == data


def test_arbundles_makes_the_same_bytes_with_the_same_key(ours, theirs):
    # Deterministic on both sides (RFC 6979), so that nothing at all may differ.
    plain = [unb64url(raw) for raw in theirs["made"]["items"][: 2 * len(CONTENTS) : 2]]
    assert plain == [item.raw for item in ours[0]]


def test_arbundles_verifies_our_bundle(ours, theirs):
    good, forged = theirs["bundles"]
    assert good == {"valid": True, "ids": [item.id for item in ours[0]]}
    assert forged["valid"] is False


def test_arweave_js_verifies_every_transaction_we_sign(theirs):
    *judged, forged = theirs["transactions"]
    assert judged == [True] * (len(SIZES) + 1)
    assert forged is False


def test_data_roots_and_proofs_equal_those_of_arweave_js(theirs):
    for size, told in zip(SIZES, theirs["trees"], strict=True):
        root, chunks = chunked(filled(size))
        assert b64url(root) == told["root"], size
        assert [[c.offset, b64url(c.path)] for c in chunks] == told["proofs"], size


def test_we_verify_every_item_that_arbundles_makes(theirs):
    items = [parse_item(unb64url(raw)) for raw in theirs["made"]["items"]]
    assert {item.signature_type for item in items} == {1, 3}
    for item in items:
        verify(item)
        with pytest.raises(StateCorrupt):
            verify(parse_item(flipped(item.raw, 100)))
    contents = [content for content in CONTENTS for _ in range(2)] * 2
    assert [(item.data, item.tags) for item in items] == contents
    assert [item.message.anchor for item in items[:2]] == [b"", b"a" * 32]


def test_we_verify_a_bundle_that_arbundles_makes(theirs):
    bundle = parse_bundle(unb64url(theirs["made"]["bundle"]))
    assert [b64url(item.raw) for item in bundle] == theirs["made"]["items"]


def test_we_verify_every_transaction_that_arweave_js_signs(theirs):
    for size, document in zip(SIZES, theirs["made"]["transactions"], strict=True):
        tx, _ = parse_transaction(json.dumps(document).encode())
        verify_transaction(tx, filled(size))
        assert tx.tags == (("Größe", f"{size} ☕"),)
        with pytest.raises(StateCorrupt):
            verify_transaction(tx, filled(size)[:-1] + b"?")


async def test_the_oracles_verify_what_really_goes_up(tmp_path, jwk):
    """Sealed segments, the bundle of them and the transaction around it, as they left."""
    async with (
        weave_at(tmp_path / "weave") as weave,
        minds(tmp_path / "home", weave.url, path=layer1(wallet := JwkWallet(jwk))) as mind,
    ):
        weave.gateway.mint(wallet.address, 10**15)
        for _ in range(7):  # more than a chunk of it
            await mind.memory.note("t", b64url(os.urandom(45_000)))
        await mind.memory.checkpoint()
        weave.mine()
        (carrier,) = await mind.journal.commit(lambda tx: tx.outbox.carriers_in("posted"))
        items = await mind.items()
        data = weave.gateway.data(carrier.tx)
    assert len(data) > MAX_CHUNK
    header = json.loads(carrier.header)
    one = {"signer": "ethereum", "data": "", "tags": []}
    told = await asyncio.to_thread(
        ask,
        {
            "items": [b64url(item.raw) for item in items],
            "bundles": [b64url(data)],
            "transactions": [header, {**header, "data_root": b64url(bytes(32))}],
            "sizes": [],
            "make": {"jwk": jwk, "ethereum": KEY.hex(), "items": [one]},
        },
    )
    assert [(i["valid"], i["id"]) for i in told["items"]] == [(True, i.item) for i in items]
    assert told["bundles"] == [{"valid": True, "ids": [item.item for item in items]}]
    assert told["transactions"] == [True, False]
    tags = {n for item in told["items"] for n, _ in item["tags"]}
    assert {"App-Name", "Run", "Seq-First", "Prev", "Head"} <= tags


ARLOCAL = os.environ.get("AGENTKIT_ARLOCAL", "")


@pytest.mark.skipif(not ARLOCAL, reason="AGENTKIT_ARLOCAL names no running arlocal")
async def test_a_second_gateway_takes_and_gives_back_what_we_post(tmp_path, jwk):
    """Against npm arlocal: `node node_modules/arlocal/bin/index.js 1984 --hidelogs`.

    It takes what we make, and is lenient where the embedded gateway is strict; see decision 22.
    """
    url, wallet = ARLOCAL, JwkWallet(jwk)

    async def told(session, path):
        async with session.get(url + path) as answer:
            return await answer.text()

    async with (
        aiohttp.ClientSession() as session,
        minds(tmp_path / "home", url, path=layer1(wallet)) as mind,
    ):
        await told(session, f"/mint/{wallet.address}/{10**15}")
        await mind.memory.note("t", os.urandom(8).hex())
        await mind.memory.checkpoint()
        await told(session, "/mine/20")
        await mind.memory.confirm()
        assert await mind.states() == ["read back"]
        found = await find_bundled_items(mind.gateways, mind.memory.address)
        (sent,) = await mind.items()
        assert sent.item in {one.item.id for one in found.items}


@pytest.mark.parametrize("size", [1000, MAX_CHUNK, 600_000])
async def test_arweave_js_uploads_to_the_embedded_gateway_and_reads_back(tmp_path, jwk, size):
    gateway = Gateway.open(tmp_path)
    gateway.mint(JwkWallet(jwk).address, 10**15)
    async with TestServer(gateway_app(gateway)) as server:
        url = str(server.make_url("/"))
        order = {"url": url, "jwk": jwk, "size": size, "tags": [("Größe", "☕")]}
        told = await asyncio.to_thread(ask, {"upload": order})
        assert told["same"] is True
        assert told["status"] == 200
        assert told["confirmed"]["number_of_confirmations"] == 1
    assert gateway.data(told["id"]) == filled(size)
    gateway.close()
