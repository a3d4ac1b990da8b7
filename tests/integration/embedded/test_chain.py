"""The embedded chain keeps what it acknowledged, keeps the clock's time, and keeps out the rest."""

import asyncio
import itertools
import os
import signal
import sqlite3
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from support import chain_processes
from support.chain_processes import Node
from support.embedded_chain import ANNE, BOB, CARL, NEXT_TIME, transfer

from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.rpc import RpcFront, rpc_app
from agentkit.embedded.chain.store import Store
from agentkit.embedded.chain.vm import CHAIN_ID
from agentkit.keys.messages import keccak
from agentkit.keys.signer import KeySigner

# -- over HTTP -----------------------------------------------------------------------------------


async def test_the_loop_goes_on_while_the_chain_works(chain: Chain) -> None:
    call = {"method": "eth_call", "params": [{"data": NEXT_TIME}]}
    batch = [{"jsonrpc": "2.0", "id": n, **call} for n in range(300)]
    async with TestClient(TestServer(rpc_app(RpcFront(chain)))) as client:
        request = asyncio.create_task(client.post("/", json=batch))
        beats = 0
        while not request.done():
            await asyncio.sleep(0.005)
            beats += 1
        answers = await (await request).json()
    assert [answer["id"] for answer in answers] == list(range(300))
    assert beats > 5


async def test_an_error_of_ours_is_an_answer(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Store, "add_transaction", broken)
    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction"}
    async with TestClient(TestServer(rpc_app(RpcFront(chain)))) as client:
        sent = {**request, "params": ["0x" + transfer(0).hex()]}
        answer = await (await client.post("/", json=sent)).json()
        assert answer["error"]["code"] == -32603
        answer = await (await client.post("/", json={**request, "method": "eth_chainId"})).json()
        assert answer["result"] == hex(CHAIN_ID)


# -- kill -9 -------------------------------------------------------------------------------------


class Load:
    """Senders that each keep one transaction in flight until the node is gone."""

    def __init__(self, node: Node, nonces: dict[KeySigner, int]) -> None:
        self.node, self.nonces = node, nonces
        self.acknowledged: list[str] = []
        self.sent: list[str] = []

    async def until_killed(self, enough: int) -> None:
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for who in self.nonces:
                group.create_task(self.send(session, who))
            while len(self.acknowledged) < enough or len(self.sent) == len(self.acknowledged):
                await asyncio.sleep(0)
            os.kill(self.node.process.pid, signal.SIGKILL)

    async def send(self, session: aiohttp.ClientSession, who: KeySigner) -> None:
        for nonce in itertools.count(self.nonces[who]):
            raw = transfer(nonce, who)
            request = {"id": 1, "method": "eth_sendRawTransaction", "params": ["0x" + raw.hex()]}
            self.sent.append("0x" + keccak(raw).hex())
            try:
                async with session.post(self.node.url, json=request) as response:
                    answer = await response.json()
            except aiohttp.ClientError:
                return
            self.acknowledged.append(answer["result"])


async def test_a_killed_chain_has_all_it_acknowledged(path: Path) -> None:
    acknowledged: list[str] = []
    in_flight, enough = 0, [20, 60, 97]
    for count in enough:
        with chain_processes.embedded(path) as node:
            nonces = {
                who: int(str(node.rpc("eth_getTransactionCount", who.address, "latest")), 16)
                for who in (ANNE, BOB, CARL)
            }
            load = Load(node, nonces)
            await asyncio.to_thread(asyncio.run, load.until_killed(count))
        acknowledged += load.acknowledged
        in_flight += len(load.sent) - len(load.acknowledged)
        chain = Chain.open(path, rich={})
        assert all(chain.find(bytes.fromhex(digest[2:])) for digest in acknowledged)
        assert len(acknowledged) <= chain.number <= len(acknowledged) + in_flight
        chain.close()
    assert in_flight >= len(enough)
