"""Gas of paying for each task apart, from the receipts of real transactions on the embedded chain.

    python benchmarks/paying/gas.py --json

x402 `exact`, plain transfers, and jobs in escrow; what a channel costs is in `channel_gas.py`.
Receivers hold the token before, as a provider in business does.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.genesis import deploy
from agentkit.embedded.chain.vm import CHAIN_ID
from agentkit.keys.messages import (
    Accept,
    Domain,
    Quote,
    ReceiveAuthorization,
    UnsignedTransaction,
    keccak,
    typed_digest,
    word,
)
from agentkit.keys.signer import KeySigner
from agentkit.payments.contracts import load

DEPLOYER, PAYER, PROVIDER, CARRIER = (KeySigner(bytes(31) + bytes([n])) for n in (1, 2, 3, 4))
FAR = 2**39
"""A time that does not come while this runs, and fits the contracts' 40 bits."""

Raw = tuple[int, bytes, bytes]


@dataclass(frozen=True)
class Contract:
    """A contract of the chain, called by the names of its functions."""

    bench: Bench
    address: str
    abi: Sequence[dict[str, Any]]

    def gas(self, who: KeySigner, name: str, *arguments: Any) -> int:
        """Do it and return what it used."""
        return self.bench.send(who, self.address, self._call(name, arguments))

    def domain(self, name: str) -> Domain:
        return Domain(name, "1", CHAIN_ID, self.address)

    def _call(self, name: str, arguments: Sequence[Any]) -> bytes:
        from web3 import Web3

        contract = Web3().eth.contract(abi=self.abi)
        return bytes.fromhex(contract.encode_abi(name, args=list(arguments))[2:])


class Bench:
    """A chain with a payer, a provider and our contracts."""

    def __init__(self, folder: Path) -> None:
        rich = {who.address: 10**21 for who in (DEPLOYER, PAYER, PROVIDER, CARRIER)}
        self.chain = Chain.open(folder / "chain.db", rich=rich)
        minted = {PAYER.address: 10**12, PROVIDER.address: 1}
        at = deploy(self.chain, bytes(31) + b"\1", minted)
        self.token = Contract(self, at.token, load("TestUSD").abi)
        self.escrow = Contract(self, at.escrow, load("TaskEscrow").abi)
        self.token.gas(PAYER, "approve", self.escrow.address, 2**256 - 1)
        self.token.gas(PAYER, "transfer", self.escrow.address, 1)  # others have money there too

    def send(self, who: KeySigner, to: str, data: bytes) -> int:
        """Send a transaction and return the gas of its receipt; with no `to` it creates."""
        nonce = self._nonce(who)
        self.chain.send(
            who.sign_tx(UnsignedTransaction(CHAIN_ID, nonce, to, data, 15_000_000, 10**10, 0))[1]
        )
        (receipt,) = self.chain.receipts(self.chain.head)
        if receipt.state_root != b"\x01":
            raise RuntimeError("a transaction of the benchmark failed")
        return int(receipt.gas_used)

    def _nonce(self, who: KeySigner) -> int:
        address: Any = bytes.fromhex(who.address[2:])
        return int(self.chain.state().get_nonce(address))


def raw(signature: bytes) -> Raw:
    return signature[64], signature[:32], signature[32:64]


def authorized(bench: Bench, payee: str, units: int, nonce: bytes) -> Raw:
    given = ReceiveAuthorization(PAYER.address, payee, units, FAR, nonce)
    return raw(PAYER.sign_authorization(bench.token.domain("USD Coin"), given))


# -- what is measured ----------------------------------------------------------------------------


def x402(bench: Bench) -> int:
    """Return the gas of one x402 `exact` payment, which a facilitator brings."""
    from eth_account import Account

    types = {
        "TransferWithAuthorization": [
            *({"name": name, "type": "address"} for name in ("from", "to")),
            *({"name": n, "type": "uint256"} for n in ("value", "validAfter", "validBefore")),
            {"name": "nonce", "type": "bytes32"},
        ]
    }
    values = (PAYER.address, PROVIDER.address, 100, 0, FAR, keccak(b"x402"))
    names = [member["name"] for member in types["TransferWithAuthorization"]]
    domain = {"name": "USD Coin", "version": "1", "chainId": CHAIN_ID}
    signed = Account.sign_typed_data(
        bytes(31) + b"\2",
        {**domain, "verifyingContract": bench.token.address},
        types,
        dict(zip(names, values, strict=True)),
    )
    call = (*values, *raw(bytes(signed.signature)))
    return bench.token.gas(CARRIER, "transferWithAuthorization", *call)


class Jobs:
    """Jobs in escrow, each with a quote of its own."""

    def __init__(self, bench: Bench) -> None:
        self._escrow, self._bench = bench.escrow, bench
        self._domain = bench.escrow.domain("TaskEscrow")
        self._made = 0

    def quote(self) -> Quote:
        self._made += 1
        parties = (PAYER.address, PROVIDER.address, CARRIER.address, self._bench.token.address)
        deliver_by = self._bench.chain.timestamp + 3600
        return Quote(
            *(*parties, 1000, deliver_by, 600, FAR, 600, 5000),
            *(word(self._made), keccak(b"specification")),
        )

    def signed(self, quote: Quote) -> Raw:
        return raw(PROVIDER.sign_quote(self._domain, quote))

    def accepted(self, quote: Quote) -> Raw:
        job = typed_digest(self._domain, quote)
        return raw(PAYER.sign_accept(self._domain, Accept(job, 900, keccak(b"result"))))

    def job(self) -> int:
        """Return the gas of a job: the payer opens, the provider brings the acceptance."""
        quote = self.quote()
        opened = self._escrow.gas(PAYER, "open", members(quote), *self.signed(quote))
        return opened + self._accept(quote)

    def authorized_job(self) -> int:
        """Return the same where the payer opens by a signed authorization."""
        quote = self.quote()
        nonce = typed_digest(self._domain, quote)[:24] + bytes(8)
        signature = authorized(self._bench, self._escrow.address, quote.price, nonce)
        call = (members(quote), self.signed(quote), FAR, *signature)
        return self._escrow.gas(PAYER, "openWithAuthorization", *call) + self._accept(quote)

    def batched(self, count: int = 10) -> int:
        """Return the gas of one job of `count` that are opened and accepted together."""
        quotes = [self.quote() for _ in range(count)]
        raws = [members(quote) for quote in quotes]
        opened = self._escrow.gas(PAYER, "openMany", raws, [self.signed(q) for q in quotes])
        pays, results = [900] * count, [keccak(b"result")] * count
        signatures = [self.accepted(quote) for quote in quotes]
        accepted = self._escrow.gas(PROVIDER, "acceptMany", raws, pays, results, signatures)
        return (opened + accepted) // count

    def _accept(self, quote: Quote) -> int:
        call = (members(quote), 900, keccak(b"result"), *self.accepted(quote))
        return self._escrow.gas(PROVIDER, "acceptWithSig", *call)


def members(quote: Quote) -> tuple[Any, ...]:
    return tuple(getattr(quote, name) for name in Quote.__slots__)


def measure() -> dict[str, Any]:
    """Return every figure of this file."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        jobs = Jobs(bench)
        figures = {
            "gas_of_one": {
                "x402": x402(bench),
                "transfer": bench.token.gas(PAYER, "transfer", PROVIDER.address, 100),
            },
            "escrow_gas": {
                "job": jobs.job(),
                "authorized_job": jobs.authorized_job(),
                "batched": jobs.batched(),
            },
        }
        bench.chain.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure()
    if options.json:
        print(json.dumps(figures))
        return
    for group, found in figures.items():
        for name, value in found.items():
            print(f"{group:>13}  {name:<15}  {value}")


if __name__ == "__main__":
    main()
