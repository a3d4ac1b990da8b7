"""A folder that a stranger made, and the user who enters it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agentkit.cli.main import app

GAIA = "[providers.gaia]\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user of the test's own, whose settings and consents are empty.

    Every test of a file that imports this has one.
    """
    home = tmp_path / "user"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture(name="folder")
def strangers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that somebody else made, and that is now the working directory."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write(folder: Path, text: str) -> None:
    (folder / "agentkit.toml").write_text(text)


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def trusted(folder: Path) -> None:
    assert cli("trust", str(folder)).exit_code == 0
