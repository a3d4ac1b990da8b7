"""A provider node: a pool with a price list and a wallet, behind HTTP."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from agentkit.errors import AgentKitError, BadAmount, Refused
from agentkit.journal.journal import Journal
from agentkit.keys.signer import Signer
from agentkit.market.chain import ChainClient, Network
from agentkit.market.models import names_of
from agentkit.memory.artifacts.local import LocalStore
from agentkit.money import Money, Rate
from agentkit.payments.channels.book import VoucherBook
from agentkit.payments.escrow.book import EscrowBook
from agentkit.payments.x402.remote import Facilitator
from agentkit.pool.pool import Pool
from agentkit.pool.services import TASK_KINDS, Service
from agentkit.providers import wire
from agentkit.serve.jobs import Charged, Jobs
from agentkit.serve.payment_books import Till
from agentkit.serve.throughput import Speed
from agentkit.serve.uploads import Uploads

log = logging.getLogger(__name__)

WATCH_SECONDS = 60.0
"""How often a node looks after what it earned and has not been given yet."""

MAX_NAME = 200
"""Characters of the longest name that is looked up, or told in an error."""

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
"""Default price list: by sort of work, then by unit; `cpu_ms` is 0.036 USDC an hour of a core."""


@dataclass(frozen=True)
class NodeSettings:
    """How an operator sets a node up.

    `home` is the node's own, `percent` scales the price list, `window` is how much is delivered on
    a channel before the next voucher is wanted.  `gpu` and `vram` (GB) are what it runs on, if it
    is not this machine's processor.  With the address of an x402 `facilitator`, whoever
    has neither channel nor key can chat for `request_price` each.
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
    """A node's parts, wired; `open` it, serve `agentkit.serve.app.node_app(node)`, `close` it."""

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
        self.book = VoucherBook(journal, chain, signer, network, window)
        self.store = LocalStore(settings.home / "artifacts")
        self.speed = Speed(1 + settings.nice / 10)
        self.pool = Pool(
            scratch=settings.home / "scratch",
            llama_slots=settings.slots,
            worker_slots=1,
            threads=settings.threads,
            nice=settings.nice,
            on_execute=self._started,
        )
        escrow = EscrowBook(journal, chain, signer, network) if network.escrow else None
        self.till = Till(self.book, escrow)
        self.uploads = Uploads(settings.home / "uploads")
        self.jobs = Jobs(
            journal,
            self.pool,
            self.till,
            self.store,
            self.uploads,
            signer=signer,
            network=network,
        )
        self.facilitator = Facilitator(settings.facilitator) if settings.facilitator else None
        self.journal, self.chain = journal, chain
        self._rates = _rates(settings, network)
        self._stack = AsyncExitStack()

    @classmethod
    async def open(
        cls, settings: NodeSettings, signer: Signer, chain: ChainClient, network: Network
    ) -> Node:
        """Open a node's state and settle what an earlier process left."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(chain.close)
            journal = await Journal.open(settings.home, signer.address)
            stack.push_async_callback(journal.close)
            node = cls(settings, journal, signer, chain, network)
            if node.facilitator:
                stack.push_async_callback(node.facilitator.close)
            stack.push_async_callback(node.pool.close)
            stack.push_async_callback(node.jobs.close)
            await node.jobs.recover()
            stack.push_async_callback(_end, asyncio.create_task(node._watch()))
            node._stack = stack.pop_all()  # from here on `close` closes them, the last one first
        return node

    async def close(self) -> None:
        """End all work and every child process."""
        await self._stack.aclose()

    # -- the market ------------------------------------------------------------------------------

    def facts(self) -> wire.NodeFacts:
        """Return what the node says of itself."""
        pool = self.pool.facts()
        return wire.NodeFacts(
            name=self.settings.name,
            label=self.settings.label,
            address=self.signer.address,
            chain_id=self.network.chain_id,
            token=self.network.token,
            channels=self.network.channels,
            escrow=self.network.escrow,
            rail="channel",
            rails=self.till.rails,
            pays="on_delivery",
            kinds=tuple(pool["kinds"]),
            models=tuple(pool["models"]),
            detail=pool,
        )

    def offer(self, question: wire.Question) -> wire.WireOffer:
        """Return rates for a question (`wire.question`); raises Refused with the reason."""
        service, model = self._service(question)
        models = self.pool.facts()["models"]
        return wire.WireOffer(
            on=f"{model or 'duckdb'} @ {self.settings.name}",
            model=model,
            rates=self._rates[service.name],
            eta=self.speed.expected(service.name, question.load.expected),
            lanes=self.settings.slots,
            lasts=self.settings.offers_last,
            context=models.get(model, 0) if service.has_context else 0,
            gpu=self.settings.gpu,
            vram=self.settings.vram,
            tuning=service.methods,
        )

    def charged(self, kind: str, params: dict[str, Any], *, trained: bool = False) -> Charged:
        """Return the row of the price list that a submitted task is charged by."""
        model_param = TASK_KINDS[kind].model_param if kind in TASK_KINDS else ""
        question = wire.Question(
            kind=kind,
            model=_text(params, model_param),
            method=_text(params, "method"),
            output=_text(params, "output"),
            trained=trained,
        )
        row = self._service(question)[0].name
        return Charged(self._rates[row], lambda units, s: self.speed.observe(row, units, s))

    async def _watch(self) -> None:
        """Look after what was earned, now and then; what fails is tried again."""
        while True:
            try:
                await self.till.watch()
            except AgentKitError as error:
                log.warning("node %s: %s", self.settings.name, error)
            await asyncio.sleep(WATCH_SECONDS)

    def _started(self, attempt: str) -> None:
        self.jobs.started(attempt)

    def _service(self, question: wire.Question) -> tuple[Service, str]:
        """Return the service that a question is about, and the model by our name for it.

        Raises Refused for what is not done here.
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
            only = ", ".join(service.methods)
            raise Refused(f"it cannot train by {question.method!r}, only by {only}")
        return service, model


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.wait([task])


def _text(params: dict[str, Any], name: str) -> str:
    """Return a parameter that is a text; the pool refuses one that should be and is none."""
    value = params.get(name)
    return value[:MAX_NAME] if isinstance(value, str) else ""


def _rates(settings: NodeSettings, network: Network) -> dict[str, dict[str, Rate]]:
    """Return the price list in the network's currency, scaled; raises BadAmount with its node."""
    try:
        return {
            sort: {
                unit: _scaled(Rate.parse(text).bind(network.currency), settings.percent)
                for unit, text in units.items()
            }
            for sort, units in settings.prices.items()
        }
    except BadAmount as error:
        raise BadAmount(f"the price list of node {settings.name!r}: {error}") from error


def _scaled(rate: Rate, percent: int) -> Rate:
    units = -(-rate.amount.units * percent // 100)
    return Rate(Money(units, rate.amount.asset), rate.per, rate.unit)


NODE: web.AppKey[Node] = web.AppKey("node", Node)
"""Where an application keeps its node."""
