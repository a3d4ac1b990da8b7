import pytest
from support.bare_gateway import FIND, SIGNER

from agentkit.embedded.gateway import Gateway
from agentkit.memory.arweave.ans104 import make_item
from agentkit.memory.arweave.base64url import name_of, unb64url

# -- blocks --------------------------------------------------------------------------------------


def test_blocks_follow_the_clock(tmp_path, clock):
    gateway = Gateway.open(tmp_path, block_seconds=10, clock=clock)
    first = make_item(SIGNER, b"first")
    clock.now += 12  # height 1
    gateway.post_item(first.raw)
    assert gateway.status(first.id).height is None
    assert gateway.status(name_of(b"unknown")) is None
    clock.now += 7.9
    assert gateway.status(first.id).height is None
    clock.now += 0.1
    assert (gateway.status(first.id).height, gateway.status(first.id).confirmations) == (2, 1)
    clock.now += 170
    assert (gateway.status(first.id).confirmations, gateway.height()) == (18, 19)
    gateway.close()


def test_an_item_gets_the_block_of_its_own_time_however_late_one_looks(tmp_path, clock):
    gateway = Gateway.open(tmp_path, block_seconds=10, clock=clock)
    early, late = make_item(SIGNER, b"early"), make_item(SIGNER, b"late")
    gateway.post_item(early.raw)
    clock.now += 604_800  # a week, in which nobody asked
    gateway.post_item(late.raw)
    assert gateway.height() == 60_480
    assert gateway.status(early.id).height == 1
    assert gateway.status(late.id).height is None
    text = "query($i: ID!) { transaction(id: $i) { block { timestamp } } }"
    block = gateway.query(text, {"i": early.id})["data"]["transaction"]["block"]
    assert block["timestamp"] == 1_000_010
    gateway.close()


def test_a_clock_that_goes_back_takes_nothing_back(tmp_path, clock):
    gateway = Gateway.open(tmp_path, block_seconds=10, clock=clock)
    clock.now += 100
    item = make_item(SIGNER, b"data")
    gateway.post_item(item.raw)
    clock.now -= 90
    assert (gateway.height(), gateway.status(item.id).height) == (10, None)
    assert gateway.mine() == 11
    assert gateway.status(item.id).height == 11
    gateway.close()


def test_a_block_between_two_pages_hides_nothing(tmp_path, clock):
    gateway = Gateway.open(tmp_path, block_seconds=10, clock=clock)
    names = [gateway.post_item(make_item(SIGNER, b"%d" % n).raw)[0].id for n in range(6)]
    wanted = {"first": 3, "sort": "HEIGHT_ASC"}
    page = gateway.query(FIND, wanted)["data"]["transactions"]
    clock.now += 10
    later = {**wanted, "after": page["edges"][-1]["cursor"]}
    rest = gateway.query(FIND, later)["data"]["transactions"]
    told = [edge["node"]["id"] for edge in (*page["edges"], *rest["edges"])]
    assert told == names
    gateway.close()


def test_a_gateway_without_graphql_says_what_to_install(tmp_path, monkeypatch):
    from agentkit.embedded.gateway import gateway as module
    from agentkit.errors import MissingExtra

    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="graphql-core"):
        Gateway.open(tmp_path)


def test_the_reference_to_a_block_is_a_hash_of_48_bytes(gateway):
    seen = {gateway.block()} | {(gateway.mine(), gateway.block())[1] for _ in range(5)}
    assert len(seen) == 6
    assert {len(unb64url(anchor)) for anchor in seen} == {48}
