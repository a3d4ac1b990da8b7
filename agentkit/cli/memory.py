"""memory ls | get | verify | restore."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from agentkit.cli import output
from agentkit.config import Settings
from agentkit.display.text import columns
from agentkit.embedded import discovery
from agentkit.errors import ConfigError, RunNotFound
from agentkit.journal.events import WALLET
from agentkit.journal.journal import Journal
from agentkit.journal.outbox_tables import OUTBOX_STATES
from agentkit.journal.transaction import JournalTransaction
from agentkit.keys import keystore
from agentkit.market.chain import Network
from agentkit.memory.anchoring import corroborated
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.restore import wallet_restore as restoring
from agentkit.memory.restore.restored_wallet import RestoredWallet
from agentkit.memory.sealer import Sealer
from agentkit.memory.sealing import shred, snapshots
from agentkit.payments.anchor import anchored_head
from agentkit.payments.chain import Web3Chain
from agentkit.payments.networks import real_network
from agentkit.runtime.event_stream import line_of

memory = typer.Typer(no_args_is_help=True, help="The sealed log on Arweave.")

KeyFile = Annotated[
    Path | None,
    typer.Option("--keystore", help="the wallet's keystore, else the one that is configured"),
]
GatewayUrls = Annotated[
    list[str] | None, typer.Option("--gateway", help="an Arweave gateway; may be given again")
]
CORROBORATED = "head corroborated: all that the anchored head stands for was found"

ONE_MACHINE = (
    "looking here (agentkit status, receipts, doctor, memory verify) leaves the machine that this"
    " came from alone; before you run or resume anything here, stop every agent there for good"
)

OneRun = Annotated[str | None, typer.Argument(help="one run, else everything")]


@dataclass(frozen=True)
class Where:
    """Whose memory it is, where its state file lies, which gateways are asked, and which chain."""

    sealer: Sealer
    home: Path
    gateways: tuple[str, ...]
    anchor: Network | None = None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Gateways]:
        """Open a client of the gateways; raises ConfigError when there are none."""
        if not self.gateways:
            raise ConfigError("no Arweave gateway is configured", hint="pass --gateway URL")
        async with Gateways(self.gateways) as client:
            yield client

    async def anchored(self) -> str:
        """Return the head that is anchored on the chain, "" where none is or none is wanted."""
        if self.anchor is None:
            return ""
        chain = Web3Chain(self.anchor)
        try:
            return await anchored_head(chain, self.anchor, self.sealer.address)
        finally:
            await chain.close()

    @asynccontextmanager
    async def journal(self) -> AsyncIterator[Journal]:
        """Open the state file; raises RunNotFound when there is none, and makes none."""
        if not (self.home / "state.db").exists():
            raise RunNotFound(
                f"there is no state file in {self.home}",
                hint="restore it from Arweave with `agentkit memory restore`",
            )
        journal = await Journal.open(self.home, self.sealer.address)
        try:
            yield journal
        finally:
            await journal.close()


# -- ls ------------------------------------------------------------------------------------------


@memory.command()
@output.verb
def ls(
    keystore_file: KeyFile = None,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Show every stream of the journal here, and how far each is on its way to Arweave."""
    where = where_of(Settings.read(config), keystore_file, None)
    rows = asyncio.run(_listed(where))
    names = ("stream", "events", "not sealed", *OUTBOX_STATES)
    table = [names, *([str(row[name]) for name in names] for row in rows)]
    data = {"encryption": shred.describe_sealing(where.sealer), "streams": rows}
    text = f"{columns(table, right=range(1, len(names)))}\n\n{shred.describe_sealing(where.sealer)}"
    output.result(data, text, as_json=as_json)


async def _listed(where: Where) -> list[dict[str, Any]]:
    async with where.journal() as journal:
        return await journal.commit(_rows)


def _rows(tx: JournalTransaction) -> list[dict[str, Any]]:
    """Return for each stream how many events it has, and how far its segments have come."""
    counts: dict[str, dict[str, int]] = {}
    for segment in tx.outbox.in_states(*OUTBOX_STATES):
        count = counts.setdefault(segment.stream, dict.fromkeys(OUTBOX_STATES, 0))
        count[segment.state] += 1
    rows = []
    for stream in sorted([*tx.streams(), *({snapshots.SNAPSHOTS} & counts.keys())]):
        events = tx.head(stream)[0]
        unsealed = max(0, events - tx.last_sealed(stream))
        done = counts.get(stream, dict.fromkeys(OUTBOX_STATES, 0))
        rows.append({"stream": stream, "events": events, "not sealed": unsealed, **done})
    return rows


# -- get -----------------------------------------------------------------------------------------


@memory.command()
@output.verb
def get(
    run: Annotated[str, typer.Argument(help="a run, or `wallet`")],
    keystore_file: KeyFile = None,
    gateway: GatewayUrls = None,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Print a run's events as Arweave has them, one line of JSON each; changes nothing here."""
    found = asyncio.run(_fetched(where_of(Settings.read(config), keystore_file, gateway), [run]))
    _must_have(found, run)
    for row in found.rows(run):
        for part in row.event().parts():
            output.result(None, line_of(part), as_json=False)
    _warn(found, quiet=quiet)


# -- verify --------------------------------------------------------------------------------------


@memory.command()
@output.verb
def verify(
    run: OneRun = None,
    keystore_file: KeyFile = None,
    gateway: GatewayUrls = None,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Check the state here, and compare it with all that Arweave has of it; changes nothing."""
    where = where_of(Settings.read(config), keystore_file, gateway)
    data = asyncio.run(_verified(where, [run] if run else []))
    told = data["differences"] or [f"{data['events']} events on Arweave equal those here"]
    told += [CORROBORATED] if data["corroborated"] else []
    output.result(data, "\n".join([*told, *data["warnings"]]), as_json=as_json)
    if data["differences"]:
        raise typer.Exit(1)


async def _verified(where: Where, runs: Sequence[str]) -> dict[str, Any]:
    """Fetch what lies on Arweave and return where it differs from the journal here."""
    async with where.journal() as journal:
        await journal.check()
        found = await _fetched(where, runs)
        for run in runs:
            _must_have(found, run)
        differences = await restoring.compare(found, journal)
    return {
        "events": found.events,
        "differences": [*differences, *found.problems],
        "warnings": [told for told in found.warnings if told not in found.problems],
        "corroborated": found.corroborated,
    }


# -- restore -------------------------------------------------------------------------------------


@memory.command()
@output.verb
def restore(
    run: Annotated[
        str | None, typer.Argument(help="a run whose past is wanted here as well")
    ] = None,
    keystore_file: KeyFile = None,
    gateway: GatewayUrls = None,
    whole: Annotated[
        bool, typer.Option("--all", help="the past of every run, not only what goes on")
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="go on without steps that no gateway has")
    ] = False,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Rebuild this wallet's state from Arweave with nothing but its key, or bring a run's past."""
    where = where_of(Settings.read(config), keystore_file, gateway)
    data = asyncio.run(_restored(where, run, whole=whole, accept_loss=accept_loss))
    lines = [f"restored {data['events']} events of {data['runs']} runs for {data['address']}"]
    if data["left"]:
        lines.append(
            f"{data['left']} of them stand in a snapshot and stay on Arweave; bring a run's with"
            " `agentkit memory restore RUN`"
        )
    lines += [CORROBORATED] if data["corroborated"] else []
    lines += [f"warning: {warning}" for warning in data["warnings"]]
    if not run:
        lines.append(ONE_MACHINE)
    output.result(data, "\n".join(lines), as_json=as_json)


async def _restored(
    where: Where, run: str | None, *, whole: bool, accept_loss: bool
) -> dict[str, Any]:
    """Restore the wallet, or bring back the past of one run of a wallet that is here."""
    if run and (where.home / "state.db").exists():
        return await _brought(where, run)
    async with where.client() as client:
        found = await restoring.fetch(where.sealer, client, whole=whole)
    found = corroborated(found, await where.anchored())
    address = where.sealer.address
    journal = await restoring.restore(found, where.home, address, accept_loss=accept_loss)
    await journal.close()
    if run:
        await _brought(where, run)
    return _told(where, found)


async def _brought(where: Where, run: str) -> dict[str, Any]:
    found = await _fetched(where, [run])
    _must_have(found, run)
    async with where.journal() as journal:
        await restoring.bring_earlier_events(found, journal, [run])
        await journal.check()
    return _told(where, found)


def _told(where: Where, found: RestoredWallet) -> dict[str, Any]:
    """Return what was restored as plain JSON."""
    return {
        "address": where.sealer.address,
        "events": found.events,
        "runs": sum(name.startswith("r") for name in found.names),
        "left": found.earlier,
        "warnings": list(found.warnings),
        "corroborated": found.corroborated,
    }


# -- inside --------------------------------------------------------------------------------------


async def _fetched(where: Where, runs: Sequence[str]) -> RestoredWallet:
    """Return all that gateways have, or all of some runs."""
    only = [*runs, WALLET] if runs and where.anchor else runs
    async with where.client() as client:
        found = await restoring.fetch(where.sealer, client, whole=True, only=only)
    return corroborated(found, await where.anchored(), only)


def _must_have(found: RestoredWallet, run: str) -> None:
    if run not in found.streams:
        raise RunNotFound(
            f"no gateway has any step of {run}", hint="run `agentkit status` for the runs there are"
        )


def _warn(found: RestoredWallet, *, quiet: bool) -> None:
    for warning in found.warnings:
        output.note(f"warning: {warning}", quiet=quiet)


def where_of(settings: Settings, file: Path | None, gateways: list[str] | None) -> Where:
    """Return where a wallet's memory is; the embedded network's key is found, never started."""
    embedded = None
    if settings.network is None:
        embedded = discovery.find(settings.network_home.expanduser())
    if file is None and settings.network is None:
        if embedded is None:
            raise ConfigError(
                "no keystore is named and no embedded network runs", hint="pass --keystore FILE"
            )
        file = Path(embedded.agent_key)
    path = file or settings.wallet.keystore.expanduser()
    signer = keystore.unlock(path, settings.secret(), real=settings.network is not None)
    home = settings.home.expanduser() / signer.address.lower()
    urls = tuple(gateways or settings.memory.gateways or ([embedded.gateway] if embedded else []))
    shreds = settings.memory.encryption == "shred"
    sealer = shred.open_shredding(signer, home, make=False) if shreds else signer
    return Where(sealer, home, urls, _anchor(settings, embedded))


def _anchor(settings: Settings, embedded: discovery.NetworkFile | None) -> Network | None:
    """Return the chain that heads are anchored on, if they are."""
    if settings.memory.head_anchor is None:
        return None
    if settings.network is not None:
        return real_network(settings.network, settings.chain, settings.networks)
    return Network.model_validate(embedded.network) if embedded else None
