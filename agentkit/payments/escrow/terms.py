"""A job in escrow: the signed quote as it travels, and as the contract takes and shows it.

The contract is `contracts/TaskEscrow.vy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from agentkit.keys.messages import Accept, Quote, recover, typed_digest
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.payments import abi

QUOTE = (
    "(address,address,address,address,uint128,uint40,uint40,uint40,uint40,uint16,bytes32,bytes32)"
)
"""The contract's struct `Quote`, in the notation of function signatures."""

NOBODY = "0x" + 40 * "0"
"""As arbiter: nothing can be disputed."""

FUNDED = 1
SUBMITTED = 2
DISPUTED = 3
PAID = 4
REFUNDED = 5
"""The states of a job in the contract; 0 is a job that was never opened."""

SIGNATURE = "(uint8,bytes32,bytes32)"

OPEN = f"openWithAuthorization({QUOTE},{SIGNATURE},uint256,uint8,bytes32,bytes32)"

QUOTE_WORDS = 12
JOB_WORDS = QUOTE_WORDS + 3
"""The first arguments of a call of `OPEN` are the job: its quote and the provider's signature."""

ACCEPT = f"acceptWithSig({QUOTE},uint128,bytes32,uint8,bytes32,bytes32)"

AGREE = f"acceptWithBoth({QUOTE},uint128,bytes32,{SIGNATURE},{SIGNATURE})"

ADDRESSES = ("payer", "provider", "arbiter", "token")
DIGESTS = ("task_id", "spec_hash")
"""The fields of a quote that are no numbers."""


@dataclass(frozen=True, slots=True)
class EscrowJob:
    """A job in escrow: the provider's signed quote, whose digest is the job's id."""

    quote: Quote
    signature: bytes

    def id(self, network: Network) -> bytes:
        """Return the job's id on a network."""
        return typed_digest(network.escrow_domain, self.quote)

    def is_signed(self, network: Network) -> bool:
        """Return whether the quote's provider signed it."""
        return recover(self.id(network), self.signature).lower() == self.quote.provider.lower()

    def document(self) -> dict[str, Any]:
        """Return the job as JSON, bytes in hex."""
        quote: dict[str, Any] = {}
        for field in fields(Quote):
            value = getattr(self.quote, field.name)
            quote[field.name] = value.hex() if isinstance(value, bytes) else value
        return {"quote": quote, "signature": self.signature.hex()}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> EscrowJob:
        """Read a job; raises ValueError, KeyError or TypeError for anything else.

        The signature is not checked; see `is_signed`.
        """
        quote = document["quote"]
        values = {field.name: quote[field.name] for field in fields(Quote)}
        for name in DIGESTS:
            values[name] = bytes.fromhex(values[name])
        _check_quote(values)
        return cls(Quote(**values), bytes.fromhex(document["signature"]))

    @classmethod
    def of_call(cls, data: bytes) -> EscrowJob | None:
        """Return the job of a call of `OPEN`, None for any other call."""
        words = abi.split_words(data[abi.SELECTOR :])
        if data[: abi.SELECTOR] != abi.selector(OPEN) or len(words) < JOB_WORDS:
            return None

        values: dict[str, Any] = {}
        for field, word in zip(fields(Quote), words[:QUOTE_WORDS], strict=True):
            if field.name in ADDRESSES:
                values[field.name] = abi.address_in(word)
            elif field.name in DIGESTS:
                values[field.name] = word
            else:
                values[field.name] = int.from_bytes(word, "big")
        v, r, s = words[QUOTE_WORDS:JOB_WORDS]
        return cls(Quote(**values), abi.join_signature(v, r, s))

    def call(self, function: str, *words: bytes | int | str) -> bytes:
        """Return the call data of a contract function that takes the quote first."""
        return abi.encode(function, *self.quote.words(), *words)

    def accept_call(self, accept: Accept, signature: bytes) -> bytes:
        """Return the call that settles the job by an acceptance that payer or provider signed."""
        return self.call(ACCEPT, accept.pay, accept.result_hash, *abi.vrs(signature))

    def agreed_call(self, accept: Accept, payer: bytes, provider: bytes) -> bytes:
        """Return the call that settles the job by an acceptance that both have signed."""
        words = (*abi.vrs(payer), *abi.vrs(provider))
        return self.call(AGREE, accept.pay, accept.result_hash, *words)


def _check_quote(values: Mapping[str, Any]) -> None:
    """Raise ValueError unless the fields of a quote fit their types in the contract."""
    if not all(_is_address(values[name]) for name in ADDRESSES):
        raise ValueError("an address has 20 bytes")
    if any(len(values[name]) != 32 for name in DIGESTS):
        raise ValueError("a digest has 32 bytes")
    for name, value in values.items():
        if name in ADDRESSES or name in DIGESTS:
            continue
        if type(value) is not int or not 0 <= value < 2**128:
            raise ValueError("an amount or a time is out of range")


def _is_address(value: object) -> bool:
    """Return whether a value is a 0x address; raises ValueError for one that is not in hex."""
    if not isinstance(value, str) or not value.startswith("0x"):
        return False
    return len(bytes.fromhex(value[2:])) == 20


# -- reading the chain ---------------------------------------------------------------------------


async def state_of(chain: ChainClient, network: Network, job: bytes) -> tuple[int, int]:
    """Return (state, due) of a job on the chain; 0 is the state of one that was never opened.

    `due` is the last second, in unix time, before the state can time out.
    """
    answer = await chain.call(network.escrow, abi.encode("jobs(bytes32)", job))
    state, due = abi.exactly(2, answer)
    return state, due


def settled_in(receipt: ChainReceipt, network: Network, job: bytes) -> tuple[int, int] | None:
    """Return (to the provider, to the payer) in units, as the contract logged a settlement.

    None if the receipt has no such log.
    """
    for log in receipt.logs:
        is_contract = log.address.lower() == network.escrow.lower()
        if is_contract and log.topics[:2] == (abi.SETTLED, job):
            _, to_provider, to_payer, _ = abi.exactly(4, log.data)
            return to_provider, to_payer
    return None


async def settlement_on(chain: ChainClient, network: Network, job: bytes) -> ChainReceipt | None:
    """Return the receipt of what settled a job, whoever brought it; None where nothing has."""
    state, _ = await state_of(chain, network, job)
    if state not in (PAID, REFUNDED):
        return None
    head = await chain.head()
    logs = await chain.logs(network.escrow, [abi.SETTLED, job], first=0, last=head)
    return await chain.receipt(logs[-1].transaction) if logs else None
