"""Gas of every way to pay, from the receipts of real transactions on the embedded chain.

    python benchmarks/paying/gas.py --json

A channel is opened and closed once for all of its tasks; x402 `exact` and plain transfers are made
for each.  Receivers hold the token before, as a provider in business does.  The channel contract's
claim is compared with a Solidity sketch's, which is read where it lies and compiled with solc.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.genesis import deploy
from agentkit.embedded.chain.vm import CHAIN_ID, contract_address
from agentkit.keys.messages import (
    Accept,
    Domain,
    Quote,
    ReceiveAuthorization,
    UnsignedTransaction,
    Voucher,
    checksummed,
    keccak,
    typed_digest,
    word,
)
from agentkit.keys.signer import KeySigner
from agentkit.payments.contracts import load

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "tests/npm/node_modules"
SKETCHES = ROOT / "../shared/probes/payments/contracts"
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
        self.channels = Contract(self, at.channels, load("AgentChannels").abi)
        self.escrow = Contract(self, at.escrow, load("TaskEscrow").abi)
        for contract in (self.channels, self.escrow):
            self.token.gas(PAYER, "approve", contract.address, 2**256 - 1)
            self.token.gas(PAYER, "transfer", contract.address, 1)  # others have money there too

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

    def create(self, code: bytes, abi: Sequence[dict[str, Any]]) -> Contract:
        address = contract_address(bytes.fromhex(DEPLOYER.address[2:]), self._nonce(DEPLOYER))
        self.send(DEPLOYER, "", code)
        return Contract(self, checksummed(address.hex()), abi)

    def _nonce(self, who: KeySigner) -> int:
        address: Any = bytes.fromhex(who.address[2:])
        return int(self.chain.state().get_nonce(address))


@dataclass(frozen=True)
class Channel:
    """A channel of the payer's with the provider on one of the contracts."""

    contract: Contract
    token: Contract
    salt: bytes

    @property
    def config(self) -> tuple[Any, ...]:
        who = (PAYER.address, PAYER.address, PROVIDER.address)
        return (*who, self.token.address, 3600, self.salt)

    @cached_property
    def id(self) -> bytes:
        head = word(CHAIN_ID) + bytes(12) + bytes.fromhex(self.contract.address[2:])
        who = b"".join(bytes(12) + bytes.fromhex(one[2:]) for one in self.config[:4])
        return keccak(head + who + word(3600) + self.salt)

    def voucher(self, cumulative: int, tasks: int) -> tuple[tuple[int, int, bytes], bytes]:
        domain = self.contract.domain("AgentChannels")
        signature = PAYER.sign_voucher(domain, Voucher(self.id, cumulative, tasks))
        return (cumulative, tasks, bytes(32)), signature


def raw(signature: bytes) -> Raw:
    return signature[64], signature[:32], signature[32:64]


def authorized(bench: Bench, payee: str, units: int, nonce: bytes) -> Raw:
    given = ReceiveAuthorization(PAYER.address, payee, units, FAR, nonce)
    return raw(PAYER.sign_authorization(bench.token.domain("USD Coin"), given))


# -- what is measured ----------------------------------------------------------------------------


def channel(bench: Bench, tasks: int) -> int:
    """Return the gas of opening a channel, and of claiming and closing it, for so many tasks."""
    one = Channel(bench.channels, bench.token, keccak(word(tasks)))
    units = tasks * 100
    signature = authorized(bench, bench.channels.address, units, keccak(one.id + word(0)))
    opening = (one.config, units, FAR, *signature)
    gas = bench.channels.gas(PAYER, "fundWithAuthorization", *opening)
    promise, signed = one.voucher(units - 50, tasks)
    return gas + bench.channels.gas(PROVIDER, "claimAndClose", one.config, promise, *raw(signed))


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


# -- the claim beside the sketch's ---------------------------------------------------------------


def claims(bench: Bench, sketches: Path) -> dict[str, Any]:
    """Return the gas of a claim on a channel that was claimed before, for both contracts."""
    figures: dict[str, Any] = {"ours": claim(bench, bench.channels, apart=True), "sketch": None}
    try:
        built = compiled(sketches)
    except (OSError, subprocess.SubprocessError, KeyError, ValueError) as missing:
        return {**figures, "why": f"the sketch was not compiled: {missing}"}
    sketch = bench.create(bytes.fromhex(built["evm"]["bytecode"]["object"]), built["abi"])
    bench.token.gas(PAYER, "approve", sketch.address, 2**256 - 1)
    bench.token.gas(PAYER, "transfer", sketch.address, 1)
    return {**figures, "sketch": claim(bench, sketch, apart=False)}


def claim(bench: Bench, contract: Contract, *, apart: bool) -> int:
    """Return the gas of the second claim; `apart`: the signature is passed as v, r and s."""
    one = Channel(contract, bench.token, keccak(b"claims"))
    contract.gas(PAYER, "fund", one.config, 10_000)
    gas = 0
    for cumulative in (100, 900):
        promise, signed = one.voucher(cumulative, 9)
        form = raw(signed) if apart else (signed,)
        gas = contract.gas(PROVIDER, "claim", one.config, promise, *form)
    return gas


def compiled(sketches: Path) -> dict[str, Any]:
    """Return what solc makes of the channel's sketch, which is read in place."""
    name = "AgentChannels.sol"
    source = (sketches / name).read_text("utf-8")
    settings = {
        "optimizer": {"enabled": True, "runs": 10_000},
        "evmVersion": "cancun",
        "metadata": {"bytecodeHash": "none", "appendCBOR": False},
        "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object"]}},
    }
    question = {"language": "Solidity", "sources": {name: {"content": source}}}
    solc = [node(), MODULES / "solc/solc.js", "--standard-json"]
    ran = subprocess.run(
        [*solc, "--base-path", sketches, "--include-path", MODULES],
        input=json.dumps({**question, "settings": settings}),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    answer = json.loads(ran.stdout[ran.stdout.index("{") :])  # solc says something before
    built: dict[str, Any] = answer["contracts"][name]["AgentChannels"]
    return built


def node() -> str:
    """Return where Node.js is."""
    found = shutil.which("node")
    if found is None:
        raise OSError("there is no node; run `make install-dev`")
    return found


# ------------------------------------------------------------------------------------------------


def measure(sketches: Path = SKETCHES) -> dict[str, Any]:
    """Return every figure of this file."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        jobs = Jobs(bench)
        figures = {
            "gas_per_task": {
                "channel": {str(n): round(channel(bench, n) / n, 1) for n in (10, 1000)},
                "x402": x402(bench),
                "transfer": bench.token.gas(PAYER, "transfer", PROVIDER.address, 100),
            },
            "escrow_gas": {
                "job": jobs.job(),
                "authorized_job": jobs.authorized_job(),
                "batched": jobs.batched(),
            },
            "claim_gas": claims(bench, sketches.resolve()),
        }
        bench.chain.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sketches", type=Path, default=SKETCHES)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.sketches)
    if options.json:
        print(json.dumps(figures))
        return
    for group, found in figures.items():
        for name, value in found.items():
            print(f"{group:>13}  {name:<15}  {value}")


if __name__ == "__main__":
    main()
