"""What a transaction must be like to get a block, and the words a node refuses it with.

Clients go by these words, so they are the ones other nodes use, geth's before all.
"""

from __future__ import annotations

from eth.abc import BlockHeaderAPI, SignedTransactionAPI, StateAPI
from eth.exceptions import PyEVMError
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException

from agentkit.embedded.chain.vm import CHAIN_ID, SameSecondVM, base_fee


class InvalidTransaction(Exception):
    """A transaction no block can hold.  It left no trace."""


def decoded(raw: bytes) -> SignedTransactionAPI:
    """Return the transaction that `raw` encodes; raises InvalidTransaction."""
    try:
        transaction = SameSecondVM.get_transaction_builder().decode(raw)
        transaction.validate()
        transaction.check_signature_validity()
    except (RLPException, ValidationError, PyEVMError, TypeError, ValueError) as error:
        raise InvalidTransaction(f"not a transaction: {error}") from error
    return transaction


def admit(transaction: SignedTransactionAPI, state: StateAPI) -> int:
    """Return how many nonces are still missing before a transaction; with 0 it comes next.

    Raises InvalidTransaction if it can never be executed on `state` or after it.
    """
    if transaction.chain_id != CHAIN_ID:
        raise InvalidTransaction(f"invalid chain id {transaction.chain_id}, this is {CHAIN_ID}")
    if transaction.max_priority_fee_per_gas > transaction.max_fee_per_gas:
        raise InvalidTransaction("max priority fee per gas higher than max fee per gas")
    following = state.get_nonce(transaction.sender)
    if transaction.nonce < following:
        raise InvalidTransaction(
            f"nonce too low: next nonce {following}, tx nonce {transaction.nonce}"
        )
    cost = transaction.gas * transaction.max_fee_per_gas + transaction.value
    if state.get_balance(transaction.sender) < cost:
        raise InvalidTransaction("insufficient funds for gas * price + value")
    return int(transaction.nonce - following)


def check_waiting(transaction: SignedTransactionAPI, header: BlockHeaderAPI) -> None:
    """Raise InvalidTransaction for a transaction that the block of `header` could not hold.

    One that comes next is executed, which shows the same; one that has to wait is asked first.
    """
    if transaction.gas > header.gas_limit:
        raise InvalidTransaction("exceeds block gas limit")
    if transaction.gas < transaction.intrinsic_gas:
        raise InvalidTransaction(
            f"intrinsic gas too low: gas {transaction.gas}, "
            f"minimum needed {transaction.intrinsic_gas}"
        )
    if transaction.max_fee_per_gas < base_fee(header):
        raise InvalidTransaction("max fee per gas less than block base fee")
