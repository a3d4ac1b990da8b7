"""A stranger with a new key sells, is killed ten times, and has every unit in hand, without gas."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.timing import limit
from support.x402_market import World
from support.x402_sdk_channels import StockChannelPayer, stock_channel_payer
from support.x402_sdk_client import StockPayer

from agentkit.agent import Agent
from agentkit.embedded import discovery
from agentkit.graph.builder import JobGraph
from agentkit.keys import keystore
from agentkit.keys.messages import UnsignedTransaction
from agentkit.keys.signer import KeySigner
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.balance import token_balance
from agentkit.planner import policy

MODEL = "smollm2-135m"
CHAT = "/v1/chat/completions"
BODY = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Greet the sea."}],
    "max_tokens": 4,
}
GIFT = 1_000_000
"""What each of the other payers is given, in units."""


class Stand:
    """The seller's commands, each a process of its own."""

    def __init__(self, folder: Path, network: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.deaths = 0
        self._folder = folder
        folder.mkdir()
        self._env = {
            **os.environ,
            "AGENTKIT_HOME": str(folder),
            "AGENTKIT_NETWORK": str(network),
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        """The address of the wallet that its first start made."""
        return keystore.unlock(self._folder / "node" / "attic" / "key.json", real=False).address

    async def serve(self) -> None:
        """`agentkit serve`, until it answers."""
        self._process = await self._start("serve", "--port", str(self.port), "--name", "attic")
        async with aiohttp.ClientSession() as session, asyncio.timeout(limit(60)):
            while True:
                assert self._process.returncode is None
                try:
                    async with session.get(f"{self.url}/v1/models") as answer:
                        assert answer.status == 200
                        return
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)

    async def die(self) -> None:
        """SIGKILL, and the same command again."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        self.deaths += 1
        await self.serve()

    async def stop(self) -> None:
        """Ctrl-C."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        async with asyncio.timeout(limit(90)):
            assert await self._process.wait() == 0

    async def status(self) -> dict[str, Any]:
        """`agentkit serve --status --json`."""
        process = await self._start("serve", "--name", "attic", "--status", "--json", piped=True)
        assert process.stdout is not None
        said = await process.stdout.read()
        assert await process.wait() == 0
        return json.loads(said)  # type: ignore[no-any-return]

    def end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _start(self, *command: str, piped: bool = False) -> asyncio.subprocess.Process:
        output = asyncio.subprocess.PIPE if piped else asyncio.subprocess.DEVNULL
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentkit", *command),
            cwd=self._folder,
            env=self._env,
            stdout=output,
        )


async def give(agent: Agent, to: str) -> None:
    """Send some of the agent's money to another payer, past its books."""
    chain, network = agent._parts.chain, agent.network
    fees = await chain.fees()
    gift = UnsignedTransaction(
        chain_id=network.chain_id,
        nonce=await chain.nonce(agent.address),
        to=network.token,
        data=abi.encode("transfer(address,uint256)", to, GIFT),
        gas=80_000,
        max_fee=fees.max_fee,
        max_tip=fees.max_tip,
        value=0,
    )
    await chain.send(agent._parts.signer.sign_tx(gift)[1])
    async with asyncio.timeout(limit(20)):
        while await token_balance(chain, network, to) < GIFT:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def stock_payers(
    agent: Agent,
) -> AsyncIterator[tuple[StockChannelPayer, StockPayer]]:
    """The SDK's clients: one that pays over a channel, and one by `exact`; without any coins."""
    keys = [secrets.token_bytes(32) for _ in range(2)]
    for key in keys:
        await give(agent, KeySigner(key).address)
    world = World(agent.network, agent._parts.chain, node=None, nonce=0)  # type: ignore[arg-type]
    async with (
        aiohttp.ClientSession() as session,
        stock_channel_payer(world, keys[0], 0, most=GIFT) as channel,
    ):
        yield channel, StockPayer(world, keys[1], session)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_stranger_sells_and_has_every_unit_in_hand_without_gas(
    open_agent: Any, network: discovery.NetworkFile, network_folder: Path, tmp_path: Path
) -> None:
    stand = Stand(tmp_path / "seller", network_folder)
    settings = {
        "providers": {"attic": {"adapter": "native", "url": stand.url}},
        "payments": {"escrow_from": "0.000001 USDC"},
    }
    amounts: list[int] = []
    try:
        await stand.serve()
        async with open_agent(**settings) as agent, stock_payers(agent) as (channel, exact):
            for number in range(7):
                amounts.append(await channel.post(stand.url + CHAT, BODY))
                status, _, settled = await exact.post(stand.url + CHAT, BODY)
                assert status == 200
                amounts.append(int(settled.amount))
                if number < 5:
                    await stand.die()
            for number in range(6):
                graph = JobGraph(f"greeting-{number}")
                graph.infer("greet", model=MODEL, prompt=f"Greet {number}.", max_tokens=4)
                bought = await agent.run(graph, budget="0.01 USDC", policy=policy.allow("attic"))
                (receipt,) = bought.receipts
                assert receipt.attempt.rail == "escrow"
                amounts.append(receipt.amount.units)
                if number < 5:
                    await stand.die()
            await agent.close_channels()
            await stand.stop()
            seller = stand.address
            assert await token_balance(agent._parts.chain, agent.network, seller) == sum(amounts)
            assert await agent._parts.chain.balance(seller) == 0
    finally:
        stand.end()
    assert (stand.deaths, len(amounts)) == (10, 20)
    assert all(amounts)
    figures = await stand.status()
    total = str(Money(sum(amounts), agent.network.currency))
    assert (figures["earned"], figures["claimed"]) == (total, total)
