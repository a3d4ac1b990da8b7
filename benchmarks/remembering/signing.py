"""How much faster items are signed by the agent's key than by RSA-4096, and how fast.

    python benchmarks/remembering/signing.py --json

Both sign the same item of 1 KB from its fields: deep hash, digest, signature.  In turns, in one
process; the figure is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

from agentkit.keys.messages import ItemMessage
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave.ans104 import RSA
from agentkit.memory.arweave.tags import encode_tags

TAGS = (("App-Name", "agentkit"), ("Kind", "segment"), ("Run", "ab" * 16))


def measure(rounds: int = 15, calls: int = 20) -> dict[str, Any]:
    """Return the ratio of rates, and both rates a second."""
    signer, rsa = KeySigner(bytes(31) + b"\x07"), generate_private_key(65537, 4096)
    message = ItemMessage(signer.public_key, b"", b"", encode_tags(TAGS), b"x" * 1024)
    owner = rsa.public_key().public_numbers().n.to_bytes(512, "big")
    other = replace(message, owner=owner, signature_type=RSA)

    def ours() -> object:
        return signer.sign_item(message)

    def theirs() -> object:
        return rsa.sign(other.deep_hash(), PSS(MGF1(SHA256()), 32), SHA256())

    pairs = [(rate(ours, calls * 20), rate(theirs, calls)) for _ in range(rounds)]
    return {
        "sign_vs_rsa": round(statistics.median(mine / rsas for mine, rsas in pairs), 1),
        "signed_per_s": round(statistics.median(mine for mine, _ in pairs)),
        "rsa_signed_per_s": round(statistics.median(rsas for _, rsas in pairs)),
    }


def rate(call: Callable[[], object], calls: int) -> float:
    """Return how often a call is done in a second."""
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return calls / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure()
    print(json.dumps(found) if options.json else "\n".join(f"{k} {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
