"""Whether the contract at the canonical address computes what we compute, asked without a cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentkit.keys.channel_messages import (
    ChannelConfig,
    ChannelVoucher,
    ClaimBatch,
    Refund,
)
from agentkit.keys.messages import Typed, typed_digest
from agentkit.market.batch_settlement import MIN_DELAY
from agentkit.market.chain import SETTLEMENT, ChainClient, Network
from agentkit.payments import abi
from agentkit.payments.channels import contract
from agentkit.payments.channels.contract import CONFIG

UNITS = 7
"""An amount that stands in the messages that are compared."""


@dataclass(frozen=True, slots=True)
class Question:
    """A view of the contract, and the words that it has to answer with."""

    name: str
    call: bytes
    expected: bytes


def questions(network: Network, payer: str, receiver: str) -> Sequence[Question]:
    """Return what is asked: ids and digests of a channel that nobody opened, and its state."""
    config = ChannelConfig(
        payer=payer,
        payer_authorizer=payer,
        receiver=receiver,
        receiver_authorizer=receiver,
        token=network.token,
        withdraw_delay=MIN_DELAY,
        salt=b"agentkit field".ljust(abi.WORD, b"\0"),
    )
    domain = network.settlement_domain
    channel = config.id(domain)
    claim = contract.Claim(
        config=config, channel=channel, ceiling=UNITS, signature=bytes(65), total=UNITS
    )

    def digest(message: Typed) -> bytes:
        return typed_digest(domain, message)

    id_call = abi.encode(f"getChannelId({CONFIG})", *config.words())
    voucher_call = abi.encode("getVoucherDigest(bytes32,uint128)", channel, UNITS)
    refund_call = abi.encode("getRefundDigest(bytes32,uint256,uint128)", channel, 0, UNITS)
    claims_call = contract.claim_digest_call([claim])
    return [
        Question("getChannelId", id_call, channel),
        Question("getVoucherDigest", voucher_call, digest(ChannelVoucher(channel, UNITS))),
        Question("getRefundDigest", refund_call, digest(Refund(channel, 0, UNITS))),
        Question("getClaimBatchDigest", claims_call, digest(ClaimBatch.of([claim.row]))),
        _nothing("channels", channel, words=2),
        _nothing("pendingWithdrawals", channel, words=2),
        _nothing("refundNonce", channel, words=1),
    ]


async def disagreements(chain: ChainClient, asked: Sequence[Question]) -> list[str]:
    """Return in sentences where the contract's answers are not ours; raises as ChainClient does."""
    found = []
    for question in asked:
        answer = await chain.call(SETTLEMENT, question.call)
        if answer != question.expected:
            found.append(
                f"{question.name} answers {answer[:64].hex() or 'nothing'},"
                f" and we compute {question.expected.hex()}"
            )
    return found


def _nothing(name: str, channel: bytes, *, words: int) -> Question:
    """Return the question for a state that is all zero on a channel that nobody opened."""
    return Question(name, abi.encode(f"{name}(bytes32)", channel), bytes(abi.WORD * words))
