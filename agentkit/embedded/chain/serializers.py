"""How blocks, transactions, receipts and logs look in Ethereum's JSON-RPC.

Quantities are hex without leading zeros, data is hex of whole bytes
(https://ethereum.github.io/execution-apis).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eth.abc import BlockHeaderAPI, ReceiptAPI, SignedTransactionAPI

from agentkit.embedded.chain.store import LogEntry
from agentkit.embedded.chain.vm import CHAIN_ID, base_fee, contract_address
from agentkit.keys.messages import checksummed

Shape = dict[str, Any]


def data(value: bytes) -> str:
    """Return bytes in hex."""
    return "0x" + value.hex()


def address(value: bytes) -> str | None:
    """Return an address in mixed case, None for the receiver of a creation."""
    return checksummed(data(value)) if value else None


def _bloom(value: int) -> str:
    return data(value.to_bytes(256, "big"))


def block(header: BlockHeaderAPI, size: int, transactions: list[str] | list[Shape]) -> Shape:
    """Return a block of `size` bytes with its transactions, or only their hashes."""
    return {
        "number": hex(header.block_number),
        "hash": data(header.hash),
        "parentHash": data(header.parent_hash),
        "nonce": data(header.nonce),
        "sha3Uncles": data(header.uncles_hash),
        "logsBloom": _bloom(header.bloom),
        "transactionsRoot": data(header.transaction_root),
        "stateRoot": data(header.state_root),
        "receiptsRoot": data(header.receipt_root),
        "miner": address(header.coinbase),
        "difficulty": hex(header.difficulty),
        "extraData": data(header.extra_data),
        "size": hex(size),
        "gasLimit": hex(header.gas_limit),
        "gasUsed": hex(header.gas_used),
        "timestamp": hex(header.timestamp),
        "baseFeePerGas": hex(base_fee(header)),
        "mixHash": data(header.mix_hash),
        "transactions": transactions,
        "uncles": [],
    }


def transaction(header: BlockHeaderAPI, position: int, sent: SignedTransactionAPI) -> Shape:
    """Return a transaction that is in the block of `header`."""
    return _block_place(header, position) | _transaction(sent, _price(header, sent))


def waiting_transaction(sent: SignedTransactionAPI) -> Shape:
    """Return a transaction that no block has yet; its price is the most that it offers."""
    place = {"blockHash": None, "blockNumber": None, "transactionIndex": None}
    return place | _transaction(sent, sent.max_fee_per_gas)


def _transaction(sent: SignedTransactionAPI, price: int) -> Shape:
    """Return a transaction without the block that it is in."""
    kind = sent.type_id or 0
    shape: Shape = {
        "from": address(sent.sender),
        "to": address(sent.to),
        "hash": data(sent.hash),
        "type": hex(kind),
        "chainId": hex(CHAIN_ID),
        "nonce": hex(sent.nonce),
        "gas": hex(sent.gas),
        "gasPrice": hex(price),
        "value": hex(sent.value),
        "input": data(sent.data),
        "v": hex(sent.y_parity if kind else sent.y_parity + 2 * CHAIN_ID + 35),
        "r": hex(sent.r),
        "s": hex(sent.s),
    }
    if kind:
        shape["accessList"] = [_access(*entry) for entry in sent.access_list]
    if kind >= 2:
        shape["maxFeePerGas"] = hex(sent.max_fee_per_gas)
        shape["maxPriorityFeePerGas"] = hex(sent.max_priority_fee_per_gas)
    return shape


def receipt(
    header: BlockHeaderAPI,
    position: int,
    sent: SignedTransactionAPI,
    receipts: tuple[ReceiptAPI, ...],
    logs: Iterable[LogEntry],
) -> Shape:
    """Return the receipt of a transaction; `receipts` and `logs` are its whole block's."""
    own = receipts[position]
    before = receipts[position - 1].gas_used if position else 0
    created = None if sent.to else address(contract_address(sent.sender, sent.nonce))
    return {
        **_block_place(header, position),
        "from": address(sent.sender),
        "to": address(sent.to),
        "transactionHash": data(sent.hash),
        "type": hex(sent.type_id or 0),
        "status": hex(own.state_root == b"\x01"),
        "gasUsed": hex(own.gas_used - before),
        "cumulativeGasUsed": hex(own.gas_used),
        "effectiveGasPrice": hex(_price(header, sent)),
        "contractAddress": created,
        "logsBloom": _bloom(own.bloom),
        "logs": [log(entry) for entry in logs if entry.transaction_position == position],
    }


def log(entry: LogEntry) -> Shape:
    """Return a log."""
    return {
        "address": address(entry.address),
        "topics": [data(topic) for topic in entry.topics],
        "data": data(entry.data),
        "blockNumber": hex(entry.block),
        "blockHash": data(entry.block_hash),
        "transactionHash": data(entry.transaction_hash),
        "transactionIndex": hex(entry.transaction_position),
        "logIndex": hex(entry.position),
        "removed": False,
    }


def _block_place(header: BlockHeaderAPI, position: int) -> Shape:
    return {
        "blockHash": data(header.hash),
        "blockNumber": hex(header.block_number),
        "transactionIndex": hex(position),
    }


def _price(header: BlockHeaderAPI, sent: SignedTransactionAPI) -> int:
    """Return what was paid for a unit of gas, in wei."""
    tipped = base_fee(header) + sent.max_priority_fee_per_gas
    return min(sent.max_fee_per_gas, tipped)


def _access(touched: bytes, slots: Iterable[int]) -> Shape:
    return {
        "address": address(touched),
        "storageKeys": [data(slot.to_bytes(32, "big")) for slot in slots],
    }
