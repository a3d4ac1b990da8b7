"""The rules blocks of the embedded chain obey: Ethereum's of the Prague upgrade, less one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from eth.abc import AtomicDatabaseAPI, BlockHeaderAPI, UnsignedTransactionAPI
from eth.chains.base import Chain
from eth.constants import (
    BLANK_ROOT_HASH,
    POST_MERGE_DIFFICULTY,
    POST_MERGE_MIX_HASH,
    POST_MERGE_NONCE,
    ZERO_ADDRESS,
)
from eth.vm.forks.prague import PragueVM
from eth.vm.forks.prague.transactions import PragueTransactionBuilder
from eth_typing import Address, BlockNumber
from rlp import encode

from agentkit.keys.messages import keccak

# Importing py-evm ends with a limit of 100,000 frames, at which deeply nested JSON overflows the C
# stack and kills the whole process.  This is what py-evm itself needs for 1,024 nested calls.
sys.setrecursionlimit(10_240)

CHAIN_ID = 1337
GAS_LIMIT = 30_000_000
GENESIS_TIME = 1_700_000_000


class SameSecondVM(PragueVM):
    """Prague, where blocks of one second may share its timestamp.

    A block follows each transaction, so the rule of a later timestamp would make the chain's time
    run ahead of the clock, and with it every expiry.
    """

    @classmethod
    def validate_header(cls, header: BlockHeaderAPI, parent_header: BlockHeaderAPI) -> None:
        if header.timestamp == parent_header.timestamp:
            header = header.copy(timestamp=header.timestamp + 1)
        super().validate_header(header, parent_header)


class EmbeddedEvm(Chain):
    """py-evm's chain under these rules."""

    chain_id = CHAIN_ID
    vm_configuration = ((BlockNumber(0), SameSecondVM),)


def start(db: AtomicDatabaseAPI, rich: Mapping[str, int], codes: Mapping[Address, bytes]) -> None:
    """Write block 0, in which the addresses of `rich` have so many wei, and contracts their code.

    A contract there has nonce 1, like every contract that was created by a transaction (EIP-161).
    """
    header: dict[str, Any] = {
        "coinbase": ZERO_ADDRESS,
        "difficulty": POST_MERGE_DIFFICULTY,
        "extra_data": b"",
        "gas_limit": GAS_LIMIT,
        "mix_hash": POST_MERGE_MIX_HASH,
        "nonce": POST_MERGE_NONCE,
        "receipt_root": BLANK_ROOT_HASH,
        "timestamp": GENESIS_TIME,
        "transaction_root": BLANK_ROOT_HASH,
    }
    accounts = {Address(bytes.fromhex(a[2:])): _account(wei) for a, wei in rich.items()}
    accounts |= {place: _account(0, code) for place, code in codes.items()}
    EmbeddedEvm.from_genesis(db, header, accounts)


def unsigned(
    *, nonce: int, to: bytes, data: bytes, gas: int, max_fee: int = 0, value: int = 0
) -> UnsignedTransactionAPI:
    """Return a transaction that gives no tip; without `to` it creates a contract."""
    return PragueTransactionBuilder.new_unsigned_dynamic_fee_transaction(
        chain_id=CHAIN_ID,
        nonce=nonce,
        max_priority_fee_per_gas=0,
        max_fee_per_gas=max_fee,
        gas=gas,
        to=Address(to),
        value=value,
        data=data,
        access_list=(),
    )


def base_fee(header: BlockHeaderAPI) -> int:
    """Return what gas costs in the block of `header`, tips apart, in wei."""
    return header.base_fee_per_gas or 0


def contract_address(creator: bytes, nonce: int) -> bytes:
    """Return where the contract lies that `creator` makes with transaction number `nonce`."""
    return keccak(encode([creator, nonce]))[-20:]


def _account(wei: int, code: bytes = b"") -> Any:
    return {"balance": wei, "nonce": 1 if code else 0, "code": code, "storage": {}}
