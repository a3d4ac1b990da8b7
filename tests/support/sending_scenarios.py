"""Payers that die, chains that misbehave, and how often each task is paid.

Each scenario has a chain of its own (anvil), a proxy in front of it, and a payer in a process of
its own that is started again and again until it says that all is done.  The control is a payer
that sends first and writes down afterwards: where it pays once, too, the fault was not reached.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agentkit.errors import SettlementFailed, StateError
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import UnsignedTransaction as Call
from agentkit.keys.messages import address_word
from agentkit.keys.signer import KeySigner
from agentkit.market.chain import ChainReceipt, Network
from agentkit.market.seams import Transaction
from agentkit.money import Asset
from agentkit.payments import abi, rpc_endpoint, sender
from agentkit.payments.balance import token_balance
from agentkit.payments.chain import Web3Chain
from agentkit.payments.contracts import load
from agentkit.testing.rpc import FaultyRpc, RpcFault
from support import chain_processes
from support.chain_processes import CHAIN_ID, KEYS, Node
from support.timing import limit

DEPLOYER, PAYER, SHOP, OTHER = map(KeySigner, KEYS[:4])
TASKS, PRICE = 3, 1000
DYING_STARTS, MOST_STARTS = 2, 6

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["web3", "eth_account", "agentkit.payments.sender"])
"""Payers start from a process that has imported what takes long."""

Chaos = Callable[[Node], Coroutine[Any, Any, int]]
"""What is done to a chain while the payer works; returns how often it was done."""


@dataclass(frozen=True)
class Scenario:
    """One fault: where the payer is killed, what is wrong with its line and with the chain."""

    name: str
    kill: str = ""
    rpc: RpcFault = ""
    chaos: Chaos | None = None
    anvil: tuple[str, ...] = ()
    finality: int = 1
    bumps: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario; `paid` is read from the shop's balance on the chain."""

    name: str
    paid: int
    starts: int
    kills: int
    faults: int
    signed: int
    seconds: float
    final: int = 0
    nonces: int = 0
    says: str = field(default="", repr=False)

    @property
    def paid_once(self) -> bool:
        return self.paid == self.final == TASKS


# -- the payer, in a process of its own ----------------------------------------------------------


@dataclass(frozen=True)
class Orders:
    """What a payer's process is told; `kill_at` is where it has to die."""

    rpc: str
    token: str
    home: Path
    finality: int
    kill_at: str
    naive: bool


class Fate:
    """Kills this process where it was told to die."""

    point = ""
    log = Path()


def die(point: str) -> None:
    """Kill this process, as nothing but SIGKILL does, if it is to die here."""
    if Fate.point == point:
        with Fate.log.open("a") as log:
            log.write(point + "\n")
        os.kill(os.getpid(), signal.SIGKILL)


class MortalSigner(KeySigner):
    """Dies right before or after it signs, inside the transaction that would write it down."""

    def sign_tx(self, transaction: Call) -> tuple[str, bytes]:
        die("before signing")
        signed = super().sign_tx(transaction)
        die("before the commit")
        return signed


class MortalChain(Web3Chain):
    """Dies before and after bytes leave, and when a receipt is seen."""

    async def send(self, raw: bytes) -> None:
        die("after the commit")
        await super().send(raw)
        die("after sending")

    async def receipt(self, transaction: str) -> ChainReceipt | None:
        found = await super().receipt(transaction)
        if found:
            die("at the receipt")
        return found


def transferred(tx: Transaction, intent: str, receipt: ChainReceipt) -> None:
    """Refuse a success without the token's own log of it."""
    shop = address_word(SHOP.address)
    if not any(log.topics[:1] == (abi.TRANSFER,) and log.topics[2] == shop for log in receipt.logs):
        raise SettlementFailed("it transferred nothing")


async def pay_all(network: Network, home: Path) -> bool:
    """Pay every task, called again and again as an agent's own loop does; True once all are."""
    journal = await Journal.open(home, PAYER.address)
    line = MortalChain(network)
    mine = sender.Sender(journal, line, MortalSigner(KEYS[1]), network)
    mine.on_final["pay"] = transferred
    data = abi.encode("transfer(address,uint256)", SHOP.address, PRICE)
    done = 0
    try:
        await mine.recover()
        for n in range(TASKS) if not network.finality > 1 else ():
            await mine.send(f"pay:{n}", network.token, data)
            die("after it is final")
            done += 1
        if network.finality > 1:
            sends = [mine.send(f"pay:{n}", network.token, data) for n in range(TASKS)]
            done = len(await asyncio.gather(*sends))
    except StateError as unknown:
        print(unknown, file=sys.stderr)
    finally:
        await line.close()
        await journal.close()
    return done == TASKS


async def pay_naively(network: Network, home: Path) -> bool:
    """The control: read the nonce, sign, send, wait, and write down what was paid after that."""
    book = home.with_suffix(".book")
    data = abi.encode("transfer(address,uint256)", SHOP.address, PRICE)
    for n in range(TASKS):
        for _ in range(20):
            if book.exists() and f"task {n}\n" in book.read_text():
                break
            try:
                nonce = int(
                    ask(network.rpc, "eth_getTransactionCount", PAYER.address, "pending"), 16
                )
                fees = {"max_fee": 10**10, "max_tip": 10**9}
                call = Call(CHAIN_ID, nonce, network.token, data, 80_000, **fees)
                sent = ask(
                    network.rpc, "eth_sendRawTransaction", "0x" + PAYER.sign_tx(call)[1].hex()
                )
                die("after sending")
                while ask(network.rpc, "eth_getTransactionReceipt", sent) is None:
                    await asyncio.sleep(0.02)
            except (OSError, ValueError):  # it failed, so try again
                continue
            with book.open("a") as lines:
                lines.write(f"task {n}\n")
    return True


def ask(rpc: str, method: str, *params: object) -> Any:
    """Ask a chain once; an answer that does not come is an OSError."""
    question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(rpc, json.dumps(question).encode(), headers)
    with urllib.request.urlopen(request, timeout=1.0) as response:
        answer = json.loads(response.read())
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer["result"]


def payer(orders: Orders) -> None:
    """Be the payer; whatever it says goes to a file beside its home."""
    sys.stderr = orders.home.with_suffix(".says").open("a")
    Fate.point, Fate.log = orders.kill_at, orders.home.with_suffix(".kills")
    sender.BUMP_SECONDS, sender.BUMP_BLOCKS = 0.8, 2
    rpc_endpoint.TIMEOUT = 1.0
    pay = pay_naively if orders.naive else pay_all
    network = network_at(orders.rpc, orders.token, orders.finality)
    raise SystemExit(0 if asyncio.run(pay(network, orders.home)) else 1)


# -- around it -----------------------------------------------------------------------------------


def network_at(rpc: str, token: str, finality: int = 1) -> Network:
    return Network(
        name="test",
        chain_id=CHAIN_ID,
        rpc=rpc,
        currency=Asset.named("USDC").bind(f"eip155:{CHAIN_ID}", f"erc20:{token}"),
        coin=Asset.named("ETH").bind(f"eip155:{CHAIN_ID}", "slip44:60"),
        token=token,
        token_name="USD Coin",
        token_version="1",
        channels="",
        finality=finality,
        test=True,
    )


def deploy_token(node: Node) -> str:
    """Put the test token on a chain that mines at once, and give the payer some."""
    raw = "0x" + load("TestUSD").bytecode.hex()
    mint = abi.encode("mint(address,uint256)", PAYER.address, 10**9)
    node.rpc("anvil_impersonateAccount", DEPLOYER.address)
    sent = node.rpc("eth_sendTransaction", {"from": DEPLOYER.address, "data": raw})
    receipt: Any = mined(node, sent)
    token = str(receipt["contractAddress"])
    call = {"from": DEPLOYER.address, "to": token, "data": "0x" + mint.hex()}
    mined(node, node.rpc("eth_sendTransaction", call))
    return token


def mined(node: Node, transaction: object) -> object:
    for _ in range(100):
        receipt = node.rpc("eth_getTransactionReceipt", transaction)
        if receipt:
            return receipt
        node.rpc("evm_mine")
        time.sleep(0.02)
    raise AssertionError("the chain mines nothing")


async def play(scenario: Scenario, *, naive: bool = False) -> Outcome:
    """Play a scenario to its end; `naive` lets the control pay."""
    began = time.monotonic()
    with TemporaryDirectory() as folder, chain_processes.anvil(*scenario.anvil) as node:
        home = Path(folder) / "home"
        token = deploy_token(node)
        if "--no-mining" in scenario.anvil:
            node.rpc("evm_setAutomine", False)
        async with FaultyRpc(node.url, scenario.rpc) as line:
            chaos = asyncio.create_task(scenario.chaos(node)) if scenario.chaos else None
            starts = await _start_until_done(scenario, line.url, home, token, naive=naive)
            done = await chaos if chaos else 0
            faults = line.reached + done
        return Outcome(
            name=scenario.name,
            paid=await _balance(node, token) // PRICE,
            starts=starts,
            kills=len(_read(home.with_suffix(".kills")).splitlines()),
            faults=faults,
            seconds=time.monotonic() - began,
            says=_read(home.with_suffix(".says")),
            **({"signed": 0} if naive else await _books(home)),
        )


async def _start_until_done(
    scenario: Scenario, rpc: str, home: Path, token: str, *, naive: bool
) -> int:
    for start in range(1, MOST_STARTS + 1):
        kill = scenario.kill if start <= DYING_STARTS else ""
        orders = Orders(rpc, token, home, scenario.finality, kill, naive)
        child = PROCESSES.Process(target=payer, args=(orders,))
        child.start()
        await asyncio.to_thread(child.join)
        if child.exitcode == 0:
            return start
    return MOST_STARTS + 1


async def _balance(node: Node, token: str) -> int:
    eyes = Web3Chain(network_at(node.url, token))
    try:
        return await token_balance(eyes, network_at(node.url, token), SHOP.address)
    finally:
        await eyes.close()


async def _books(home: Path) -> dict[str, int]:
    journal = await Journal.open(home, PAYER.address)
    try:
        rows = await journal.commit(lambda tx: tx.every(r.EvmTransaction))
    finally:
        await journal.close()
    return {
        "final": sum(row.final and row.succeeded for row in rows),
        "signed": sum(len(row.transactions) for row in rows),
        "nonces": max((row.nonce + 1 for row in rows), default=0),
    }


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


# -- what is done to chains ----------------------------------------------------------------------


async def _pending(node: Node, count: int = 1) -> None:
    """Wait until so many transactions are in the chain's pool."""
    async with asyncio.timeout(limit(30)):
        while int((await _rpc(node, "txpool_status"))["pending"], 16) < count:
            await asyncio.sleep(0.02)


async def _rpc(node: Node, method: str, *params: object) -> Any:
    return await asyncio.to_thread(node.rpc, method, *params)


async def drop(node: Node) -> int:
    """Forget what waits, again and again."""
    await _pending(node)
    dropped, until = 0, time.monotonic() + 3
    while time.monotonic() < until:
        waiting = int((await _rpc(node, "txpool_status"))["pending"], 16)
        await _rpc(node, "anvil_dropAllTransactions")
        dropped += waiting
        await asyncio.sleep(0.1)
    return dropped


async def spike(node: Node) -> int:
    """Hold the base fee far above what was signed."""
    await _pending(node)
    held, until = 0, time.monotonic() + 4
    while time.monotonic() < until:
        await _rpc(node, "anvil_setNextBlockBaseFeePerGas", hex(8 * 10**9))
        held += 1
        await asyncio.sleep(0.1)
    return held


async def reorg(node: Node) -> int:
    """Undo the two newest blocks three times, with what stood in them."""
    for _ in range(3):
        await asyncio.sleep(1.0)
        await _rpc(node, "anvil_reorg", 2, [])
    return 3


async def steal(node: Node) -> int:
    """Let another program of the same key use nonces while the payer's transactions wait."""
    await _pending(node)
    await _rpc(node, "anvil_dropAllTransactions")
    first = int(await _rpc(node, "eth_getTransactionCount", PAYER.address, "latest"), 16)
    for nonce in range(first, first + 2):
        fees = {"max_fee": 10**11, "max_tip": 10**10}
        call = Call(CHAIN_ID, nonce, OTHER.address, b"", 21_000, **fees, value=1)
        await _rpc(node, "eth_sendRawTransaction", "0x" + PAYER.sign_tx(call)[1].hex())
    await _rpc(node, "evm_mine")
    await _rpc(node, "evm_setAutomine", True)
    await _rpc(node, "evm_mine")
    return 2


BLOCKS = ("--block-time", "0.3", "--mixed-mining")
SCENARIOS = [
    *(
        Scenario(f"killed {point}", kill=point)
        for point in (
            "before signing",
            "before the commit",
            "after the commit",
            "after sending",
            "at the receipt",
            "after it is final",
        )
    ),
    Scenario("answers lost", rpc="lose"),
    Scenario("requests lost", rpc="eat"),
    Scenario("502 after forwarding", rpc="502"),
    Scenario("killed after the commit, answers lost", kill="after the commit", rpc="lose"),
    Scenario("mempool dropped for 3 s", chaos=drop, anvil=("--block-time", "1")),
    Scenario(
        "base fee above the signed fee", chaos=spike, anvil=("--block-time", "0.4"), bumps=True
    ),
    Scenario("three reorgs of depth 2", chaos=reorg, anvil=("--block-time", "0.4"), finality=4),
    Scenario("two nonces stolen", chaos=steal, anvil=("--no-mining",)),
    Scenario("answers are HTML", rpc="html"),
    Scenario("429", rpc="429"),
    Scenario("answers after the timeout", rpc="slow"),
    Scenario("requests arrive twice", rpc="twice"),
    Scenario("answers under another id", rpc="wrong-id"),
    Scenario("a node that lags behind a balancer", rpc="stale"),
    Scenario("receipts without logs", rpc="bare"),
]
"""The fourteen of the first list, then what else goes wrong between a wallet and its chain."""

CONTROLS = [
    Scenario("killed after sending", kill="after sending"),
    Scenario("answers lost", rpc="lose"),
    Scenario("502 after forwarding", rpc="502"),
    Scenario("answers after the timeout", rpc="slow"),
]
"""What the naive payer pays more than once under."""
