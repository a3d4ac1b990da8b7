"""Kinds of another package are saved, loaded, planned, killed and resumed like ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import outside_kinds
from support.processes import PROGRAMS

CHILD = PROGRAMS / "outside_kinds.py"
LETTERS = ("Dear Ada,", "Dear Alan,", "Dear Grace,", "Dear Edsger,")


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Install the package of the how-to into a folder of its own."""
    folder = tmp_path / "packages"
    outside_kinds.install(folder)
    return folder


@pytest.fixture
def home(tmp_path: Path, packages: Path) -> Path:
    """Build the graph of the how-to, as its page says, and return its folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    rows = "".join(json.dumps({"text": letter}) + "\n" for letter in LETTERS)
    (folder / "letters.jsonl").write_text(rows)
    subprocess.run(
        [sys.executable, "-c", outside_kinds.graph()],
        cwd=folder,
        env=environment(packages),
        check=True,
        timeout=60,
    )
    return folder


def environment(*packages: Path) -> dict[str, str]:
    """Return the environment of a process that has these packages besides."""
    return {"PYTHONPATH": os.pathsep.join([*map(str, packages), *sys.path])}


def process(folder: Path, verb: str, *packages: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), verb],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(*packages),
    )


def said(folder: Path, verb: str, *packages: Path) -> dict[str, Any]:
    child = process(folder, verb, *packages)
    output, _ = child.communicate(timeout=100)
    assert child.returncode == 0
    return json.loads(output)  # type: ignore[no-any-return]


def kill_halfway(folder: Path, packages: Path) -> None:
    """Have a process run the graph, and kill it once some of its nodes are done."""
    child = process(folder, "start", packages)
    try:
        assert child.stdout
        assert child.stdout.readline() == "halfway\n"
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()


def executions(folder: Path) -> list[str]:
    return (folder / "one" / "executions.log").read_text().split()


def test_a_run_of_outside_kinds_is_killed_and_resumed(home: Path, packages: Path) -> None:
    kill_halfway(home, packages)
    assert len(executions(home)) == 2

    told = said(home, "resume", packages)
    letters = {f"letter{n}": letter for n, letter in enumerate(LETTERS)}
    french = {f"french{n}": f"French: {letter}" for n, letter in enumerate(LETTERS)}
    assert {name: told["texts"][name] for name in (*letters, *french)} == letters | french
    assert told["receipts"] == 4
    assert len(executions(home)) == len(set(executions(home))) == 4  # nothing was bought twice


def test_without_the_package_a_run_is_shown_and_not_resumed(home: Path, packages: Path) -> None:
    kill_halfway(home, packages)

    without = said(home, "look")
    assert without["kinds"] == ["data", "excerpt", "translate"]
    assert (without["outcome"], without["loaded"]) == ("running", [])
    assert without["receipts"] >= 1
    assert without["resume"].startswith("UnknownKind: node ")
    assert "there is no such kind" in without["resume"]
    assert "entry point in 'agentkit.kinds'" in without["hint"]

    with_it = said(home, "look", packages)  # which resumes it
    for same in ("kinds", "digest", "plan", "table", "receipts"):
        assert without[same] == with_it[same]
    assert with_it["loaded"] == ["agentkit_translate"]


def test_without_the_package_a_run_can_still_be_cancelled(home: Path, packages: Path) -> None:
    kill_halfway(home, packages)
    assert said(home, "cancel") == {"outcome": "cancelled", "open": []}


def test_the_package_is_short(packages: Path) -> None:
    assert len(outside_kinds.module().splitlines()) < 150
