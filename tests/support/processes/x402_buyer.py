"""A payer over x402 to be killed: begins a run that buys one answer, or goes on with it.

python x402_buyer.py FOLDER SHOP RPC TOKEN HOLD RAIL    reads its key as hex from standard input;
with HOLD it prints `signed` once its payment is in the journal and waits there; prints `done` at
the end.  RAIL is `exact` or `lanes`.
"""

import asyncio
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from agentkit.journal import records as r
from agentkit.money import Money
from agentkit.runtime import run as runs
from support.x402_market import network_at, payer_of


@dataclass(frozen=True)
class Place:
    """Where a wallet's files lie, and where it buys."""

    folder: Path
    shop: str
    rpc: str
    token: str
    rail: str


async def held(at_most: Money) -> None:
    """Wait for the end, between journal and request."""
    print("signed", flush=True)
    await asyncio.sleep(3600)


async def main(place: Place, key: bytes, *, hold: bool) -> None:
    network = network_at(place.rpc, place.token)
    lanes = place.rail == "lanes"
    async with payer_of(network, place.folder, place.shop, key, lanes=lanes) as wallet:
        means = replace(wallet.means, before_pay=held) if hold else wallet.means
        known = await wallet.journal.commit(lambda tx: tx.every(r.Run))
        if known:
            run = await runs.resume(means, known[0].run)
        else:
            run = await runs.start(means, await wallet.plan())
        result = await run.result()
        assert result.paid.units
        print("done", flush=True)


if __name__ == "__main__":
    folder, shop, rpc, token, hold, rail = sys.argv[1:]
    key = bytes.fromhex(sys.stdin.readline())
    place = Place(Path(folder), shop, rpc, token, rail)
    asyncio.run(main(place, key, hold=hold == "hold"))
