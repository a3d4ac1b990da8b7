"""Runs on the command line: cancelled wherever they are, mended and gone on with as hints say."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.timing import limit
from typer.testing import CliRunner, Result

from agentkit.cli.main import app

SLOW = """
import time
import agentkit as ak

def rest() -> int:
    time.sleep(60)
    return 1

graph = ak.JobGraph("slow")
graph.local("rest", rest)
"""

BROKEN = """
import agentkit as ak

def shout(text) -> str:
    raise ValueError("not yet")

graph = ak.JobGraph("report")
graph.local("shout", shout, graph.infer("greet", model="smollm2-135m", prompt="Hi.", max_tokens=4))
"""

MENDED = BROKEN.replace('raise ValueError("not yet")', "return text.text.upper()")


@pytest.fixture
def cli(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return run


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "agentkit", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def worker(cli: Any, own_folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that works on a run, and the run's id."""
    (own_folder / "slow.py").write_text(SLOW)
    process = started("run", "slow.py:graph", "--yes")
    assert process.stderr
    run = next(found[1] for line in process.stderr if (found := re.match(r"run (\w+) ", line)))
    yield process, run
    process.kill()
    process.communicate()


def test_a_run_of_another_process_is_cancelled_and_said_so(
    cli: Any, worker: tuple[subprocess.Popen[str], str]
) -> None:
    """It said that the run is running, and nobody knew whether it had been heard."""
    process, run = worker
    told = cli("cancel", run)
    assert (told.exit_code, told.stdout) == (0, f"run {run} is cancelled\n")
    assert process.wait(timeout=limit(30)) == 1


def test_a_process_that_does_not_answer_is_named(
    cli: Any, worker: tuple[subprocess.Popen[str], str]
) -> None:
    process, run = worker
    os.kill(process.pid, signal.SIGSTOP)
    told = cli("cancel", run)
    assert told.exit_code == 0
    assert told.stdout == (
        f"asked process {process.pid} to cancel run {run}; see agentkit status {run} --watch\n"
    )
    os.kill(process.pid, signal.SIGCONT)
    assert "cancelled" in cli("status", run, "--watch").stdout
    again = json.loads(cli("cancel", run, "--json").stdout)
    assert again == {"run": run, "cancelled": True, "outcome": "cancelled"}


def test_the_hint_of_a_broken_function_followed_leads_to_the_end(
    cli: Any, own_folder: Path
) -> None:
    """Each step is what the one before told; what was bought is not bought again."""
    (own_folder / "report.py").write_text(BROKEN)
    first = subprocess.run(
        [sys.executable, "-m", "agentkit", "run", "report.py:graph", "--yes"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert first.returncode == 4
    assert "shout: ValueError: not yet (report.py:5)" in first.stderr
    hint = first.stderr.splitlines()[-1]
    assert hint.startswith("hint: mend the function of 'shout' in ")
    resume = re.search(r"`agentkit (resume \w+)`", hint)[1].split()  # type: ignore[index]
    assert hint.removeprefix("hint: ") in cli("status", resume[1]).stdout

    (own_folder / "report.py").write_text(MENDED)
    asked = cli(*resume)
    assert asked.exit_code == 2
    trust = re.search(r"--trust-code [0-9a-f]{64}", asked.stderr)[0].split()  # type: ignore[index]
    done = cli(*resume, *trust)
    assert done.exit_code == 0, done.output
    assert f"run {resume[1]} is done" in done.stdout
    receipts = json.loads(cli("receipts", "--json").stdout)
    assert len(receipts) == 1
    sys.modules.pop("report", None)


def test_rows_that_are_left_out_are_told(cli: Any, own_folder: Path) -> None:
    (own_folder / "rows.jsonl").write_text('{"n": "a"}\n{"n": "b"}\n')
    (own_folder / "skip.toml").write_text(
        'name = "skip"\n'
        '[[nodes]]\nname = "rows"\nkind = "data"\nop = "source"\nsource = "rows.jsonl"\n'
        '[[nodes]]\nname = "ask"\nkind = "infer"\nmodel = "smollm2-135m"\nprompt = "{n}"\n'
        'max_tokens = 3\non_error = "skip"\nover = { node = "rows" }\n'
        'output = { type = "object", properties = { story = { type = "string" } },'
        ' required = ["story"] }\n'
    )
    told = cli("run", "skip.toml", "--yes")
    assert told.exit_code == 0, told.output
    assert "ask: 2 rows were skipped (" in told.stdout
    assert "max_tokens=3 cut the answer before its JSON ended" in told.stdout
