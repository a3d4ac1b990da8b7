"""The terms of a channel, and what payer and provider read about it on the chain.

The contract is `contracts/AgentChannels.vy`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache

from agentkit.errors import ProtocolBroken
from agentkit.journal import records as r
from agentkit.keys.messages import address_word, keccak, word
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.payments import abi

CLOSE_DELAY = 3600
"""Seconds a provider has left to claim after a payer asks to close alone."""

CLOSED = 2**40 - 1
"""The contract's `closingAt` of a closed channel: a time that never comes."""

CONFIG = "(address,address,address,address,uint40,bytes32)"
"""The contract's struct `Config`, in the notation of function signatures."""


@dataclass(frozen=True, slots=True)
class ChannelTerms:
    """The terms that identify a channel; vouchers are signed with the payer's own key."""

    payer: str
    payee: str
    token: str
    close_delay: int
    salt: str

    @classmethod
    def of(cls, row: r.Channel | r.BookedChannel, payee: str) -> ChannelTerms:
        """Return the terms of a stored channel."""
        return cls(
            payer=row.payer,
            payee=payee,
            token=row.token,
            close_delay=row.close_delay,
            salt=row.salt,
        )

    def words(self) -> tuple[bytes, ...]:
        """Return the terms as the contract's struct `Config`, one word for each field."""
        payer = address_word(self.payer)
        voucher_key = payer  # the contract allows another key; we sign with the payer's own
        return (
            payer,
            voucher_key,
            address_word(self.payee),
            address_word(self.token),
            word(self.close_delay),
            bytes.fromhex(self.salt),
        )

    def id(self, network: Network) -> str:
        """Return the channel's id on a network, as 64 hex digits."""
        return _channel_id(self, network.chain_id, network.channels)

    def call(self, function: str, *words: bytes | int | str) -> bytes:
        """Return the call data of a contract function that takes the terms first."""
        return abi.encode(function, *self.words(), *words)


# Cached, because every voucher on a channel arrives with the channel's terms.
@lru_cache(maxsize=1024)
def _channel_id(terms: ChannelTerms, chain_id: int, contract: str) -> str:
    """Return a channel's id as the contract's function `channelId` computes it."""
    return keccak(word(chain_id) + address_word(contract) + b"".join(terms.words())).hex()


@dataclass(frozen=True, slots=True)
class LoggedClaim:
    """A payment out of a channel, as the contract's event `Claimed` logs it; amounts in units."""

    amount: int
    cumulative: int
    tasks: int
    root: bytes

    @classmethod
    def of(cls, data: bytes) -> LoggedClaim:
        """Read the data of a `Claimed` log; raises ProtocolBroken unless it is four words."""
        words = abi.numbers(data)
        if len(words) != 4:
            raise ProtocolBroken("the chain shows a claim that cannot be read")
        amount, cumulative, tasks, root = words
        return cls(amount=amount, cumulative=cumulative, tasks=tasks, root=word(root))


# -- reading the chain ---------------------------------------------------------------------------


async def deposit_of(chain: ChainClient, network: Network, channel: str) -> tuple[int, int]:
    """Return (deposited, claimed) of a channel on the chain, in units."""
    data = abi.encode("channels(bytes32)", bytes.fromhex(channel))
    deposited, claimed = abi.numbers(await chain.call(network.channels, data))
    return deposited, claimed


async def closing_at(chain: ChainClient, network: Network, channel: str) -> int:
    """Return from when on anybody may finish the close of a channel, in unix seconds.

    0 if nobody asked for a close, `CLOSED` if the channel is closed already.
    """
    data = abi.encode("closingAt(bytes32)", bytes.fromhex(channel))
    return abi.numbers(await chain.call(network.channels, data))[0]


def logged(receipt: ChainReceipt, network: Network, topic: bytes, channel: str) -> list[bytes]:
    """Return the data of the contract's logs of one event about one channel, in their order.

    Any contract can write a log with the same topics, so only those of our contract count.
    `channel` may come from a stranger: it is compared as text, and need not be hex.
    """
    contract = network.channels.lower()
    return [
        log.data
        for log in receipt.logs
        if log.address.lower() == contract
        and log.topics[:1] == (topic,)
        and [t.hex() for t in log.topics[1:2]] == [channel]
    ]


def waiting_until(closes_at: int) -> str:
    """Return in words from when on the rest of a channel can be taken; `closes_at` as unix time."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(closes_at))
    return f"asked for on chain, comes back by `agentkit wallet close` from {when} on"
