"""The switches of the test bench: each does what it says, and is counted."""

import json

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from support.arweave_wallet import arweave_wallet
from support.bare_gateway import SIGNER, listed, names

from agentkit.embedded.gateway import Failure, Faults, gateway_app
from agentkit.memory.arweave.ans104 import BUNDLE_TAGS, make_bundle, make_item
from agentkit.memory.arweave.base64url import b64url
from agentkit.memory.arweave.layer1 import make_transaction


@pytest.fixture
def wallet():
    return arweave_wallet()


@pytest.fixture
async def client(weave):
    server = TestServer(gateway_app(weave, token="t"))
    async with TestClient(server, headers={"Authorization": "Bearer t"}) as client:
        yield client


def bundled(weave, wallet, items):
    """Post a bundle on layer 1 and return its transaction."""
    data = make_bundle(items)
    terms = {"anchor": weave.anchor(), "reward": weave.price(len(data))}
    tx, _ = make_transaction(wallet, data, BUNDLE_TAGS, **terms)
    weave.post_transaction(json.dumps({**tx.document(), "data": b64url(data)}).encode())
    return tx


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
