"""The switches of the test bench: each does what it says, and is counted."""

import json

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from agentkit.embedded.gateway import Failure, Faults, Gateway, gateway_app
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave.ans104 import BUNDLE_TAGS, make_bundle, make_item
from agentkit.memory.arweave.base64url import b64url
from agentkit.memory.arweave.jwk import JwkWallet, make_jwk
from agentkit.memory.arweave.layer1 import make_transaction

SIGNER = KeySigner(bytes(range(1, 33)))
LIST = (
    "query($i: [ID!]) { transactions(ids: $i, first: 100, sort: HEIGHT_ASC) {"
    " edges { node { id tags { name value } block { height } } } } }"
)


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def wallet():
    return JwkWallet(make_jwk())


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def weave(tmp_path, clock):
    gateway = Gateway.open(tmp_path, clock=clock)
    yield gateway
    gateway.close()


@pytest.fixture
async def client(weave):
    server = TestServer(gateway_app(weave, token="t"))
    async with TestClient(server, headers={"Authorization": "Bearer t"}) as client:
        yield client


@pytest.fixture
def items(weave):
    made = [make_item(SIGNER, b"item %d" % n, [("N", str(n))]) for n in range(4)]
    for item in made:
        weave.post_item(item.raw)
    return made


def listed(weave, *names):
    answer = weave.query(LIST, {"i": list(names) or None})
    return [edge["node"] for edge in answer["data"]["transactions"]["edges"]]


def names(weave):
    return [node["id"] for node in listed(weave)]


def bundled(weave, wallet, items):
    """Post a bundle on layer 1 and return its transaction."""
    data = make_bundle(items)
    terms = {"anchor": weave.anchor(), "reward": weave.price(len(data))}
    tx, _ = make_transaction(wallet, data, BUNDLE_TAGS, **terms)
    weave.post_transaction(json.dumps({**tx.document(), "data": b64url(data)}).encode())
    return tx


# -- lies ----------------------------------------------------------------------------------------


def test_the_newest_are_hidden_wherever_one_looks(weave, items):
    weave.set_faults(Faults(hide_newest=2))
    assert names(weave) == [item.id for item in items[:2]]
    assert [weave.data(item.id) is None for item in items] == [False, False, True, True]
    assert weave.status(items[3].id) is None
    weave.set_faults(Faults())
    assert len(names(weave)) == 4
    assert weave.bench.reached["hide"] > 0


def test_ids_are_hidden_and_the_pages_stay_whole(weave, items):
    weave.set_faults(Faults(hide={items[1].id}))
    assert names(weave) == [items[n].id for n in (0, 2, 3)]
    weave.set_faults(Faults(hide={"*"}))
    assert names(weave) == []


def test_data_is_flipped_cut_swapped_and_withheld(weave, items):
    one, two, three, four = items
    weave.set_faults(
        Faults(flip={one.id}, cut={two.id}, swap={three.id: one.id}, without_data={four.id})
    )
    served = [weave.data(item.id) for item in items]
    assert served[0] != one.data
    assert len(served[0]) == len(one.data)
    assert served[1:] == [two.data[:-1], served[2], None]
    assert served[2] == one.data  # of the other one, and not flipped under this name
    assert len(names(weave)) == 4
    assert {
        "flip": 1,
        "cut": 1,
        "swap": 1,
        "without_data": 1,
    }.items() <= weave.bench.reached.items()


def test_tags_are_forged(weave, items):
    weave.set_faults(Faults(forge={"N": "9"}))
    assert {tag["value"] for node in listed(weave) for tag in node["tags"]} == {"9"}
    assert weave.bench.reached["forge"] == 4


def test_lost_data_comes_back_when_it_is_posted_again(weave, items):
    weave.lose(items[0].id)
    assert weave.data(items[0].id) is None
    assert len(names(weave)) == 4
    assert weave.post_item(items[0].raw)[1] is False
    assert weave.data(items[0].id) == items[0].data


# -- blocks --------------------------------------------------------------------------------------


def test_these_are_dropped_and_the_money_goes_back(weave, wallet):
    weave.mint(wallet.address, 10**15)
    weave.set_faults(Faults(drop={"*"}))
    item = make_item(SIGNER, b"dropped with its bundle")
    tx = bundled(weave, wallet, [item])
    assert weave.status(tx.id) is None
    assert weave.dropped(tx.id) == "overspend"
    assert weave.balance(wallet.address) == 10**15
    assert names(weave) == []
    weave.set_faults(Faults())
    again = bundled(weave, wallet, [item])
    assert names(weave) == [again.id, item.id]
    assert weave.bench.reached["drop"] == 1


def test_a_share_is_dropped_by_chance(weave):
    weave.set_faults(Faults(drop_rate=0.5))
    for n in range(40):
        weave.post_item(make_item(SIGNER, b"%d" % n).raw)
    assert 10 < len(names(weave)) < 30
    assert len(names(weave)) + weave.bench.reached["drop"] == 40


def test_what_is_held_waits_until_its_anchor_is_too_old(weave, wallet):
    weave.mint(wallet.address, 10**15)
    weave.set_faults(Faults(hold={"*"}))
    tx = bundled(weave, wallet, [make_item(SIGNER, b"x")])
    for _ in range(50):
        weave.mine()
        assert weave.status(tx.id).height is None
    weave.mine()
    assert weave.status(tx.id) is None
    assert weave.dropped(tx.id) == "tx_bad_anchor"


def test_the_rhythm_of_blocks_is_changed_at_once(weave, clock):
    clock.now += 10**6
    weave.set_faults(Faults(block_seconds=120))
    item = make_item(SIGNER, b"slow")
    height = weave.height()
    weave.post_item(item.raw)
    assert (weave.height(), weave.status(item.id).height) == (height, None)
    clock.now += 120
    assert weave.status(item.id).height == height + 1


@pytest.mark.parametrize("keep", [False, True])
def test_a_reorg_undoes_the_newest_blocks(weave, wallet, items, keep):
    weave.mint(wallet.address, 10**15)
    bundle = bundled(weave, wallet, [make_item(SIGNER, b"in a bundle")])
    top, before = weave.height(), weave.block()
    assert weave.reorg(2, keep=keep) == top + 1
    assert weave.block() != before
    stays = [item.id for item in items[:3]]
    assert [n["id"] for n in listed(weave) if n["block"]] == stays
    assert (weave.balance(wallet.address) == 10**15) is not keep
    assert (weave.status(bundle.id) is not None) is keep
    if keep:
        weave.mine()
        assert len([n for n in listed(weave) if n["block"]]) == 6


def test_a_reorg_outlives_a_restart(weave, tmp_path, items):
    weave.reorg(3)
    known = [weave._blocks.hash_of(height) for height in range(6)]
    again = Gateway.open(tmp_path)
    assert [again._blocks.hash_of(height) for height in range(6)] == known
    again.close()


def test_a_price_spike(weave):
    usual = weave.price(1)
    weave.set_faults(Faults(price_times=50))
    assert weave.price(1) == 50 * usual


# -- answers -------------------------------------------------------------------------------------


async def post(client, item):
    octets = {"Content-Type": "application/octet-stream"}
    async with client.post("/v1/tx", data=item.raw, headers=octets) as response:
        return response.status, response.headers.get("Retry-After")


JSON = {"Content-Type": "application/json"}


async def switch(client, faults):
    async with client.post(
        "/bench/faults", data=faults.model_dump_json(), headers=JSON
    ) as response:
        assert response.status == 200, await response.text()


async def test_answers_fail_as_often_as_they_should(client, weave):
    failures = (
        Failure(path="/v1/tx", status=429, retry_after="7"),
        Failure(path="/v1", method="POST", status=402, times=2),
        Failure(path="/graphql"),
    )
    await switch(client, Faults(failures=failures))
    item = make_item(SIGNER, b"x")
    told = [await post(client, item) for _ in range(5)]
    assert told == [(429, "7"), (402, None), (402, None), (200, None), (202, None)]
    async with client.get("/bench/faults") as response:
        reached = (await response.json())["reached"]
    assert reached == {"fail /v1/tx": 1, "fail /v1": 2}


async def test_an_answer_is_lost_after_the_deed(client, weave):
    item, another = make_item(SIGNER, b"x"), make_item(SIGNER, b"y")
    lost = Failure(path="/v1/tx", status=0, done=True)
    await switch(client, Faults(failures=(lost, Failure(path="/v1/tx", status=0))))
    for sent, arrived in ((item, True), (another, False)):
        with pytest.raises(aiohttp.ClientError):
            await post(client, sent)
        assert (weave.status(sent.id) is not None) is arrived


async def test_the_bench_is_worked_over_http(client, weave, items):
    async with client.post("/bench/reorg/1") as response:
        assert await response.json() == {"height": 5}
    async with client.post(f"/bench/lose/{items[0].id}") as response:
        assert response.status == 200
    assert (len(names(weave)), weave.data(items[0].id)) == (3, None)
    async with client.post(
        "/bench/faults", data=b'{"no": "such switch"}', headers=JSON
    ) as response:
        assert response.status == 400
