"""The first block of a new chain: the test token, our contracts, and money to begin with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from eth.abc import SignedTransactionAPI
from eth_keys.datatypes import PrivateKey
from eth_typing import Address

from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.vm import base_fee, contract_address, unsigned
from agentkit.errors import StoreUnavailable
from agentkit.keys.messages import address_word, checksummed, keccak, word
from agentkit.payments.contracts import load

_CREATE_GAS = 4_000_000
_MINT_GAS = 120_000
_GIFT_GAS = 21_000
_MINT = keccak(b"mint(address,uint256)")[:4]
_CONTRACTS = {
    "token": "TestUSD",
    "channels": "AgentChannels",
    "escrow": "TaskEscrow",
    "anchor": "HeadAnchor",
}


@dataclass(frozen=True)
class Deployed:
    """Where the contracts of a chain are."""

    token: str
    channels: str
    escrow: str
    anchor: str


def deploy(chain: Chain, deployer_key: bytes, mint: Mapping[str, int]) -> Deployed:
    """Return where the contracts are; on a new chain, deploy them and mint first, in one block.

    `mint` is address to base units of the token.  The deployer has to be among the chain's rich,
    since it pays for the gas.  A chain that an older version began gets what it lacks and keeps
    what it has; one that has its contracts heeds neither key nor `mint`.  Raises StoreUnavailable
    for a chain with another version's contracts: they would refuse what this version signs.
    """
    known = {name: chain.fact(name) or "" for name in _CONTRACTS}
    codes = {name: _code_fact(name) for name in _CONTRACTS}
    for name, (fact, digest) in codes.items():
        if known[name] and chain.fact(fact) not in (None, digest):  # none: before that was noted
            raise StoreUnavailable(
                f"the embedded chain has the contract {_CONTRACTS[name]} of another version of"
                " agentkit",
                hint="start anew with `agentkit network reset`: all its money is test money",
            )
    if not all(known.values()):
        sealed = _Sender(chain, PrivateKey(deployer_key))
        made = [name for name, place in known.items() if not place]
        for name in made:
            known[name] = sealed.create(load(_CONTRACTS[name]).bytecode)
        for receiver, units in mint.items() if chain.fact("token") is None else ():
            sealed.call(known["token"], _MINT + address_word(receiver) + word(units))
        chain.seal(sealed.transactions, known | dict(codes[name] for name in made))
        assert all(receipt.state_root == b"\x01" for receipt in chain.receipts(chain.head))
    return Deployed(**known)


def endow(chain: Chain, key: bytes, receiver: str, wei: int) -> None:
    """Give an address so much of the coin, from the account of `key`, if it has none."""
    if chain.state().get_balance(Address(bytes.fromhex(receiver[2:]))):
        return
    sealed = _Sender(chain, PrivateKey(key))
    sealed.give(receiver, wei)
    chain.seal(sealed.transactions)


def _code_fact(name: str) -> tuple[str, str]:
    """Return under which name a chain notes which code a contract has, and what that is now."""
    return f"code of {name}", hashlib.sha256(load(_CONTRACTS[name]).bytecode).hexdigest()


class _Sender:
    """Signs what goes into one block, in order and at that block's price."""

    def __init__(self, chain: Chain, key: PrivateKey) -> None:
        self._key = key
        self._address = key.public_key.to_canonical_address()
        self._nonce = chain.state().get_nonce(Address(self._address))
        self._price = base_fee(chain.next_header())
        self.transactions: list[SignedTransactionAPI] = []

    def create(self, code: bytes) -> str:
        """Add the creation of a contract and return where it will be."""
        created = contract_address(self._address, self._nonce)
        self._add(b"", code, _CREATE_GAS)
        return checksummed(created.hex())

    def call(self, contract: str, data: bytes) -> None:
        self._add(bytes.fromhex(contract[2:]), data, _MINT_GAS)

    def give(self, receiver: str, wei: int) -> None:
        self._add(bytes.fromhex(receiver[2:]), b"", _GIFT_GAS, value=wei)

    def _add(self, to: bytes, data: bytes, gas: int, *, value: int = 0) -> None:
        bare = unsigned(
            nonce=self._nonce, to=to, data=data, gas=gas, max_fee=self._price, value=value
        )
        self.transactions.append(bare.as_signed_transaction(self._key))
        self._nonce += 1
