"""The command line in a folder whose settings name a real chain and a keystore."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agentkit.cli.main import app
from support.keystore_files import PASSPHRASE, write_keystore

REAL = """
network = "base-sepolia"
[chain]
rpc = "http://127.0.0.1:1"
channels = "0x1111111111111111111111111111111111111111"
[wallet]
keystore = "wallet.json"
"""


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("AGENTKIT_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("AGENTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AGENTKIT_TRUST", str(tmp_path))
    (tmp_path / "agentkit.toml").write_text(REAL)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return run


@pytest.fixture
def address(tmp_path: Path) -> str:
    return write_keystore(tmp_path / "wallet.json").address
