"""Makes the golden homes of the version of agentkit that is on the path; see README.md.

    PYTHONPATH=CHECKOUT python tests/homes/make.py tests/homes/schema-N

Everything is done by that version itself: an agent on its embedded network buys, is stopped, fails,
pays over channels and from credit, notes, and seals what it wrote with the golden test key; then
the state files are copied.  `figures.json` is what that version's own code reads out of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import types
import typing
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import zstandard

from agentkit.agent import Agent
from agentkit.artifacts import Dataset, Json
from agentkit.errors import AgentKitError
from agentkit.graph.builder import JobGraph
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys import keystore
from agentkit.keys.signer import KeySigner
from agentkit.market.seams import Event
from agentkit.money import Asset, Money
from agentkit.planner import policy


def first_of(*places: str) -> Any:
    """Return the first of these modules, or names in modules (`module:name`), that there is.

    This script runs on checkouts of earlier versions too (README.md), and what it needs of them has
    been renamed and moved since.  Places stand from the newest to the oldest.
    """
    for place in places:
        module, _, name = place.partition(":")
        try:
            found = importlib.import_module(module)
            return getattr(found, name) if name else found
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"this version has none of {', '.join(places)}")


discovery = first_of("agentkit.embedded.discovery", "agentkit.embedded.finder")

RunState = first_of(
    "agentkit.journal.run_state:RunState",
    "agentkit.journal.runstate:RunState",
    "agentkit.runtime.state:RunState",
)

Tx = Any  # the class of a transaction has had several names and places

EvmTransaction = r.RECORDS["Tx"]  # the class had another name, and the record keeps it

KEY = hashlib.sha256(b"agentkit golden test key").digest()
"""A test key that everybody knows: nothing of value may ever be sent to it."""

USDC = Asset.named("USDC").bind("eip155:31337", "erc20:0x" + "11" * 20)


# -- what the agent does -------------------------------------------------------------------------


def count_rows(rows: Dataset) -> Json:
    return Json.dump(len(rows.rows()))


def fail(rows: Dataset) -> Json:
    raise ValueError("this function fails, for the golden homes")


def table(folder: Path, count: int) -> str:
    path = folder / f"rows-{count}.jsonl"
    path.write_text("".join(f'{{"text": "row {n}"}}\n' for n in range(count)))
    return str(path)


def whole(folder: Path) -> JobGraph:
    """Source, SQL, a mapped model paid over a channel, a local function."""
    graph = JobGraph("whole")
    rows = graph.data("rows", source=table(folder, 6))
    few = graph.data("few", sql="select * from rows order by text limit 3", inputs={"rows": rows})
    said = graph.infer("said", model="smollm2-135m", over=few, prompt="{text}", max_tokens=6)
    sizes = graph.local("sizes", count_rows, said)
    if "NodeSkipped" in e.EVENTS:
        graph.local("never", count_rows, said, when=sizes.above(100))
    return graph


def mapped(folder: Path, name: str) -> JobGraph:
    graph = JobGraph(name)
    rows = graph.data("rows", source=table(folder, 12))
    graph.infer("said", model="smollm2-135m", over=rows, prompt="{text}", max_tokens=6)
    return graph


def hello(name: str) -> JobGraph:
    graph = JobGraph(name)
    graph.infer("greet", model="smollm2-135m", prompt="Greet the sea.", max_tokens=8)
    return graph


def failing(folder: Path) -> JobGraph:
    graph = JobGraph("failing")
    rows = graph.data("rows", source=table(folder, 6))
    graph.local("broken", fail, rows)
    return graph


def mendable(folder: Path) -> JobGraph:
    """What is bought stays bought while the function waits to be mended."""
    graph = JobGraph("mendable")
    rows = graph.data("rows", source=table(folder, 3))
    said = graph.infer("said", model="smollm2-135m", over=rows, prompt="{text}", max_tokens=6)
    graph.local("broken", fail, said)
    return graph


def hopeless(folder: Path, name: str, **more: Any) -> JobGraph:
    """Answers that are cut inside of their JSON, whoever gives them."""
    graph = JobGraph(name)
    rows = graph.data("rows", source=table(folder, 2))
    schema = {"type": "object", "properties": {"colour": {"type": "string"}}}
    shape = {"output": {**schema, "required": ["colour"]}, "max_tokens": 1}
    graph.infer("said", model="smollm2-135m", over=rows, prompt="{text}", **shape, **more)
    return graph


async def stops_by_itself(agent: Agent, graph: JobGraph) -> None:
    try:
        await agent.run(graph, policy=policy.allow("native"))
    except AgentKitError as error:
        print("stopped, as it should:", error)


async def work(folder: Path, network: Path, out: Path) -> None:
    """Fill an agent's home; copies of it are written to `out` as they come."""
    settings: dict[str, Any] = {"home": folder / "home", "network_home": network}
    async with Agent.from_config(**settings) as agent:
        state = agent.home / "state.db"
        await agent.run(whole(folder), budget="0.05 USDC", policy=policy.allow("native"))
        plan = await agent.plan(mapped(folder, "killed"), policy=policy.allow("native"))
        run = await agent.start(plan)
        await has_item(run)
        copied(state, out / "killed.db")  # between two commits: what a kill would leave
        await run.result()
        await agent.close_channels()
        await agent.run(hello("credit"), policy=policy.allow("hyperbolic"))
        await agent.run(hello("elsewhere"), policy=policy.allow("gaia"))
        await agent.memory.note("findings", "the sea answers")
        await know(agent)
        try:
            await agent.run(failing(folder))
        except AgentKitError as error:
            print("failed, as it should:", error)
        if "HoldReduced" in e.EVENTS:
            await stops_by_itself(agent, mendable(folder))
            await stops_by_itself(agent, hopeless(folder, "hopeless"))
            await stops_by_itself(agent, hopeless(folder, "skipping", on_error="skip"))
        run = await agent.start(await agent.plan(mapped(folder, "stopped")))
        await has_item(run)
        await run.stop()
        print("stopped:", run.status.outcome)
        amount = Money(200_000, agent.network.currency)
        said = {"node": "said", "amount": amount, "budget": amount}
        for kind in {"Approved", "BudgetRaised"} & set(e.EVENTS):
            known = {name: said[name] for name in e.EVENTS[kind].model_fields if name in said}
            await agent._journal.commit(partial(append, run.id, event_of(kind, **known)))
        for name in ("resumed", "cancelled"):
            run = await agent.start(await agent.plan(mapped(folder, name)))
            await has_item(run)
            await run.stop()
            if name == "resumed":
                await (await agent.resume(run.id)).result()
            else:
                await agent.cancel(run.id)
        await agent.memory.checkpoint()
    async with Agent.from_config(**settings, **escrowed()) as agent:
        if escrowed():
            await agent.run(hello("escrowed"), policy=policy.allow("native"))
        await agent.memory.checkpoint()
        await seal_snapshot(agent)
    copied(state, out / "agent.db")


def append(stream: str, event: Event, tx: Tx) -> None:
    tx.append(stream, event)


def escrowed() -> dict[str, Any]:
    """Settings under which everything is paid out of escrow, where this version has one."""
    return {"payments": {"escrow_from": "0.000001 USDC"}} if "EscrowQuoted" in e.EVENTS else {}


async def seal_snapshot(agent: Any) -> None:
    """Put a snapshot into the outbox, where this version has them."""
    try:
        snapshot = first_of("agentkit.journal.snapshot")
    except ImportError:
        return
    snapshots = first_of("agentkit.memory.sealing.snapshots", "agentkit.memory.snapshots")
    segment_type = first_of(
        "agentkit.journal.outbox_tables:OutgoingSegment", "agentkit.journal.store:Outgoing"
    )

    def seal(tx: Tx) -> None:
        taken = snapshot.take(tx)
        signer = agent._parts.signer if hasattr(agent, "_parts") else agent._signer
        item = snapshots.seal(signer, taken)
        place = (snapshots.SNAPSHOTS, taken.count, taken.count)
        at = int(tx.now * 1e6)
        segment = segment_type(item.id, *place, item.raw, "accepted", at, moved=at)
        put = tx.outbox.put if hasattr(tx, "outbox") else tx.put_outgoing
        put(segment)

    await agent._journal.commit(seal)


async def know(agent: Any) -> None:
    """Have facts, retention and a shelf, where this version has them."""
    if "FactLearned" not in e.EVENTS:
        return
    for value in ("blue", "green"):
        await agent.memory.remember("colour", value)
    await agent.memory.retain(key="colour", newest=1)
    await agent.memory.note("passing", "soon forgotten")
    await agent.memory.forget_notes("passing")


async def has_item(run: Any) -> None:
    """Wait until a run has bought something and is at it still."""
    async with asyncio.timeout(120):
        while not run.status.items:
            await asyncio.sleep(0.01)


# -- an event of every kind ----------------------------------------------------------------------

WORDS: dict[str, Any] = {
    "run": "r0000001",
    "attempt": "a" * 64,
    "purchase": "b" * 64,
    "channel": "c" * 64,
    "payee": "0x" + "dd" * 20,
    "payer": "0x" + "ee" * 20,
    "provider": "native/thrifty",
    "rail": "channel",
    "account": "0x" + "dd" * 20,
    "token": "0x" + "11" * 20,
    "salt": "f" * 64,
    "leaf": "1" * 64,
    "root": "2" * 64,
    "id": "3" * 64,
    "intent": "open:cc",
    "transaction": "0x" + "44" * 32,
    "raw": "02aa",
    "signature": "55" * 65,
    "json_text": "{}",
    "standing": "paid",
    "what": "notes",
    "topic": "findings",
    "text": "a note",
    "key": "colour",
    "value": "blue",
    "state": "done",
    "entries": {"name": 1},
    "attempts": ("a" * 64,),
    "heads": {"wallet": (1, "66" * 32)},
    "outcome": "used",
    "job": {},
    "escrow": {},
    "deposited": Money(5000, USDC),
    "cumulative": Money(1000, USDC),
    "at_most": Money(2000, USDC),
    "delivered": Money(1000, USDC),
    "config": {"payer": "0x" + "ee" * 20, "receiver": "0x" + "dd" * 20, "salt": "f" * 64},
    "charge": Money(1000, USDC),
    "ceiling": 2000,
    "payload": {},
    "receipt": {},
}
"""Values of fields, by their names."""

NODE_KINDS = [
    *("VoucherTaken", "JobTaken", "JobStarted", "JobEnded", "CloseSeen", "EscrowEarned"),
    *("EscrowSubmitted", "EscrowSettled", "EscrowGivenBack", "ChannelSettled", "PaymentTaken"),
    *("PaymentSettled", "PaymentAnswered", "RequestPaid", "ReceiptIssued", "ChannelMirrored"),
    *("RequestCharged", "ChannelRefundOrdered", "UptoTaken", "UptoCharged", "UptoEnded"),
]

WALLET_KINDS = [
    *("Held", "Reserved", "Spent", "TxSigned", "TxFinal", "ChannelOpened", "ChannelFunded"),
    *("TopUpSigned", "TopUpEnded", "VoucherSigned", "VoucherFound", "VoucherMatched"),
    *("ChannelClosing", "ChannelClosed"),
    *("ChannelCloseRequested", "EscrowQuoted", "EscrowOpened", "EscrowAccepted", "EscrowClosed"),
    *("CreditFunded", "Restored", "NoteAdded", "FactLearned", "RetentionSet", "Forgotten"),
    *("Shelved", "Unshelved", "CancelAsked", "Extra", "AuthorizationSigned"),
    *("AuthorizationEnded", "UploadSigned", "UploadDropped", "HeadChosen", "HoldReleased"),
    *("EffectBegun", "EffectEnded", "PayerBound", "CreditRead", "CreditSent", "CreditLanded"),
    *("LaneOpened", "DepositSigned", "DepositEnded", "LanePromised", "LaneCharged", "LaneStated"),
    *("LaneFreed", "LaneClosing", "LaneWithdrawn", "LaneClosed"),
    *("UptoPermitSigned", "UptoPermitEnded"),
]
"""In an order in which each finds what it changes."""


def event_of(kind: str, **known: Any) -> Event:
    """Return an event with every field that has to be there."""
    cls = e.EVENTS[kind]
    fields = {
        name: known.get(name, WORDS.get(name, plain(field.annotation)))
        for name, field in cls.model_fields.items()
        if field.is_required() or name in known
    }
    return cls(**fields)


def plain(annotation: Any) -> Any:
    """Return some small value of a type."""
    if annotation is Money:
        return Money(1000, USDC)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return plain(typing.get_args(annotation)[0])
    return {str: "word", int: 7, float: 1.5, bool: True}.get(annotation, ())


async def every_kind(out: Path, name: str, stream: str, kinds: list[str]) -> None:
    """Append an event of each of these kinds, by the journal of this version."""
    home = out / f"{name}-home"
    journal = await Journal.open(home, KeySigner(KEY).address)
    held = Money(5000, USDC)
    told = {
        "Held": {"amount": held},
        "ChannelFunded": {"amount": WORDS["deposited"]},
        "VoucherFound": {"cumulative": Money(3000, USDC)},
        "ChannelClosed": {"claimed": Money(3000, USDC), "refunded": Money(2000, USDC)},
        "EffectEnded": {"outcome": "done"},
        "DepositEnded": {"drawn": True, "balance": 5000},
        "LanePromised": {"ceiling": 2000},
        "LaneStated": {"charged": 1000, "signed": 2000, "balance": 5000},
        "UptoEnded": {"outcome": "settled"},
        "UptoPermitEnded": {"outcome": "used"},
    }

    # Another run's attempt stays reserved and unpaid.
    open_too = {
        "Held": {"run": "r0000002", "amount": held},
        "Reserved": {"run": "r0000002", "attempt": "9" * 64},
    }

    def append_all(tx: Tx) -> None:
        for kind in kinds:
            if kind in e.EVENTS:
                tx.append(stream, event_of(kind, **told.get(kind, {})))
                if kind in open_too:
                    tx.append(stream, event_of(kind, **open_too[kind]))

    await journal.commit(append_all)
    await journal.close()
    copied(home / "state.db", out / f"{name}.db")
    shutil.rmtree(home)


# -- copies and figures --------------------------------------------------------------------------


def copied(state: Path, to: Path) -> None:
    """Copy a state file, also while it is written to."""
    with closing(sqlite3.connect(state)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)
        target.execute("pragma journal_mode=delete")
        target.execute("vacuum")


async def figures(path: Path) -> dict[str, Any]:
    """Return what this version reads out of a copy: sums of money, runs, events."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        shutil.copy(path, home / "state.db")
        with closing(sqlite3.connect(path)) as db:
            (wallet,) = db.execute("select value from meta where name='wallet'").fetchone()
        journal = await Journal.open(home, wallet)
        try:
            checked = await journal.check()
            return await journal.commit(read) | {"wallet": wallet, "checked": checked}
        finally:
            await journal.close()


def read(tx: Tx) -> dict[str, Any]:
    """Return everything that the figures have."""
    streams = {stream: list(tx.rows(stream)) for stream in sorted(tx.streams())}
    runs: dict[str, Any] = {}
    for run in tx.every(r.Run):
        state = RunState.of(run.run, [row.event() for row in streams[run.run]])
        runs[run.run] = {
            "graph": run.graph,
            "state": run.state,
            "paid": sum(x.amount.units for x in state.receipts if x.standing == "paid"),
            "receipts": len(state.receipts),
            "open": sum(len(purchase.open) for purchase in state.purchases.values()),
        }
    return {
        "events": {stream: len(rows) for stream, rows in streams.items()},
        "heads": {stream: rows[-1].hash.hex() for stream, rows in streams.items()},
        "kinds": sorted({row.kind for rows in streams.values() for row in rows}),
        "runs": runs,
        "notes": [[row.topic, row.text] for row in tx.every(r.Note)],
        **read_money(tx),
    }


def read_money(tx: Tx) -> dict[str, Any]:
    """Return the sums of money, which are there without the events too."""
    return {
        "totals": {row.key: row.amount.units for row in tx.every(r.Total)},
        "holds": {row.key: [row.left.units, row.spent.units] for row in tx.every(r.Hold)},
        "reserved": {
            row.key: row.amount.units for row in tx.every(r.Reservation) if row.standing == "open"
        },
        "accounts": {
            row.key: [row.funded.units, row.spent.units, row.reserved.units]
            for row in tx.every(r.Account)
        },
        "channels": {
            row.key: [row.deposited, row.cumulative, row.open] for row in tx.every(r.Channel)
        },
        "booked": {
            row.key: [row.cumulative, row.delivered, row.settled]
            for row in tx.every(r.BookedChannel)
        },
        "transactions": {row.key: [row.nonce, row.final] for row in tx.every(EvmTransaction)},
        "lanes": {row.key: [row.balance, row.charged, row.ceiling, row.open] for row in lanes(tx)},
    }


def lanes(tx: Tx) -> list[Any]:
    """Return the channels by which requests are paid, where this version has them."""
    return list(tx.every(r.RECORDS["Lane"])) if "Lane" in r.RECORDS else []


async def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("AGENTKIT_MODELS", str(Path("~/.cache/agentkit/models").expanduser()))
    with tempfile.TemporaryDirectory() as name:
        folder, network = Path(name), Path(name) / "network"
        (network / "keys").mkdir(parents=True, mode=0o700)
        key = {"mark": keystore.TEST_MARK, "key": KEY.hex()}
        keystore.write_new(network / "keys" / "agent.json", key)
        discovery.ensure(network)
        try:
            await work(folder, network, out)
        finally:
            discovery.stop(network)
        for node in sorted((network / "nodes").iterdir()):
            if (node / "state.db").exists():
                copied(node / "state.db", out / f"node-{node.name}.db")
    await every_kind(out, "kinds-wallet", e.WALLET, WALLET_KINDS)
    await every_kind(out, "kinds-node", e.NODE, NODE_KINDS)
    known = {path.stem: await figures(path) for path in sorted(out.glob("*.db"))}
    (out / "figures.json").write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    for path in sorted(out.glob("*.db")):
        packed = zstandard.ZstdCompressor(level=19).compress(path.read_bytes())
        path.with_suffix(".db.zst").write_bytes(packed)
        path.unlink()
    inside = {"NodeSkipped"}  # of NodesEnded
    missing = set(e.EVENTS) - inside - {kind for one in known.values() for kind in one["kinds"]}
    print("no event of:", sorted(missing))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
