"""The README's five lines: how long a newcomer waits, and what a program that is warm loads."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.timing import limit, measured_slowness

from agentkit.embedded import discovery

pytestmark = pytest.mark.alone

README = Path(__file__).parents[2] / "README.md"
MEASURED = """
import json, sys, time
_started = time.perf_counter()
{lines}
_took = time.perf_counter() - _started
_heavy = ("web3", "networkx", "mcp", "ray", "rich", "numpy", "highspy")
_loaded = [name for name in _heavy if name in sys.modules]
print(json.dumps([_took, _loaded, result[greet].text, result.paid.units]))
"""


def five_lines() -> str:
    """Return the README's first Python block."""
    found = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found
    return found[1]


def run(folder: Path) -> tuple[float, list[str], str, int]:
    """Run the five lines in a process of their own, with a home and a network in `folder`."""
    told = subprocess.run(
        [sys.executable, "-c", MEASURED.format(lines=five_lines())],
        capture_output=True,
        check=True,
        text=True,
        timeout=limit(60),
        cwd=folder,
        env={
            **os.environ,
            "AGENTKIT_HOME": str(folder / "home"),
            "AGENTKIT_NETWORK": str(folder / "network"),
        },
    )
    assert "test money only" in told.stderr
    took, loaded, text, units = json.loads(told.stdout.splitlines()[-1])
    return took, loaded, text, units


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[list[Path]]:
    found = [tmp_path / name for name in ("one", "two")]
    for folder in found:
        folder.mkdir()
    yield found
    for folder in found:
        discovery.stop(folder / "network")


def test_from_nothing_in_six_seconds_and_warm_in_one_and_a_half(folders: list[Path]) -> None:
    """Each the better of two or three, and both by how busy the machine is."""
    slower = measured_slowness()
    cold = [run(folder) for folder in folders]
    warm = [run(folders[0]) for _ in range(3)]
    for _, _, text, units in (*cold, *warm):
        assert "ledger" in text, "an answer, and no echo of the prompt"
        assert units > 0
    assert min(took for took, *_ in cold) < 6.0 * slower
    assert min(took for took, *_ in warm) < 1.5 * slower
    assert warm[0][1] == []  # a later one may have to top the channel up: deposits are small
    assert all(set(loaded) <= {"web3"} for _, loaded, *_ in cold)
