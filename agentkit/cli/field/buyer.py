"""A process that buys one call and is killed in it: python -m agentkit.cli.field.buyer.

It reads what to buy as one line of JSON from standard input, and has the settings of its parent.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from agentkit.cli.field.canary import Mistaken
from agentkit.cli.field.purse import Purse
from agentkit.cli.field.stall import CALL, Stall, endpoint
from agentkit.config import Settings
from agentkit.money import Money
from agentkit.net.environment import child_environment
from agentkit.wiring import open_parts

START_SECONDS = 120.0
"""Seconds that the process may take until its request is under way."""


async def start(stall: Stall, config: Path | None) -> Process:
    """Start a process that buys one call of a stall, and return it.

    It signs for the same wallet, so it gets the settings that our environment holds as well.
    """
    settings = {name: value for name, value in os.environ.items() if name.startswith("AGENTKIT_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "agentkit.cli.field.buyer",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={**child_environment(), **settings},
    )
    orders = {
        "config": str(config or ""),
        "name": stall.name,
        "url": stall.url,
        "payee": stall.payee,
    }
    assert process.stdin is not None
    process.stdin.write(json.dumps(orders).encode() + b"\n")
    return process


async def kill_in_call(process: Process, stall: Stall) -> None:
    """Kill a process once its request is at work in a stall; raises Mistaken if it ended before."""
    reached = asyncio.create_task(stall.reached.wait())
    said = asyncio.create_task(process.communicate())  # ends when the process does
    try:
        await asyncio.wait(
            {reached, said}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if said.done():
            lines = said.result()[1].decode(errors="replace").strip().splitlines()
            raise Mistaken(f"the process that buys ended: {lines[-1] if lines else 'silently'}")
        if not reached.done():
            raise Mistaken(f"the process that buys sent no request in {START_SECONDS:g} s")
    finally:
        reached.cancel()
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await said
    if process.returncode != -signal.SIGKILL:
        raise Mistaken(f"the process that buys ended with {process.returncode}, not by the kill")


async def buy(orders: dict[str, Any]) -> None:
    """Buy one call as the orders say."""
    settings = Settings.read(Path(orders["config"]) if orders["config"] else None)
    async with AsyncExitStack() as stack:
        parts = await open_parts(settings, stack)
        purse = Purse(parts, Money(CALL, parts.network.currency))
        provider = endpoint(orders["name"], orders["url"], orders["payee"], parts.network)
        stack.push_async_callback(provider.close)
        await purse.buy(provider, CALL)


if __name__ == "__main__":
    asyncio.run(buy(json.loads(sys.stdin.readline())))
