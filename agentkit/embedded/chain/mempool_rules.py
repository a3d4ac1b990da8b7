"""What a transaction must be like to get a block, and the words a node refuses it with.

Clients go by these words, so they are the ones other nodes use.
"""

from __future__ import annotations

from eth.abc import SignedTransactionAPI, StateAPI
from eth.exceptions import PyEVMError
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException

from agentkit.embedded.chain.vm import CHAIN_ID, SameSecondVM


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


def admit(transaction: SignedTransactionAPI, state: StateAPI) -> None:
    """Raise InvalidTransaction unless `transaction` can come next on `state`."""
    if transaction.chain_id != CHAIN_ID:
        raise InvalidTransaction(f"invalid chain id {transaction.chain_id}, this is {CHAIN_ID}")
    if transaction.max_priority_fee_per_gas > transaction.max_fee_per_gas:
        raise InvalidTransaction("max priority fee per gas higher than max fee per gas")
    nonce = state.get_nonce(transaction.sender)
    if transaction.nonce != nonce:
        which = "low" if transaction.nonce < nonce else "high"
        raise InvalidTransaction(f"nonce too {which}: {transaction.nonce}, next is {nonce}")
    cost = transaction.gas * transaction.max_fee_per_gas + transaction.value
    if state.get_balance(transaction.sender) < cost:
        raise InvalidTransaction("insufficient funds for gas * price + value")
