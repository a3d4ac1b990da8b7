"""Opens what an agent works with, as its settings say: who signs, pays, is asked, and remembers."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from agentkit.config import ProviderSettings, Settings
from agentkit.display.progress import show_progress
from agentkit.embedded import discovery
from agentkit.errors import ConfigError
from agentkit.graph.frozen import FrozenGraph
from agentkit.journal.journal import Journal
from agentkit.keys import keystore
from agentkit.keys.bounded_signer import BoundedSigner
from agentkit.keys.process_signer import ProcessSigner, open_signer
from agentkit.keys.signer import Signer
from agentkit.kinds.registry import kind_of
from agentkit.market.allowance import Allowance
from agentkit.market.batch_settlement import SCHEME
from agentkit.market.chain import ChainClient, Network
from agentkit.market.rail_names import rail_on
from agentkit.market.seams import Provider, Rail
from agentkit.memory.anchoring import Anchoring
from agentkit.memory.artifacts import ipfs as ipfs_store
from agentkit.memory.artifacts import onchain
from agentkit.memory.artifacts.encryption import ArtifactCipher, cipher_of
from agentkit.memory.artifacts.ipfs import Ipfs
from agentkit.memory.artifacts.local import LocalStore
from agentkit.memory.artifacts.onchain import Onchain
from agentkit.memory.artifacts.sources import Sources
from agentkit.memory.artifacts.stores import Remote, Stores
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.factory import open_path
from agentkit.memory.memory import Memory, MemoryPace
from agentkit.memory.sealing.shred import sealer_of
from agentkit.memory.uploads.upload_paths import UploadPath
from agentkit.money import Money
from agentkit.payments.anchor import EvmAnchor
from agentkit.payments.billed_elsewhere import ElsewhereRail
from agentkit.payments.budget import Budget, Exposure
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels.lanes import LaneRail
from agentkit.payments.channels.rail import ChannelRail
from agentkit.payments.escrow.rail import EscrowRail
from agentkit.payments.escrow.terms import NOBODY
from agentkit.payments.legacy import LegacyChannels
from agentkit.payments.networks import home_network
from agentkit.payments.prepaid import PrepaidRail
from agentkit.payments.rail_choice import RailPlanner
from agentkit.payments.sender import Sender
from agentkit.payments.upto.rail import UptoRail
from agentkit.payments.x402 import rail as x402
from agentkit.payments.x402.rail import X402Rail
from agentkit.payments.x402.uploads import X402Uploads
from agentkit.planner.request import Market
from agentkit.pool import models
from agentkit.providers import registry, web
from agentkit.providers.lazy import LateProvider
from agentkit.runtime import approve as approvals
from agentkit.runtime.approve import Approval
from agentkit.runtime.context import Resources

log = logging.getLogger("agentkit")


async def network_of(settings: Settings) -> tuple[Network, discovery.NetworkFile | None]:
    """Return the network that is set, or the embedded one and its file, started if need be."""
    if settings.network is not None:
        return home_network(settings, settings.network), None
    found = await asyncio.to_thread(discovery.ensure, settings.network_home.expanduser())
    log.warning("embedded network: test money only")
    return Network.model_validate(found.network), found


async def fetch_models(graph: FrozenGraph) -> None:
    """Fetch the models that a graph asks the embedded network for, and show how far that is.

    The network would fetch them itself, but where nobody sees it.  Raises StoreUnavailable when
    one cannot be had, before anything is bought.
    """
    names = [name for node in graph.nodes for name in kind_of(node).models(node)]
    await asyncio.to_thread(models.fetch_named, names, show_progress("fetching", sys.stderr))


async def signer_of(
    settings: Settings, found: discovery.NetworkFile | None, stack: AsyncExitStack
) -> Signer:
    """Return who signs: the embedded network's own key, or the wallet's, unlocked."""
    if found:
        return keystore.unlock(Path(found.agent_key), real=False)
    known = settings.wallet
    path = known.keystore.expanduser()
    signer = await asyncio.to_thread(open_signer, path, settings.secret, known.signer, real=True)
    if isinstance(signer, ProcessSigner):
        stack.callback(signer.close)
    return signer


@dataclass(frozen=True)
class Parts:
    """What an open agent works with.

    `resources` is what its runs are given, `market` what its plans are made from.  `chains` has
    whom to ask about each network that the wallet pays on, by its id.
    """

    network: Network
    signer: Signer
    journal: Journal
    chains: Mapping[str, ChainClient]
    rail_planner: RailPlanner
    memory: Memory
    resources: Resources
    market: Market

    @property
    def chain(self) -> ChainClient:
        """Whom to ask about the home network."""
        return self.chains[self.network.id]


async def open_parts(settings: Settings, stack: AsyncExitStack) -> Parts:
    """Open everything that an agent works with; `stack` closes it in reverse order.

    Raises ConfigError, StateError, and StoreUnavailable where the embedded network does not start.
    """
    network, found = await network_of(settings)
    networks = (network, *network.beside)
    unbounded = await signer_of(settings, found, stack)
    signer = BoundedSigner(unbounded, [known.chain_id for known in networks])
    home = settings.home.expanduser() / signer.address.lower()
    journal = await Journal.open(home, signer.address)
    stack.push_async_callback(journal.close)
    chains = {known.id: Web3Chain(known) for known in networks}
    for chain in chains.values():
        stack.push_async_callback(chain.close)

    wiring = Wiring(settings, network, found, signer, journal, chains, stack)
    allowance = settings.allowance.bind(network.currency)
    ledger = Budget(allowance)
    rails = wiring.rails(allowance)
    providers = wiring.providers()
    remembering = await wiring.remembering(home / "artifacts", ledger, allowance)
    remembering.memory.start()
    stack.push_async_callback(remembering.memory.close)

    resources = Resources(
        journal=journal,
        providers=providers,
        rails=rails,
        ledger=ledger,
        allowance=allowance,
        store=remembering.stores,
        folder=Path.cwd(),
        read=remembering.sources.read,
        before_pay=wiring.seal_before_pay(remembering.memory),
        approval=wiring.approval(),
    )
    return Parts(
        network=network,
        signer=signer,
        journal=journal,
        chains=chains,
        rail_planner=wiring.rail_planner(rails),
        memory=remembering.memory,
        resources=resources,
        market=_market_of(resources, network, signer.address, remembering.stores),
    )


def _market_of(resources: Resources, network: Network, wallet: str, stores: Stores) -> Market:
    """Return what plans of the wallet are made from, with what its runs are given."""
    return Market(
        network=network,
        providers=resources.providers,
        rails=resources.rails,
        allowance=resources.allowance,
        wallet=wallet,
        folder=resources.folder,
        remote=stores.most,
    )


@dataclass(frozen=True)
class SealBeforePay:
    """Has the journal on Arweave before a purchase of at least `seal_from` is sent.

    From `stable_from` on it has to lie there too deep to be undone.  Before the first purchase of a
    process no other machine may have gone on with the same state.
    """

    memory: Memory
    seal_from: Money | None
    stable_from: Money | None

    async def __call__(self, at_most: Money) -> None:
        """Wait until a purchase of this size may be sent; raises StateError."""
        await self.memory.check_alone()
        stable = self.stable_from is not None and at_most >= self.stable_from
        if stable or (self.seal_from is not None and at_most >= self.seal_from):
            await self.memory.checkpoint(stable=stable)


@dataclass(frozen=True)
class MemoryParts:
    """What an agent remembers with: its memory, its artifacts, and where sources are read from."""

    memory: Memory
    stores: Stores
    sources: Sources


@dataclass(frozen=True)
class Wiring:
    """What all parts of one agent are made from; `found` is the embedded network, if it is that."""

    settings: Settings
    network: Network
    found: discovery.NetworkFile | None
    signer: Signer
    journal: Journal
    chains: Mapping[str, ChainClient]
    stack: AsyncExitStack

    @property
    def chain(self) -> ChainClient:
        """Whom to ask about the home network."""
        return self.chains[self.network.id]

    # -- paying ----------------------------------------------------------------------------------

    def rails(self, allowance: Allowance) -> dict[str, Rail]:
        """Return every way of paying that the network has, by name."""
        sender = self.sender(allowance)
        parts = (self.journal, self.chain, self.signer, self.network, sender)
        exposure = Exposure(allowance.exposure)
        rails: list[Rail] = [
            ChannelRail(*parts, exposure=exposure, earlier=LegacyChannels(*parts)),
            LaneRail(*parts, exposure=exposure),
            PrepaidRail(*parts, exposure=exposure, budget=Budget(allowance)),
            self.x402,
            UptoRail(self.journal, self.chain, self.signer, self.network),
            ElsewhereRail(),
        ]
        if self.network.escrow:
            arbiter = self.settings.payments.arbiter or NOBODY
            rails.append(EscrowRail(*parts, arbiter=arbiter, exposure=exposure))
        for network in self.network.beside:
            rails += self._rails_beside(network, allowance, exposure)
        return {rail.name: rail for rail in rails}

    def _rails_beside(
        self, network: Network, allowance: Allowance, exposure: Exposure
    ) -> tuple[Rail, Rail]:
        """Return the ways of paying on another network: those that need no contract of ours."""
        parts = (self.journal, self.chains[network.id], self.signer, network)
        sender = Sender(*parts, self._gas_limit(allowance, network))
        lanes, exact = (rail_on(rail, network.id) for rail in (SCHEME, x402.RAIL))
        return LaneRail(*parts, sender, exposure=exposure, name=lanes), X402Rail(*parts, exact)

    def sender(self, allowance: Allowance) -> Sender:
        """Return who sends transactions, under the allowance's limit on gas."""
        gas = self._gas_limit(allowance, self.network)
        return Sender(self.journal, self.chain, self.signer, self.network, gas)

    def _gas_limit(self, allowance: Allowance, network: Network) -> Money | None:
        """Return what may be spent on gas on a network: nothing on a real one, until it is set.

        The limit holds on each network whose coin has its symbol.
        """
        if allowance.gas is not None and allowance.gas.asset.symbol == network.coin.symbol:
            return allowance.gas
        return None if network.test else network.coin.zero()

    @cached_property
    def x402(self) -> X402Rail:
        """The rail that uploads are paid by too."""
        return X402Rail(self.journal, self.chain, self.signer, self.network)

    def rail_planner(self, rails: Iterable[str]) -> RailPlanner:
        """Return what chooses among rails, as the settings have it."""
        known, currency = self.settings.payments, self.network.currency
        return RailPlanner(
            rails=tuple(rails),
            escrow_from=known.escrow_from.bind(currency),
            escrow_after=known.escrow_after,
            arbiter_above=known.arbiter_above.bind(currency),
            arbitrated=bool(known.arbiter),
        )

    def approval(self) -> Approval:
        """Return who is asked as the settings have it; the terminal where they say nothing."""
        known = self.settings.approval
        token = known.token.read() if known.token else ""
        asked = (
            approvals.console() if known.ask == "console" else approvals.webhook(known.ask, token)
        )
        return replace(asked, above=self.money(known.above), patience=known.patience)

    def money(self, amount: str | Money | None) -> Money | None:
        """Return an amount in the network's currency."""
        return None if amount is None else Money.parse(amount).bind(self.network.currency)

    # -- asking ----------------------------------------------------------------------------------

    def providers(self) -> dict[str, Provider]:
        """Return the providers that are set, those of the embedded network among them.

        Raises ConfigError for settings that are wrong; what only one of them lacks, like a key
        that is not in the environment, is told when that one is used.
        """
        settings = {
            name: ProviderSettings.model_validate(known)
            for name, known in (self.found.providers if self.found else {}).items()
        } | self.settings.providers
        providers: dict[str, Provider] = {}
        for name, known in settings.items():
            if known.enabled:
                registry.check(name, known)
                make = partial(registry.provider, name, known, self.network)
                providers[name] = LateProvider(name, make)
        providers.setdefault(web.NAME, web.Web(web.NAME, self.network))
        for provider in providers.values():
            self.stack.push_async_callback(provider.close)
        return providers

    # -- remembering -----------------------------------------------------------------------------

    def seal_before_pay(self, memory: Memory) -> SealBeforePay:
        """Return what is awaited before a purchase, as the settings have it."""
        known = self.settings.memory
        return SealBeforePay(
            memory, self.money(known.seal_before_pay), self.money(known.stable_before_pay)
        )

    async def remembering(
        self, artifacts: Path, ledger: Budget, allowance: Allowance
    ) -> MemoryParts:
        """Return the memory, not started, the stores with one in a folder here, and the sources."""
        sealer = await sealer_of(self.signer, self.settings.memory.encryption, self.journal)
        gateways, path = await self._way(ledger)
        memory = Memory(
            self.journal,
            sealer,
            gateways,
            path,
            pace=MemoryPace(confirm=10.0) if self.found else MemoryPace(),
            test=self.network.test,
            anchoring=self._anchoring(allowance),
        )
        cover = cipher_of(sealer)
        ipfs = self._ipfs(cover)
        stores = self._stores(artifacts, gateways, path, ipfs, cover)
        return MemoryParts(memory, stores, Sources(gateways, ipfs))

    async def _way(self, ledger: Budget) -> tuple[Gateways | None, UploadPath | None]:
        """Return who is asked for what is on Arweave, and the way there."""
        known = self.settings.memory
        urls = known.gateways or ((self.found.gateway,) if self.found else ())
        for name in ("seal_before_pay", "stable_before_pay", "head_anchor"):
            if getattr(known, name) is not None and not urls:
                raise ConfigError(
                    f"memory.{name} is set and there is no gateway to seal to",
                    hint="set memory.gateways",
                )
        if not urls:
            return None, None
        gateways, total = Gateways(urls), self.money(known.total_in("USDC"))
        path = await open_path(
            known,
            self.journal,
            gateways,
            real=self.found is None,
            owner=self.signer.address,
            payer=X402Uploads(self.journal, self.x402, ledger, self.network, total),
        )
        return gateways, path

    def _anchoring(self, allowance: Allowance) -> Anchoring | None:
        """Return what anchors heads, if that is set; raises ConfigError without a contract."""
        known, owner = self.settings.memory, self.signer.address
        if known.head_anchor is None:
            return None
        anchor = EvmAnchor(self.chain, self.network, owner, self.sender(allowance))
        return Anchoring(self.journal, anchor, known.anchor_interval)

    def _ipfs(self, cover: ArtifactCipher) -> Ipfs | None:
        """Return the Kubo node that is set."""
        if not self.settings.memory.ipfs:
            return None
        ipfs = Ipfs(self.settings.memory.ipfs, cover)
        self.stack.push_async_callback(ipfs.close)
        return ipfs

    def _stores(
        self,
        folder: Path,
        gateways: Gateways | None,
        path: UploadPath | None,
        ipfs: Ipfs | None,
        cover: ArtifactCipher,
    ) -> Stores:
        """Return where artifacts go: into a folder here, and where another machine finds them."""
        remotes, known = [], self.settings.memory
        most, bundled = known.arweave_up_to, known.upload == "l1"
        if most is None:  # nobody pays for uploads on the embedded network
            most = onchain.MOST_BYTES if self.found and not bundled else 0
        if most and bundled:
            raise ConfigError(
                "transactions of your own carry the log only, no large artifacts",
                hint='set memory.ipfs, or memory.upload = "turbo"',
            )
        if gateways is not None and path is not None and most:
            chain = Onchain(gateways, self.signer, cover, onchain.item_poster(path))
            remotes.append(Remote(chain, most))
        if ipfs is not None:
            remotes.append(Remote(ipfs, ipfs_store.MOST_BYTES))
        return Stores(LocalStore(folder), remotes)
