"""What an agent can tell about its wallet without changing anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from agentkit.config import Settings
from agentkit.errors import ConfigError, PaymentError, ProviderError, StateError
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.journal.run_state import RunState
from agentkit.market.chain import Network
from agentkit.market.rail_names import chain_of
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Provider, ProviderInfo
from agentkit.memory.backup_status import BackupStatus
from agentkit.memory.memory import Memory
from agentkit.money import Money
from agentkit.payments.audit import contradictions
from agentkit.payments.balance import token_balance
from agentkit.payments.receipts import Bundle, bundle_of
from agentkit.runtime.event_stream import event_lines
from agentkit.runtime.history import read as read_run
from agentkit.wiring import Parts

DESCRIBE_SECONDS = 10
"""Seconds in which a provider has to describe itself."""


@dataclass(frozen=True)
class WalletStatus:
    """All runs of a wallet, newest first, and how safe its memory is."""

    runs: list[r.Run]
    memory: BackupStatus


@dataclass(frozen=True)
class Holding:
    """What a wallet has on one network besides its home; `problem` says why it is not known."""

    network: str
    currency: Money | None = None
    coin: Money | None = None
    problem: str = ""

    def __str__(self) -> str:
        return self.problem or f"{self.currency}, and {self.coin} for gas"


@dataclass(frozen=True)
class Balances:
    """What a wallet has: on the chain, in channels and credit, and what is set aside.

    `beside` is what it has on the other networks that it pays on.
    """

    address: str
    network: str
    currency: Money
    coin: Money
    placed: dict[str, Money]
    held: Money
    spent: Money
    beside: tuple[Holding, ...] = ()


class WalletView:
    """The reading half of an agent: runs, receipts, balances, providers.

    Reading never changes state: nothing here writes an event.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._opened: Parts | None = None

    @property
    def _parts(self) -> Parts:
        """What the agent works with; raises ConfigError before `async with` has opened it."""
        if self._opened is None:
            raise ConfigError(
                "the agent is not open yet",
                hint="use it inside of `async with ak.Agent.from_config() as agent:`",
            )
        return self._opened

    @property
    def network(self) -> Network:
        """The network that the wallet pays on."""
        return self._parts.network

    @property
    def memory(self) -> Memory:
        """What the agent remembers, and how safe it is."""
        return self._parts.memory

    @property
    def _journal(self) -> Journal:
        return self._parts.journal

    @property
    def address(self) -> str:
        """The wallet's address."""
        return self._parts.signer.address

    @property
    def home(self) -> Path:
        """The wallet's folder."""
        return self.settings.home.expanduser() / self.address.lower()

    async def runs(self) -> list[r.Run]:
        """Return all runs of the wallet, newest first."""
        rows = await self._journal.commit(lambda tx: tx.every(r.Run))
        return sorted(rows, key=lambda row: -row.started)

    def worker_of(self, run_id: str) -> str:
        """Return the number of the process that works on a run, "" for none."""
        return self._journal.owner(run_id)

    def is_left(self, run_id: str) -> bool:
        """Whether no process works on a run, so that it waits for `resume`."""
        return self._journal.is_left(run_id)

    @overload
    async def status(self, run_id: str) -> RunState: ...

    @overload
    async def status(self) -> WalletStatus: ...

    async def status(self, run_id: str | None = None) -> RunState | WalletStatus:
        """Return what a run has done so far, or all runs and how safe the memory is.

        Raises RunNotFound.
        """
        if run_id is None:
            return WalletStatus(await self.runs(), await self.memory.backup_status())
        check_id(run_id)
        return await read_run(self._journal, run_id)

    async def event_lines(self, run_id: str, *, watch: bool = False) -> AsyncIterator[str]:
        """Yield the events of any run as lines of JSON, with `watch` until it ends or pauses."""
        check_id(run_id)
        async for line in event_lines(self._journal, run_id, watch=watch):
            yield line

    async def receipts(self, run_id: str | None = None) -> list[Receipt]:
        """Return the receipts of one run or of all, in the order in which they came."""
        names = [run_id] if run_id else [row.run for row in reversed(await self.runs())]
        return [receipt for name in names for receipt in (await self.status(name)).receipts]

    async def bundle(self, run_id: str | None = None) -> Bundle:
        """Return the receipts of one run, or of all, with what proves them to others.

        A bundle of one run proves its deliveries; the vouchers of its channels name the receipts
        of other runs too, so only a bundle of all proves what was promised.
        """
        receipts = await self.receipts(run_id)
        wallet = [] if run_id else await self._journal.history(e.WALLET)
        return bundle_of(self.network, self.address, receipts, wallet)

    async def check_receipts(self) -> list[str]:
        """Return where receipts, vouchers, the chain and providers' books of credit disagree.

        Nothing, if they never do.
        """
        parts = self._parts
        return await contradictions(
            await self.bundle(),
            journal=parts.journal,
            chain=parts.chain,
            network=parts.network,
            providers=parts.resources.providers,
        )

    async def providers(self) -> list[ProviderInfo]:
        """Return what every provider says of itself; one that does not answer is marked down."""
        return await asyncio.gather(
            *(self._describe(p) for p in self._parts.resources.providers.values())
        )

    async def balances(self) -> Balances:
        """Return what the wallet has, read from the chain and from the journal."""
        placed, problems = await self._placed()
        coin = Money(await self._parts.chain.balance(self.address), self.network.coin)
        totals = await self._journal.commit(lambda tx: tx.every(r.Total))
        by_scope = {t.scope: t.amount for t in totals if t.amount.asset == self.network.currency}
        zero = self.network.currency.zero()
        return Balances(
            address=self.address,
            network=self.network.name,
            currency=await self._currency_balance(),
            coin=coin,
            placed=placed,
            held=by_scope.get("held", zero),
            spent=by_scope.get("ever", zero),
            beside=await self._beside(problems),
        )

    async def _placed(self) -> tuple[dict[str, Money], dict[str, str]]:
        """Return what lies in channels, in escrow and as credit, by payee.

        And by its chain why another network than the home one does not say that.
        """
        placed: dict[str, Money] = {}
        problems: dict[str, str] = {}
        for rail in self._parts.resources.rails.values():
            try:
                placed |= await rail.balance()
            except (StateError, ProviderError, PaymentError, ConfigError) as error:
                if not chain_of(rail.name):
                    raise
                problems[chain_of(rail.name)] = f"not known: {error}"
        return placed, problems

    async def _beside(self, problems: Mapping[str, str]) -> tuple[Holding, ...]:
        """Return what the wallet has on the other networks, of which some have `problems`."""
        networks = self.network.beside
        return tuple(await asyncio.gather(*(self._holding(one, problems) for one in networks)))

    async def _holding(self, network: Network, problems: Mapping[str, str]) -> Holding:
        """Return what the wallet has on a network; one that does not answer hides no other."""
        if network.id in problems:
            return Holding(network.name, problem=problems[network.id])
        try:
            currency = await self._currency_balance(network)
            units = await self._parts.chains[network.id].balance(self.address)
        except (StateError, ProviderError, PaymentError, ConfigError) as error:
            return Holding(network.name, problem=f"not known: {error}")
        return Holding(network.name, currency, Money(units, network.coin))

    async def _currency_balance(self, network: Network | None = None) -> Money:
        """Return what the wallet holds on a network, the home one unless it is named."""
        network = network or self.network
        chain = self._parts.chains[network.id]
        return Money(await token_balance(chain, network, self.address), network.currency)

    async def _describe(self, provider: Provider) -> ProviderInfo:
        """Return what a provider says of itself, or that it does not answer."""
        try:
            async with asyncio.timeout(DESCRIBE_SECONDS):
                return await provider.describe()
        except (ProviderError, TimeoutError) as error:
            detail = {"error": str(error) or f"no answer in {DESCRIBE_SECONDS} s"}
            return ProviderInfo(
                name=provider.name, adapter="", finds=False, up=False, detail=detail
            )


def check_id(run_id: object) -> None:
    """Raise ConfigError for what cannot be the id of a run."""
    if not isinstance(run_id, str):
        raise ConfigError(
            f"{run_id!r} is not the id of a run",
            hint="pass it as text, as `agentkit status` lists it",
        )
