"""What our vouchers cost beside bare libsecp256k1: ratios of rates, 1 being as fast as it gets.

    python benchmarks/paying/vouchers.py --json

Ours is what the rails call: digest and signature of a new voucher each time; digest, recovery and
comparison of addresses for one that came in.  The two are measured in turns in one process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import coincurve

from agentkit.keys.channel_messages import ChannelVoucher
from agentkit.keys.messages import Domain, recover, typed_digest
from agentkit.keys.signer import KeySigner

SECRET = bytes(31) + b"\x07"
DOMAIN = Domain("x402 Batch Settlement", "1", 1337, "0x" + "ab" * 20)
CHANNEL = bytes(range(32))


def measure(rounds: int = 41, calls: int = 250) -> dict[str, dict[str, float]]:
    """Return for signing and verifying our rate as a part of the library's, from medians."""
    signer, key = KeySigner(SECRET), coincurve.PrivateKey(SECRET)
    vouchers = [ChannelVoucher(CHANNEL, 1000 + n) for n in range(calls)]
    digests = [typed_digest(DOMAIN, voucher) for voucher in vouchers]
    signed = [signer.sign_channel_voucher(DOMAIN, voucher) for voucher in vouchers]
    bare = [s[:64] + bytes([s[64] - 27]) for s in signed]

    def sign(n: int) -> object:
        return signer.sign_channel_voucher(DOMAIN, vouchers[n])

    def bare_sign(n: int) -> object:
        return key.sign_recoverable(digests[n], hasher=None)

    def verify(n: int) -> object:
        return recover(typed_digest(DOMAIN, vouchers[n]), signed[n]) == signer.address

    def bare_recover(n: int) -> object:
        public = coincurve.PublicKey.from_signature_and_message
        return public(bare[n], digests[n], hasher=None)

    assert all(map(verify, range(calls)))
    ratios = {
        "sign": ratio(sign, bare_sign, rounds, calls),
        "verify": ratio(verify, bare_recover, rounds, calls),
    }
    return {"voucher_ratio": {name: round(value, 3) for name, value in ratios.items()}}


def ratio(
    ours: Callable[[int], object], bare: Callable[[int], object], rounds: int, calls: int
) -> float:
    """Return the median of rounds in which both are timed one after the other."""
    found = []
    for _ in range(rounds):
        took = timed(ours, calls)
        found.append(timed(bare, calls) / took)
    return statistics.median(found)


def timed(call: Callable[[int], object], calls: int) -> float:
    began = time.perf_counter()
    for n in range(calls):
        call(n)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.rounds)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures["voucher_ratio"].items():
            print(f"{name:>8}  {value:.2f} of the bare rate")


if __name__ == "__main__":
    main()
