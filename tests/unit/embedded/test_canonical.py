"""Stock clients find their contracts on every chain: a new one, and one of an earlier version."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from eth_abi.abi import encode
from support.chain_processes import KEYS
from support.embedded_chain import ANNE, BOB, CARL

from agentkit.embedded.chain import canonical
from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.genesis import Deployed, deploy
from agentkit.embedded.chain.simulate import Call, CallFailed, call
from agentkit.embedded.chain.store import Store
from agentkit.embedded.chain.vm import CHAIN_ID, GENESIS_TIME
from agentkit.errors import StoreUnavailable
from agentkit.keys.messages import Domain, ReceiveAuthorization, UnsignedTransaction, keccak
from agentkit.keys.signer import KeySigner
from agentkit.payments.contracts import CANONICAL, load
from agentkit.payments.escrow.terms import AGREE

HOMES = Path(__file__).parents[2] / "homes"
PAYER, SHOP = BOB, CARL  # the keys that its maker used
TODAYS = {
    "TestUSD": "8a04099da28d67abf7fb7b1e67adb3f953d135705616a72ac2f2d8a12f79bdbb",
    "TaskEscrow": "5d1772f4c35496fe34f3f4576f84cd0028a9c87f6ae709ec4a6514120e8ced3b",
}
FORM = "address,address,uint256,uint256,uint256,bytes32"


@pytest.fixture
def figures() -> Any:
    return json.loads((HOMES / "chain.json").read_text())


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The file of a chain as the version before this one left it."""
    path = tmp_path / "chain.db"
    packed = (HOMES / "chain.zst").read_bytes()
    path.write_bytes(zstandard.ZstdDecompressor().decompress(packed))
    return path


def clock() -> float:
    return GENESIS_TIME + 2000


def opened(path: Path) -> Chain:
    return Chain.open(path, rich={}, clock=clock)


def place(address: str) -> Any:
    return bytes.fromhex(address[2:])


def ask(chain: Chain, to: str, signature: str, *arguments: Any) -> int:
    kinds = signature[signature.index("(") + 1 : -1].split(",")
    data = keccak(signature.encode())[:4] + encode([k for k in kinds if k], arguments)
    return int.from_bytes(call(chain, Call(to=place(to), data=data), chain.next_header()), "big")


def seen(chain: Chain, at: list[str]) -> dict[str, Any]:
    """What the figures of an old chain say, asked of this one."""
    token, channels = at[0], at[1]
    nonce = keccak(b"an authorization that was used")
    rich = [KeySigner(key).address for key in KEYS[:3]]
    return {
        "payer": ask(chain, token, "balanceOf(address)", PAYER.address),
        "shop": ask(chain, token, "balanceOf(address)", SHOP.address),
        "in_channels": ask(chain, token, "balanceOf(address)", channels),
        "supply": ask(chain, token, "totalSupply()"),
        "allowance": ask(chain, token, "allowance(address,address)", PAYER.address, channels),
        "authorization_used": ask(
            chain, token, "authorizationState(address,bytes32)", PAYER.address, nonce
        ),
        "coins": [str(chain.state().get_balance(place(one))) for one in rich],
        "nonces": [chain.state().get_nonce(place(one)) for one in rich],
    }


def test_a_new_chain_has_every_contract_from_its_beginning(chain: Chain) -> None:
    state = chain.state(chain.header(0))
    for name, address in CANONICAL.items():
        assert state.get_code(place(address)) == load(name).runtime
        assert state.get_nonce(place(address)) == 1
    assert chain.number == 0


def test_no_contract_is_longer_than_a_chain_takes() -> None:
    """EIP-170; and none has a constructor, or its runtime code could not stand for it."""
    for name in CANONICAL:
        built = load(name)
        assert 0 < len(built.runtime) <= 24_576
        assert built.bytecode.endswith(built.runtime) or built.runtime in built.bytecode


def test_an_old_chain_gets_the_contracts_in_one_block_and_keeps_the_rest(
    old: Path, figures: Any
) -> None:
    chain = opened(old)
    at = figures["deployed"]
    assert chain.number == figures["number"] + 1
    before = chain.header(figures["number"])
    assert before
    assert before.hash.hex() == figures["hash"]
    assert before.state_root.hex() == figures["state_root"]
    assert chain.head.parent_hash.hex() == figures["hash"]
    for name, address in CANONICAL.items():
        assert chain.state().get_code(place(address)) == load(name).runtime
        assert chain.state().get_nonce(place(address)) == 1
        assert chain.state(before).get_code(place(address)) == b""
    now = seen(chain, at)
    assert now == {name: figures[name] for name in now}
    assert "code of" in (chain.fact(f"irregular block {chain.number}") or "")
    assert deploy(chain, KEYS[0], {}) == Deployed(*at)
    chain.close()

    again = opened(old)  # and no second one
    assert (again.number, again.hash) == (chain.number, chain.hash)
    again.close()


def test_the_token_of_an_old_chain_takes_signatures_as_bytes(old: Path, figures: Any) -> None:
    """Its immutables and variables are where they were, so it is the same token."""
    chain = opened(old)
    token = figures["deployed"][0]
    code = chain.state().get_code(place(token))
    before = chain.state(chain.header(figures["number"])).get_code(place(token))
    assert code == load("TestUSD").runtime + before[-64:]
    assert ask(chain, token, "minter()") == int(ANNE.address, 16)
    given = ReceiveAuthorization(PAYER.address, SHOP.address, 5, GENESIS_TIME + 9999, bytes(32))
    signature = PAYER.sign_authorization(Domain("USD Coin", "1", CHAIN_ID, token), given)
    arguments = (PAYER.address, SHOP.address, 5, 0, GENESIS_TIME + 9999, bytes(32), signature)
    kinds = [*FORM.split(","), "bytes"]
    data = keccak(f"receiveWithAuthorization({FORM},bytes)".encode())[:4]
    data += encode(kinds, arguments)
    send(chain, SHOP, token, data)
    assert ask(chain, token, "balanceOf(address)", SHOP.address) == figures["shop"] + 5
    chain.close()


def test_the_escrow_of_an_old_chain_takes_both_words(old: Path, figures: Any) -> None:
    """Its domain is what it was; the new call finds no job, instead of no function."""
    chain = opened(old)
    escrow = Deployed(*figures["deployed"]).escrow
    code = chain.state().get_code(place(escrow))
    before = chain.state(chain.header(figures["number"])).get_code(place(escrow))
    assert code == load("TaskEscrow").runtime + before[-32:]
    domain = Domain("TaskEscrow", "1", CHAIN_ID, escrow)
    assert ask(chain, escrow, "DOMAIN_SEPARATOR()") == int.from_bytes(domain.separator, "big")
    signatures = 6 * bytes(32)
    data = keccak(AGREE.encode())[:4] + 12 * bytes(32) + 2 * bytes(32) + signatures
    wanted = Call(sender=place(SHOP.address), to=place(escrow), data=data)
    with pytest.raises(CallFailed) as failed:
        call(chain, wanted, chain.next_header())
    assert b"BadState" in failed.value.returned
    chain.close()


def test_the_same_call_fails_on_the_token_as_it_was(old: Path, figures: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canonical, "missing", lambda *_: ({}, {}))
        chain = opened(old)
    data = keccak(f"receiveWithAuthorization({FORM},bytes)".encode())[:4] + bytes(300)
    wanted = Call(sender=place(SHOP.address), to=place(figures["deployed"][0]), data=data)
    with pytest.raises(CallFailed) as failed:
        call(chain, wanted, chain.next_header())
    assert failed.value.returned == b""
    chain.close()


def send(chain: Chain, who: KeySigner, to: str, data: bytes) -> None:
    nonce = chain.state().get_nonce(place(who.address))
    plain = UnsignedTransaction(CHAIN_ID, nonce, to, data, 500_000, 10**10, 0)
    chain.send(who.sign_tx(plain)[1])
    (receipt,) = chain.receipts(chain.head)
    assert receipt.state_root == b"\x01"


@pytest.mark.parametrize("stop", ["set_fact", "__setitem__"])
def test_a_kill_in_the_irregular_block_leaves_the_chain_as_it_was(
    old: Path, figures: Any, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the block is in one transaction of the file: it is there whole, or not at all."""
    content = dump(old)

    class Killed(BaseException):
        pass

    reached = 0

    def kill(*_: object) -> None:
        nonlocal reached
        reached += 1
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Store, stop, kill)
        with pytest.raises(Killed):
            opened(old)
    assert reached == 1
    assert dump(old) == content
    chain = opened(old)
    assert chain.number == figures["number"] + 1
    assert seen(chain, figures["deployed"])["payer"] == figures["payer"]
    chain.close()


def dump(path: Path) -> list[str]:
    """The file's rows; the tables that a later version adds are there and empty."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        return [line for line in db.iterdump() if line.startswith("INSERT")]
    finally:
        db.close()


def test_a_token_that_is_neither_todays_nor_an_earlier_one_is_refused(old: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canonical, "_OWN", ())
        chain = opened(old)
    with pytest.raises(StoreUnavailable, match="TestUSD of another version"):
        deploy(chain, KEYS[0], {})
    chain.close()


def test_a_contract_of_tomorrow_replaces_todays(
    chain: Chain, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: Callable[[], dict[Any, bytes]] = canonical.codes
    changed = place(CANONICAL["Multicall3"])
    chain.close()
    monkeypatch.setattr(canonical, "codes", lambda: codes() | {changed: b"\x00"})
    again = opened(path)
    assert again.number == 1
    assert again.state().get_code(changed) == b"\x00"
    assert again.state().get_nonce(changed) == 1
    again.close()


def test_the_digests_of_earlier_contracts_are_those_of_the_golden_file(
    old: Path, figures: Any
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canonical, "missing", lambda *_: ({}, {}))
        chain = opened(old)
    at = Deployed(*figures["deployed"])
    for own in canonical._OWN:
        code = chain.state().get_code(place(getattr(at, own.fact)))
        assert hashlib.sha256(code[: -own.immutables]).hexdigest() in own.earlier
    chain.close()


@pytest.mark.parametrize("contract", TODAYS)
def test_a_changed_contract_needs_a_way_for_todays_chains(contract: str) -> None:
    """They note this digest, and are refused by a version that has another one."""
    assert hashlib.sha256(load(contract).bytecode).hexdigest() == TODAYS[contract], (
        f"list the sha256 of the runtime code that {contract} had in canonical._OWN"
    )
