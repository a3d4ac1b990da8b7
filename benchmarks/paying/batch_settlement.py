"""Gas of x402 `batch-settlement` on the embedded chain, from the receipts of real transactions.

    python benchmarks/paying/batch_settlement.py --json

Contracts and receiver hold the token before, and channels were claimed before, as in business;
`claim_first` is a receiver's first claim.  Beside them stands what the deployed contract's own
snapshot says (x402-foundation/x402, contracts/evm/snapshots, in 2026).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from coincurve import PrivateKey
from eth_abi.abi import encode
from gas import CARRIER, DEPLOYER, FAR, PAYER, PROVIDER, Bench, Contract, authorized

from agentkit.embedded.chain.simulate import Call, call
from agentkit.keys.messages import keccak, word
from agentkit.payments.contracts import CANONICAL, load

DELAY = 900
UNITS = 10**6
COLLECTOR = CANONICAL["Erc3009DepositCollector"]
PAYERS_KEY, AUTHORIZERS_KEY = (PrivateKey(word(number)) for number in (2, 4))
DEPLOYED = {
    "deposit_first": 111_738,
    "claim_1": 40_252,
    "claim_10": 192_043,
    "settle": 31_204,
    "refund_with_signature": 53_670,
}
"""Of the deployed contract, where its snapshot has the like."""


def sign(key: PrivateKey, digest: bytes) -> bytes:
    raw = key.sign_recoverable(digest, hasher=None)
    return raw[:64] + bytes([27 + raw[64]])


class Channels(Contract):
    """Channels of one payer with one provider, by number."""

    def ask(self, name: str, *arguments: Any) -> bytes:
        """Return a word that the contract computes."""
        wanted = Call(to=bytes.fromhex(self.address[2:]), data=self._call(name, arguments))
        return call(self.bench.chain, wanted, self.bench.chain.next_header())

    def config(self, number: int) -> tuple[Any, ...]:
        parties = (PAYER.address, PAYER.address, PROVIDER.address, CARRIER.address)
        return (*parties, self.bench.token.address, DELAY, word(number))

    def deposit(self, number: int, salt: int) -> int:
        nonce = keccak(self.ask("getChannelId", self.config(number)) + word(salt))
        v, r, s = authorized(self.bench, COLLECTOR, UNITS, nonce)
        terms = (0, FAR, salt, r + s + bytes([v]))
        data = encode(["uint256", "uint256", "uint256", "bytes"], terms)
        return self.gas(CARRIER, "deposit", self.config(number), UNITS, COLLECTOR, data)

    def claim(self, numbers: range, total: int) -> int:
        """Claim so much from each of some channels, in one transaction that anybody brings."""
        rows = []
        for number in numbers:
            identity = self.ask("getChannelId", self.config(number))
            signature = sign(PAYERS_KEY, self.ask("getVoucherDigest", identity, total))
            rows.append(((self.config(number), total), signature, total))
        signed = sign(AUTHORIZERS_KEY, self.ask("getClaimBatchDigest", rows))
        return self.gas(CARRIER, "claimWithSignature", rows, signed)

    def settle(self) -> int:
        return self.gas(CARRIER, "settle", PROVIDER.address, self.bench.token.address)

    def refund(self, number: int, units: int) -> int:
        identity = self.ask("getChannelId", self.config(number))
        signed = sign(AUTHORIZERS_KEY, self.ask("getRefundDigest", identity, 0, units))
        return self.gas(CARRIER, "refundWithSignature", self.config(number), units, 0, signed)

    def withdraw(self, number: int, units: int) -> dict[str, int]:
        initiated = self.gas(PAYER, "initiateWithdraw", self.config(number), units)
        self.bench.chain.advance(DELAY)
        finalized = self.gas(PAYER, "finalizeWithdraw", self.config(number))
        return {"initiate_withdraw": initiated, "finalize_withdraw": finalized}


def measure() -> dict[str, Any]:
    """Return the gas of every step of a channel."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        channels = Channels(bench, CANONICAL["BatchSettlement"], load("BatchSettlement").abi)
        bench.token.gas(PAYER, "transfer", channels.address, 1)  # others have money there too
        bench.token.gas(DEPLOYER, "mint", PAYER.address, 10**12)
        figures = {
            "deposit_first": channels.deposit(0, 0),
            "deposit_top_up": channels.deposit(0, 1),
            "claim_first": channels.claim(range(1), 100),
        }
        channels.settle()
        for number in range(1, 100):
            channels.deposit(number, 0)
        channels.claim(range(100), 200)
        for count in (1, 10, 100):
            figures[f"claim_{count}"] = channels.claim(range(count), 1000 + count)
        figures["settle"] = channels.settle()
        figures["refund_with_signature"] = channels.refund(0, 500)
        figures |= channels.withdraw(0, 500)
        bench.chain.close()
    return {"batch_settlement_gas": figures, "batch_settlement_deployed": DEPLOYED}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure()
    if options.json:
        print(json.dumps(figures))
        return
    for name, gas in figures["batch_settlement_gas"].items():
        print(f"{name:<22} {gas:>10,}  {DEPLOYED.get(name, ''):>10}")


if __name__ == "__main__":
    main()
