"""The embedded chain keeps what it acknowledged, keeps the clock's time, and keeps out the rest."""

import itertools
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.chain_processes import KEYS, WEALTH
from support.embedded_chain import ANNE, BOB, CARL, NEXT_TIME, RICH, transfer
from support.timing import limit

from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.genesis import Deployed, deploy
from agentkit.embedded.chain.mempool_rules import InvalidTransaction, decoded
from agentkit.embedded.chain.rpc import RpcFront
from agentkit.embedded.chain.store import Store
from agentkit.embedded.chain.vm import GENESIS_TIME
from agentkit.errors import StoreUnavailable
from agentkit.keys.messages import keccak
from agentkit.keys.signer import KeySigner
from agentkit.payments.contracts import load


def ask(chain: Chain, method: str, *params: object) -> Any:
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    answer = RpcFront(chain).answer(request, trusted=True)
    assert isinstance(answer, dict)
    return answer["result"]


def facts(chain: Chain) -> dict[str, Any]:
    """All one can see of a chain."""
    return {
        "head": (chain.number, chain.hash, chain.timestamp, chain.head.state_root),
        "coins": [ask(chain, "eth_getBalance", address) for address in RICH],
        "nonces": [ask(chain, "eth_getTransactionCount", address) for address in RICH],
        "blocks": [ask(chain, "eth_getBlockByNumber", hex(n), True) for n in range(chain.number)],
        "logs": ask(chain, "eth_getLogs", {"fromBlock": "0x0"}),
    }


# -- what is kept --------------------------------------------------------------------------------


def test_a_new_chain_is_always_the_same_one(tmp_path: Path) -> None:
    heads = set()
    for name in ("one", "two"):
        chain = Chain.open(tmp_path / name, rich=RICH)
        heads.add((chain.hash, chain.number, chain.timestamp))
        chain.close()
    assert len(heads) == 1


def test_a_reopened_chain_is_where_it_was(chain: Chain, path: Path) -> None:
    at = deploy(chain, KEYS[0], {ANNE.address: 10**9})
    nonce = chain.state().get_nonce(bytes.fromhex(ANNE.address[2:]))
    for n in range(20):
        chain.send(transfer(nonce + n))
    before = facts(chain)
    assert len(before["logs"]) == 1
    chain.close()
    again = Chain.open(path, rich={})
    assert facts(again) == before
    assert deploy(again, KEYS[1], {BOB.address: 5}) == at
    again.send(transfer(nonce + 20))
    assert again.number == before["head"][0] + 1
    again.close()


def test_the_contracts_are_deployed_in_one_block(chain: Chain) -> None:
    at = deploy(chain, KEYS[0], {ANNE.address: 7, BOB.address: 8})
    assert chain.number == 1
    assert at == Deployed(
        *(chain.fact(name) or "" for name in ("token", "channels", "escrow", "anchor"))
    )
    for owner, units in ((ANNE, 7), (BOB, 8), (CARL, 0)):
        data = "0x70a08231" + "00" * 12 + owner.address[2:]
        assert int(ask(chain, "eth_call", {"to": at.token, "data": data}), 16) == units


def test_a_chain_of_an_older_version_gets_the_contract_it_lacks(chain: Chain) -> None:
    old = deploy(chain, KEYS[0], {ANNE.address: 7})
    with chain._store.block():
        chain._store.set_fact("escrow", "")
    at = deploy(chain, KEYS[0], {ANNE.address: 7})
    assert (at.token, at.channels) == (old.token, old.channels)
    assert at.escrow != old.escrow
    code = chain.state().get_code(bytes.fromhex(at.escrow[2:]))
    assert code[:1000] in load("TaskEscrow").bytecode
    data = "0x70a08231" + "00" * 12 + ANNE.address[2:]
    assert int(ask(chain, "eth_call", {"to": at.token, "data": data}), 16) == 7
    assert deploy(chain, KEYS[1], {}) == at
    assert chain.number == 2


def test_one_process_has_the_file(chain: Chain, path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="locked"):
        Chain.open(path, rich=RICH)
    chain.send(transfer(0))


def test_the_same_bytes_have_one_block(chain: Chain) -> None:
    raw = transfer(0)
    assert chain.send(raw) == chain.send(raw) == keccak(raw)
    assert chain.number == 1


def test_the_raw_transactions_are_kept(chain: Chain) -> None:
    raws = [transfer(n) for n in range(3)]
    for raw in raws:
        chain.send(raw)
    kept = [raw for n in range(1, 4) for _, raw in chain.raw_transactions(n)]
    assert kept == raws


def test_receipts_share_a_block_out(chain: Chain) -> None:
    deploy(chain, KEYS[0], {ANNE.address: 7, BOB.address: 8})
    block = ask(chain, "eth_getBlockByNumber", "latest", False)
    receipts = [ask(chain, "eth_getTransactionReceipt", sent) for sent in block["transactions"]]
    used = [int(receipt["gasUsed"], 16) for receipt in receipts]
    totals = [int(receipt["cumulativeGasUsed"], 16) for receipt in receipts]
    assert totals == list(itertools.accumulate(used))
    assert totals[-1] == int(block["gasUsed"], 16)
    assert [len(receipt["logs"]) for receipt in receipts] == [0, 0, 0, 0, 1, 1]
    logs = [log for receipt in receipts for log in receipt["logs"]]
    assert [log["logIndex"] for log in logs] == ["0x0", "0x1"]
    assert ask(chain, "eth_getLogs", {"blockHash": block["hash"]}) == logs
    assert [bool(receipt["contractAddress"]) for receipt in receipts] == [
        True,
        True,
        True,
        True,
        False,
        False,
    ]


# -- time ----------------------------------------------------------------------------------------


def test_block_times_follow_the_clock(chain: Chain) -> None:
    for n in range(300):
        chain.send(transfer(n))
        assert abs(time.time() - chain.timestamp) <= 2
    times = [header.timestamp for n in range(1, 301) if (header := chain.header(n))]
    assert times == sorted(times)
    assert len(set(times)) < 300


def test_a_clock_that_goes_back_does_not_take_the_chain_along(path: Path) -> None:
    clock = iter([GENESIS_TIME + 100, GENESIS_TIME + 50, GENESIS_TIME + 101])
    chain = Chain.open(path, rich=RICH, clock=lambda: next(clock))
    times = []
    for _ in range(3):
        chain.seal([])
        times.append(chain.timestamp - GENESIS_TIME)
    assert times == [100, 100, 101]
    chain.close()


def test_time_set_ahead_stays_ahead(path: Path) -> None:
    now = [GENESIS_TIME + 100]
    chain = Chain.open(path, rich=RICH, clock=lambda: now[0])
    assert ask(chain, "evm_increaseTime", 1000) == hex(1000)
    assert ask(chain, "evm_increaseTime", "0x1") == hex(1001)
    chain.close()
    chain = Chain.open(path, rich=RICH, clock=lambda: now[0])
    for later in (0, 5):
        now[0] += later
        chain.seal([])
        assert chain.timestamp == now[0] + 1001
    chain.close()


def test_a_call_is_judged_by_the_time_of_the_next_block(path: Path) -> None:
    now = [GENESIS_TIME + 100]
    chain = Chain.open(path, rich=RICH, clock=lambda: now[0])
    chain.seal([])
    now[0] += 3600
    assert int(ask(chain, "eth_call", {"data": NEXT_TIME}), 16) == now[0]
    assert int(ask(chain, "eth_call", {"data": NEXT_TIME}, "0x1"), 16) == now[0] - 3600
    chain.close()


# -- what leaves no trace ------------------------------------------------------------------------


def rows(path: Path) -> list[str]:
    """The whole file as SQL; it can be read only while no chain has it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        return list(db.iterdump())


@pytest.mark.parametrize(
    "changed",
    [
        {"nonce": 0, "value": 2},
        {"chain_id": 1},
        {"value": 2 * WEALTH},
        {"gas": 20_999},
        {"gas": 30_000_001},
        {"max_fee": 0, "max_tip": 0},
        {"max_fee": 10**9, "max_tip": 10**10},
        {"who": KeySigner(b"\x09" * 32)},
    ],
)
def test_an_invalid_transaction_leaves_no_trace(path: Path, changed: dict[str, Any]) -> None:
    def after(raws: list[bytes]) -> list[str]:
        chain = Chain.open(path, rich=RICH, clock=lambda: GENESIS_TIME + 1)
        for raw in raws:
            with pytest.raises(InvalidTransaction):
                chain.send(raw)
        chain.close()
        return rows(path)

    chain = Chain.open(path, rich=RICH, clock=lambda: GENESIS_TIME + 1)
    chain.send(transfer(0))
    chain.close()
    assert after([transfer(**{"nonce": 1, **changed})]) == after([])


def test_one_bad_transaction_takes_its_block_along(chain: Chain, path: Path) -> None:
    before = facts(chain)
    with pytest.raises(InvalidTransaction):
        chain.seal([decoded(transfer(0)), decoded(transfer(5))], {"token": "nowhere"})
    assert facts(chain) == before
    assert chain.fact("token") is None
    chain.send(transfer(0))
    assert ask(chain, "eth_getBalance", BOB.address) == hex(WEALTH + 1)


def test_a_failing_disk_leaves_the_chain_where_it_was(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = facts(chain)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "add_transaction", full)
        with pytest.raises(sqlite3.OperationalError):
            chain.send(transfer(0))
    assert facts(chain) == before
    chain.send(transfer(0))
    assert chain.number == 1


@pytest.mark.parametrize("cut", [0, 1, 50, 100])
def test_what_is_not_a_transaction_is_not_taken(chain: Chain, cut: int) -> None:
    raw = transfer(0)
    for broken in (raw[:cut], raw[:-1], raw + b"\x00", bytes([9]) + raw[1:]):
        with pytest.raises(InvalidTransaction):
            chain.send(broken)
    assert chain.number == 0


def test_calls_change_nothing(chain: Chain) -> None:
    before = facts(chain)
    call = {"from": ANNE.address, "to": BOB.address, "value": hex(5)}
    ask(chain, "eth_call", call)
    assert ask(chain, "eth_estimateGas", call) == hex(21_000)
    assert facts(chain) == before


# -- logs ----------------------------------------------------------------------------------------


def test_a_topic_of_any_value_has_to_be_there(chain: Chain) -> None:
    deploy(chain, KEYS[0], {ANNE.address: 7})
    topics: list[None] = []
    for found in (1, 1, 1, 1, 0):
        sought = {"fromBlock": "0x0", "topics": topics}
        assert len(ask(chain, "eth_getLogs", sought)) == found
        topics = [*topics, None]


def test_thousands_of_logs_are_found_fast(path: Path) -> None:
    from agentkit.embedded.chain.store import LogEntry

    store = Store(path)
    with store.block():
        for n in range(5000):
            address, topics = bytes([n % 5]) * 20, (bytes([n % 250]) * 32, bytes(32))
            store.add_log(LogEntry(n, 0, bytes(32), 0, bytes(32), address, topics, b""))
    start = time.perf_counter()
    found = list(store.logs(0, 5000, [bytes([3]) * 20], [[bytes([13]) * 32]]))
    assert time.perf_counter() - start < 0.5
    assert [entry.block for entry in found] == list(range(13, 5000, 250))
    assert [entry.block for entry in store.logs(10, 12)] == [10, 11, 12]
    store.close()


ENDLESS = "0x5b600056"
"""Creation code that jumps back to its beginning."""


@pytest.mark.parametrize("method", ["eth_call", "eth_estimateGas"])
@pytest.mark.parametrize(
    "gas",
    [
        None,
        pytest.param("0x1c9c380", marks=pytest.mark.lengthy),
        pytest.param("0xffffffffffffffff", marks=pytest.mark.lengthy),
    ],
)
def test_a_call_without_end_is_ended_soon(chain: Chain, method: str, gas: str | None) -> None:
    """It costs its caller nothing and holds the chain's only thread."""
    start = time.process_time()
    answer = RpcFront(chain).answer(
        {"id": 1, "method": method, "params": [{"data": ENDLESS, **({"gas": gas} if gas else {})}]}
    )
    assert "gas" in answer["error"]["message"].lower()  # type: ignore[index]
    assert answer["error"]["code"] == -32000  # type: ignore[index]
    assert time.process_time() - start < limit(3)


@pytest.mark.lengthy
def test_a_batch_of_calls_without_end_is_broken_off(chain: Chain) -> None:
    one = {"id": 1, "method": "eth_call", "params": [{"data": ENDLESS}]}
    answers: Any = RpcFront(chain).answer([one] * 100)
    assert [answer["error"]["code"] for answer in answers][-1] == -32005
    assert len(answers) == 100
    short: Any = RpcFront(chain).answer([{"id": 1, "method": "eth_chainId"}] * 1001)
    assert short["error"]["code"] == -32005


@pytest.mark.parametrize("number", ["0x7fffffffffffffff", "0x8000000000000000", "0x" + "f" * 64])
def test_numbers_that_no_block_has_are_answered(chain: Chain, number: str) -> None:
    assert ask(chain, "eth_getBlockByNumber", number, False) is None
    assert ask(chain, "eth_getLogs", {"fromBlock": number, "toBlock": number}) == []
    assert isinstance(ask(chain, "eth_getLogs", {"fromBlock": "0x0", "toBlock": number}), list)
    history = ask(chain, "eth_feeHistory", "0x2", number, [50])
    assert history["oldestBlock"] == hex(max(0, chain.number - 1))


@pytest.mark.parametrize("percentiles", [True, 5, 0.5, "x", ["x"], [[]], [True], [1] * 101])
def test_odd_percentiles_are_the_askers_fault(chain: Chain, percentiles: object) -> None:
    request = {"id": 1, "method": "eth_feeHistory", "params": ["0x2", "latest", percentiles]}
    answer: Any = RpcFront(chain).answer(request)
    assert answer["error"]["code"] == -32602
