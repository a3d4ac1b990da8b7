"""A provider node: a pool with a price list and a wallet, behind HTTP."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from agentkit.errors import AgentKitError, BadAmount, Refused
from agentkit.journal.journal import Journal
from agentkit.keys.signer import Signer
from agentkit.market.chain import SETTLEMENT, ChainClient, Network
from agentkit.market.models import names_of
from agentkit.memory.artifacts.local import LocalStore
from agentkit.money import Money, Rate
from agentkit.payments.channels.book import VoucherBook
from agentkit.payments.channels.claiming import Claiming, ClaimPolicy
from agentkit.payments.channels.mirror import ChannelMirror
from agentkit.payments.channels.terms import CLOSE_DELAY
from agentkit.payments.escrow.book import EscrowBook
from agentkit.payments.escrow.relay import EscrowRelay
from agentkit.payments.facilitator.own import OwnFacilitator
from agentkit.payments.legacy import LegacyBook
from agentkit.payments.x402.remote import Facilitator
from agentkit.pool.pool import Pool
from agentkit.pool.services import TASK_KINDS, Service
from agentkit.providers import wire
from agentkit.serve.jobs import Jobs, TaskPricing
from agentkit.serve.payment_books import PaymentBooks
from agentkit.serve.throughput import Throughput
from agentkit.serve.uploads import Uploads
from agentkit.serve.x402_sales import X402Sales

log = logging.getLogger(__name__)

WATCH_SECONDS = 60.0
"""How often a node checks whether it has to claim what it earned."""

CLAIM_SECONDS = 60.0
"""How long a node that is stopped goes on claiming what it earned."""

MAX_NAME = 200
"""The longest name, in characters, that is looked up or quoted in an error."""

PRICES = {
    "infer": {
        "request": "0.00 USDC per 1 request",
        "input": "0.40 USDC per 1M tokens",
        "output": "1.60 USDC per 1M tokens",
    },
    "embed": {"request": "0.00 USDC per 1 request", "input": "0.10 USDC per 1M tokens"},
    "head": {
        "request": "0.00 USDC per 1 request",
        "input": "0.20 USDC per 1M tokens",
        "output": "0.00 USDC per 1M tokens",
    },
    "train": {"row": "0.02 USDC per 1K rows", "cpu_ms": "0.01 USDC per 1M milliseconds"},
    "data": {"byte": "0.50 USDC per 1M bytes", "cpu_ms": "0.01 USDC per 1M milliseconds"},
}
"""Default price list, by service and unit; this rate of `cpu_ms` is 0.036 USDC per core hour."""


@dataclass(frozen=True)
class NodeSettings:
    """How an operator configures a node.

    `home` is the node's folder.  `percent` scales the price list.  `window` is how much is
    delivered on a channel before the next voucher is required.  `gpu` and `vram` (GB) describe a
    graphics card if the node runs on one.  With the URL of an x402 `facilitator`, clients without
    channel or API key can buy single chats for `request_price`.
    """

    name: str
    home: Path
    label: str = ""
    percent: int = 100
    slots: int = 1
    threads: int = 1
    nice: int = 0
    offers_last: float = 600.0
    window: str = "0.05 USDC"
    gpu: str = ""
    vram: int = 0
    api_keys: tuple[str, ...] = ()
    facilitator: str = ""
    request_price: str = "0.001 USDC"
    prices: dict[str, dict[str, str]] = field(default_factory=lambda: PRICES)


class Node:
    """The components of a provider node.

    `open` one, serve `agentkit.serve.app.node_app(node)`, and `close` it.
    """

    def __init__(
        self,
        settings: NodeSettings,
        journal: Journal,
        signer: Signer,
        chain: ChainClient,
        network: Network,
    ) -> None:
        self.settings = settings
        self.network = network
        self.signer = signer
        window = Money.parse(settings.window).bind(network.currency)
        parts = (journal, chain, signer, network)
        mirror = ChannelMirror(journal, chain, delay=CLOSE_DELAY)
        remote = Facilitator(settings.facilitator) if settings.facilitator else None
        self.facilitator = remote or OwnFacilitator(*parts)
        self.book = VoucherBook(
            journal, signer, network, self.facilitator, window=window, mirror=mirror
        )
        self.claiming = Claiming(
            journal,
            chain,
            network,
            self.facilitator,
            signer,
            payee=signer.address,
            delay=CLOSE_DELAY,
            mirror=mirror,
            # What pays its gas itself claims what is worth it, or could be lost.
            policy=ClaimPolicy() if settings.facilitator else ClaimPolicy(seconds=math.inf),
        )
        self.store = LocalStore(settings.home / "artifacts")
        self.throughput = Throughput(1 + settings.nice / 10)
        self.pool = Pool(
            scratch=settings.home / "scratch",
            llama_slots=settings.slots,
            worker_slots=1,
            threads=settings.threads,
            nice=settings.nice,
            on_execute=self._started,
        )
        relay = EscrowRelay(remote, chain, network) if remote else None
        escrow = EscrowBook(*parts, relay=relay) if network.escrow else None
        self.payment_books = PaymentBooks(self.book, escrow, LegacyBook(*parts))
        self.uploads = Uploads(settings.home / "uploads")
        self.jobs = Jobs(
            journal,
            self.pool,
            self.payment_books,
            self.store,
            self.uploads,
            signer=signer,
            network=network,
        )
        self.x402 = (
            X402Sales(journal, chain, network, signer, remote, mirror=mirror) if remote else None
        )
        self.journal = journal
        self.chain = chain
        self._rates = _rates(settings, network)
        self._stack = AsyncExitStack()

    @classmethod
    async def open(
        cls, settings: NodeSettings, signer: Signer, chain: ChainClient, network: Network
    ) -> Node:
        """Open a node's state file, and record what an earlier process left unfinished as failed.

        If a step fails, what was opened before is closed again.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(chain.close)
            journal = await Journal.open(settings.home, signer.address)
            stack.push_async_callback(journal.close)
            node = cls(settings, journal, signer, chain, network)
            stack.push_async_callback(node.facilitator.close)
            stack.push_async_callback(node.pool.close)
            stack.push_async_callback(node.jobs.close)
            await node.jobs.recover()
            await node.payment_books.look()
            stack.push_async_callback(_end, asyncio.create_task(node._watch()))
            node._stack = stack.pop_all()  # nothing failed: `close` closes them, the last first
        return node

    async def claim_all(self) -> None:
        """Claim everything that was earned, as before the node goes away.

        Where the node pays the gas itself, only what is worth it.  What cannot be claimed within
        CLAIM_SECONDS is claimed when it is served again.
        """
        try:
            async with asyncio.timeout(CLAIM_SECONDS):
                if self.settings.facilitator:
                    await self._try(self.claiming.claim_all)
                await self._look()
        except TimeoutError:
            log.warning("node %s: claiming takes too long", self.settings.name)

    async def close(self) -> None:
        """Stop all work, end every child process, and close the state file."""
        await self._stack.aclose()

    # -- the market ------------------------------------------------------------------------------

    def facts(self) -> wire.NodeFacts:
        """Return the public description of the node."""
        pool = self.pool.facts()
        return wire.NodeFacts(
            name=self.settings.name,
            label=self.settings.label,
            address=self.signer.address,
            chain_id=self.network.chain_id,
            token=self.network.token,
            channels=SETTLEMENT,
            escrow=self.network.escrow,
            rail="channel",
            rails=self.payment_books.rails,
            pays="on_delivery",
            kinds=tuple(pool["kinds"]),
            models=tuple(pool["models"]),
            detail=pool,
        )

    def offer(self, question: wire.Question) -> wire.WireOffer:
        """Return the node's offer for the task that a question describes; raises Refused."""
        service, model = self._service(question)
        models = self.pool.facts()["models"]
        return wire.WireOffer(
            on=f"{model or 'duckdb'} @ {self.settings.name}",
            model=model,
            rates=self._rates[service.name],
            eta=self.throughput.expected(service.name, question.load.expected),
            lanes=self.settings.slots,
            lasts=self.settings.offers_last,
            context=models.get(model, 0) if service.has_context else 0,
            gpu=self.settings.gpu,
            vram=self.settings.vram,
            tuning=service.methods,
        )

    def charged(self, kind: str, params: dict[str, Any], *, trained: bool = False) -> TaskPricing:
        """Return the rates of a task, from its parameters; `trained`: it brings its own model.

        Raises Refused for a task that this node does not do.
        """
        model_param = TASK_KINDS[kind].model_param if kind in TASK_KINDS else ""
        question = wire.Question(
            kind=kind,
            model=_text(params, model_param),
            method=_text(params, "method"),
            output=_text(params, "output"),
            trained=trained,
        )
        service, _ = self._service(question)
        observe = partial(self.throughput.observe, service.name)
        return TaskPricing(rates=self._rates[service.name], observe=observe)

    async def _watch(self) -> None:
        """Claim what was earned before it expires, every WATCH_SECONDS; a failure is retried.

        A defect, too: without this task nothing would be claimed any more, and nobody would know.
        """
        while True:
            await self._look()
            await asyncio.sleep(WATCH_SECONDS)

    async def _look(self) -> None:
        """Claim what has to be claimed now, by every way of being paid."""
        await self._try(self.payment_books.watch)
        await self._try(self.claiming.watch)
        if self.x402:
            await self._try(self.x402.watch)

    async def _try(self, claim: Callable[[], Awaitable[None]]) -> None:
        """Claim; a failure is logged, so that the other ways go on."""
        try:
            await claim()
        except AgentKitError as error:
            log.warning("node %s: %s", self.settings.name, error)
        except Exception:
            log.exception("node %s", self.settings.name)

    def _started(self, attempt: str) -> None:
        self.jobs.started(attempt)

    def _service(self, question: wire.Question) -> tuple[Service, str]:
        """Return the service that does a task, and the pool's name of its model.

        Raises Refused for a kind, model or method that this node does not have.
        """
        facts = self.pool.facts()
        if question.kind not in facts["kinds"]:
            raise Refused(f"this node does no {question.kind!r} tasks")
        service = TASK_KINDS[question.kind].service(question.output, question.trained)
        if not service.needs_model:
            return service, service.label
        names = names_of(question.model)
        model = next((name for name in names if name in facts["models"]), None)
        if model is None:
            raise Refused(
                f"it has no model {question.model!r}; it has {', '.join(facts['models'])}"
            )
        if service.methods and question.method not in service.methods:
            methods = ", ".join(service.methods)
            raise Refused(f"it cannot train by {question.method!r}, only by {methods}")
        return service, model


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it has ended."""
    task.cancel()
    await asyncio.wait([task])


def _text(params: dict[str, Any], name: str) -> str:
    """Return a parameter if it is text, else "": the pool refuses bad parameters later."""
    value = params.get(name)
    return value[:MAX_NAME] if isinstance(value, str) else ""


def _rates(settings: NodeSettings, network: Network) -> dict[str, dict[str, Rate]]:
    """Return the price list in the network's currency, scaled; raises BadAmount."""
    rates: dict[str, dict[str, Rate]] = {}
    try:
        for service, prices in settings.prices.items():
            rates[service] = {
                unit: _scaled(Rate.parse(price).bind(network.currency), settings.percent)
                for unit, price in prices.items()
            }
    except BadAmount as error:
        raise BadAmount(f"the price list of node {settings.name!r}: {error}") from error
    return rates


def _scaled(rate: Rate, percent: int) -> Rate:
    """Return a rate scaled to `percent`, rounded up."""
    units = -(-rate.amount.units * percent // 100)
    return Rate(Money(units, rate.amount.asset), rate.per, rate.unit)


NODE: web.AppKey[Node] = web.AppKey("node", Node)
"""The key under which an aiohttp application has its node."""
