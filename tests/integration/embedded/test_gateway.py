import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from aiohttp.test_utils import TestClient, TestServer
from support.arweave_wallet import arweave_wallet
from support.bare_gateway import FIND, SIGNER

from agentkit.embedded.gateway import Gateway, gateway_app
from agentkit.embedded.gateway.wallets import MOST, fee
from agentkit.keys.messages import ItemMessage
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave.ans104 import BUNDLE_TAGS, make_bundle, make_item, parse_item
from agentkit.memory.arweave.base64url import b64url, name_of, unb64url
from agentkit.memory.arweave.layer1 import (
    WeaveTransaction,
    make_transaction,
    parse_transaction,
    verify_transaction,
)
from agentkit.memory.arweave.merkle import MAX_CHUNK
from agentkit.memory.arweave.tags import encode_tags

OTHER = KeySigner(bytes([7] * 32))
ME = name_of(SIGNER.public_key)
OCTETS = {"Content-Type": "application/octet-stream"}
RICH = 10**16


@pytest.fixture
def wallet():
    return arweave_wallet()


TOKEN = "test"  # of a gateway that holds nothing but test data
TESTER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def client(gateway):
    async with TestClient(TestServer(gateway_app(gateway, token=TOKEN)), headers=TESTER) as client:
        yield client


@pytest.fixture
async def rich(client, wallet):
    assert (await client.get(f"/mint/{wallet.address}/{RICH}")).status == 200
    return wallet


async def post(client, raw):
    async with client.post("/v1/tx", data=raw, headers=OCTETS) as response:
        return response.status, await response.text()


async def get(client, path):
    async with client.get(path) as response:
        return response.status, await response.read()


async def post_json(client, path, document):
    async with client.post(path, json=document) as response:
        return response.status, await response.text()


async def find(client, **variables):
    async with client.post("/graphql", json={"query": FIND, "variables": variables}) as response:
        assert response.status == 200, await response.text()
        answer = await response.json()
    assert "errors" not in answer, answer
    return answer["data"]["transactions"]


async def found(client, **variables):
    return [edge["node"]["id"] for edge in (await find(client, **variables))["edges"]]


async def signed(client, wallet, data, tags=(), **changes):
    anchor = (await get(client, "/tx_anchor"))[1].decode()
    reward = int((await get(client, f"/price/{len(data)}"))[1])
    terms = {"anchor": anchor, "reward": reward, **changes}
    return make_transaction(wallet, data, tags, **terms)


async def submit(client, tx, data=b""):
    return await post_json(client, "/tx", {**tx.document(), "data": b64url(data)})


def seed(tx, piece, **changes):
    told = {
        "data_root": b64url(tx.data_root),
        "data_size": str(tx.data_size),
        "data_path": b64url(piece.path),
        "offset": str(piece.offset),
        "chunk": b64url(piece.data),
    }
    return {**told, **changes}


def flipped(raw, place):
    return raw[:place] + bytes([raw[place] ^ 0x41]) + raw[place + 1 :]


def stored(folder):
    return sorted(path.name for path in (folder / "content").iterdir())


# -- data items ----------------------------------------------------------------------------------


async def test_a_posted_item_is_served_and_listed(client):
    item = make_item(SIGNER, b"hello", [("Größe", "☕"), ("Content-Type", "text/html")])
    status, text = await post(client, item.raw)
    receipt = json.loads(text)
    assert status == 200
    assert (receipt["id"], receipt["owner"], receipt["winc"]) == (item.id, SIGNER.address, "0")
    assert {"dataCaches", "fastFinalityIndexes", "deadlineHeight", "timestamp", "version"} < set(
        receipt
    )
    for path in (f"/{item.id}", f"/raw/{item.id}"):
        async with client.get(path) as response:
            assert (response.status, await response.read()) == (200, b"hello")
            assert response.content_type == "application/octet-stream"
    (edge,) = (await find(client, owners=[ME]))["edges"]
    node = edge["node"]
    assert node["id"] == item.id
    assert node["owner"] == {"address": ME, "key": b64url(SIGNER.public_key)}
    assert node["signature"] == b64url(item.signature)
    assert node["tags"] == [{"name": n, "value": v} for n, v in item.tags]
    assert node["data"] == {"size": "5", "type": "text/html"}
    assert (node["block"]["height"], node["bundledIn"]) == (1, None)


async def test_an_item_with_any_byte_flipped_is_refused(client, tmp_path):
    item = make_item(SIGNER, b"some data of an item", [("App-Name", "agentkit"), ("Run", "1")])
    for place in range(len(item.raw)):
        status, text = await post(client, flipped(item.raw, place))
        assert (status, text[:17]) == (400, "Invalid Data Item"), place
    assert stored(tmp_path) == []
    assert await found(client) == []
    assert (await post(client, item.raw))[0] == 200


async def test_an_item_in_a_foreign_owners_name_is_refused(client):
    item = make_item(SIGNER, b"data")
    for raw in (
        item.raw.replace(SIGNER.public_key, OTHER.public_key),
        make_item(OTHER, b"data").raw.replace(OTHER.public_key, SIGNER.public_key),
    ):
        assert (await post(client, raw))[0] == 400
    assert await found(client) == []


async def test_the_same_item_again_is_accepted_and_stored_once(client, tmp_path):
    item = make_item(SIGNER, b"data")
    assert [(await post(client, item.raw))[0] for _ in range(3)] == [200, 202, 202]
    assert len(stored(tmp_path)) == 1
    assert await found(client) == [item.id]


async def test_a_malleated_copy_is_refused(client):
    item = make_item(SIGNER, b"data")
    assert (await post(client, item.raw))[0] == 200
    for last in {0, 1, 27, 28} - {item.raw[66]}:
        assert (await post(client, item.raw[:66] + bytes([last]) + item.raw[67:]))[0] == 400
    assert await found(client) == [item.id]


async def test_equal_data_of_two_items_is_one_file_and_two_entries(client, tmp_path):
    items = [make_item(signer, b"data") for signer in (SIGNER, OTHER)]
    for item in items:
        assert (await post(client, item.raw))[0] == 200
    assert len(stored(tmp_path)) == 1
    assert sorted(await found(client)) == sorted(item.id for item in items)


async def test_an_rsa_item_is_taken(client, wallet):
    message = ItemMessage(wallet.owner, b"", b"", encode_tags([("n", "v")]), b"data", 1)
    parts = [b"\x01\x00", wallet.sign_tx(message.deep_hash()), wallet.owner, b"\x00\x00"]
    sizes = [(1).to_bytes(8, "little"), len(message.tags).to_bytes(8, "little")]
    raw = b"".join([*parts, *sizes, message.tags, b"data"])
    status, text = await post(client, raw)
    assert (status, json.loads(text)["owner"]) == (200, wallet.address)
    assert await found(client, owners=[wallet.address]) == [parse_item(raw).id]
    assert (await post(client, flipped(raw, len(raw) - 1)))[0] == 400


async def test_an_upload_of_another_type_is_refused(client):
    async with client.post("/v1/tx", data=make_item(SIGNER, b"").raw) as response:
        assert response.status == 200  # aiohttp's own default is octet-stream
    raw = make_item(SIGNER, b"text").raw
    async with client.post(
        "/v1/tx", data=raw, headers={"Content-Type": "application/json"}
    ) as response:
        assert (response.status, "Content-Type" in await response.text()) == (400, True)


@pytest.mark.parametrize(
    ("path", "limit"), [("/tx", 15 << 20), ("/chunk", 1 << 20), ("/graphql", 64 << 10)]
)
async def test_a_body_is_read_no_further_than_its_path_allows(client, path, limit):
    async def endless():
        for _ in range(limit // 65536 + 2):
            yield b" " * 65536

    for data in (b" " * (limit + 1) if limit < 1 << 20 else None, endless()):
        if data:
            async with client.post(path, data=data) as response:
                assert response.status == 413
    async with client.post(path, data=b" " * 1000) as response:
        assert response.status == 400


@pytest.mark.parametrize("path", ["/raw/short", "/x", f"/{'A' * 43}", f"/tx/{'A' * 43}/status"])
async def test_what_is_not_there_is_not_found(client, path):
    assert (await get(client, path))[0] == 404


async def test_content_changed_on_disk_is_not_served(client, tmp_path):
    item = make_item(SIGNER, b"data")
    await post(client, item.raw)
    (name,) = stored(tmp_path)
    (tmp_path / "content" / name).write_bytes(b"evil")
    status, body = await get(client, f"/{item.id}")
    assert status == 500
    assert b"evil" not in body
    (tmp_path / "content" / name).unlink()
    assert (await get(client, f"/{item.id}"))[0] == 500


# -- layer-1 transactions ------------------------------------------------------------------------


async def test_a_transaction_of_the_python_clients_wallet_is_taken(client, rich):
    tx, _ = await signed(client, rich, b"data", [("Größe", "☕")])
    assert await submit(client, tx, b"data") == (200, "OK")
    assert await get(client, f"/{tx.id}") == (200, b"data")
    assert await get(client, f"/wallet/{rich.address}/balance") == (
        200,
        str(RICH - tx.reward).encode(),
    )
    document = (await get(client, f"/tx/{tx.id}"))[1]
    assert parse_transaction(document)[0] == tx
    status, text = await get(client, f"/tx/{tx.id}/status")
    assert (status, json.loads(text)["number_of_confirmations"]) == (200, 1)
    (edge,) = (await find(client, owners=[rich.address]))["edges"]
    assert edge["node"]["fee"]["winston"] == str(tx.reward)
    assert edge["node"]["fee"]["ar"] == f"{tx.reward / 1e12:.12f}"


async def test_the_same_transaction_again_costs_nothing(client, rich):
    tx, _ = await signed(client, rich, b"data")
    answers = [(await submit(client, tx, b"data"))[0] for _ in range(3)]
    assert answers == [200, 208, 208]
    balance = (await get(client, f"/wallet/{rich.address}/balance"))[1]
    assert int(balance) == RICH - tx.reward


@pytest.mark.parametrize(
    "change",
    [
        {"tags": [{"name": "bg", "value": "bg"}]},
        {"reward": "999999999999"},
        {"target": b64url(bytes(32))},
        {"quantity": "1"},
        {"data": b64url(b"else")},
        {"data_size": "5"},
        {"data_root": b64url(bytes(32))},
        {"id": b64url(bytes(32))},
        {"signature": b64url(bytes(512))},
        {"owner": b64url(b"\xff" * 512)},
        {"format": 1},
    ],
)
async def test_a_changed_transaction_is_refused(client, rich, change):
    tx, _ = await signed(client, rich, b"data")
    document = {**tx.document(), "data": b64url(b"data"), **change}
    assert (await post_json(client, "/tx", document))[0] == 400
    assert await found(client) == []
    assert int((await get(client, f"/wallet/{rich.address}/balance"))[1]) == RICH


async def test_too_low_a_fee_is_refused(client, rich):
    price = int((await get(client, "/price/4"))[1])
    for reward, status in ((1, 400), (price - 1, 400), (price, 200)):
        tx, _ = await signed(client, rich, b"data", reward=reward)
        assert (await submit(client, tx, b"data"))[0] == status


async def test_a_wallet_without_enough_is_refused(client, wallet):
    price = int((await get(client, "/price/4"))[1])
    await get(client, f"/mint/{wallet.address}/{price - 1}")
    tx, _ = await signed(client, wallet, b"data")
    assert (await submit(client, tx, b"data"))[0] == 400
    await get(client, f"/mint/{wallet.address}/1")
    assert (await submit(client, tx, b"data"))[0] == 200
    assert (await get(client, f"/wallet/{wallet.address}/balance"))[1] == b"0"


def transfer(wallet, gateway, **parts):
    bare = WeaveTransaction(wallet.owner, unb64url(gateway.anchor()), (), 0, b"", RICH // 2)
    tx = dataclasses.replace(bare, **parts)
    return dataclasses.replace(tx, signature=wallet.sign_tx(tx.signed_part()))


async def test_a_transfer_that_cannot_arrive_does_not_leave(client, gateway, rich):
    target = name_of(b"somebody")
    gateway.mint(target, MOST)
    for quantity, status, left in ((1, 400, RICH), (0, 200, RICH // 2)):
        tx = transfer(rich, gateway, target=unb64url(target), quantity=quantity)
        assert (await submit(client, tx))[0] == status
        assert gateway.balance(rich.address) == left
        assert (gateway.data(tx.id) is None) == (status == 400)


async def test_a_transfer_reaches_its_wallet(client, gateway, rich):
    target = name_of(b"somebody new")
    terms = {"target": unb64url(target), "quantity": 5}
    price = gateway.price(0, target)
    for reward, status in ((price - 1, 400), (price, 200)):
        tx = transfer(rich, gateway, reward=reward, **terms)
        assert (await submit(client, tx))[0] == status
    assert gateway.balance(target) == 5
    assert gateway.balance(rich.address) == RICH - 5 - price
    assert await found(client, recipients=[target]) == [tx.id]


@pytest.mark.parametrize(
    "parts",
    [{"target": b"short"}, {"quantity": 1}, {"data_size": (256 << 20) + 1, "data_root": bytes(32)}],
)
async def test_a_signed_transaction_that_makes_no_sense_is_refused(client, gateway, rich, parts):
    assert (await submit(client, transfer(rich, gateway, **parts)))[0] == 400
    assert gateway.balance(rich.address) == RICH


async def test_an_anchor_is_good_for_fifty_blocks(client, rich):
    fresh = [await signed(client, rich, data) for data in (b"a", b"b")]
    for _ in range(50):
        await get(client, "/mine")
    assert (await submit(client, fresh[0][0], b"a"))[0] == 200  # which mines the 51st block
    assert await submit(client, fresh[1][0], b"b") == (400, "Invalid anchor (last_tx).")
    unknown, _ = await signed(client, rich, b"c", anchor=b64url(os.urandom(48)))
    assert (await submit(client, unknown, b"c"))[0] == 400


async def test_the_price_counts_whole_chunks_and_new_wallets(client, rich):
    async def price(path):
        return int((await get(client, f"/price/{path}"))[1])

    assert await price(1) == await price(MAX_CHUNK) == fee(1) == 212_037_686
    assert await price(MAX_CHUNK + 1) == fee(2 * MAX_CHUNK) > await price(1)
    assert await price(0) == fee(0) > 0
    assert await price(f"1/{rich.address}") == fee(1)
    assert await price(f"1/{name_of(b'new')}") == fee(1, new_wallet=True) > 10 * fee(1)


async def test_money_cannot_be_minted_beyond_what_a_column_holds(client):
    address = name_of(b"somebody")
    for _ in range(9):
        await get(client, f"/mint/{address}/{10**18 - 1}")
    assert (await get(client, f"/mint/{address}/10"))[0] == 400
    assert (await get(client, f"/mint/{address}/9"))[1] == str(MOST).encode()


@pytest.mark.parametrize("body", [b"", b"{}", b"[" * 50_000, b"\xff\xfe", b'{"format":2}'])
@pytest.mark.parametrize("path", ["/tx", "/chunk", "/graphql"])
async def test_other_json_is_refused(client, path, body):
    async with client.post(path, data=body) as response:
        assert response.status == 400


# -- chunks --------------------------------------------------------------------------------------


async def test_data_in_chunks_is_served_once_it_is_complete(client, rich):
    data = bytes(600_000)  # whose first chunks are equal, and must not be merged
    tx, chunks = await signed(client, rich, data)
    assert (await submit(client, tx))[0] == 200
    for chunk in reversed(chunks):
        assert (await get(client, f"/{tx.id}"))[0] == 404
        assert (await post_json(client, "/chunk", seed(tx, chunk)))[0] == 200
    assert await get(client, f"/{tx.id}") == (200, data)
    assert (await post_json(client, "/chunk", seed(tx, chunks[0])))[0] == 200
    assert await get(client, f"/{tx.id}") == (200, data)


async def test_a_chunk_with_a_bad_proof_is_refused(client, rich, tmp_path):
    data = os.urandom(600_000)
    tx, chunks = await signed(client, rich, data)
    assert (await submit(client, tx))[0] == 200
    one, two, _ = chunks
    for change in (
        {"chunk": b64url(os.urandom(len(one.data)))},
        {"chunk": b64url(two.data)},
        {"data_path": b64url(two.path)},
        {"data_path": ""},
        {"offset": str(two.offset)},
        {"offset": "-1"},
        {"offset": "9" * 30},
        {"data_size": str(tx.data_size + 1)},
        {"data_size": "9" * 30},
        {"data_root": b64url(os.urandom(32))},
    ):
        status, text = await post_json(client, "/chunk", seed(tx, one, **change))
        assert (status, set(json.loads(text))) == (400, {"error"}), change
    assert stored(tmp_path) == []


async def test_a_chunk_nobody_paid_for_is_refused(client, rich):
    tx, chunks = await signed(client, rich, os.urandom(600_000))
    status, text = await post_json(client, "/chunk", seed(tx, chunks[0]))
    assert (status, json.loads(text)) == (400, {"error": "data_root_not_found"})


async def test_twelve_megabytes_go_round(client, rich):
    data = os.urandom(12_000_000)
    tx, chunks = await signed(client, rich, data)
    assert (await submit(client, tx))[0] == 200
    for chunk in chunks:
        assert (await post_json(client, "/chunk", seed(tx, chunk)))[0] == 200
    assert await get(client, f"/raw/{tx.id}") == (200, data)
    verify_transaction(parse_transaction((await get(client, f"/tx/{tx.id}"))[1])[0], data)


# -- bundles -------------------------------------------------------------------------------------


def forged_bundle():
    good = [make_item(SIGNER, b"good", [("Run", "é")]), make_item(OTHER, b"also", [("Run", "é")])]
    evil = make_item(SIGNER, b"evil", [("Run", "é")])
    changed = parse_item(evil.raw[:-4] + b"lies")  # the same signature and id over other data
    return good, changed, make_bundle([good[0], changed, good[1]])


async def test_a_bundle_is_unbundled_without_its_forged_items(client, rich):
    good, changed, raw = forged_bundle()
    tx, _ = await signed(client, rich, raw, BUNDLE_TAGS)
    assert (await submit(client, tx, raw))[0] == 200
    listed = (await find(client, tags=[{"name": "Run", "values": ["é"]}], sort="HEIGHT_ASC"))[
        "edges"
    ]
    assert [edge["node"]["id"] for edge in listed] == [item.id for item in good]
    assert {edge["node"]["bundledIn"]["id"] for edge in listed} == {tx.id}
    assert await found(client, bundledIn=[tx.id], sort="HEIGHT_ASC") == [item.id for item in good]
    assert (await get(client, f"/{changed.id}"))[0] == 404
    assert await get(client, f"/{good[1].id}") == (200, b"also")


async def test_a_bundle_in_chunks_is_unbundled_when_the_last_one_arrives(client, rich):
    items = [make_item(SIGNER, os.urandom(200_000), [("n", str(n))]) for n in range(3)]
    raw = make_bundle(items)
    tx, chunks = await signed(client, rich, raw, BUNDLE_TAGS)
    assert (await submit(client, tx))[0] == 200
    for chunk in chunks:
        assert await found(client, owners=[ME]) == []
        await post_json(client, "/chunk", seed(tx, chunk))
    assert sorted(await found(client, owners=[ME])) == sorted(item.id for item in items)


@pytest.mark.parametrize("damage", [b"", b"!", bytes(100)])
async def test_what_only_claims_to_be_a_bundle_stays_a_transaction(client, rich, damage):
    raw = make_bundle([make_item(SIGNER, b"data")]) + b"!" + damage
    tx, _ = await signed(client, rich, raw, BUNDLE_TAGS)
    assert (await submit(client, tx, raw))[0] == 200
    assert await found(client) == [tx.id]


async def test_an_item_that_is_there_is_not_bundled_again(client, rich):
    item = make_item(SIGNER, b"data")
    await post(client, item.raw)
    raw = make_bundle([item])
    tx, _ = await signed(client, rich, raw, BUNDLE_TAGS)
    await submit(client, tx, raw)
    (edge,) = (await find(client, owners=[ME]))["edges"]
    assert edge["node"]["bundledIn"] is None
    assert (await post(client, item.raw))[0] == 202


def test_anchors_grow_old_with_the_clock(tmp_path, clock, wallet):
    gateway = Gateway.open(tmp_path, block_seconds=10, clock=clock)
    gateway.mint(wallet.address, RICH)
    tx, _ = make_transaction(wallet, b"", [], anchor=gateway.anchor(), reward=gateway.price(0))
    clock.now += 510
    with pytest.raises(Exception, match="Invalid anchor"):
        gateway.post_transaction(json.dumps(tx.document()).encode())
    gateway.close()


async def test_pending_entries_are_listed_without_a_block(tmp_path, clock, wallet):
    gateway = Gateway.open(tmp_path, block_seconds=10, clock=clock)
    gateway.mint(wallet.address, RICH)
    async with TestClient(TestServer(gateway_app(gateway, token=TOKEN)), headers=TESTER) as client:
        tx, _ = await signed(client, wallet, b"data")
        await submit(client, tx, b"data")
        assert (await get(client, f"/tx/{tx.id}"))[0] == 202
        assert await get(client, f"/tx/{tx.id}/status") == (202, b"Pending")
        (edge,) = (await find(client))["edges"]
        assert edge["node"]["block"] is None
        assert await get(client, "/mine") == (200, b'{"height": 1}')
        assert (await get(client, f"/tx/{tx.id}/status"))[0] == 200
        info = json.loads((await get(client, "/info"))[1])
        assert (info["height"], info["blocks"]) == (1, 2)
    gateway.close()


def test_everything_is_there_after_a_restart(tmp_path, clock, wallet):
    gateway = Gateway.open(tmp_path, block_seconds=10, clock=clock)
    gateway.mint(wallet.address, 500)
    item = make_item(SIGNER, b"data", [("Run", "1")])
    gateway.post_item(item.raw)
    (tmp_path / "content" / "torn.draft").write_bytes(b"half")
    anchor = gateway.anchor()
    clock.now += 100
    gateway.close()
    gateway = Gateway.open(tmp_path, block_seconds=10, clock=clock)
    assert (gateway.data(item.id), gateway.balance(wallet.address)) == (b"data", 500)
    assert gateway.status(item.id).height == 1
    assert gateway.anchor() != anchor
    assert gateway.post_item(item.raw)[1] is False
    assert len(stored(tmp_path)) == 1
    gateway.close()


def test_what_was_acknowledged_survives_a_kill(tmp_path):
    program = (
        "import sys; from pathlib import Path\n"
        "from agentkit.embedded.gateway import Gateway\n"
        "from agentkit.keys.signer import KeySigner\n"
        "from agentkit.memory.arweave.ans104 import make_item\n"
        "gateway, signer = Gateway.open(Path(sys.argv[1])), KeySigner(bytes([9] * 32))\n"
        "for n in range(10**6):\n"
        "    print(gateway.post_item(make_item(signer, b'%d' % n).raw)[0].id, flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            names = [process.stdout.readline().strip() for _ in range(25)]
            process.send_signal(signal.SIGKILL)
            names += [line.strip() for line in process.stdout if line.endswith("\n")]
        gateway = Gateway.open(tmp_path)
        for n, name in enumerate(names):
            assert gateway.data(name) == b"%d" % n
        gateway.close()


# -- GraphQL -------------------------------------------------------------------------------------


@pytest.fixture
def listed(gateway):
    """Six items in six blocks: kind a or b, number 0 to 5, the last two of another owner."""
    items = [
        make_item(OTHER if n > 3 else SIGNER, b"%d" % n, [("Kind", "ab"[n % 2]), ("N", str(n))])
        for n in range(6)
    ]
    for item in items:
        gateway.post_item(item.raw)
    return [item.id for item in items]


def tag(name, *values, **more):
    return {"name": name, "values": list(values), **more}


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, [5, 4, 3, 2, 1, 0]),
        ({"sort": "HEIGHT_ASC"}, [0, 1, 2, 3, 4, 5]),
        ({"first": 2}, [5, 4]),
        ({"owners": [ME]}, [3, 2, 1, 0]),
        ({"owners": [ME, name_of(OTHER.public_key)]}, [5, 4, 3, 2, 1, 0]),
        ({"owners": []}, []),
        ({"owners": [name_of(b"nobody")]}, []),
        ({"tags": [tag("Kind", "a")]}, [4, 2, 0]),
        ({"tags": [tag("Kind", "a"), tag("N", "2", "3")]}, [2]),
        ({"tags": [tag("Kind", "a", op="NEQ")]}, [5, 3, 1]),
        ({"tags": [tag("N", "0", "1", "9")]}, [1, 0]),
        ({"tags": [tag("N", "a")]}, []),
        ({"tags": [tag("Kind", "2")]}, []),
        ({"tags": [tag("N", "1"), tag("Kind", "a", op="NEQ")], "owners": [ME]}, [1]),
        ({"tags": [tag("N", "' or 1=1 --")]}, []),
        ({"block": {"min": 3}}, [5, 4, 3, 2]),
        ({"block": {"min": 2, "max": 3}}, [2, 1]),
        ({"recipients": [name_of(b"x")]}, []),
        ({"bundledIn": [name_of(b"x")]}, []),
    ],
)
async def test_the_index_answers_what_is_asked(client, listed, wanted, numbers):
    assert await found(client, **wanted) == [listed[n] for n in numbers]


async def test_entries_are_found_by_id(client, listed):
    assert await found(client, ids=[listed[1], listed[4], name_of(b"x")]) == [listed[4], listed[1]]


async def test_one_entry_is_asked_for_by_id(client, listed):
    query = f'{{ a: transaction(id: "{listed[2]}") {{ id }} b: transaction(id: "x") {{ id }} }}'
    _, text = await post_json(client, "/graphql", {"query": query})
    assert json.loads(text) == {"data": {"a": {"id": listed[2]}, "b": None}}


@pytest.mark.parametrize("sort", ["HEIGHT_ASC", "HEIGHT_DESC"])
async def test_pages_follow_one_another_without_a_gap(client, listed, sort):
    names, after = [], None
    while True:
        page = await find(client, first=4, after=after, sort=sort)
        names += [edge["node"]["id"] for edge in page["edges"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["edges"][-1]["cursor"]
    assert names == (listed if sort == "HEIGHT_ASC" else listed[::-1])


async def test_a_page_has_at_most_a_hundred_entries(client, gateway):
    for n in range(101):
        gateway.post_item(make_item(SIGNER, b"%d" % n).raw)
    page = await find(client, first=5000)
    assert (len(page["edges"]), page["pageInfo"]["hasNextPage"]) == (100, True)


@pytest.mark.parametrize(
    "query",
    [
        "{",
        "{ transactions { nothing } }",
        "{ transactions(owners: 5) { edges { cursor } } }",
        "{" + " ".join(f"a{n}: transaction(id: 1) {{ id }}" for n in range(500)) + "}",
        "{" + "a {" * 300 + "a" + "}" * 301,
    ],
    ids=["torn", "no such field", "wrong type", "too many", "too deep"],
)
async def test_a_query_that_cannot_be_answered_is_refused(client, query):
    assert (await post_json(client, "/graphql", {"query": query}))[0] == 400


@pytest.mark.parametrize(
    "variables",
    [
        {"after": "?"},
        {"after": b64url(bytes(40) + b"\x01")[:-2] + "Zz"},
        {"tags": [tag("n", "v")] * 21},
        {"first": "many"},
        {"sort": "RANDOM"},
        {"tags": [{"name": "n"}]},
    ],
)
async def test_variables_that_make_no_sense_are_an_error(client, variables):
    status, text = await post_json(client, "/graphql", {"query": FIND, "variables": variables})
    assert status == 200
    assert json.loads(text)["errors"][0]["message"]


async def test_a_cursor_from_nowhere_is_the_end(client, listed):
    assert await found(client, after=b64url(b"\xff" * 40)) == []


# -- the app -------------------------------------------------------------------------------------


async def test_the_apps_thread_ends_with_it(gateway):
    def threads():
        return [t for t in threading.enumerate() if t.name.startswith("arweave-gateway")]

    async with TestClient(TestServer(gateway_app(gateway, token=TOKEN)), headers=TESTER) as client:
        for _ in range(3):
            await get(client, "/info")
        assert len(threads()) == 1
    assert threads() == []
    assert gateway.height() == 0  # the gateway itself stays open
