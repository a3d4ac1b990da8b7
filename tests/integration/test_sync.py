"""The blocking twins: in scripts, inside a running loop, and when they are interrupted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.timing import limit
from support.toy_market import usdc

from agentkit.journal.lease import Lease, is_free
from agentkit.money import Money

ROWS = 24
GRAPH = """
import sys, agentkit as ak
graph = ak.JobGraph("rows")
rows = graph.data("rows", source="rows.jsonl")
said = graph.infer("said", model="smollm2-135m", over=rows, prompt="{n}", max_tokens=6)
"""


HELD = f"""
import asyncio
from agentkit.providers.native import Native
fetch = Native.result
async def held(self, attempt):
    if attempt.item >= {ROWS // 2}:
        await asyncio.Event().wait()
    return await fetch(self, attempt)
Native.result = held
"""
"""Lets no answer to the later rows arrive, so that a signal meets the run in its middle."""


@pytest.fixture(autouse=True)
def here(own_folder: Path) -> Path:
    (own_folder / "rows.jsonl").write_text("".join(f'{{"n": "row {n}"}}\n' for n in range(ROWS)))
    return own_folder


@contextmanager
def script(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def output(code: str, *arguments: str) -> str:
    with script(code, *arguments) as process:
        told, _ = process.communicate(timeout=limit(90))
    assert process.returncode == 0
    return told


def test_they_work_inside_a_running_loop() -> None:
    code = (
        GRAPH + "import asyncio\n"
        "async def main():\n"
        "    plan = ak.plan(graph, budget='0.1 USDC', balance=False)\n"
        "    result = ak.run(plan)\n"
        f"    assert len(result[said].rows()) == {ROWS}\n"
        "    assert ak.status(result.run_id).outcome == 'done'\n"
        "    print(result.paid)\n"
        "asyncio.run(main())\n"
    )
    assert usdc("0") < Money.parse(output(code).strip()).bind(usdc("1").asset) < usdc("0.1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_pauses_the_run_and_the_next_process_goes_on(number: int) -> None:
    code = HELD + (
        GRAPH + "try:\n"
        "    ak.run(graph, budget='0.1 USDC')\n"
        "except ak.RunPaused as paused:\n"
        "    assert paused.command == f'agentkit resume {paused.run_id}'\n"
        "    state = ak.status(paused.run_id)\n"
        "    left = [a for p in state.purchases.values() for a in p.open.values()]\n"
        "    assert all(a.provider == 'native' for a in left)  # which can be asked later\n"
        "    print(paused.run_id, len(state.items['said']), flush=True)\n"
    )
    look = (
        "import agentkit as ak, time\n"
        "while not [r for r in ak.status() if ak.status(r.run).items.get('said')]:\n"
        "    time.sleep(0.02)\n"
    )
    with script(code) as paused:
        output(look)  # until items are bought
        assert paused.poll() is None
        paused.send_signal(number)
        told, _ = paused.communicate(timeout=limit(60))
    assert paused.returncode == 0
    run, done = told.split()
    assert 0 < int(done) < ROWS  # it was in the middle
    again = (
        "import agentkit as ak, sys\n"
        "result = ak.resume(sys.argv[1])\n"
        "purchases = {x.attempt.purchase for x in result.receipts}\n"
        "print(len(result['said'].rows()), len(result.receipts), len(purchases))\n"
    )
    assert output(again, run).split() == [str(ROWS)] * 3


def test_the_command_line_pauses_and_says_how_to_go_on(here: Path) -> None:
    (here / "graph_here.py").write_text(HELD + GRAPH)
    command = [sys.executable, "-m", "agentkit"]
    with subprocess.Popen(
        [*command, "run", "graph_here.py:graph", "--yes"], stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr
        lines = []
        for line in running.stderr:
            lines.append(line)
            if "items done" in line:
                break
        running.send_signal(signal.SIGTERM)
        rest = running.stderr.read()
        assert running.wait(timeout=limit(60)) == 4
    (run,) = {line.split()[1] for line in lines if line.startswith("run ")}
    assert f"agentkit resume {run}" in rest
    resumed = subprocess.run([*command, "resume", run, "--quiet"], check=False, timeout=limit(90))
    assert resumed.returncode == 0


def test_the_process_ends_soon_after_its_last_line() -> None:
    began = time.monotonic()
    output("import agentkit as ak\nassert ak.status() == []\n")
    assert time.monotonic() - began < 10


def test_a_signal_while_nothing_runs_yet_starts_nothing(here: Path) -> None:
    """The plan is being made, slowly, when the user thinks better of it."""
    code = (
        GRAPH + "import asyncio, agentkit.agent\n"
        "async def slowly(*args, **more):\n"
        "    print('planning', flush=True)\n"
        "    await asyncio.sleep(2)\n"
        "    return await made(*args, **more)\n"
        "made, agentkit.agent.make_plan = agentkit.agent.make_plan, slowly\n"
        "try:\n"
        "    ak.run(graph)\n"
        "except KeyboardInterrupt:\n"
        "    import time; time.sleep(3)\n"
        "    print(len(ak.status()), flush=True)\n"
    )
    with script(code) as asked:
        assert asked.stdout
        assert asked.stdout.readline() == "planning\n"
        asked.send_signal(signal.SIGINT)
        told, _ = asked.communicate(timeout=limit(60))
    assert asked.returncode == 0
    assert told == "0\n"


def test_a_fork_after_a_run_can_run_too() -> None:
    """The child has none of the parent's threads, and must neither wait for them nor hold locks."""
    code = (
        "import agentkit as ak, os, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)  # newer Pythons warn of any fork\n"
        "graph = ak.JobGraph('forked')\n"
        "greet = graph.infer('greet', model='smollm2-135m', prompt='Hi', max_tokens=4)\n"
        "assert ak.run(graph, budget='0.05 USDC').paid\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    result = ak.run(graph, budget='0.05 USDC')\n"
        "    print('child', len(result.receipts), flush=True)\n"
        "    raise SystemExit\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "print('parent', len(ak.run(graph, budget='0.05 USDC').receipts), flush=True)\n"
    )
    assert output(code).split() == ["child", "1", "parent", "1"]


def test_a_forked_child_does_not_keep_its_parents_run(tmp_path: Path) -> None:
    to_child, to_parent = os.pipe(), os.pipe()
    with Lease(tmp_path, "r1"):
        child = os.fork()
        if not child:
            os.close(to_child[1])
            os.write(to_parent[1], b"x")  # what is done at a fork was done
            os.read(to_child[0], 1)  # until the parent has looked
            os._exit(0)
        os.read(to_parent[0], 1)
    assert is_free(tmp_path, "r1"), "the child holds no copy of the lock"
    os.close(to_child[1])
    assert os.waitpid(child, 0)[1] == 0
