"""The demo from beginning to end, in folders of its own; nothing is left running."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from agentkit.agent import Agent
from agentkit.artifacts import Dataset, Json, Text
from agentkit.cli import output as printed
from agentkit.cli.demo import graphs, sums
from agentkit.cli.demo.crash import Crash, crash, crash_plan
from agentkit.cli.demo.rows import Input, read
from agentkit.cli.output import AsJson, Quiet, note, verb
from agentkit.cli.watch import follow
from agentkit.display.text import columns
from agentkit.embedded import discovery
from agentkit.errors import RunError
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.market.plan import Plan
from agentkit.market.receipt import Receipt
from agentkit.money import Money
from agentkit.net.environment import child_environment
from agentkit.payments.balance import token_balance
from agentkit.runtime.result import RunResult

BUDGET = "0.50 USDC"


@dataclass
class DemoFindings:
    """What the demo found out, and what of it does not hold."""

    figures: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def check(self, holds: bool, what: str) -> None:
        """Note a claim, and show whether it holds."""
        note(f"  {'ok' if holds else 'WRONG'}  {what}")
        if not holds:
            self.wrong.append(what)


@verb
def demo(
    file: Annotated[
        Path | None, typer.Option("--input", help="a .jsonl or .csv with columns text and label")
    ] = None,
    keep: Annotated[bool, typer.Option(help="keep the demo's folder")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run the main job on the embedded network: plan, run, pay, crash, resume, restore."""
    given = read(file)
    silence = redirect_stderr(io.StringIO()) if quiet else nullcontext()
    with _folders(keep=keep) as folder, silence:
        findings = asyncio.run(_demo(folder, given))
    if not findings.wrong:
        note("\nall of it holds", quiet=quiet)
    if as_json:
        printed.result(findings.figures, "", as_json=True)
    if findings.wrong:
        raise RunError(f"{len(findings.wrong)} of the demo's claims do not hold: {findings.wrong}")


@contextmanager
def _folders(*, keep: bool) -> Iterator[Path]:
    """Make the demo's own folders, point this process and its children at them, clean up.

    The user's own settings do not count here: the demo never leaves the embedded network.
    """
    folder = Path(tempfile.mkdtemp(prefix="agentkit-demo-"))
    for name in [name for name in os.environ if name.startswith("AGENTKIT_")]:
        if name != "AGENTKIT_MODELS":
            del os.environ[name]
    (folder / "agentkit.toml").touch()
    os.environ["AGENTKIT_CONFIG"] = str(folder / "agentkit.toml")
    os.environ["AGENTKIT_HOME"] = str(folder / "home")
    os.environ["AGENTKIT_NETWORK"] = str(folder / "network")
    try:
        yield folder
    finally:
        discovery.stop(folder / "network")
        if keep:
            note(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


async def _demo(folder: Path, given: Input) -> DemoFindings:
    """Run the seven parts of the demo in order; returns what held and what did not."""
    findings = DemoFindings()
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in given.rows))
    async with Agent.from_config() as agent:
        found = discovery.find(folder / "network")
        if found is None:
            raise RunError("the embedded network is not there")
        before = await token_balance(agent._parts.chain, agent.network, agent.address)
        result = await _main_run(agent, source, given, findings)
        crashed = await _crash_runs(agent, folder, source, given, found, findings)
        await _settle(agent, found, before, result, crashed, findings)
        await _arweave(agent, findings)
    await _restore(folder, found, findings)
    return findings


# -- the main run --------------------------------------------------------------------------------


async def _main_run(agent: Agent, source: Path, given: Input, findings: DemoFindings) -> RunResult:
    """Plan and run the main graph, and show both."""
    note(
        "\nHere, native is agentkit's own pool; gaia and hyperbolic are stand-ins on this machine."
        f"\n\n1. The plan. {len(given.rows)} rows: {given.origin}\n"
    )
    graph = graphs.main_graph(source, given)
    plan = await agent.plan(graph, budget=BUDGET)
    note(str(plan))
    note(f"\n{plan.explain('by-prompt')}")
    note("\n2. The run.\n")
    result = await follow(await agent.start(plan), quiet=False, hint=False)
    _show(result, given)
    used = {receipt.attempt.provider for receipt in result.receipts}
    findings.check(used == {"native", "gaia", "hyperbolic"}, "all three providers took part")
    lone = [n.name for n in plan.nodes if n.offer and not n.alternates]
    findings.check(not lone, "every paid node had an alternate")
    return result


def _show(result: RunResult, given: Input) -> None:
    """Show what the main run produced, and what it cost by node."""
    note("\n3. What came out.\n")
    report = result["report"]
    heads, prompts = result["by-head"], result["by-prompt"]
    if isinstance(report, Json) and isinstance(heads, Dataset) and isinstance(prompts, Dataset):
        told = report.value
        note(
            f"of {told['rows']} rows held back the trained head gets {told['by head']} right,"
            f" the prompt {told['by prompt']} (guessing: {told['rows'] // len(given.labels)})\n"
        )
        rows = [("text", "label", "by head", "by prompt")]
        rows += [
            (head["text"][:56], head["label"], head["by-head"], prompt["by-prompt"])
            for head, prompt in list(zip(heads.rows(), prompts.rows(), strict=True))[:8]
        ]
        note(columns(rows))
    explained = result["explain"]
    if isinstance(explained, Text):
        note(
            f"\nasked to explain (a model this small makes things up): {given.rows[0]['text']}"
            f"\n  {graphs.first_words(explained)}…"
        )
    note("\nreceipts, by node:")
    note(columns(_receipt_rows(result.receipts), right=(2,)))


def _receipt_rows(receipts: tuple[Receipt, ...]) -> list[tuple[str, ...]]:
    """Return a row for each node, provider and standing, with the sum of its receipts."""
    groups: dict[tuple[str, str, str], list[Receipt]] = {}
    for receipt in receipts:
        key = (receipt.attempt.node, receipt.attempt.provider, receipt.standing)
        groups.setdefault(key, []).append(receipt)
    rows: list[tuple[str, ...]] = [("node", "provider", "amount", "standing", "receipts")]
    for (node, provider, standing), group in groups.items():
        amount = Money(sum(x.amount.units for x in group), group[0].amount.asset)
        rows.append((node, provider, str(amount), standing, str(len(group))))
    return rows


# -- crashes -------------------------------------------------------------------------------------


async def _crash_runs(
    agent: Agent,
    folder: Path,
    source: Path,
    given: Input,
    found: discovery.NetworkFile,
    findings: DemoFindings,
) -> Crash:
    """Kill a run twice, resume it, and check that nothing finished was done again."""
    note("\n4. Pulling the plug, twice.\n")
    plan = await crash_plan(agent, graphs.crash_graph(source, given), BUDGET)
    note(f"  a second graph, planned at {plan.price} and at most {plan.at_most}")
    crashed = await crash(agent, plan, folder, found)
    findings.check(
        crashed.exit_codes == (5, 0), "uncertain: exit 5; looked at and bought again: exit 0"
    )
    findings.check(crashed.rerun == 0, "the nodes' own logs: nothing finished was done again")
    return crashed


# -- sums ----------------------------------------------------------------------------------------


async def _settle(
    agent: Agent,
    found: discovery.NetworkFile,
    before: int,
    result: RunResult,
    crashed: Crash,
    findings: DemoFindings,
) -> None:
    """Close all channels and compare the receipts with the chain and the nodes' books."""
    note("\n5. The sums, read from the chain and from the nodes.\n")
    closed = await agent.close_channels()
    findings.check(set(closed.values()) == {"closed"}, f"channels closed: {', '.join(closed)}")
    found_sums = await _read_sums(agent, found, before)
    network = agent.network
    rows = [
        ("wallet before", sums.money(found_sums.before, network)),
        ("wallet after", sums.money(found_sums.after, network)),
        ("claimed by native nodes", sums.money(found_sums.claimed, network)),
        ("topped up at hyperbolic", sums.money(found_sums.topped_up, network)),
        ("receipts paid", sums.money(found_sums.total("paid"), network)),
        ("debited for uncertain attempts", sums.money(found_sums.uncertain_debited, network)),
        ("credit left at hyperbolic", sums.money(found_sums.credit_left, network)),
        ("billed elsewhere (gaia)", sums.money(found_sums.total("billed elsewhere"), network)),
    ]
    gas = await _gas(agent)
    note(columns([*rows, ("gas", gas.rough)], right=(1,)) + "\n")
    for what in found_sums.wrong():
        findings.check(False, what)
    findings.check(not found_sums.wrong(), "every sum holds to the unit")
    twice = found_sums.paid_twice()
    findings.check(twice == 0, "no purchase was paid twice")
    findings.figures = _figures(agent, found_sums, gas, result, await agent.status(crashed.run))
    findings.figures["crash"] = {
        "killed_after": crashed.killed_after,
        "rerun_nodes": crashed.rerun,
        "double_payments": twice,
        "uncertain": sum(x.standing == "uncertain" for x in found_sums.receipts),
    }


async def _read_sums(agent: Agent, found: discovery.NetworkFile, before: int) -> sums.Sums:
    """Read everything that the receipts have to agree with."""
    chain = agent._parts.chain
    network = agent.network
    payer = agent.address
    payee = found.providers["hyperbolic"]["payee"]
    books = await sums.credit_books(found)
    promised = await asyncio.to_thread(sums.vouchers, found, payer)
    return sums.Sums(
        before=before,
        after=await token_balance(chain, network, payer),
        claimed=await sums.claimed_by_providers(chain, promised.channels),
        transfers=await sums.transfers(chain, network, payer, payee),
        debits={row["answer"]: row["units"] for row in books["debits"]},
        promised=promised.promised,
        tasks=promised.tasks,
        receipts=tuple(await agent.receipts()),
    )


async def _gas(agent: Agent) -> Money:
    rows = await agent._journal.commit(lambda tx: tx.every(r.Total, "gas|"))
    return rows[0].amount if rows else agent.network.coin.zero()


def _figures(
    agent: Agent, found: sums.Sums, gas: Money, result: RunResult, crashed: Any
) -> dict[str, Any]:
    """Return the figures of the demo as `--json` prints them."""
    network = agent.network
    nodes = [
        *_node_figures(
            result.plan, {n: [a.digest for a in o] for n, o in result.artifacts.items()}, found
        )
    ]
    produced = {name: [p.digest for p in outputs] for name, outputs in crashed.done.items()}
    nodes += _node_figures(crashed.planned, produced, found)
    return {
        "nodes": nodes,
        "paid": sums.money(found.total("paid"), network),
        "wallet_before": sums.money(found.before, network),
        "wallet_after": sums.money(found.after, network),
        "settled_on_chain": sums.money(found.settled, network),
        "credit_left": sums.money(found.credit_left, network),
        "uncertain_debited": sums.money(found.uncertain_debited, network),
        "gas": str(gas),
        "billed_elsewhere": sums.money(found.total("billed elsewhere"), network),
    }


def _node_figures(
    plan: Plan, digests: dict[str, list[str]], found: sums.Sums
) -> list[dict[str, str]]:
    """Return for each node of a plan who did it, what was paid, and what came out."""
    figures = []
    for node in plan.graph.nodes:
        mine = [x for x in found.receipts if x.attempt.node == node.name]
        paid = sum(x.amount.units for x in mine if x.standing == "paid")
        providers = dict.fromkeys(x.attempt.provider for x in mine)
        figures.append(
            {
                "name": node.name,
                "kind": node.kind,
                "provider": ", ".join(providers) or "this machine",
                "paid": str(Money(paid, plan.price.asset)),
                "digest": digests[node.name][0],
            }
        )
    return figures


# -- memory --------------------------------------------------------------------------------------


async def _arweave(agent: Agent, findings: DemoFindings) -> None:
    note("\n6. The log, sealed on the embedded Arweave gateway.\n")
    standing = await agent.memory.checkpoint()
    note(f"  {standing.items} sealed items, owner {agent.memory.address}")
    findings.check(standing.unsealed == 0, "every event is sealed and on the gateway")
    findings.figures["arweave"] = {"address": agent.memory.address, "items": standing.items}


async def _restore(folder: Path, found: discovery.NetworkFile, findings: DemoFindings) -> None:
    """Move the home away and rebuild it in a new process, from the key and the gateway alone."""
    note("\n7. Another machine: nothing but the key and the gateway's address.\n")
    old, new = folder / "home-moved-away", folder / "another-home"
    (folder / "home").rename(old)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "agentkit", "memory", "restore"),
        *("--keystore", found.agent_key, "--gateway", found.gateway, "--json"),
        stdout=asyncio.subprocess.PIPE,
        env=child_environment(AGENTKIT_HOME=str(new), AGENTKIT_NETWORK=str(folder / "no-network")),
    )
    output, _ = await child.communicate()
    told = json.loads(output.splitlines()[-1]) if output else {}
    equal = child.returncode == 0 and await _same(old, new, told["address"])
    findings.check(equal, f"restored {told.get('events')} events, equal to those that were here")
    findings.check(not (folder / "no-network").exists(), "the restoring process started no network")
    findings.figures["restored"] = {"events": told.get("events", 0), "equal": equal}


async def _same(old: Path, new: Path, address: str) -> bool:
    """Whether two homes hold the same events; the restored one has one more, saying so."""
    rows = []
    for home in (old, new):
        journal = await Journal.open(home / address.lower(), address)
        await journal.check()
        streams = await journal.commit(lambda tx: tx.streams())
        rows.append({stream: await journal.rows(stream) for stream in streams})
        await journal.close()
    here, there = rows
    restored = {name: there[name][: len(here[name])] for name in there if name in here}
    return restored == here and len(there["wallet"]) == len(here["wallet"]) + 1
