"""The command line without an embedded network: what ends before one is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import cli

__all__ = ["cli", "own_folder"]


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trusted folder to work in, with a home of its own; no network is at hand."""
    monkeypatch.setenv("AGENTKIT_TRUST", str(tmp_path))
    monkeypatch.setenv("AGENTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AGENTKIT_NETWORK", str(tmp_path / "network"))
    monkeypatch.chdir(tmp_path)
    return tmp_path
