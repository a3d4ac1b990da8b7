"""The exactly-once sender against the embedded chain, over RPC, with faults on the way there."""

import pytest

from agentkit.payments.chain import is_known

SPELLINGS = [
    "already known",
    "AlreadyKnown",
    "ALREADY_EXISTS: already known",
    "Known transaction",
    "known transaction. transaction with hash 0xab is already in the system",
    "Transaction with the same hash was already imported.",
    "AlreadyImported",
    "existing tx with same hash",
    "tx already in mempool",
    "nonce too low: next nonce 2, tx nonce 1",
    "NonceTooLow",
    "OldNonce",
    "OwnNonceAlreadyUsed",
]


@pytest.mark.parametrize("said", SPELLINGS)
def test_every_client_says_in_its_own_words_that_it_has_the_bytes(said: str) -> None:
    assert is_known(f"the chain refuses: {said}")


@pytest.mark.parametrize(
    "said",
    ["insufficient funds for gas", "nonce too high", "unknown transaction type", "FeeTooLow"],
)
def test_a_refusal_is_not_taken_for_having_the_bytes(said: str) -> None:
    assert not is_known(f"the chain refuses: {said}")
