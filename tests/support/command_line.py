"""The command line in a folder of the test's own, and how its failures look."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agentkit.cli.main import app

HELLO = """
name = "hello"
[[nodes]]
name = "greet"
kind = "infer"
model = "smollm2-135m"
prompt = "Greet the sea in one line."
max_tokens = 12
"""


@pytest.fixture
def cli(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs a verb in a folder of the test's own."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    (own_folder / "graph.toml").write_text(HELLO)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return run


def failed(result: Result, code: int, *words: str) -> None:
    """A failure has its exit code, one sentence with the words, and a hint."""
    assert result.exit_code == code, result.output
    assert result.stdout == "", result.stdout
    told = re.fullmatch(
        r"(?:embedded network[^\n]*\n)?error: ([^\n]+)\nhint: ([^\n]+)\n", result.stderr
    )
    assert told, result.stderr
    error, hint = told.groups()
    for word in words:
        assert word in error, error
    assert hint
