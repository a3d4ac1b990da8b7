"""The processes of `crashes.py` that get killed: our node, our payer, the SDK's Python client.

python crash_roles.py ROLE    with its orders as one line of JSON on standard input
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.x402_market import network_at

from agentkit.artifacts import Text
from agentkit.errors import RunPaused
from agentkit.graph.builder import JobGraph
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.signer import KeySigner
from agentkit.market.allowance import Allowance
from agentkit.memory.artifacts.local import LocalStore
from agentkit.money import Money
from agentkit.payments.budget import Budget
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels.rail import ChannelRail
from agentkit.payments.sender import Sender
from agentkit.planner.planner import make_plan
from agentkit.planner.request import Market, Wish
from agentkit.providers.native import Native
from agentkit.runtime import run as runs
from agentkit.runtime.context import Resources

MODEL = "smollm2-135m"
CHAT = "/v1/chat/completions"
PRICES = {
    "infer": {
        "request": "0.0005 USDC per 1 request",
        "input": "0.40 USDC per 1M tokens",
        "output": "1.60 USDC per 1M tokens",
    }
}
PAUSED = 3
"""The exit code of a payer whose run waits: it is started again."""


@dataclass(frozen=True)
class Orders:
    """What a role is told."""

    folder: Path
    rpc: str
    token: str
    key: bytes
    url: str
    calls: int = 0
    at_once: int = 1
    facilitator: str = ""

    @classmethod
    def read(cls, line: str) -> Orders:
        told = json.loads(line)
        return cls(**{**told, "folder": Path(told["folder"]), "key": bytes.fromhex(told["key"])})

    def line(self) -> str:
        told = {**self.__dict__, "folder": str(self.folder), "key": self.key.hex()}
        return json.dumps(told) + "\n"


# -- our node ------------------------------------------------------------------------------------


class InstantPool:
    """A pool that answers at once, and writes a line for each answer into a file."""

    def __init__(self, works: Path, started: Callable[[str], None]) -> None:
        self._works = works
        self._started = started

    def facts(self) -> dict[str, Any]:
        return {"kinds": ["infer"], "models": {MODEL: 2048}, "simulated": True}

    async def check(self, *_: Any) -> None:
        return None

    async def check_fits(self, *_: Any) -> None:
        return None

    async def run(self, key: str, *_: Any, **__: Any) -> Any:
        from agentkit.pool.request import Done

        is_job = not key.startswith("open-")  # others are sold over x402, and have no job
        if is_job:
            self._started(key)
        with self._works.open("a") as works:
            works.write(f"{key}\n")
        usage = {"request": 1, "input": 10, "output": 1}
        return Done(outputs=(Text.of(b"yes"),), usage=usage, model=MODEL)

    async def cancel(self, _: str) -> None:
        return None

    async def close(self) -> None:
        return None


async def node(orders: Orders) -> None:
    """Serve our node at the port of its address until it is killed."""
    from yarl import URL

    from agentkit.net.server import start_server
    from agentkit.serve.app import node_app
    from agentkit.serve.node import Node, NodeSettings

    network = network_at(orders.rpc, orders.token)
    settings = NodeSettings(
        "node",
        orders.folder / "node",
        slots=orders.at_once,
        facilitator=orders.facilitator,
        window="1 USDC",
        prices=PRICES,
    )
    served = await Node.open(settings, KeySigner(orders.key), Web3Chain(network), network)
    pool: Any = InstantPool(orders.folder / "works", served.jobs.started)
    served.pool = pool
    served.jobs._pool = pool
    await start_server(node_app(served), "127.0.0.1", URL(orders.url).port or 0)
    print("serves", flush=True)
    await asyncio.Event().wait()


# -- our payer -----------------------------------------------------------------------------------


async def ours(orders: Orders) -> None:
    """Buy all calls by one run over one channel, or go on with that run."""
    network = network_at(orders.rpc, orders.token)
    signer = KeySigner(orders.key)
    folder = orders.folder / "ours"
    async with AsyncExitStack() as stack:
        journal = await Journal.open(folder, signer.address)
        stack.push_async_callback(journal.close)
        chain = Web3Chain(network)
        stack.push_async_callback(chain.close)
        provider = Native("native", [orders.url], network)
        stack.push_async_callback(provider.close)
        sender = Sender(journal, chain, signer, network)
        rail = ChannelRail(journal, chain, signer, network, sender)
        means = Resources(
            journal,
            {"native": provider},
            {"channel": rail},
            Budget(Allowance()),
            Allowance(),
            LocalStore(folder / "artifacts"),
            folder,
        )
        known = await journal.commit(lambda tx: tx.every(r.Run))
        if known:
            run = await runs.resume(means, known[0].run)
        else:
            run = await runs.start(means, await _plan(means, orders, signer.address))
        await run.result()


async def _plan(means: Resources, orders: Orders, wallet: str) -> Any:
    rows = orders.folder / "rows.jsonl"
    lines = [json.dumps({"text": f"number {number}"}) for number in range(orders.calls)]
    rows.write_text("\n".join(lines) + "\n")
    graph = JobGraph("many")
    data = graph.data("rows", source=str(rows))
    graph.infer(
        "say",
        model=MODEL,
        over=data,
        prompt="Say {text}.",
        max_tokens=1,
        max_items=orders.calls,
    )
    network = network_at(orders.rpc, orders.token)
    market = Market(network, means.providers, means.rails, means.allowance, wallet, means.folder)
    budget = Money.parse("1000 USDC").bind(network.currency)
    return await make_plan(graph.freeze(), market, Wish(budget=budget))


# -- the SDK's client ----------------------------------------------------------------------------


async def stock(orders: Orders) -> None:
    """Buy calls one after the other, beginning after those whose answers are on file."""
    import httpx
    from eth_account import Account
    from x402 import SpendControlAsset, SpendControls, x402Client
    from x402.http.clients.httpx import x402_httpx_transport
    from x402.mechanisms.evm.batch_settlement.client import BatchSettlementEvmScheme
    from x402.mechanisms.evm.batch_settlement.client.config import (
        BatchSettlementDepositPolicy,
        BatchSettlementEvmSchemeOptions,
    )
    from x402.mechanisms.evm.batch_settlement.client.file_storage import (
        FileChannelStorageOptions,
        FileClientChannelStorage,
    )
    from x402.mechanisms.evm.signers import EthAccountSignerWithRPC

    network = network_at(orders.rpc, orders.token)
    storage = FileClientChannelStorage(FileChannelStorageOptions(directory=orders.folder))
    policy = BatchSettlementDepositPolicy(deposit_multiplier=orders.calls + 10)
    scheme = BatchSettlementEvmScheme(
        EthAccountSignerWithRPC(Account.from_key(orders.key), orders.rpc),
        BatchSettlementEvmSchemeOptions(deposit_policy=policy, storage=storage),
    )
    client = x402Client()
    client.register(network.id, scheme)
    allowed = SpendControlAsset(
        asset=orders.token, network=network.id, max_amount_per_payment="10000000"
    )
    client.set_spend_controls(SpendControls(allowed_assets=[allowed]))
    received = orders.folder / "received"
    done = len(received.read_text().splitlines()) if received.exists() else 0
    async with httpx.AsyncClient(transport=x402_httpx_transport(client), timeout=30) as http:
        for number in range(done, orders.calls):
            while not await _bought(http, orders.url + CHAT, number):
                await asyncio.sleep(0.05)
            with received.open("a") as file:
                file.write(f"{number}\n")


async def _bought(http: Any, url: str, number: int) -> bool:
    import httpx
    from x402.http.clients.httpx import PaymentError

    message = {"role": "user", "content": f"Say {number}."}
    body = {"model": MODEL, "messages": [message], "max_tokens": 1}
    try:
        return (await http.post(url, json=body)).status_code == 200
    except (httpx.HTTPError, PaymentError):
        return False


ROLES = {"node": node, "ours": ours, "stock": stock}


def main() -> None:
    role, orders = ROLES[sys.argv[1]], Orders.read(sys.stdin.readline())
    try:
        asyncio.run(role(orders))
    except RunPaused:
        raise SystemExit(PAUSED) from None


if __name__ == "__main__":
    main()
