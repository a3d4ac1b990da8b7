"""A machine to be killed while it anchors: right before its transaction leaves, or right after.

python anchoring_machine.py HOME RPC CONTRACT GATEWAY (before|after)
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from agentkit.payments.chain import Web3Chain
from support.anchor_fixtures import machine, network_at


def die() -> None:
    print("killed", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


class MortalChain(Web3Chain):
    point = ""

    async def send(self, raw: bytes) -> None:
        if self.point == "before":
            die()
        await super().send(raw)
        die()


async def main(home: Path, rpc: str, contract: str, url: str, point: str) -> None:
    MortalChain.point = point
    async with machine(network_at(rpc, contract), url, home, client=MortalChain) as (_, memory):
        await memory.note("t", "before the crash")
        await memory.check_alone()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
