"""Transactions that come early wait, are counted, shown and kept, and run when the gap closes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.chain_processes import WEALTH
from support.embedded_chain import ANNE, BOB, CARL, RICH, transfer

from agentkit.embedded.chain import txpool
from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.mempool_rules import InvalidTransaction, decoded
from agentkit.embedded.chain.rpc import RpcFront
from agentkit.embedded.chain.store import Store
from agentkit.keys.messages import keccak
from agentkit.keys.signer import KeySigner


def ask(chain: Chain, method: str, *params: object) -> Any:
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    answer = RpcFront(chain).answer(request, trusted=True)
    assert isinstance(answer, dict)
    return answer["result"]


def refusal(chain: Chain, raw: bytes) -> str:
    request = {"id": 1, "method": "eth_sendRawTransaction", "params": ["0x" + raw.hex()]}
    answer: Any = RpcFront(chain).answer(request)
    assert "result" not in answer or answer["result"] == "0x" + keccak(raw).hex()
    return answer["error"]["message"] if "error" in answer else ""


def counts(chain: Chain, who: KeySigner = ANNE) -> tuple[int, int]:
    """The nonces that a sender is told: of what is in blocks, and with what waits."""
    return tuple(  # type: ignore[return-value]
        int(ask(chain, "eth_getTransactionCount", who.address, tag), 16)
        for tag in ("latest", "pending")
    )


def test_what_comes_early_runs_when_the_gap_closes(chain: Chain) -> None:
    raws = [transfer(n) for n in range(4)]
    for raw in (raws[3], raws[1], raws[2]):
        assert refusal(chain, raw) == ""
    assert (chain.number, counts(chain)) == (0, (0, 0))  # the gap is what comes next
    assert refusal(chain, raws[0]) == ""
    assert (chain.number, counts(chain)) == (4, (4, 4))
    assert [raw for n in range(1, 5) for _, raw in chain.raw_transactions(n)] == raws
    assert int(ask(chain, "eth_getBalance", BOB.address), 16) == WEALTH + 4


def test_senders_do_not_wait_for_one_another(chain: Chain) -> None:
    assert refusal(chain, transfer(1)) == ""
    assert refusal(chain, transfer(0, CARL)) == ""
    assert (counts(chain), counts(chain, CARL)) == ((0, 0), (1, 1))


def test_nonces_that_follow_are_counted_up_to_the_gap(chain: Chain) -> None:
    """A client that asks for its next nonce is told of the gap, or would never close it."""
    waiting = [decoded(transfer(n)) for n in (0, 1, 3)]
    for one in waiting:  # as after a kill between one block and the next
        chain._pool.add(one, one.encode())
    assert counts(chain) == (0, 2)


def test_a_waiting_transaction_is_shown_without_a_block(chain: Chain) -> None:
    raw = transfer(1, max_fee=10**10, max_tip=7)
    digest = "0x" + keccak(raw).hex()
    assert ask(chain, "eth_getTransactionByHash", digest) is None
    assert refusal(chain, raw) == ""
    shown = ask(chain, "eth_getTransactionByHash", digest)
    places = ("blockHash", "blockNumber", "transactionIndex")
    assert [shown[name] for name in places] == [None] * 3
    assert (shown["hash"], shown["from"], shown["nonce"]) == (digest, ANNE.address, "0x1")
    assert (shown["gasPrice"], shown["maxPriorityFeePerGas"]) == (hex(10**10), "0x7")
    assert ask(chain, "eth_getTransactionReceipt", digest) is None
    assert refusal(chain, transfer(0)) == ""
    mined = ask(chain, "eth_getTransactionByHash", digest)
    assert mined["blockNumber"] == "0x2"
    assert set(mined) == set(shown)
    assert ask(chain, "eth_getTransactionReceipt", digest)["status"] == "0x1"


def test_geths_words(chain: Chain) -> None:
    """Clients go by them."""
    early = transfer(2, max_fee=10**10, max_tip=100)
    assert refusal(chain, early) == ""
    assert refusal(chain, early) == "already known"
    assert refusal(chain, transfer(0)) == refusal(chain, transfer(0)) == ""  # mined: its hash
    assert refusal(chain, transfer(0, value=2)) == "nonce too low: next nonce 1, tx nonce 0"
    poor = transfer(3, value=2 * WEALTH)
    assert refusal(chain, poor) == "insufficient funds for gas * price + value"
    assert refusal(chain, transfer(3, gas=20_999)).startswith("intrinsic gas too low")
    assert refusal(chain, transfer(3, gas=30_000_001)) == "exceeds block gas limit"
    cheap = transfer(3, max_fee=1, max_tip=0)
    assert refusal(chain, cheap) == "max fee per gas less than block base fee"
    assert refusal(chain, transfer(3, chain_id=1)).startswith("invalid chain id")
    large = transfer(3, data=bytes(txpool.LARGEST), gas=2_000_000)
    assert refusal(chain, large).startswith("oversized data")


@pytest.mark.parametrize(
    ("fee", "tip", "reason"),
    [
        (11 * 10**9, 110, ""),
        (11 * 10**9 - 1, 110, "replacement transaction underpriced"),
        (11 * 10**9, 109, "replacement transaction underpriced"),
        (10**10, 100, "replacement transaction underpriced"),
    ],
)
def test_a_tenth_more_takes_the_place(chain: Chain, fee: int, tip: int, reason: str) -> None:
    first = transfer(1, max_fee=10**10, max_tip=100)
    second = transfer(1, max_fee=fee, max_tip=tip, value=2)
    assert refusal(chain, first) == ""
    assert refusal(chain, second) == reason
    assert refusal(chain, transfer(0)) == ""
    kept, gone = (first, second) if reason else (second, first)
    assert chain.find(keccak(kept)) == (2, 0)
    assert ask(chain, "eth_getTransactionByHash", "0x" + keccak(gone).hex()) is None


def test_the_pool_has_bounds(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpool, "MOST_OF_ONE", 3)
    monkeypatch.setattr(txpool, "MOST_IN_ALL", 5)
    for n in (1, 2, 3):
        assert refusal(chain, transfer(n)) == ""
    assert refusal(chain, transfer(4)) == "account limit exceeded"
    better = transfer(3, max_fee=2 * 10**10, max_tip=2)
    assert refusal(chain, better) == ""  # it takes a place that is there
    for n in (1, 2):
        assert refusal(chain, transfer(n, BOB)) == ""
    assert refusal(chain, transfer(3, BOB)) == "txpool is full"
    assert refusal(chain, transfer(0)) == ""
    assert refusal(chain, transfer(3, BOB)) == ""


def test_what_cannot_be_paid_in_its_turn_is_dropped(
    chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    """And what comes after it waits on, as at geth: its nonce is free again."""
    raws = [transfer(0, value=WEALTH - 10**15), transfer(1, value=WEALTH // 2), transfer(2)]
    for raw in raws[::-1]:
        assert refusal(chain, raw) == ""
    assert (chain.number, counts(chain)) == (1, (1, 1))
    assert "insufficient funds" in caplog.text
    assert ask(chain, "eth_getTransactionByHash", "0x" + keccak(raws[1]).hex()) is None
    assert refusal(chain, transfer(1)) == ""
    assert (chain.number, counts(chain)) == (3, (3, 3))


def test_whoever_was_told_the_hash_finds_it_after_a_restart(chain: Chain, path: Path) -> None:
    raws = [transfer(n) for n in (1, 2)]
    for raw in raws:
        assert refusal(chain, raw) == ""
    chain.close()
    again = Chain.open(path, rich={})
    for raw in raws:
        assert ask(again, "eth_getTransactionByHash", "0x" + keccak(raw).hex())
        assert refusal(again, raw) == "already known"
    assert refusal(again, transfer(0)) == ""
    assert again.number == 3
    assert again._store.waiting() == []
    again.close()


def test_what_was_outbid_does_not_come_back_after_a_restart(chain: Chain, path: Path) -> None:
    first, second = transfer(1), transfer(1, max_fee=2 * 10**10, max_tip=2)
    for raw in (first, second):
        assert refusal(chain, raw) == ""
    assert chain._store.waiting() == [second]
    chain.close()
    again = Chain.open(path, rich={})
    assert refusal(again, transfer(0)) == ""
    assert (again.find(keccak(first)), again.find(keccak(second))) == (None, (2, 0))
    again.close()


def test_a_restart_goes_on_where_a_kill_came_between_two_blocks(
    chain: Chain, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(chain, transfer(1)) == ""
    with monkeypatch.context() as killed:
        killed.setattr(Chain, "_execute_waiting", lambda *_: None)
        assert refusal(chain, transfer(0)) == ""
    assert (chain.number, counts(chain)) == (1, (1, 2))
    chain.close()
    again = Chain.open(path, rich={})
    assert (again.number, counts(again)) == (2, (2, 2))
    again.close()


def test_a_failing_disk_takes_nothing_into_the_pool(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "add_waiting", full)
        with pytest.raises(OSError, match="full"):
            chain.send(transfer(1))
    assert refusal(chain, transfer(0)) == ""
    assert (chain.number, counts(chain)) == (1, (1, 1))


def test_a_block_made_otherwise_uses_a_waiting_nonce_up(chain: Chain) -> None:
    late, other = transfer(1), transfer(1, value=9)
    assert refusal(chain, late) == ""
    chain.seal([decoded(transfer(0)), decoded(other)])
    assert refusal(chain, transfer(2)) == ""
    assert counts(chain) == (3, 3)
    assert ask(chain, "eth_getTransactionByHash", "0x" + keccak(late).hex()) is None
    with pytest.raises(InvalidTransaction, match="nonce too low"):
        chain.send(late)


def test_everybody_still_pays_in_the_end(chain: Chain) -> None:
    for nonce in (7, 3, 5, 1, 6, 2, 4, 0):
        for who in (ANNE, BOB, CARL):
            assert refusal(chain, transfer(nonce, who)) == ""
    assert [counts(chain, who) for who in (ANNE, BOB, CARL)] == [(8, 8)] * 3
    assert {chain.number, len(RICH)} == {24, 5}
