"""status, receipts, providers."""

from __future__ import annotations

import asyncio
import csv
import io
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from agentkit.agent import Agent
from agentkit.cli import output
from agentkit.display.text import columns
from agentkit.errors import ConfigError
from agentkit.journal.run_state import RunState
from agentkit.market.receipt import Receipt
from agentkit.market.seams import ProviderInfo
from agentkit.memory.backup_status import BackupStatus
from agentkit.payments.receipts import UNPROVEN, Bundle, proof_of, verify
from agentkit.payments.statements import NOT_STATED
from agentkit.runtime.stop import pause_of

MaybeRun = Annotated[str | None, typer.Argument(metavar="[RUN]", help="a run's id")]


@output.verb
def status(
    run_id: MaybeRun = None,
    watch: Annotated[bool, typer.Option(help="look again every second until it ends")] = False,
    events: Annotated[bool, typer.Option(help="print its events, one line of JSON each")] = False,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Show all runs, or what one of them has done so far."""

    async def go() -> None:
        """Print all runs, or the events of one, or its state, with `watch` until it ends."""
        async with Agent.from_config(config) as agent:
            if run_id is None:
                found = await agent.status()
                rows = [row.model_dump(mode="json") for row in found.runs]
                for row in rows:
                    if row["state"] == "running" and agent.is_left(row["run"]):
                        row["why"] = f"left: no process works on it; agentkit resume {row['run']}"
                data = {"runs": rows, "memory": found.memory.document()}
                text = _runs_text(rows, _standing_text(found.memory, agent.network.test))
                output.result(data, text, as_json=as_json)
                return
            if events:
                async for line in agent.event_lines(run_id, watch=watch):
                    output.result(None, line, as_json=False)
                return
            state = await agent.status(run_id)
            while watch and state.outcome == "running":
                output.note(_run_text(state), quiet=quiet)
                await asyncio.sleep(1)
                state = await agent.status(run_id)
            left = state.outcome == "running" and agent.is_left(run_id)
            more = f"\n\nleft: no process works on it; agentkit resume {run_id}" if left else ""
            if state.outcome == "paused":
                more = f"\n\nhint: {pause_of(state).hint}"
            output.result(_run_data(state), _run_text(state) + more, as_json=as_json)

    asyncio.run(go())


def _runs_text(rows: list[dict[str, Any]], standing: str) -> str:
    if not rows:
        return f"no runs yet; start one with: agentkit run graph.toml\n\n{standing}"
    cells = [("run", "graph", "started", "state", "")]
    for row in rows:
        started = datetime.fromtimestamp(row["started"]).astimezone().strftime("%d %b %H:%M:%S")
        cells.append((row["run"], row["graph"], started, row["state"], row["why"]))
    return f"{columns(cells)}\n\n{standing}"


def _standing_text(standing: BackupStatus, test: bool) -> str:
    where = "the embedded Arweave gateway" if test else "Arweave"
    return "\n".join(standing.sentences(where))


def _run_data(state: RunState) -> dict[str, Any]:
    """Return the state of a run as plain JSON."""
    return {
        "run": state.run,
        "outcome": state.outcome,
        "why": state.why,
        "uncertain": state.uncertain,
        "done": sorted(state.done),
        "items": {node: len(items) for node, items in state.items.items()},
        "skipped_items": {node: len(items) for node, items in state.skipped_items.items()},
        "open": [a.id for p in state.purchases.values() for a in p.open.values()],
        "failures": state.failures,
    }


def _run_text(state: RunState) -> str:
    """Return the state of a run as a table of its nodes."""
    cells = [("node", "kind", "state")]
    for node in state.planned.graph.nodes:
        items = len(state.items.get(node.name, ()))
        standing = "done" if node.name in state.done else state.failures.get(node.name, "waiting")
        standing += f", {items} items" if items else ""
        skipped = len(state.skipped_items.get(node.name, ()))
        standing += f", {skipped} skipped" if skipped else ""
        cells.append((node.name, node.kind, standing))
    why = f": {state.why}" if state.why else ""
    return (
        f"run {state.run} · {state.planned.graph.name} · {state.outcome}{why}\n\n{columns(cells)}"
    )


@output.verb
def receipts(
    run_id: MaybeRun = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="write them with their proofs to this file")
    ] = None,
    check: Annotated[
        Path | None, typer.Option("--check", help="check such a file; asks nobody")
    ] = None,
    on_chain: Annotated[
        bool, typer.Option("--on-chain", help="compare the wallet's own with the chain")
    ] = False,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """List what was paid, to whom and for what; or prove it, or check somebody's proof."""
    if check:
        _say_proofs(Bundle.load(check), check, as_json=as_json)
        return

    async def go() -> tuple[list[Receipt], list[str]]:
        async with Agent.from_config(config) as agent:
            if out:
                (await agent.bundle(run_id)).save(out)
            return await agent.receipts(run_id), await agent.check_receipts() if on_chain else []

    found, wrong = asyncio.run(go())
    if on_chain:
        _say_checked(wrong, "every receipt, voucher and claim", as_json=as_json)
        return
    rows = [_receipt_row(receipt) for receipt in found]
    if as_csv:
        output.result(None, _csv([_HEADINGS, *rows]), as_json=False)
        return
    data = [receipt.model_dump(mode="json") for receipt in found]
    text = columns([_HEADINGS, *rows], right=(3,)) if rows else "no receipts yet"
    output.result(data, text, as_json=as_json)


def _say_checked(wrong: list[str], what: str, *, as_json: bool) -> None:
    """Tell what a check found, and leave with 1 when something is wrong."""
    text = "\n".join(wrong) or f"{what} holds"
    output.result({"holds": not wrong, "wrong": wrong}, text, as_json=as_json)
    if wrong:
        raise typer.Exit(1)


def _say_proofs(bundle: Bundle, path: Path, *, as_json: bool) -> None:
    """Show each receipt of a bundle and what proves it, or what is wrong; leave with 1 for that."""
    wrong = verify(bundle)
    if wrong:
        _say_checked(wrong, "", as_json=as_json)
    proofs = {receipt.attempt.id: proof_of(receipt, bundle) for receipt in bundle.receipts}
    rows = [(*_receipt_row(r), proofs[r.attempt.id]) for r in bundle.receipts]
    table = columns([(*_HEADINGS, "proven by"), *rows], right=(3,))
    gaps = [UNPROVEN]
    if any(proof.startswith("the seller's") for proof in proofs.values()):
        gaps.append(NOT_STATED)
    closing = [f"{len(rows)} receipts in {path}, nothing is wrong"]
    closing += [f"not proven: {gap}" for gap in gaps]
    data = {"holds": True, "wrong": [], "proven_by": proofs, "not_proven": "; ".join(gaps)}
    output.result(data, "\n".join([table, "", *closing]), as_json=as_json)


_HEADINGS = ("run", "node", "provider", "amount", "standing", "rail", "result")


def _receipt_row(receipt: Receipt) -> tuple[str, ...]:
    """Return a receipt as a row of the table."""
    a = receipt.attempt
    node = a.node if a.item is None else f"{a.node}[{a.item}]"
    who = f"{a.provider}/{a.provider_node}" if a.provider_node else a.provider
    return (
        a.run,
        node,
        who,
        str(receipt.amount),
        receipt.standing,
        a.rail,
        receipt.result[:12],
    )


def _csv(rows: list[tuple[str, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().rstrip("\n")


@output.verb
def providers(
    name: Annotated[str | None, typer.Argument(help="only this one")] = None,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """List the providers, what they serve, and whether they answer."""

    async def go() -> list[ProviderInfo]:
        async with Agent.from_config(config) as agent:
            return [info for info in await agent.providers() if name in (None, info.name)]

    found = asyncio.run(go())
    if name and not found:
        raise ConfigError(f"there is no provider {name!r}", hint="run `agentkit providers`")
    cells = [("provider", "answers", "kinds", "models", "what it is")]
    cells += [
        (
            info.name,
            "yes" if info.up else str(info.detail.get("error", "no")),
            " ".join(info.kinds),
            " ".join(info.models),
            info.label or info.adapter,
        )
        for info in found
    ]
    output.result([info.model_dump(mode="json") for info in found], columns(cells), as_json=as_json)
