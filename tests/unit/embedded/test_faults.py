"""The switches of the test bench: each does what it says, and is counted."""

from support.bare_gateway import SIGNER, listed, names

from agentkit.embedded.gateway import Faults, Gateway
from agentkit.memory.arweave.ans104 import make_item

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


def test_a_share_is_dropped_by_chance(weave):
    weave.set_faults(Faults(drop_rate=0.5))
    for n in range(40):
        weave.post_item(make_item(SIGNER, b"%d" % n).raw)
    assert 10 < len(names(weave)) < 30
    assert len(names(weave)) + weave.bench.reached["drop"] == 40


def test_the_rhythm_of_blocks_is_changed_at_once(weave, clock):
    clock.now += 10**6
    weave.set_faults(Faults(block_seconds=120))
    item = make_item(SIGNER, b"slow")
    height = weave.height()
    weave.post_item(item.raw)
    assert (weave.height(), weave.status(item.id).height) == (height, None)
    clock.now += 120
    assert weave.status(item.id).height == height + 1


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
