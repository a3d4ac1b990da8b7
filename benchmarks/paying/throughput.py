"""Durable paid tasks a second over HTTP: one channel of ours beside stock x402 `exact`.

    python benchmarks/paying/throughput.py --json

x402: the SDK's client, its server core, its facilitator, each in a process of its own, on anvil
with instant blocks.  Channel: 64 lanes on one channel that is paid on delivery, by `ChannelRail`
and `VoucherBook.admit`: the payer commits its attempt with the voucher for what was delivered
before, and signs an order; the seller checks it, commits the job, and commits the delivery, as a
node does.  All is synchronous=FULL.  The SDK keeps no budget; with `--budget` ours does.  x402 is
at its best concurrency of those tried, and rounds take turns.  Every answer is checked, and so is
what the chain says everybody owns at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from agentkit.artifacts import Text
from agentkit.errors import RateLimited, Refused
from agentkit.journal import events as e
from agentkit.journal.blobs import keep
from agentkit.journal.journal import Journal
from agentkit.keys.messages import checksummed, recover, typed_digest
from agentkit.keys.signer import KeySigner
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt, Message, Result, purchase_id, result_digest
from agentkit.market.chain import Network
from agentkit.market.offer import Offer
from agentkit.market.receipt import delivery_of
from agentkit.market.seams import Transaction, Wanted
from agentkit.money import Asset, Money, Rate
from agentkit.payments import abi
from agentkit.payments.balance import token_balance
from agentkit.payments.budget import Budget
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels.book import VoucherBook, check_room
from agentkit.payments.channels.claiming import Claiming, ClaimPolicy
from agentkit.payments.channels.mirror import ChannelMirror
from agentkit.payments.channels.rail import ChannelRail
from agentkit.payments.channels.terms import CLOSE_DELAY
from agentkit.payments.contracts import CANONICAL, load
from agentkit.payments.facilitator.own import OwnFacilitator
from agentkit.payments.sender import Sender

ROOT = Path(__file__).parents[2]
CHAIN_ID = 1337
PRICE = 1000
ROUNDS = 3
X402_TASKS, X402_WIDTHS = 120, (8, 16, 32)
CHANNEL_TASKS, LANES = 3000, 64
RECEIPT_POLL = 0.005
"""Seconds between the SDK facilitator's looks for a receipt; by default it waits 100 ms."""

RUN = "bench"


@dataclass(frozen=True)
class Place:
    """Where the chain is, what is on it, and who acts."""

    rpc: str
    token: str
    keys: dict[str, str]

    @property
    def network(self) -> Network:
        here = f"eip155:{CHAIN_ID}"
        return Network(
            name="anvil",
            chain_id=CHAIN_ID,
            rpc=self.rpc,
            currency=Asset.named("USDC").bind(here, f"erc20:{self.token}"),
            coin=Asset.named("ETH").bind(here, "slip44:60"),
            token=self.token,
            token_name="USD Coin",
            token_version="1",
            channels="",
            test=True,
        )

    def signer(self, who: str) -> KeySigner:
        return KeySigner(bytes.fromhex(self.keys[who]))


def answer(task: int) -> str:
    """What a task comes to: something that only doing it tells."""
    return hashlib.sha256(str(task).encode()).hexdigest()


# -- the chain -----------------------------------------------------------------------------------


def anvil_binary() -> Path:
    system = platform.system().lower()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return ROOT / f"tests/npm/node_modules/@foundry-rs/anvil-{system}-{machine}/bin/anvil"


@contextmanager
def chain() -> Iterator[Place]:
    """Anvil with the token and the channels on it, and money where it is needed."""
    command = [str(anvil_binary()), "--host", "127.0.0.1", "--port", "0"]
    command += ["--chain-id", str(CHAIN_ID), "--hardfork", "prague", "--accounts", "0"]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=said, stderr=subprocess.DEVNULL) as process,
    ):
        try:
            yield _furnished(_listening(said))
        finally:
            process.kill()


def _listening(said: Any) -> str:
    for _ in range(1000):
        said.seek(0)
        for line in said:
            if line.startswith("Listening on "):
                return f"http://{line.removeprefix('Listening on ').strip()}"
        time.sleep(0.02)
    raise SystemExit("anvil does not listen")


def _furnished(rpc: str) -> Place:
    from web3 import HTTPProvider, Web3

    w3 = Web3(HTTPProvider(rpc))
    keys = {who: secrets.token_hex(32) for who in ("owner", "payer", "provider", "settler")}
    place = Place(rpc, "", keys)
    for who in keys:
        w3.provider.make_request("anvil_setBalance", [place.signer(who).address, hex(10**21)])  # type: ignore[arg-type]

    def send(data: bytes, to: str = "") -> Any:
        owner = place.signer("owner").address
        call: Any = {
            "from": owner,
            "nonce": w3.eth.get_transaction_count(checksummed(owner)),
            "data": data,
            "gas": 5_000_000,
            "maxFeePerGas": 10**11,
            "maxPriorityFeePerGas": 10**9,
            "chainId": CHAIN_ID,
            "value": 0,
            **({"to": to} if to else {}),
        }
        signed = w3.eth.account.sign_transaction(call, "0x" + keys["owner"])
        receipt = w3.eth.wait_for_transaction_receipt(
            w3.eth.send_raw_transaction(signed.raw_transaction), poll_latency=0.01
        )
        assert receipt["status"] == 1
        return receipt

    token = send(load("TestUSD").bytecode)["contractAddress"]
    for name, address in CANONICAL.items():
        code = "0x" + load(name).runtime.hex()
        w3.provider.make_request("anvil_setCode", [address, code])  # type: ignore[arg-type]
    mint = abi.encode("mint(address,uint256)", place.signer("payer").address, 10**12)
    send(mint, token)
    send(abi.encode("mint(address,uint256)", place.signer("provider").address, 1), token)  # warm
    return Place(rpc, str(token), keys)


# -- processes of their own ----------------------------------------------------------------------


@asynccontextmanager
async def beside(role: str, place: Place, **more: str) -> AsyncIterator[str]:
    """Run a role of this file in a process of its own; yields its address."""
    config = json.dumps({"place": place.__dict__, **more}) + "\n"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        *("--role", role),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(config.encode())
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        await process.wait()


async def play(role: str) -> None:
    """Be a role until standard input ends."""
    config = json.loads(sys.stdin.readline())
    place = Place(**config.pop("place"))
    async with ROLES[role](place, **config) as app:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await runner.cleanup()


def many_at_once() -> aiohttp.ClientSession:
    """Return a session that holds nobody back."""
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


# -- stock x402 ----------------------------------------------------------------------------------


@asynccontextmanager
async def facilitator(place: Place) -> AsyncIterator[web.Application]:
    """The SDK's facilitator, which blocks, in threads."""
    from x402 import x402FacilitatorSync
    from x402.mechanisms.evm import FacilitatorWeb3Signer
    from x402.mechanisms.evm.exact import register_exact_evm_facilitator
    from x402.schemas import PaymentPayload, PaymentRequirements

    signer = FacilitatorWeb3Signer("0x" + place.keys["settler"], place.rpc)
    eth: Any = signer._w3.eth
    wait = eth.wait_for_transaction_receipt
    eth.wait_for_transaction_receipt = lambda digest, timeout=120, **_: wait(
        digest, timeout=timeout, poll_latency=RECEIPT_POLL
    )
    inner = x402FacilitatorSync()
    register_exact_evm_facilitator(inner, signer, place.network.id)
    threads = ThreadPoolExecutor(64)

    def answering(ask: Callable[[Any, Any], Any]) -> Any:
        async def reply(request: web.Request) -> web.Response:
            body = await request.json()
            payload = PaymentPayload.model_validate(body["paymentPayload"])
            wanted = PaymentRequirements.model_validate(body["paymentRequirements"])
            loop = asyncio.get_running_loop()
            said = await loop.run_in_executor(threads, ask, payload, wanted)
            return web.json_response(said.model_dump(by_alias=True, exclude_none=True))

        return reply

    async def supported(request: web.Request) -> web.Response:
        return web.json_response(inner.get_supported().model_dump(by_alias=True, exclude_none=True))

    app = web.Application()
    app.router.add_get("/supported", supported)
    app.router.add_post("/verify", answering(inner.verify))
    app.router.add_post("/settle", answering(inner.settle))
    yield app
    threads.shutdown()


class Remote:
    """What the SDK's server asks of a facilitator client, over one session."""

    def __init__(self, url: str, supported: Any, session: aiohttp.ClientSession) -> None:
        self._url, self._supported, self._session = url, supported, session

    async def verify(self, payload: Any, requirements: Any, *_: Any) -> Any:
        from x402.schemas import VerifyResponse

        return VerifyResponse.model_validate(await self._ask("/verify", payload, requirements))

    async def settle(self, payload: Any, requirements: Any, *_: Any) -> Any:
        from x402.schemas import SettleResponse

        return SettleResponse.model_validate(await self._ask("/settle", payload, requirements))

    def get_supported(self) -> Any:
        return self._supported

    async def _ask(self, path: str, payload: Any, requirements: Any) -> Any:
        body = {
            "x402Version": 2,
            "paymentPayload": payload.model_dump(by_alias=True, exclude_none=True),
            "paymentRequirements": requirements.model_dump(by_alias=True, exclude_none=True),
        }
        async with self._session.post(self._url + path, json=body) as said:
            return await said.json()


@dataclass
class _Request:
    """A request as the SDK's server core reads it."""

    request: web.Request

    def get_header(self, name: str) -> str | None:
        return self.request.headers.get(name)

    def get_method(self) -> str:
        return self.request.method

    def get_path(self) -> str:
        return self.request.path

    def get_url(self) -> str:
        return str(self.request.url)

    def get_accept_header(self) -> str:
        return ""

    def get_user_agent(self) -> str:
        return ""

    def get_query_params(self) -> dict[str, str]:
        return {}

    def get_query_param(self, name: str) -> str | None:
        return None

    def get_body(self) -> None:
        return None


@asynccontextmanager
async def stock_shop(place: Place, facilitator: str) -> AsyncIterator[web.Application]:
    """The SDK's server core: verify, work, settle."""
    from x402 import x402ResourceServer
    from x402.http.types import HTTPRequestContext, PaymentOption, RouteConfig
    from x402.http.x402_http_server import x402HTTPResourceServer
    from x402.mechanisms.evm.exact import register_exact_evm_server
    from x402.schemas import SupportedResponse

    async with many_at_once() as session:
        async with session.get(facilitator + "/supported") as said:
            supported = SupportedResponse.model_validate(await said.json())
        server = x402ResourceServer(Remote(facilitator, supported, session))
        register_exact_evm_server(server, place.network.id)
        extra = {"name": "USD Coin", "version": "1"}
        option = PaymentOption(
            scheme="exact",
            pay_to=place.signer("provider").address,
            price={"amount": str(PRICE), "asset": place.token, "extra": extra},
            network=place.network.id,
            max_timeout_seconds=120,
        )
        http = x402HTTPResourceServer(server, {"POST /task": RouteConfig(accepts=[option])})
        http.initialize()

        def told(said: Any) -> web.Response:
            headers = {k: v for k, v in said.headers.items() if k.lower() != "content-type"}
            return web.json_response(said.body or {}, status=said.status, headers=headers)

        async def task(request: web.Request) -> web.Response:
            context = HTTPRequestContext(
                adapter=_Request(request),
                path=request.path,
                method=request.method,
                payment_header=request.headers.get("PAYMENT-SIGNATURE"),
            )
            found = await http.process_http_request(context)
            if found.type != "payment-verified":
                return told(found.response)
            response = web.json_response({"answer": answer((await request.json())["task"])})
            settled = await http.process_settlement(
                found.payment_payload, found.payment_requirements, context=context
            )
            if not settled.success:
                return told(settled.response)
            response.headers.update(settled.headers)
            return response

        app = web.Application()
        app.router.add_post("/task", task)
        yield app


class StockPayer:
    """The SDK's client over aiohttp."""

    def __init__(self, place: Place, url: str, session: aiohttp.ClientSession) -> None:
        from eth_account import Account
        from x402 import x402Client
        from x402.http.x402_http_client import x402HTTPClient
        from x402.mechanisms.evm.exact import register_exact_evm_client

        client = x402Client()
        account = Account.from_key("0x" + place.keys["payer"])
        register_exact_evm_client(client, account, place.network.id)
        most = {"asset": place.token, "network": place.network.id}
        client.set_spend_controls({"allowed_assets": [{**most, "max_amount_per_payment": "2000"}]})
        self._http, self._session = x402HTTPClient(client), session
        self._url = URL(url) / "task"
        self.paid = 0

    async def buy(self, task: int) -> None:
        body = {"task": task}
        async with self._session.post(self._url, json=body) as asked:
            assert asked.status == 402
            headers, _ = await self._http.handle_402_response(
                dict(asked.headers), await asked.read(), str(self._url)
            )
        async with self._session.post(self._url, json=body, headers=headers) as said:
            assert said.status == 200, await said.read()
            assert (await said.json())["answer"] == answer(task)
        self.paid += 1


# -- our channel ---------------------------------------------------------------------------------


@asynccontextmanager
async def channel_shop(place: Place, home: str) -> AsyncIterator[web.Application]:
    """A provider that admits, works and delivers as a node does, and is paid on delivery."""
    signer, web3 = place.signer("provider"), Web3Chain(place.network)
    journal = await Journal.open(Path(home), signer.address)
    network, payee = place.network, signer.address
    own = OwnFacilitator(journal, web3, signer, network)
    mirror = ChannelMirror(journal, web3, delay=CLOSE_DELAY)
    window = Money(2 * LANES * PRICE, network.currency)
    book = VoucherBook(journal, signer, network, own, window=window, mirror=mirror)
    claiming = Claiming(
        journal,
        web3,
        network,
        own,
        signer,
        payee=payee,
        delay=CLOSE_DELAY,
        policy=ClaimPolicy(),
        mirror=mirror,
    )
    price = Money(PRICE, network.currency)

    def take(tx: Transaction, taken: e.JobTaken) -> None:
        check_room(tx, taken.channel, price)
        book.check_window(tx, taken.payer)
        tx.append(e.NODE, taken)

    async def task(request: web.Request) -> web.Response:
        body = await request.json()
        attempt, wanted, payment = body["attempt"], body["wanted"], body["payment"]
        try:
            channel = await book.admit(payment, attempt, wanted, price)
            taken = e.JobTaken(
                attempt=attempt,
                task=wanted,
                payer=payment["payer"],
                channel=channel,
                at_most=price,
            )
            await journal.commit(lambda tx: take(tx, taken))
        except (Refused, RateLimited) as wrong:
            return web.json_response({"error": str(wrong)}, status=402)
        output = Text.of(answer(body["task"]).encode())
        delivery = delivery_of(attempt, result_digest([output.digest]), price, {"request": 1})
        signed = signer.sign_delivery(network.settlement_domain, delivery).hex()
        await journal.commit(lambda tx: end(tx, attempt, output, price, signed))
        return web.json_response({"answer": output.text, "signature": signed})

    async def voucher(request: web.Request) -> web.Response:
        await book.take(await request.json())
        return web.json_response({})

    async def deposit(request: web.Request) -> web.Response:
        return web.json_response(await book.deposit(await request.json()))

    async def close(request: web.Request) -> web.Response:
        closed = await book.close(await request.json())
        await claiming.claim_all()
        return web.json_response(closed)

    app = web.Application()
    app.router.add_post("/task", task)
    app.router.add_post("/voucher", voucher)
    app.router.add_post("/deposit", deposit)
    app.router.add_post("/close", close)
    yield app
    await web3.close()
    await journal.close()


def end(tx: Transaction, attempt: str, output: Text, price: Money, signed: str) -> None:
    """Write a delivery down, with its output."""
    ended = e.JobEnded(
        attempt=attempt,
        state="done",
        outputs=keep(tx, (output,)),
        usage={"request": 1},
        price=price,
        signature=signed,
    )
    tx.append(e.NODE, ended)


class ChannelPayer:
    """The payer's half.

    One commit a task: that it will be asked for, and the voucher for what was delivered before.
    """

    def __init__(
        self,
        place: Place,
        url: str,
        session: aiohttp.ClientSession,
        journal: Journal,
        *,
        budget: bool,
    ) -> None:
        self._session, self._url, self._journal = session, URL(url), journal
        self._task_url = URL(url) / "task"
        self._budget = budget
        self._currency, self._payee = place.network.currency, place.signer("provider").address
        self.chain, signer = Web3Chain(place.network), place.signer("payer")
        sender = Sender(journal, self.chain, signer, place.network)
        self.rail = ChannelRail(journal, self.chain, signer, place.network, sender)
        self._ledger = Budget(Allowance())
        self._offer = self._offered()
        self._first = self._attempt_of(0)
        self._domain = place.network.settlement_domain
        self._delivered: list[tuple[Attempt, Result]] = []
        self.paid = 0

    async def fund(self, tasks: int) -> None:
        need = Money(tasks * PRICE, self._currency)
        await self._journal.commit(lambda tx: self._ledger.hold(tx, RUN, need, None))
        wanted = Wanted(self._first, lambda tx: None)
        await self._carry("deposited", await self.rail.fund(self._offer, need, wanted))

    async def buy(self, task: int) -> None:
        """Order a task and take its answer; it is paid with the next order, or by `settle`."""
        attempt = self._attempt(task)
        owed, self._delivered = self._delivered, []

        def work(tx: Transaction) -> dict[str, Any]:
            tx.append(RUN, e.AttemptOpened(attempt=attempt))
            self._pay(tx, owed)
            if self._budget:
                self._ledger.reserve(tx, attempt)
            return self.rail.reserve(tx, attempt).body

        payment = await self._journal.commit(work)
        asked = {
            "task": task,
            "attempt": attempt.id,
            "wanted": attempt.task,
            "payment": payment,
        }
        async with self._session.post(self._task_url, json=asked) as said:
            assert said.status == 200, await said.read()
            told = await said.json()
        result = self._result(task)
        assert told["answer"] == answer(task)
        digest = result_digest([output.digest for output in result.outputs])
        delivery = delivery_of(attempt.id, digest, result.price, result.usage)
        signed = typed_digest(self._domain, delivery)
        assert recover(signed, bytes.fromhex(told["signature"])) == self._payee
        self._delivered.append((attempt, result))
        self.paid += 1

    def _pay(self, tx: Transaction, owed: Sequence[tuple[Attempt, Result]]) -> list[Message]:
        """Sign the vouchers for what was delivered; each replaces the one before."""
        messages: list[Message] = []
        for attempt, result in owed:
            receipt, carried = self.rail.settle(tx, attempt, result)
            if self._budget:
                self._ledger.spend(tx, attempt, receipt.amount, receipt.standing)
            messages += carried
        return messages

    async def settle(self) -> None:
        """Pay what was delivered last."""
        owed, self._delivered = self._delivered, []
        messages = await self._journal.commit(lambda tx: self._pay(tx, owed))
        if messages:
            async with self._session.post(self._url / "voucher", json=messages[-1].body) as said:
                assert said.status == 200, await said.read()

    async def close(self) -> None:
        await self._carry("closed", await self.rail.close())

    async def _carry(self, verb: str, messages: Sequence[Message]) -> None:
        for message in messages:
            async with self._session.post(self._url / message.verb, json=message.body) as said:
                assert said.status == 200, await said.read()
                body = await said.json()
            await self.rail.finish(message.model_copy(update={"verb": verb, "body": body}))

    def _offered(self) -> Offer:
        price = Money(PRICE, self._currency)
        return Offer(
            provider="far",
            node="task",
            on="far",
            price=price,
            at_most=price,
            eta=0.1,
            expires=time.time() + 3600,
            rail="channel",
            pays="on_delivery",
            payee=self._payee,
            rates={"request": Rate(price, 1, "request")},
        )

    def _attempt_of(self, task: int) -> Attempt:
        purchase = purchase_id(RUN, "task", task)
        return Attempt.at(
            purchase, 0, self._offer, run=RUN, item=task, task=purchase, at_most=self._offer.at_most
        )

    def _attempt(self, task: int) -> Attempt:
        """Return another attempt under the same offer: what is bought, and not how it is paid."""
        purchase = purchase_id(RUN, "task", task)
        named = {"id": purchase, "purchase": purchase, "item": task, "task": purchase}
        return self._first.model_copy(update=named)

    def _result(self, task: int) -> Result:
        return Result((Text.of(answer(task).encode()),), {"request": 1}, self._offer.price)


# -- rounds --------------------------------------------------------------------------------------


async def rate(buy: Callable[[int], Awaitable[None]], tasks: range, width: int) -> float:
    """Return how many of the tasks were bought in a second, `width` at a time."""
    numbers = iter(tasks)

    async def lane() -> None:
        for number in numbers:
            await buy(number)

    began = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(width)))
    return len(tasks) / (time.perf_counter() - began)


class Numbers:
    """Hands out tasks nobody had before."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> range:
        first, self._next = self._next, self._next + count
        return range(first, first + count)


async def best_width(
    buy: Callable[[int], Awaitable[None]], numbers: Numbers, widths: tuple[int, ...], tasks: int
) -> int:
    await rate(buy, numbers.take(tasks // 4), widths[0])  # what is slow the first time only
    rates = {width: await rate(buy, numbers.take(tasks), width) for width in widths}
    return max(rates, key=lambda width: rates[width])


async def compare(
    rounds: int = ROUNDS, scale: float = 1.0, *, budget: bool = False
) -> dict[str, Any]:
    """Return the rates of every round, and the median of their ratios."""
    few, many = round(X402_TASKS * scale), round(CHANNEL_TASKS * scale)
    with chain() as place, tempfile.TemporaryDirectory() as folder:
        payer = place.signer("payer").address
        async with contextlib.AsyncExitStack() as stack:
            settling = await stack.enter_async_context(beside("facilitator", place))
            stock_url = await stack.enter_async_context(
                beside("stock_shop", place, facilitator=settling)
            )
            channel_url = await stack.enter_async_context(
                beside("channel_shop", place, home=f"{folder}/provider")
            )
            session = await stack.enter_async_context(many_at_once())
            journal = await Journal.open(Path(folder) / "payer", payer)
            stack.push_async_callback(journal.close)
            stock = StockPayer(place, stock_url, session)
            ours = ChannelPayer(place, channel_url, session, journal, budget=budget)
            stack.push_async_callback(ours.chain.close)
            await ours.fund(many * (rounds + 1))
            found = await _rounds(stock, ours, rounds, few, many)
            await _check_sums(place, stock, ours)
    return found


async def _rounds(
    stock: StockPayer, ours: ChannelPayer, rounds: int, few: int, many: int
) -> dict[str, Any]:
    numbers = Numbers()
    x402_width = await best_width(stock.buy, numbers, X402_WIDTHS, few)
    await rate(ours.buy, numbers.take(many // 4), LANES)  # what is slow the first time only
    told = []
    for _ in range(rounds):
        x402 = await rate(stock.buy, numbers.take(few), x402_width)
        channel = await rate(ours.buy, numbers.take(many), LANES)
        told.append({"x402_per_s": x402, "channel_per_s": channel, "ratio": channel / x402})
    return {
        "ratio": statistics.median(row["ratio"] for row in told),
        "channel_per_s": statistics.median(row["channel_per_s"] for row in told),
        "x402_per_s": statistics.median(row["x402_per_s"] for row in told),
        "channel_at_once": LANES,
        "x402_at_once": x402_width,
        "rounds": told,
    }


async def _check_sums(place: Place, stock: StockPayer, ours: ChannelPayer) -> None:
    """See that the chain moved what was bought, by either way, and nothing else."""

    async def owned(who: str) -> int:
        return await token_balance(ours.chain, place.network, place.signer(who).address)

    await ours.settle()
    (left,) = (await ours.rail.balance()).values()
    assert await owned("provider") == 1 + stock.paid * PRICE
    await ours.close()
    assert await owned("provider") == 1 + (stock.paid + ours.paid) * PRICE
    assert await owned("payer") == 10**12 - (stock.paid + ours.paid) * PRICE
    assert left.units % PRICE == 0


ROLES: dict[str, Any] = {
    "facilitator": facilitator,
    "stock_shop": stock_shop,
    "channel_shop": channel_shop,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Paid tasks over HTTP, beside stock x402 exact.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--scale", type=float, default=1.0, help="how many tasks, in proportion")
    parser.add_argument("--budget", action="store_true", help="count every task in the budget, too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", choices=sorted(ROLES), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.role:
        asyncio.run(play(chosen.role))
        return
    found = asyncio.run(compare(chosen.rounds, chosen.scale, budget=chosen.budget))
    if chosen.json:
        print(json.dumps({"paid_tasks_vs_x402": found}))
        return
    print(
        f"channel {found['channel_per_s']:.0f}/s ({found['channel_at_once']} at once),"
        f" x402 exact {found['x402_per_s']:.0f}/s ({found['x402_at_once']} at once):"
        f" {found['ratio']:.0f} times"
    )


if __name__ == "__main__":
    main()
