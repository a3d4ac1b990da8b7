"""Pulling the plug twice: a child runs a plan and is killed with work in flight."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from agentkit.agent import Agent
from agentkit.cli import output
from agentkit.cli.demo.sums import credit_books
from agentkit.embedded import discovery
from agentkit.errors import RunError
from agentkit.graph.builder import JobGraph
from agentkit.journal.run_state import RunState
from agentkit.market.attempt import Attempt
from agentkit.market.plan import Plan
from agentkit.net.environment import child_environment
from agentkit.planner import policy

PATIENCE = 60.0
POLL = 0.02


@dataclass(frozen=True)
class Crash:
    """What the two kills did: nodes finished before, and what was run or paid again."""

    run: str
    killed_after: int
    in_flight: tuple[str, ...]
    rerun: int
    exit_codes: tuple[int, ...]


async def crash(agent: Agent, plan: Plan, folder: Path, found: discovery.NetworkFile) -> Crash:
    """Run a plan in a child, kill it in a native job and in a chat, and see it finish.

    Raises RunError when nothing was in flight at a kill.
    """
    file = folder / "crash-plan.json"
    plan.save(file)
    child, run = await _start(file, plan.graph.code_digests(), agent)
    attempt = await _until_running(agent, run, found)
    await _kill(child)
    output.note(f"  killed while native/{attempt.provider_node} ran {attempt.node!r}")
    done = len((await agent.status(run)).done)

    child = await _agentkit("resume", run)
    output.note(f"  resumed: {attempt.node!r} is found at the node, not bought again")
    chat = await _until_chatting(agent, run, found)
    await _kill(child)
    output.note(f"  killed again in the middle of the chat {chat.node!r} at {chat.provider}")

    paused = await _end(await _agentkit("resume", run))
    output.note(
        f"  resumed: nobody can say whether the chat was done, so it pauses (exit {paused})"
    )
    finished = await _end(await _agentkit("resume", run, "--rebuy"))
    output.note(f"  resumed with --rebuy: done (exit {finished})")
    rerun = await _rerun(agent, run, found)
    return Crash(run, done, (attempt.node, chat.node), rerun, (paused, finished))


async def crash_plan(agent: Agent, graph: JobGraph, budget: str) -> Plan:
    """Plan the graph so that its chat goes to the one provider that cannot be asked."""
    return await agent.plan(graph, budget=budget, policy=policy.prefer("hyperbolic", within="900%"))


# -- children ------------------------------------------------------------------------------------


async def _agentkit(*arguments: str) -> Process:
    """Start the command line in a session of its own, so that it can be killed alone."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "agentkit",
        *arguments,
        "--quiet",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        env=child_environment(),
    )


async def _start(file: Path, code: Collection[str], agent: Agent) -> tuple[Process, str]:
    """Start a graph in a child process; return the child and the id of the run it began."""
    known = {row.run for row in await agent.runs()}
    trusted = [part for digest in code for part in ("--trust-code", digest)]
    child = await _agentkit("run", str(file), *trusted)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and child.returncode is None:
        new = [row.run for row in await agent.runs() if row.run not in known]
        if new:
            return child, new[0]
        await asyncio.sleep(POLL)
    raise RunError("the child did not start its run", hint="run agentkit doctor")


async def _kill(child: Process) -> None:
    """Kill a child as a power cut would; raises RunError when it had ended by itself."""
    if child.returncode is not None:
        raise RunError(f"the child ended by itself with {child.returncode}, nothing was in flight")
    child.send_signal(signal.SIGKILL)
    code = await child.wait()
    if code != -signal.SIGKILL:
        raise RunError(f"the child ended with {code}, not by the kill")


async def _end(child: Process) -> int:
    async with asyncio.timeout(PATIENCE):
        return await child.wait()


# -- looking -------------------------------------------------------------------------------------


async def _until_running(agent: Agent, run: str, found: discovery.NetworkFile) -> Attempt:
    """Wait until a native node itself says that it is running a paid job of the run."""
    until = time.monotonic() + PATIENCE
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < until:
            for attempt in _open(await agent.status(run)):
                if await _job_state(session, found, attempt) == "running":
                    return attempt
            await asyncio.sleep(POLL)
    raise RunError("no native job was in flight to be killed in")


async def _job_state(
    session: aiohttp.ClientSession, found: discovery.NetworkFile, attempt: Attempt
) -> str:
    """Return what a node of the embedded network says of an attempt, "" if it does not know it."""
    url = found.nodes.get(attempt.provider_node)
    if url is None:
        return ""
    async with session.get(f"{url}/jobs/{attempt.id}") as answer:
        job = json.loads(await answer.read())
    return str(job.get("status", {}).get("state", ""))


async def _until_chatting(agent: Agent, run: str, found: discovery.NetworkFile) -> Attempt:
    """Wait until the prepaid node is at work on a chat that the run has open."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        open_ = [a for a in _open(await agent.status(run)) if a.provider == "hyperbolic"]
        if open_ and (await credit_books(found))["working"]:
            return open_[0]
        await asyncio.sleep(POLL)
    raise RunError("no chat was in flight to be killed in")


def _open(state: RunState) -> list[Attempt]:
    return [a for purchase in state.purchases.values() for a in purchase.open.values()]


async def _rerun(agent: Agent, run: str, found: discovery.NetworkFile) -> int:
    """Count, by the nodes' own execution logs, what was done again although it was paid."""
    logs = await asyncio.to_thread(discovery.ask, found, "/executions")
    executed = [attempt for log in logs.values() for attempt in log]
    state = await agent.status(run)
    mine = {a.id: a.purchase for p in state.purchases.values() for a in p.attempts}
    paid = {receipt.attempt.purchase for receipt in state.receipts if receipt.standing == "paid"}
    times: dict[str, int] = {}
    for attempt in executed:
        if attempt in mine:
            times[mine[attempt]] = times.get(mine[attempt], 0) + 1
    return sum(count - 1 for purchase, count in times.items() if purchase in paid)
