"""The methods of the JSON-RPC: what clients of a plain node call, as plain functions.

Each takes the chain and the request's parameters, returns what is put on the wire and raises
Fault.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

from eth.abc import BlockHeaderAPI
from rlp import encode

from agentkit.embedded.chain import params, serializers, simulate
from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.fault import INVALID_PARAMS, REFUSED, REVERTED, Fault
from agentkit.embedded.chain.mempool_rules import InvalidTransaction
from agentkit.embedded.chain.serializers import Shape
from agentkit.embedded.chain.vm import CHAIN_ID, base_fee

TIP = 10**9
"""What is suggested as a tip, in wei per gas; there is nobody to compete with."""

_MOST_BLOCKS = 1024

Method = Callable[..., Any]
METHODS: dict[str, Method] = {}
"""All there are, by the names they have on the wire."""


def _answers(name: str) -> Callable[[Method], Method]:
    def keep(method: Method) -> Method:
        METHODS[name] = method
        return method

    return keep


@_answers("eth_chainId")
def _chain_id(chain: Chain) -> str:
    return hex(CHAIN_ID)


@_answers("net_version")
def _net_version(chain: Chain) -> str:
    return str(CHAIN_ID)


@_answers("web3_clientVersion")
def _client_version(chain: Chain) -> str:
    return "agentkit-embedded/1"


@_answers("eth_blockNumber")
def _block_number(chain: Chain) -> str:
    return hex(chain.number)


# -- accounts ------------------------------------------------------------------------------------


@_answers("eth_getBalance")
def _get_balance(chain: Chain, address: object, tag: object = None) -> str:
    state = chain.state(params.header(chain, tag))
    return hex(state.get_balance(params.address(address)))


@_answers("eth_getTransactionCount")
def _get_transaction_count(chain: Chain, address: object, tag: object = None) -> str:
    if tag == "pending":
        return hex(chain.next_nonce(params.address(address)))
    state = chain.state(params.header(chain, tag))
    return hex(state.get_nonce(params.address(address)))


@_answers("eth_getCode")
def _get_code(chain: Chain, address: object, tag: object = None) -> str:
    state = chain.state(params.header(chain, tag))
    return serializers.data(state.get_code(params.address(address)))


# -- calls ---------------------------------------------------------------------------------------


@_answers("eth_call")
def _call(chain: Chain, wanted: object, tag: object = None) -> str:
    at = params.execution_header(chain, tag)
    try:
        return serializers.data(simulate.call(chain, params.call(wanted), at))
    except simulate.CallFailed as failed:
        raise _fault_of(failed) from failed


@_answers("eth_estimateGas")
def _estimate_gas(chain: Chain, wanted: object, tag: object = None) -> str:
    at = params.execution_header(chain, tag)
    try:
        return hex(simulate.estimate(chain, params.call(wanted), at))
    except simulate.CallFailed as failed:
        raise _fault_of(failed) from failed


def _fault_of(failed: simulate.CallFailed) -> Fault:
    if failed.returned is None:
        return Fault(REFUSED, str(failed))
    return Fault(REVERTED, str(failed), serializers.data(failed.returned))


# -- fees ----------------------------------------------------------------------------------------


@_answers("eth_gasPrice")
def _gas_price(chain: Chain) -> str:
    return hex(base_fee(chain.next_header()) + TIP)


@_answers("eth_maxPriorityFeePerGas")
def _max_priority_fee(chain: Chain) -> str:
    return hex(TIP)


@_answers("eth_feeHistory")
def _fee_history(chain: Chain, count: object, newest: object, percentiles: object = None) -> Shape:
    """Answer `eth_feeHistory`: base fees, how full blocks were, and one tip for all percentiles."""
    if percentiles is not None and not _are_percentiles(percentiles):
        raise Fault(INVALID_PARAMS, "percentiles are a list of at most 100 numbers")
    last = min(params.block_number(chain, newest), chain.number)
    wanted = min(count if isinstance(count, int) else params.quantity(count), _MOST_BLOCKS)
    first = max(0, last + 1 - wanted)
    headers = [params.header(chain, hex(number)) for number in range(first, last + 1)]
    following = chain.header(last + 1) or chain.next_header()
    history: Shape = {
        "oldestBlock": hex(first),
        "baseFeePerGas": [hex(base_fee(h)) for h in (*headers, following)],
        "gasUsedRatio": [h.gas_used / h.gas_limit for h in headers],
    }
    if percentiles:
        history["reward"] = [[hex(TIP)] * len(percentiles) for _ in headers]
    return history


def _are_percentiles(value: object) -> TypeGuard[list[float]]:
    return isinstance(value, list) and len(value) <= 100 and all(map(_is_number, value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# -- blocks and transactions ---------------------------------------------------------------------


@_answers("eth_getBlockByNumber")
def _get_block_by_number(chain: Chain, tag: object, full: object = False) -> Shape | None:
    found = chain.header(params.block_number(chain, tag))
    return None if found is None else _block(chain, found, full is True)


@_answers("eth_getBlockByHash")
def _get_block_by_hash(chain: Chain, digest: object, full: object = False) -> Shape | None:
    found = chain.header_by_hash(params.data(digest, 32))
    return None if found is None else _block(chain, found, full is True)


def _block(chain: Chain, header: BlockHeaderAPI, full: bool) -> Shape:
    """Return a block as JSON-RPC has it, with its transactions in full or by their hashes."""
    held = chain.raw_transactions(header.block_number)
    size = len(encode(header)) + sum(len(raw) for _, raw in held)
    if not full:
        return serializers.block(header, size, [serializers.data(digest) for digest, _ in held])
    sent = chain.transactions(header.block_number)
    return serializers.block(
        header, size, [serializers.transaction(header, *one) for one in enumerate(sent)]
    )


@_answers("eth_getTransactionByHash")
def _get_transaction_by_hash(chain: Chain, digest: object) -> Shape | None:
    """Answer `eth_getTransactionByHash`; one that waits has a block of null."""
    place = chain.find(params.data(digest, 32))
    if place is None:
        waiting = chain.waiting(params.data(digest, 32))
        return None if waiting is None else serializers.waiting_transaction(waiting)
    number, position = place
    header = params.header(chain, hex(number))
    return serializers.transaction(header, position, chain.transactions(number)[position])


@_answers("eth_getTransactionReceipt")
def _get_transaction_receipt(chain: Chain, digest: object) -> Shape | None:
    """Answer `eth_getTransactionReceipt`; null for a transaction that is not there."""
    place = chain.find(params.data(digest, 32))
    if place is None:
        return None
    number, position = place
    header = params.header(chain, hex(number))
    sent = chain.transactions(number)[position]
    return serializers.receipt(
        header, position, sent, chain.receipts(header), chain.logs(number, number)
    )


@_answers("eth_getLogs")
def _get_logs(chain: Chain, wanted: object) -> list[Shape]:
    sought = params.log_filter(chain, wanted)
    found = chain.logs(sought.first, sought.last, sought.addresses, sought.topics)
    return [serializers.log(entry) for entry in found]


@_answers("eth_sendRawTransaction")
def _send_raw_transaction(chain: Chain, raw: object) -> str:
    try:
        return serializers.data(chain.send(params.data(raw)))
    except InvalidTransaction as error:
        raise Fault(REFUSED, str(error)) from error


# -- for tests -----------------------------------------------------------------------------------


@_answers("evm_increaseTime")
def _increase_time(chain: Chain, seconds: object) -> str:
    """Set the clock ahead for all blocks to come; returns by how much it now is."""
    by = seconds if isinstance(seconds, int) else params.quantity(seconds)
    if by < 0:
        raise Fault(INVALID_PARAMS, "time does not go back")
    return hex(chain.advance(by))


@_answers("evm_mine")
def _mine(chain: Chain) -> str:
    """Add a block with nothing in it."""
    chain.seal([])
    return "0x0"
