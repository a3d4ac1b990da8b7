"""plan, run, resume, cancel."""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from agentkit.agent import Agent
from agentkit.cli import files, output
from agentkit.cli.watch import follow, result_text
from agentkit.errors import ConfigError, RunError, UntrustedCode
from agentkit.graph.callables import Consent
from agentkit.graph.code import check_consent
from agentkit.graph.frozen import FrozenGraph
from agentkit.market.plan import Plan
from agentkit.money import Money
from agentkit.planner import policy as policies

File = Annotated[str, typer.Argument(help="graph.toml, graph.json, module.py:graph or plan.json")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="a run's id, as `agentkit status` lists")]
Budget = Annotated[str | None, typer.Option(help='the most it may cost, like "0.05 USDC"')]
Deadline = Annotated[str | None, typer.Option(help="how long it may take, like 10m or 6h")]
PolicyText = Annotated[str | None, typer.Option("--policy", help='like "prefer(native, 10%)"')]
Objective = Annotated[str, typer.Option(help="cost, time, or a weight from 0 to 1")]
Effort = Annotated[str, typer.Option(help="normal, or high: up to a minute for a better plan")]
Risk = Annotated[float, typer.Option(help="the share of cases in which times are kept")]
TrustCode = Annotated[
    list[str] | None,
    typer.Option(metavar="SHA256", help="let code in the file with this sha256 run; repeatable"),
]
Rest = Annotated[str | None, typer.Option("--rest", metavar="RUN", help="what is left of a run")]


@output.verb
def plan(
    file: File,
    budget: Budget = None,
    deadline: Deadline = None,
    policy: PolicyText = None,
    objective: Objective = "cost",
    effort: Effort = "normal",
    risk: Risk = 0.5,
    rest: Rest = None,
    out: Annotated[Path | None, typer.Option(help="write the plan to this file")] = None,
    explain: Annotated[str | None, typer.Option(metavar="NODE", help="show its offers")] = None,
    diff: Annotated[Path | None, typer.Option(metavar="PLAN", help="compare with a plan")] = None,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Show where every node would run and what it would cost; spends nothing.

    A plan in a file is shown as it was made.
    """
    wishes = {"--budget": budget, "--deadline": deadline, "--policy": policy, "--rest": rest}
    saved = _saved_plan(file, wishes)
    other = files.read_plan(str(diff)) if diff else None
    wish = _wish(budget, deadline, policy, objective)
    wish |= {"effort": effort, "risk": risk, "run": rest}
    made = saved or _planned(files.read_graph(file), config, wish)
    if out:
        made.save(out)
    parts = [str(made)]
    parts += [made.explain(explain)] if explain else []
    parts += [other.diff(made)] if other else []
    text = "\n\n".join(parts)
    code = [{"file": str(f.path), "sha256": f.digest} for f in made.graph.code_to_load()]
    output.result({"id": made.id, "code": code, **json.loads(made.encode())}, text, as_json=as_json)
    if out:
        verb = f"resume {rest} --plan" if rest else "run"
        output.note(f"run it with: agentkit {verb} {out}", quiet=quiet)


@output.verb
def run(
    file: File,
    budget: Budget = None,
    deadline: Deadline = None,
    policy: PolicyText = None,
    objective: Objective = "cost",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask about the cost")] = False,
    trust_code: TrustCode = None,
    detach: Annotated[bool, typer.Option(help="go on in the background")] = False,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Run a plan, or plan a graph, ask, and run it.

    Code that the file names is run only after a yes of its own, or --trust-code: a plan and --yes
    agree to what it costs alone.
    """
    wishes = {"--budget": budget, "--deadline": deadline, "--policy": policy}
    given = _saved_plan(file, wishes)
    wish = _wish(budget, deadline, policy, objective)
    made = given or _agreed(file, config, wish, yes=yes, quiet=quiet)
    if made is None:
        output.note("nothing was spent", quiet=quiet)
        return
    own_code = _own_code(made.graph)
    trusted = _agreed_code(made.graph, trust_code or ())
    if trusted is None:
        output.note("nothing was run or spent", quiet=quiet)
        return
    if detach:
        output.result({"run": _detached(made, config, {*trusted, *own_code})}, "", as_json=True)
        return

    async def go() -> None:
        async with Agent.from_config(config) as agent:
            result = await follow(await agent.start(made, trust_code=trusted), quiet=quiet)
            output.result(result.data(), result_text(result), as_json=as_json)

    asyncio.run(go())


def _agreed(
    file: str, config: Path | None, wish: dict[str, Any], *, yes: bool, quiet: bool
) -> Plan | None:
    """Plan a graph and ask whether it may be run; None when it may not."""
    graph = files.read_graph(file)
    if not yes and not sys.stdin.isatty():
        raise ConfigError(
            "stdin is not a terminal, so nobody can confirm",
            hint=f"use --yes, or make a plan first: agentkit plan {file} --out plan.json",
        )
    made = _planned(graph, config, wish)
    output.note(str(made), quiet=quiet)
    if yes or typer.confirm(f"spend at most {made.at_most}?", err=True):
        return made
    return None


def _own_code(graph: FrozenGraph) -> frozenset[str]:
    """Return the sha256 of the files of functions that this process has: of the file typed."""
    return graph.code_digests() - {file.digest for file in graph.code_to_load()}


def _agreed_code(graph: FrozenGraph, trusted: Collection[str]) -> frozenset[str] | None:
    """Return the sha256 of the files that may run, asking about those not `trusted`; None for no.

    Raises UntrustedCode where nobody can be asked.
    """
    consented = Consent.to(trusted).digests
    files = [file for file in graph.code_to_load() if file.digest not in consented]
    if not files:
        return consented
    if not sys.stdin.isatty():
        check_consent(files, consented)
    if not _confirm_code(list(map(str, files))):
        return None
    return consented | {file.digest for file in files}


def _confirm_code(files: Collection[str]) -> bool:
    for file in files:
        output.note(f"the graph names code that would run on this machine: {file}")
    return typer.confirm("run this code?", err=True)


def _planned(graph: FrozenGraph, config: Path | None, wish: dict[str, Any]) -> Plan:
    async def go() -> Plan:
        async with Agent.from_config(config) as agent:
            return await agent.plan(graph, **wish)

    return asyncio.run(go())


@output.verb
def resume(
    run_id: RunId,
    plan: Annotated[Path | None, typer.Option(help="go on under this new plan")] = None,
    rebuy: Annotated[bool, typer.Option(help="buy again what is uncertain")] = False,
    budget: Annotated[str | None, typer.Option(help="raise the run's budget to this")] = None,
    approve: Annotated[
        list[str] | None, typer.Option(metavar="NODE", help="agree to what this node costs")
    ] = None,
    trust_code: TrustCode = None,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Go on with a run that was paused, killed or left."""

    async def go() -> None:
        """Resume the run, ask about code that changed, and follow it to its end."""
        new = files.read_plan(str(plan)) if plan else None
        trusted = trust_code or ()
        async with Agent.from_config(config) as agent:
            go_on = functools.partial(
                agent.resume, run_id, plan=new, rebuy=rebuy, budget=budget, approved=approve or ()
            )
            try:
                run = await go_on(trust_code=trusted)
            except UntrustedCode as error:
                if not sys.stdin.isatty() or not _confirm_code(error.files):
                    raise
                run = await go_on(trust_code=(*trusted, *error.digests))
            result = await follow(run, quiet=quiet)
            output.result(result.data(), result_text(result), as_json=as_json)

    asyncio.run(go())


@output.verb
def cancel(
    run_id: RunId,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """End a run for good: stop its work, give its hold back."""

    async def go() -> tuple[str, str]:
        async with Agent.from_config(config) as agent:
            ended = await agent.cancel(run_id)
            owner = "" if ended else agent.worker_of(run_id)
            return (await agent.status(run_id)).outcome, owner

    outcome, owner = asyncio.run(go())
    data = {"run": run_id, "cancelled": outcome == "cancelled", "outcome": outcome}
    if outcome in ("running", "paused"):
        text = (
            f"asked process {owner or '(unknown)'} to cancel run {run_id};"
            f" see agentkit status {run_id} --watch"
        )
    else:
        text = f"run {run_id} is {outcome}"
        text += " already" if outcome in ("done", "failed") else ""
    output.result(data, text, as_json=as_json)


def _saved_plan(file: str, wishes: Mapping[str, str | None]) -> Plan | None:
    """Return the plan in a file, None for a graph; raises ConfigError for wishes beside a plan."""
    if not files.is_plan(file):
        return None
    ignored = [name for name, value in wishes.items() if value is not None]
    if ignored:
        raise ConfigError(
            f"{file} is a plan, and {ignored[0]} belongs to planning",
            hint=f"plan the graph again: agentkit plan GRAPH {ignored[0]} ... --out plan.json",
        )
    return files.read_plan(file)


def _wish(
    budget: str | None, deadline: str | None, policy: str | None, objective: str
) -> dict[str, Any]:
    """Read what the user wants of a plan, as `Agent.plan` takes it."""
    return {
        "budget": None if budget is None else Money.parse(budget),
        "deadline": files.read_duration(deadline),
        "policy": policies.parse(policy) if policy else None,
        "objective": _objective(objective),
    }


def _objective(text: str) -> str | float:
    """Return a weight as a number; the planner says what else an objective can be."""
    try:
        return float(text)
    except ValueError:
        return text


def _detached(plan: Plan, config: Path | None, trusted: Collection[str]) -> str:
    """Start the plan in a process of its own and return the run's id as that process tells it.

    `trusted`: the sha256 of files that it may load.
    """
    folder = Path(tempfile.mkdtemp(prefix="agentkit-run-"))
    plan.save(folder / "plan.json")
    command = [sys.executable, "-P", "-m", "agentkit", "run", str(folder / "plan.json")]
    for digest in sorted(trusted):
        command += ["--trust-code", digest]
    if config:
        command += ["--config", str(config)]
    log = folder / "run.log"
    with log.open("w") as file:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    while True:
        ended = child.poll()
        text = log.read_text()
        told = [line.split()[1] for line in text.splitlines() if line.startswith("run ")]
        if told:
            return told[0]
        if ended is not None:
            error = RunError(f"the run did not start: {text.strip()}", hint=f"see {log}")
            error.exit_code = ended
            raise error
        time.sleep(0.05)
