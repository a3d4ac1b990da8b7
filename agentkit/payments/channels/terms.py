"""What identifies a channel, and what both halves read of it on the chain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from agentkit.journal import records as r
from agentkit.keys.messages import address_word, keccak, word
from agentkit.market.chain import ChainClient, Network
from agentkit.payments import abi

CLOSE_DELAY = 3600
"""Seconds a provider has left to claim after a payer asks to close alone."""

CLOSED = 2**40 - 1
"""As the time of a channel's close: it is closed."""

CONFIG = "(address,address,address,address,uint40,bytes32)"


@dataclass(frozen=True, slots=True)
class Terms:
    """What identifies a channel; the voucher key is the payer itself."""

    payer: str
    payee: str
    token: str
    close_delay: int
    salt: str

    @classmethod
    def of(cls, row: r.Channel | r.BookedChannel, payee: str) -> Terms:
        return cls(row.payer, payee, row.token, row.close_delay, row.salt)

    def words(self) -> tuple[bytes, ...]:
        """Return the configuration as the contract takes it."""
        payer = address_word(self.payer)
        payee, token = address_word(self.payee), address_word(self.token)
        return payer, payer, payee, token, word(self.close_delay), bytes.fromhex(self.salt)

    def id(self, network: Network) -> str:
        """Return the channel's id on a network, as 64 hex digits."""
        return _id(self, network.chain_id, network.channels)


@lru_cache(maxsize=1024)
def _id(terms: Terms, chain_id: int, channels: str) -> str:
    """Return a channel's id; every voucher on it comes with its terms."""
    return keccak(word(chain_id) + address_word(channels) + b"".join(terms.words())).hex()


async def deposit_of(chain: ChainClient, network: Network, channel: str) -> tuple[int, int]:
    """Return (deposited, claimed) of a channel as the chain has it."""
    answer = await chain.call(
        network.channels, abi.encode("channels(bytes32)", bytes.fromhex(channel))
    )
    deposited, claimed = abi.numbers(answer)
    return deposited, claimed


async def closing_at(chain: ChainClient, network: Network, channel: str) -> int:
    """Return from when on anybody may finish a close, 0 if nobody asked, `CLOSED` if it is over."""
    data = abi.encode("closingAt(bytes32)", bytes.fromhex(channel))
    return abi.numbers(await chain.call(network.channels, data))[0]


async def token_balance(chain: ChainClient, network: Network, address: str) -> int:
    """Return how many units of the network's currency an address holds."""
    answer = await chain.call(network.token, abi.encode("balanceOf(address)", address))
    return abi.numbers(answer)[0]
