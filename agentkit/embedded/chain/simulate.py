"""Executions that leave no trace: what a call would answer, and the gas it would need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from eth.abc import BlockHeaderAPI, ComputationAPI, SignedTransactionAPI
from eth.constants import ZERO_ADDRESS
from eth.exceptions import Revert, VMError
from eth.vm.forks.prague.state import PragueTransactionExecutor
from eth.vm.spoof import SpoofTransaction

from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.vm import unsigned

MAX_GAS = 5_000_000
"""Gas of the longest execution that leaves no trace: it costs its caller nothing, and us a second.

Real nodes have such a cap too; what our contracts' calls and their deployment need is below it.
"""

_ERROR_STRING = bytes.fromhex("08c379a0")  # selector of Error(string), what a reason is wrapped in


class CallFailed(Exception):
    """The call would fail.  `returned` is what it reverted with, None if it did not revert."""

    def __init__(self, message: str, returned: bytes | None) -> None:
        super().__init__(message)
        self.returned = returned


@dataclass(frozen=True, slots=True)
class Call:
    """What a transaction would do, unsigned and free of charge; without `to` it creates."""

    sender: bytes = ZERO_ADDRESS
    to: bytes = b""
    data: bytes = b""
    value: int = 0
    gas: int | None = None

    def transaction(self, limit: int) -> SignedTransactionAPI:
        """Return it as py-evm executes it: with `limit` gas, at no price."""
        bare = unsigned(nonce=0, to=self.to, data=self.data, gas=limit, value=self.value)
        return cast("SignedTransactionAPI", SpoofTransaction(bare, from_=self.sender))


def call(chain: Chain, wanted: Call, at: BlockHeaderAPI) -> bytes:
    """Return what `wanted` would answer in the block of `at`; raises CallFailed."""
    computation = _execute(chain, wanted, at, _limit(wanted, at))
    return _checked(computation).output


def estimate(chain: Chain, wanted: Call, at: BlockHeaderAPI) -> int:
    """Return gas with which `wanted` succeeds in the block of `at`; raises CallFailed."""
    most = _limit(wanted, at)
    used = most - _checked(_execute(chain, wanted, at, most)).get_gas_remaining()
    floor = PragueTransactionExecutor.calc_data_floor_gas(wanted.transaction(most), 0, 0)
    least = max(used, floor)  # the data alone has a price too (EIP-7623)
    # An inner call gets 63/64 of what is left, so what was used may be too little to be given.
    while least < most and _execute(chain, wanted, at, least).is_error:
        least = min(least + least // 64, most)
    return least


def _limit(wanted: Call, at: BlockHeaderAPI) -> int:
    """Return the gas that a call may use: what it asks for, within the block's limit and ours."""
    most = min(at.gas_limit, MAX_GAS)
    return min(wanted.gas or most, most)


def _execute(chain: Chain, wanted: Call, at: BlockHeaderAPI, limit: int) -> ComputationAPI:
    """Execute a call on the state of a block, which stays as it is; raises CallFailed."""
    transaction = wanted.transaction(limit)
    if limit < transaction.intrinsic_gas:
        raise CallFailed("intrinsic gas too low", None)
    executor = chain.state(at).get_transaction_executor()
    try:
        return executor.build_computation(executor.build_evm_message(transaction), transaction)
    except VMError as error:
        raise CallFailed(str(error), None) from error


def _checked(computation: ComputationAPI) -> ComputationAPI:
    """Return an execution that succeeded; raises CallFailed with the contract's own reason."""
    if not computation.is_error:
        return computation
    error = computation.error
    if isinstance(error, Revert):
        returned = computation.output
        reason = _reason(returned)
        raise CallFailed(f"execution reverted{reason and ': ' + reason}", returned)
    raise CallFailed(f"{type(error).__name__}: {error}", None)


def _reason(returned: bytes) -> str:
    if returned[:4] != _ERROR_STRING:
        return ""
    length = int.from_bytes(returned[36:68], "big")
    return returned[68 : 68 + length].decode(errors="replace")
