"""Code that a graph names, at the command line: a yes to the cost is none to the code."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.timing import limit
from typer.testing import CliRunner, Result

from agentkit.cli.main import app

TIDY = "def tidy(x):\n    return {'ok': True}\n"


@pytest.fixture
def cli(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs a verb in a folder of the test's own, as in a process anew."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, typed: str | None = None) -> Result:
        sys.modules.pop("stranger_of_cli", None)
        return CliRunner().invoke(app, list(arguments), input=typed)

    return run


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have somebody at the keyboard, as the verbs see it."""
    import typer.testing

    monkeypatch.setattr(typer.testing._NamedTextIOWrapper, "isatty", lambda _: True, raising=False)


def stranger(folder: Path) -> tuple[Path, str]:
    """Write a stranger's graph and its code; return where the code says it ran, and its sha256."""
    folder.mkdir()
    mark = folder / "mark"
    code = f"import pathlib\npathlib.Path({str(mark)!r}).write_text('ran')\n" + TIDY
    (folder / "helper.py").write_text(code)
    fn = {
        "module": "stranger_of_cli",
        "qualname": "tidy",
        "file": str(folder / "helper.py"),
        "sha256": hashlib.sha256(TIDY.encode()).hexdigest(),
    }
    ask = {"kind": "infer", "name": "a", "model": "smollm2-135m", "prompt": "hi", "max_tokens": 4}
    do = {"kind": "local", "name": "b", "fn": fn, "args": [{"node": "a"}]}
    (folder / "graph.json").write_text(json.dumps({"name": "stranger", "nodes": [ask, do]}))
    return mark, hashlib.sha256(code.encode()).hexdigest()


def runs(cli: Any) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(cli("status", "--json").stdout)["runs"]
    return told


def refused(result: Result, digest: str) -> None:
    assert result.exit_code == 2, result.output
    error, hint = result.stderr.splitlines()[-2:]
    assert error.startswith("error: the graph would run code that you have not agreed to")
    assert "helper.py" in error
    assert f"--trust-code {digest}" in hint


def test_yes_to_the_cost_is_no_yes_to_the_code(cli: Any, tmp_path: Path) -> None:
    mark, digest = stranger(tmp_path / "dl")
    refused(cli("run", "dl/graph.json", "--yes"), digest)
    assert not mark.exists()
    assert runs(cli) == []
    refused(cli("run", "dl/graph.json", "--yes", "--trust-code", "00" * 32), digest)
    refused(cli("run", "dl/graph.json", "--yes", "--detach"), digest)
    assert not mark.exists()
    assert cli("run", "dl/graph.json", "--yes", "--trust-code", "all").exit_code == 2


def test_the_hint_helps_when_it_is_followed(cli: Any, tmp_path: Path) -> None:
    mark, digest = stranger(tmp_path / "dl")
    told = cli("run", "dl/graph.json", "--yes", "--json", "--trust-code", digest.upper())
    assert told.exit_code == 0, told.output
    assert mark.exists()


def test_a_plan_shows_the_code_and_consents_to_none(cli: Any, tmp_path: Path) -> None:
    mark, digest = stranger(tmp_path / "dl")
    shown = cli("plan", "dl/graph.json", "--out", "plan.json").stdout
    assert f"runs code on this machine: {tmp_path / 'dl' / 'helper.py'}  sha256 {digest}" in shown
    listed = json.loads(cli("plan", "dl/graph.json", "--json").stdout)["code"]
    assert listed == [{"file": str(tmp_path / "dl" / "helper.py"), "sha256": digest}]
    refused(cli("run", "plan.json"), digest)
    assert not mark.exists()
    assert cli("run", "plan.json", "--trust-code", digest).exit_code == 0


@pytest.mark.usefixtures("at_a_terminal")
@pytest.mark.parametrize(("typed", "ran"), [("y\ny\n", True), ("y\nn\n", False), ("n\n", False)])
def test_somebody_at_the_terminal_is_asked_about_both(
    cli: Any, tmp_path: Path, typed: str, ran: bool
) -> None:
    mark, digest = stranger(tmp_path / "dl")
    told = cli("run", "dl/graph.json", typed=typed)
    assert told.exit_code == 0, told.output
    assert mark.exists() == ran
    assert len(runs(cli)) == int(ran)
    assert ("run this code?" in told.stderr) == typed.startswith("y")
    assert digest in told.stderr


def test_consent_goes_with_a_run_into_the_background(cli: Any, tmp_path: Path) -> None:
    mark, digest = stranger(tmp_path / "dl")
    detached("dl/graph.json", "--trust-code", digest)
    until_done(cli)
    assert mark.exists()


def test_the_file_that_was_typed_needs_no_more(cli: Any, tmp_path: Path) -> None:
    """In the background the function is one that a plan names."""
    typed = tmp_path / "typed_by_user.py"
    typed.write_text(
        "import agentkit as ak\n"
        "def shout(text):\n    return str(text).upper()\n"
        "graph = ak.JobGraph('typed')\n"
        "a = graph.infer('a', model='smollm2-135m', prompt='hi', max_tokens=4)\n"
        "graph.local('b', shout, a)\n"
    )
    detached("typed_by_user.py:graph")
    until_done(cli)


def detached(*arguments: str) -> None:
    command = [sys.executable, "-m", "agentkit", "run", *arguments, "--yes", "--detach"]
    subprocess.run(command, check=True, timeout=limit(60), stdin=subprocess.DEVNULL)


def until_done(cli: Any) -> None:
    deadline = time.monotonic() + limit(60)
    while time.monotonic() < deadline and [run["state"] for run in runs(cli)] != ["done"]:
        time.sleep(0.1)
    assert [run["state"] for run in runs(cli)] == ["done"]


def test_a_resume_runs_the_code_that_the_run_began_with_and_no_other(
    cli: Any, tmp_path: Path
) -> None:
    """It pauses at a node that asks first, before the code is run in this process again."""
    mark, digest = stranger(tmp_path / "dl")
    graph = json.loads((tmp_path / "dl" / "graph.json").read_text())
    graph["nodes"][0]["approve"] = True
    (tmp_path / "dl" / "graph.json").write_text(json.dumps(graph))
    assert cli("run", "dl/graph.json", "--yes", "--trust-code", digest).exit_code == 4
    (run,) = runs(cli)

    helper = tmp_path / "dl" / "helper.py"
    agreed = helper.read_text()
    mark.unlink()
    helper.write_text(agreed + "# swapped\n")
    swapped = hashlib.sha256(helper.read_bytes()).hexdigest()
    refused(cli("resume", run["run"], "--approve", "a"), swapped)
    assert not mark.exists()

    helper.write_text(agreed)
    assert cli("resume", run["run"], "--approve", "a").exit_code == 0
    assert mark.exists()
