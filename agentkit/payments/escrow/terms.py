"""A quote as it travels and as the contract takes it, and what both halves read of it there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from agentkit.keys.messages import Accept, Quote, checksummed, recover, typed_digest
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.payments import abi

QUOTE = (
    "(address,address,address,address,uint128,uint40,uint40,uint40,uint40,uint16,bytes32,bytes32)"
)
NOBODY = "0x" + 40 * "0"
"""As arbiter: nothing can be disputed."""

FUNDED, SUBMITTED, DISPUTED, PAID, REFUNDED = range(1, 6)
"""The states of the contract; 0 is a job that was never opened."""

OPEN = f"openWithAuthorization({QUOTE},(uint8,bytes32,bytes32),uint256,uint8,bytes32,bytes32)"
OPEN_WORDS = 12 + 3
"""The words of a call of `OPEN` that are the job: its quote and the provider's signature."""

ACCEPT = f"acceptWithSig({QUOTE},uint128,bytes32,uint8,bytes32,bytes32)"


@dataclass(frozen=True, slots=True)
class Job:
    """A job in escrow: the provider's signed quote, whose digest is its id."""

    quote: Quote
    signature: bytes

    def id(self, network: Network) -> bytes:
        """Return the job's id on a network."""
        return typed_digest(network.escrow_domain, self.quote)

    def is_signed(self, network: Network) -> bool:
        """Whether its provider signed it."""
        return recover(self.id(network), self.signature).lower() == self.quote.provider.lower()

    def document(self) -> dict[str, Any]:
        """Return the job as JSON."""
        plain = {field.name: getattr(self.quote, field.name) for field in fields(Quote)}
        hexed = {k: v.hex() if isinstance(v, bytes) else v for k, v in plain.items()}
        return {"quote": hexed, "signature": self.signature.hex()}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Job:
        """Read a job; raises ValueError, KeyError or TypeError for anything else."""
        given = document["quote"]
        values = {field.name: given[field.name] for field in fields(Quote)}
        for name in ("task_id", "spec_hash"):
            values[name] = bytes.fromhex(values[name])
        addresses = ("payer", "provider", "arbiter", "token")
        if not all(_is_address(values[name]) for name in addresses):
            raise ValueError("an address has 20 bytes")
        if any(len(values[name]) != 32 for name in ("task_id", "spec_hash")):
            raise ValueError("a digest has 32 bytes")
        numbers = [v for k, v in values.items() if k not in (*addresses, "task_id", "spec_hash")]
        if not all(type(number) is int and 0 <= number < 2**128 for number in numbers):
            raise ValueError("an amount or a time is out of range")
        return cls(Quote(**values), bytes.fromhex(document["signature"]))

    @classmethod
    def of_call(cls, data: bytes) -> Job | None:
        """Return the job of a call that opens one, None for any other call."""
        words = [data[at : at + 32] for at in range(4, 4 + 32 * OPEN_WORDS, 32)]
        if data[:4] != abi.selector(OPEN) or len(words[-1]) < 32:
            return None
        parties = [checksummed("0x" + address[12:].hex()) for address in words[:4]]
        numbers = [int.from_bytes(number, "big") for number in words[4:10]]
        values: list[Any] = [*parties, *numbers, *words[10:12]]
        v, r, s = words[12:15]
        return cls(Quote(*values), r + s + v[31:])

    def call(self, signature: str, *words: bytes | int | str) -> bytes:
        """Return the call data of a function that takes the quote first."""
        return abi.encode(signature, *self.quote.words(), *words)


def _is_address(given: object) -> bool:
    whole = isinstance(given, str) and given[:2] == "0x"
    return whole and len(bytes.fromhex(str(given)[2:])) == 20


def accept_call(job: Job, accept: Accept, signature: bytes) -> bytes:
    """Return the call that settles a job by somebody's signed word."""
    return job.call(ACCEPT, accept.pay, accept.result_hash, *abi.vrs(signature))


async def state_of(chain: ChainClient, network: Network, job: bytes) -> tuple[int, int]:
    """Return (state, last second before it times out) of a job as the chain has it."""
    answer = await chain.call(network.escrow, abi.encode("jobs(bytes32)", job))
    state, due = abi.numbers(answer)
    return state, due


def settled_in(receipt: ChainReceipt, network: Network, job: bytes) -> tuple[int, int] | None:
    """Return (to the provider, to the payer) as the contract logged it, None if it did not."""
    for log in receipt.logs:
        ours = log.address.lower() == network.escrow.lower()
        if ours and log.topics[:2] == (abi.SETTLED, job):
            _, paid, refunded, _ = abi.numbers(log.data)
            return paid, refunded
    return None
