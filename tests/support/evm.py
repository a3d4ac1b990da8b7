"""Contracts on py-evm in this process, without blocks: fast, and at whatever time a test likes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eth.db.atomic import AtomicDB
from eth.exceptions import Revert
from eth.vm.spoof import SpoofTransaction
from eth_abi.abi import decode, encode

from agentkit.embedded.chain import canonical, vm
from agentkit.keys.messages import HALF_ORDER, Domain, address_word, checksummed, keccak, word
from agentkit.keys.signer import KeySigner
from agentkit.payments.contracts import CANONICAL, load

GAS = 15_000_000
ORDER = 2 * HALF_ORDER + 1
ERROR_STRING = keccak(b"Error(string)")[:4]


class Reverted(Exception):
    """The contract refused.  Its text is the reason."""


class Evm:
    """One state that calls change, under the chain's rules but for prices and nonces.

    `gas` and `logs` are of the last call that was done.
    """

    def __init__(self, chain_id: int = vm.CHAIN_ID) -> None:
        rules = type("Rules", (vm.EmbeddedEvm,), {"chain_id": chain_id})
        vm.start(db := AtomicDB(), {}, canonical.codes())
        evm = rules(db)
        self.chain_id = chain_id
        self.gas = 0
        self.logs: Sequence[tuple[bytes, list[int], bytes]] = ()
        self._state = evm.get_vm(evm.get_canonical_head()).state

    def stored(self, contract: str, slot: bytes) -> int:
        """Return a word of a contract's storage."""
        return int(self._state.get_storage(unhex(contract), int.from_bytes(slot)))

    @property
    def now(self) -> int:
        """The time of the block that every call is in; it can be set."""
        return int(self._state.timestamp)

    @now.setter
    def now(self, second: int) -> None:
        self._state.execution_context._timestamp = second

    def create(self, who: KeySigner, code: bytes) -> str:
        """Create a contract and return where it is; raises Reverted."""
        return checksummed("0x" + self._apply(who.address, b"", code).msg.storage_address.hex())

    def call(self, who: KeySigner, to: str, data: bytes) -> bytes:
        """Call a contract and return its answer; raises Reverted, and then nothing has changed."""
        return bytes(self._apply(who.address, unhex(to), data).output)

    def _apply(self, who: str, to: bytes, data: bytes) -> Any:
        bare = vm.unsigned(nonce=0, to=to, data=data, gas=GAS)
        transaction: Any = SpoofTransaction(bare, from_=unhex(who))
        executor = self._state.get_transaction_executor()
        done = executor.build_computation(executor.build_evm_message(transaction), transaction)
        self._state.lock_changes()  # as after a transaction: what was warm is cold again
        self._state.clear_transient_storage()
        if done.is_error and isinstance(done.error, Revert):
            raise Reverted(_reason(bytes(done.output)))
        done.raise_if_error()
        self.gas = GAS - done.get_gas_remaining()
        self.logs = done.get_log_entries()
        return done


@dataclass(frozen=True)
class Deployed:
    """A contract on a state, called by the names of its functions."""

    evm: Evm
    address: str
    abi: Any

    @classmethod
    def new(cls, evm: Evm, name: str, who: KeySigner) -> Deployed:
        """Deploy one of the package's contracts."""
        built = load(name)
        return cls(evm, evm.create(who, built.bytecode), built.abi)

    @classmethod
    def canonical(cls, evm: Evm, name: str) -> Deployed:
        """Return a contract that lies at its canonical address."""
        return cls(evm, CANONICAL[name], load(name).abi)

    def do(self, who: KeySigner, name: str, *arguments: Any) -> Any:
        """Call a function and return its answer, a tuple if there are several; raises Reverted."""
        answer = self.evm.call(who, self.address, self.data(name, *arguments))
        values = decode(kinds(self._entry(name)["outputs"]), answer)
        return values[0] if len(values) == 1 else values

    def data(self, name: str, *arguments: Any) -> bytes:
        """Return the bytes of a call."""
        inputs = kinds(self._entry(name)["inputs"])
        return keccak(f"{name}({','.join(inputs)})".encode())[:4] + encode(inputs, arguments)

    def refusal(self, who: KeySigner, name: str, *arguments: Any) -> str:
        """Return why a call is refused, "" when it was done."""
        try:
            self.do(who, name, *arguments)
        except Reverted as refused:
            return str(refused) or "no reason"
        return ""

    def said(self, name: str) -> list[dict[str, Any]]:
        """Return the events of a name in the last call, each as what it says by name."""
        entry = self._entry(name, "event")
        inputs = sorted(entry["inputs"], key=lambda given: not given["indexed"])
        topic = keccak(f"{name}({','.join(kinds(entry['inputs']))})".encode())
        found = []
        for address, topics, data in self.evm.logs:
            first, *indexed = (word(number) for number in topics)
            if address == unhex(self.address) and first == topic:
                values = decode(kinds(inputs), b"".join(indexed) + data)
                found.append(dict(zip((given["name"] for given in inputs), values, strict=True)))
        return found

    def domain(self, name: str) -> Domain:
        """Return where messages to this contract are signed."""
        return Domain(name, "1", self.evm.chain_id, self.address)

    def _entry(self, name: str, sort: str = "function") -> Any:
        return next(e for e in self.abi if e.get("name") == name and e["type"] == sort)


def _reason(data: bytes) -> str:
    """Return the reason in what a call reverted with: a text, or the name of an error."""
    if not data:
        return ""
    selector, arguments = data[:4], data[4:]
    if selector == ERROR_STRING:
        return str(decode(["string"], arguments)[0])
    return _error_names().get(selector, selector.hex())


@cache
def _error_names() -> dict[bytes, str]:
    """Return the names of all errors of the canonical contracts by their selectors."""
    errors = [e for name in CANONICAL for e in load(name).abi if e["type"] == "error"]
    return {
        keccak(f"{e['name']}({','.join(kinds(e['inputs']))})".encode())[:4]: e["name"]
        for e in errors
    }


def holds(token: Deployed, address: str) -> int:
    """Return a balance of TestUSD from its storage: in no time, unlike a call."""
    return token.evm.stored(token.address, keccak(word(1) + address_word(address)))


def kinds(inputs: Any) -> list[str]:
    """Return the types of an ABI's inputs as they stand in a signature."""
    return [_kind(given) for given in inputs]


def vrs(signature: bytes) -> tuple[int, bytes, bytes]:
    """Return a signature as contracts take it."""
    return signature[64], signature[:32], signature[32:64]


def other_forms(signature: bytes) -> list[tuple[int, bytes, bytes]]:
    """Return forms of a signature that must not count: high s, and v that is not 27 or 28."""
    v, r, s = vrs(signature)
    high = (ORDER - int.from_bytes(s, "big")).to_bytes(32, "big")
    odd = [(bad, r, s) for bad in (0, 1, v - 27, 26, 29, 255) if bad != v]
    return [(55 - v, r, high), (v, r, high), (v, s, r), (v, bytes(32), s), (v, r, bytes(32)), *odd]


def unhex(address: str) -> Any:
    """Return an address as bytes."""
    return bytes.fromhex(address[2:])


def _kind(given: Any) -> str:
    inner = f"({','.join(kinds(given['components']))})" if "components" in given else ""
    return str(given["type"].replace("tuple", inner)) if inner else str(given["type"])


ODD = {"answers false": 1, "takes a fee": 2, "returns nothing": 3, "forgives a used nonce": 4}
ODD |= {"calls first": 5, "calls last": 6}


def odd_token(evm: Evm, way: str, who: KeySigner) -> Deployed:
    """Deploy the token of `tokens/Odd.vy` that does one of the things in `ODD`."""
    abi, code = _test_contract("Odd")
    return Deployed(evm, evm.create(who, code + word(ODD[way])), abi)


WALLET_WAYS = ("is honest", "refuses", "reverts", "answers short", "answers dirty", "is silent")


def contract_wallet(evm: Evm, owner: KeySigner) -> Deployed:
    """Deploy the wallet of `tokens/Wallet.vy`, for which the key of `owner` signs (EIP-1271)."""
    abi, code = _test_contract("Wallet")
    return Deployed(evm, evm.create(owner, code + address_word(owner.address)), abi)


TOKENS = Path(__file__).parents[1] / "tokens"
"""Contracts for tests: sources, and beside them what `python -m support.evm` compiles them to."""


@cache
def _test_contract(name: str) -> tuple[Any, bytes]:
    built = json.loads((TOKENS / f"{name}.json").read_text("utf-8"))
    return built["abi"], bytes.fromhex(built["bytecode"][2:])


def _build() -> None:
    from agentkit.payments.contracts.build import compiled

    for source in TOKENS.glob("*.vy"):
        source.with_suffix(".json").write_text(compiled(source.stem, TOKENS), "utf-8")


if __name__ == "__main__":
    _build()
