"""No child process of ours holds a secret of ours in its environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.secrets_in_environment import CANARY, canary

from agentkit.net.environment import child_environment

__all__ = ["canary"]


pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


def test_only_who_downloads_gets_the_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy.example")
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:secret@index.example")
    assert "secret" not in str(child_environment())
    assert str(child_environment(downloads=True)).count("secret") == 2


def test_every_process_that_is_started_has_this_environment() -> None:
    """A new Popen somewhere must say what it passes on; an agent gets the settings of one."""
    root = Path(__file__).resolve().parents[3] / "agentkit"
    starts = ("subprocess.Popen(", "subprocess.run(", "create_subprocess_exec(")
    places = {
        str(path.relative_to(root)): path.read_text()
        for path in root.rglob("*.py")
        if any(start in path.read_text() for start in starts)
    }
    without = {place for place, text in places.items() if "env=child_environment(" not in text} - {
        "pool/child.py"
    }
    assert without == {"cli/run.py", "cli/field/buyer.py"}
    assert "env=_environment(folder, threads)" in places["pool/child.py"]
    assert os.environ["AGENTKIT_PASSPHRASE"] == CANARY
