"""A small market paid by x402 on a real chain: token, facilitator, shop and payer.

Everything is the real thing behind loopback HTTP; the faults are in front of it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from agentkit.graph.builder import JobGraph
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import checksummed
from agentkit.keys.signer import KeySigner
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt, Payment
from agentkit.market.chain import Network
from agentkit.market.offer import Offer
from agentkit.market.plan import Plan
from agentkit.market.task import Task
from agentkit.memory.artifacts.local import LocalStore
from agentkit.money import Asset, Money, Rate
from agentkit.payments import abi
from agentkit.payments.balance import token_balance
from agentkit.payments.budget import Budget
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels.lanes import LaneRail
from agentkit.payments.contracts import load
from agentkit.payments.facilitator.app import facilitator_app
from agentkit.payments.facilitator.service import FacilitatorService
from agentkit.payments.sender import Sender
from agentkit.payments.upto.rail import UptoRail
from agentkit.payments.x402.exact_seller import ExactSeller
from agentkit.payments.x402.paywall import Paywall
from agentkit.payments.x402.rail import X402Rail
from agentkit.payments.x402.remote import Facilitator
from agentkit.planner.planner import make_plan
from agentkit.planner.request import Market, Wish
from agentkit.providers.openai import EndpointSettings
from agentkit.providers.x402 import X402Endpoint
from agentkit.runtime import run as runs
from agentkit.runtime.context import Resources
from agentkit.runtime.result import RunResult
from agentkit.testing import Desk as Buying
from support import chain_processes
from support.chain_processes import CHAIN_ID, KEYS
from support.timing import limit

DEPLOYER, SHOP, SETTLER, OTHER, _ = map(KeySigner, KEYS)
MODEL = "smollm2-135m"
SERVED = "theirs/model-1"
PRICE = 1000
PATH = "/v1/chat/completions"


@dataclass
class World:
    """A chain with a token on it, and means to look at it past everybody else.

    `payee` sells in this test, and owns nothing at its beginning.
    """

    network: Network
    eyes: Web3Chain
    node: chain_processes.Node
    nonce: int
    payee: str = field(default_factory=lambda: KeySigner(secrets.token_bytes(32)).address)

    async def earned(self) -> int:
        """What the payee of this test was paid."""
        return await self.balance(self.payee)

    async def mint(self, to: str, units: int) -> None:
        await self.send(self.network.token, abi.encode("mint(address,uint256)", to, units))

    async def balance(self, address: str) -> int:
        return await token_balance(self.eyes, self.network, address)

    async def send(self, to: str, data: bytes, gas: int = 4_000_000) -> str:
        """Do something as the deployer; returns the address of a contract that was made."""
        from eth_account import Account as Key  # slow to import, and a killed payer has no need

        from agentkit.embedded.chain.vm import contract_address

        fees = await self.eyes.fees()
        call = {
            "type": 2,
            "chainId": self.network.chain_id,
            "nonce": self.nonce,
            "data": data,
            "gas": gas,
            "maxFeePerGas": fees.max_fee,
            "maxPriorityFeePerGas": fees.max_tip,
            "value": 0,
            **({"to": to} if to else {}),
        }
        signed = Key.sign_transaction(call, KEYS[0])
        made = contract_address(bytes.fromhex(DEPLOYER.address[2:]), self.nonce)
        self.nonce += 1
        await self.eyes.send(bytes(signed.raw_transaction))
        async with asyncio.timeout(limit(10)):
            while not (receipt := await self.eyes.receipt("0x" + bytes(signed.hash).hex())):
                await asyncio.sleep(0.005)
        assert receipt.succeeded
        return "0x" + made.hex()

    async def fund(self, to: str) -> None:
        """Give an address gas money."""
        await self._send(KEYS[1], to, b"", gas=21_000, value=10**18)

    async def send_as(self, key: bytes, to: str, data: bytes) -> None:
        """Call a contract with another key, which has gas money."""
        await self._send(key, to, data, gas=1_000_000)

    async def _send(self, key: bytes, to: str, data: bytes, *, gas: int, value: int = 0) -> None:
        from eth_account import Account as Key

        fees = await self.eyes.fees()
        call = {
            "type": 2,
            "chainId": self.network.chain_id,
            "nonce": await self.eyes.nonce(KeySigner(key).address),
            "data": data,
            "gas": gas,
            "maxFeePerGas": fees.max_fee,
            "maxPriorityFeePerGas": fees.max_tip,
            "value": value,
            "to": to,
        }
        signed = Key.sign_transaction(call, key)
        await self.eyes.send(bytes(signed.raw_transaction))
        async with asyncio.timeout(limit(10)):
            while not (receipt := await self.eyes.receipt("0x" + bytes(signed.hash).hex())):
                await asyncio.sleep(0.005)
        assert receipt.succeeded

    def later(self, seconds: int) -> None:
        """Have the chain's clock go on."""
        self.node.rpc("evm_increaseTime", seconds)
        self.node.rpc("evm_mine")


def network_at(url: str, token: str, chain_id: int = CHAIN_ID) -> Network:
    here = f"eip155:{chain_id}"
    return Network(
        name="test" if chain_id == CHAIN_ID else f"chain-{chain_id}",
        chain_id=chain_id,
        rpc=url,
        currency=Asset.named("USDC").bind(here, f"erc20:{token}"),
        coin=Asset.named("ETH").bind(here, "slip44:60"),
        token=token,
        token_name="USD Coin",
        token_version="1",
        channels="",
        test=True,
    )


@contextmanager
def chain_of(kind: str, folder: Path) -> Iterator[chain_processes.Node]:
    running = (
        chain_processes.anvil()
        if kind == "anvil"
        else chain_processes.embedded(folder / "chain.db")
    )
    with running as node:
        yield node


_TOKENS: dict[str, str] = {}
"""The token of every chain, by its address: deploying one takes a while."""


@asynccontextmanager
async def world_on(
    node: chain_processes.Node, bytecode: bytes = b"", chain_id: int = CHAIN_ID
) -> AsyncIterator[World]:
    """A token on a chain: the one of this chain, or a new one from `bytecode`."""
    network = network_at(node.url, "0x" + "11" * 20, chain_id).model_copy(update={"token": ""})
    eyes = Web3Chain(network)
    try:
        world = World(network, eyes, node, await eyes.nonce(DEPLOYER.address))
        token = "" if bytecode else _TOKENS.get(node.url, "")
        if not token:
            token = checksummed(await world.send("", bytecode or load("TestUSD").bytecode))
        if not bytecode:
            _TOKENS[node.url] = token
        world.network = network_at(node.url, token, chain_id)
        yield world
    finally:
        await eyes.close()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Around = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]


@dataclass
class Counter:
    """What somebody was asked, and what goes wrong there."""

    works: int = 0
    seconds: float = 0.0
    status: int = 200
    posts: list[dict[str, Any]] = field(default_factory=list)
    around: Around | None = None


@dataclass
class Shop:
    """A server that sells answers, and its facilitator."""

    world: World
    url: str
    counter: Counter
    journal: Journal
    paywall: Paywall


@asynccontextmanager
async def facilitator(world: World, folder: Path, *, least: str = "") -> AsyncIterator[str]:
    """Our facilitator, and its address; it sends nothing that moves less than `least`."""
    journal = await Journal.open(folder / "facilitator", SETTLER.address)
    chain = Web3Chain(world.network)
    service = FacilitatorService(
        journal, chain, SETTLER, world.network, least=Money.parse(least) if least else None
    )
    async with TestServer(facilitator_app(service)) as server:
        yield str(server.make_url("")).rstrip("/")
    await chain.close()
    await journal.close()


@asynccontextmanager
async def shop(
    world: World,
    folder: Path,
    url: str,
    counter: Counter | None = None,
    name: str = "shop",
    prices: dict[str, int] | None = None,
) -> AsyncIterator[Shop]:
    """A shop behind our paywall, which settles at a facilitator's address."""
    counter = counter or Counter()
    journal = await Journal.open(folder / name, SHOP.address)
    chain, remote = Web3Chain(world.network), Facilitator(url)
    currency = world.network.currency
    exact = ExactSeller(journal, chain, world.network, remote, payee=world.payee)
    paywall = Paywall(
        [exact],
        prices={f"POST {p}": Money(n, currency) for p, n in (prices or {PATH: PRICE}).items()},
    )

    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        if counter.around:
            return await counter.around(request, handler)
        return await handler(request)

    async def chat(request: web.Request) -> web.Response:
        counter.works += 1
        await asyncio.sleep(counter.seconds)
        return web.json_response(answer(f"answer {counter.works}"), status=counter.status)

    middlewares: list[Any] = [around, paywall.middleware]  # aiohttp wants a named argument
    app = web.Application(middlewares=middlewares)
    for path in prices or {PATH: PRICE}:
        app.router.add_post(path, chat)
    async with TestServer(app) as server:
        yield Shop(world, str(server.make_url("")).rstrip("/"), counter, journal, paywall)
    await remote.close()
    await chain.close()
    await journal.close()


def answer(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": SERVED,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


@dataclass
class Payer:
    """A wallet with money, its books, and the provider that it buys from."""

    signer: KeySigner
    journal: Journal
    rail: X402Rail | LaneRail | UptoRail
    provider: X402Endpoint
    desk: Buying
    network: Network

    async def sign(self, **changes: object) -> tuple[Task, Offer, Attempt, Payment]:
        """Inspect, hold and sign; nothing has left yet."""
        node = self.desk.node(**changes)
        offer = await self.desk.offer(node)
        task, attempt, payment = await self.desk.open(node, offer)
        return task, offer, attempt, payment

    async def again(self, attempt: Attempt) -> Payment:
        """Ask the rail for an attempt's payment once more."""
        return await self.journal.commit(lambda tx: self.rail.reserve(tx, attempt))

    @property
    def means(self) -> Resources:
        folder = self.journal.home
        return Resources(
            self.journal,
            {self.provider.name: self.provider},
            {self.rail.name: self.rail},
            Budget(self.allowance),
            self.allowance,
            LocalStore(folder / "artifacts"),
            folder,
        )

    allowance = Allowance()

    async def plan(self, **changes: object) -> Plan:
        graph = JobGraph("hello")
        fields: dict[str, Any] = {"model": MODEL, "prompt": "hello", "max_tokens": 8, **changes}
        graph.infer("greet", **fields)
        providers, rails = dict(self.means.providers), dict(self.means.rails)
        market = Market(
            self.network, providers, rails, self.allowance, self.signer.address, self.journal.home
        )
        budget = Money.parse("1 USDC").bind(self.network.currency)
        return await make_plan(graph.freeze(), market, Wish(budget=budget))

    async def run_many(self, count: int) -> RunResult:
        """Buy several answers by one run, as many at once as the provider takes."""
        graph = JobGraph("many")
        for number in range(count):
            graph.infer(f"ask{number}", model=MODEL, prompt=f"hello {number}", max_tokens=8)
        providers, rails = dict(self.means.providers), dict(self.means.rails)
        market = Market(
            self.network, providers, rails, self.allowance, self.signer.address, self.journal.home
        )
        budget = Money.parse("1 USDC").bind(self.network.currency)
        plan = await make_plan(graph.freeze(), market, Wish(budget=budget))
        return await (await runs.start(self.means, plan)).result()

    async def run(self, **changes: object) -> RunResult:
        """Buy one answer by a run of its own."""
        run = await runs.start(self.means, await self.plan(**changes))
        return await run.result()

    async def resume(self, run: str, **how: Any) -> RunResult:
        return await (await runs.resume(self.means, run, **how)).result()

    async def spent(self) -> int:
        """What counts as spent, ever."""
        key = f"ever|{self.network.currency.id}"
        row = await self.journal.commit(lambda tx: tx.get(r.Total, key))
        return row.amount.units if row else 0

    async def signed(self) -> list[r.Authorization]:
        return await self.journal.commit(lambda tx: tx.every(r.Authorization))


@asynccontextmanager
async def payer(
    world: World,
    folder: Path,
    url: str,
    *,
    units: int = 100 * PRICE,
    limit: str = "",
    payee: str = "",
    lanes: bool = False,
) -> AsyncIterator[Payer]:
    """A new wallet that owns `units`."""
    key = secrets.token_bytes(32)
    if units:
        await world.mint(KeySigner(key).address, units)
    async with payer_of(
        world.network, folder, url, key, limit=limit, payee=payee, lanes=lanes
    ) as one:
        yield one


@asynccontextmanager
async def payer_of(
    network: Network,
    folder: Path,
    url: str,
    key: bytes,
    *,
    limit: str = "",
    payee: str = "",
    account: EndpointSettings | None = None,
    lanes: bool = False,
) -> AsyncIterator[Payer]:
    """The wallet of a key, with what it remembers in `folder`; it pays by `exact`, or in lanes."""
    signer = KeySigner(key)
    prices = {"request": Rate.parse(limit)} if limit else {}
    account = account or EndpointSettings(prices=prices, models={MODEL: SERVED}, payee=payee)
    provider = X402Endpoint("x402", url, network, account)
    journal = await Journal.open(folder / "payer" / signer.address, signer.address)
    chain = Web3Chain(network)
    rail: X402Rail | LaneRail = (
        LaneRail(journal, chain, signer, network, Sender(journal, chain, signer, network))
        if lanes
        else X402Rail(journal, chain, signer, network)
    )
    desk = Buying(provider, rail, journal, Budget(Allowance()), MODEL)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(journal.close)
        stack.push_async_callback(chain.close)
        stack.push_async_callback(provider.close)
        yield Payer(signer, journal, rail, provider, desk, network)
