"""What a node of a chain answers that no contract would: it is told as that, and ends nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agentkit.errors import ProtocolBroken
from agentkit.market.chain import ChainClient
from agentkit.payments import abi, legacy
from agentkit.payments.balance import token_balance
from agentkit.payments.channels.contract import channel_on, unsettled_on
from agentkit.payments.escrow.terms import state_of
from agentkit.payments.upto.contract import allowance, is_used
from agentkit.payments.x402 import proof
from agentkit.testing.fakes import NETWORK

PAYER = "0x" + "11" * 20
CHANNEL = "22" * 32
NETWORK_OF_OLD = NETWORK.model_copy(update={"channels": PAYER, "escrow": PAYER})
Look = Callable[[ChainClient], Awaitable[object]]
LOOKS: dict[str, Look] = {
    "the balance of the wallet": lambda chain: token_balance(chain, NETWORK, PAYER),
    "an authorization": lambda chain: proof.is_used(chain, NETWORK, PAYER, bytes(32)),
    "an allowance of Permit2": lambda chain: allowance(chain, NETWORK, PAYER),
    "a nonce of Permit2": lambda chain: is_used(chain, PAYER, 7),
    "a channel": lambda chain: channel_on(chain, bytes(32)),
    "a receiver": lambda chain: unsettled_on(chain, PAYER, PAYER),
    "an old channel": lambda chain: legacy.deposit_of(chain, NETWORK_OF_OLD, CHANNEL),
    "the end of an old channel": lambda chain: legacy.closing_at(chain, NETWORK_OF_OLD, CHANNEL),
    "a job in escrow": lambda chain: state_of(chain, NETWORK_OF_OLD, bytes(32)),
}


class Node:
    """A node that answers every call with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    async def call(self, to: str, data: bytes) -> bytes:
        return self.answer


@pytest.mark.parametrize("answer", [b"", b"\x01", bytes(31), bytes(32 * 9)])
@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
async def test_what_is_no_answer_of_the_contract_is_told_as_that(look: Look, answer: bytes) -> None:
    node: Any = Node(answer)
    with pytest.raises(ProtocolBroken, match="the chain answers with"):
        await look(node)


@pytest.mark.parametrize("word", [2**40, 2**128, 2**256 - 1])
async def test_a_time_and_an_amount_that_no_channel_has_are_told_as_that(word: int) -> None:
    """Whoever shows when the rest of a channel comes back would end in it."""

    answers = {
        "pendingWithdrawals(bytes32)": bytes(32) + word.to_bytes(32),
        "refundNonce(bytes32)": bytes(32),
        "channels(bytes32)": bytes(64),
    }
    by_selector = {abi.selector(function): answer for function, answer in answers.items()}

    class Lying:
        async def call(self, to: str, data: bytes) -> bytes:
            return by_selector[data[: abi.SELECTOR]]

    node: Any = Lying()
    with pytest.raises(ProtocolBroken, match="that cannot be"):
        await channel_on(node, bytes(32))
