"""The wheel as a stranger gets it: in an empty environment, without the repository, on each Python.

An interpreter that is not on this machine is skipped, and nothing is claimed for it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
KEPT = ("PATH", "LANG", "SSL_CERT_FILE", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""What a stranger's shell has too; and PIP_*, which says where packages come from."""

OTHER = "agentkit-of-others"
"""A distribution that ships an import `agentkit`, as several on the package index do."""


def interpreter(version: str) -> str | None:
    """Return a working interpreter of this version, None where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    candidates = [found for found in [shutil.which(f"python{version}")] if found]
    candidates += [str(path) for path in pyenv.glob(f"{version}.*/bin/python")]
    for path in candidates:
        code = "import sys; print(*sys.version_info[:2], sep='.')"
        told = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        if told.stdout.strip() == version:
            return path
    return None


@dataclass
class Stranger:
    """An environment that has the wheel, and a home with nothing in it."""

    folder: Path

    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        kept |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        return kept | {"HOME": str(self.folder / "home")}

    def run(self, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment and assert how it ended."""
        program = str(self.folder / "env" / "bin" / command[0])
        ended = subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env=self.environment(),
            cwd=self.folder / "home",
        )
        assert ended.returncode == code, f"{command}: {ended.stdout}\n{ended.stderr}"
        return ended

    def install(self, *what: str) -> None:
        self.run("python", "-m", "pip", "install", "-q", *what)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, timeout=300)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Stranger]:
    (tmp_path / "home").mkdir()
    made = Stranger(tmp_path)
    yield made
    if (tmp_path / "env/bin/deai-agentkit").exists():
        made.run("deai-agentkit", "network", "stop")
    shutil.rmtree(tmp_path, ignore_errors=True)  # half a gigabyte each


def five_lines() -> str:
    """Return the README's first Python block."""
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_wheel_alone_runs_hello_and_the_demo(
    stranger: Stranger, wheel: Path, version: str
) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    subprocess.run([python, "-m", "venv", str(stranger.folder / "env")], check=True, timeout=120)
    stranger.install("--constraint", str(ROOT / "constraints.txt"), f"{wheel}[embedded]")

    hello = stranger.run("python", "-c", five_lines())
    answer, paid = hello.stdout.rsplit(" - paid ", 1)
    assert "fetching smollm2-135m" in hello.stderr
    assert "ledger" in answer
    assert answer.endswith(".")
    assert paid.strip().endswith("USDC")

    demo = stranger.run("agentkit", "demo", "--json")
    assert "fetching all-minilm-l6-v2" in demo.stderr
    assert "all of it holds" in demo.stderr
    assert json.loads(demo.stdout.splitlines()[-1])


def test_another_distribution_of_this_name_is_named(
    stranger: Stranger, wheel: Path, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(stranger.folder / "env")], check=True)
    stranger.install("--constraint", str(ROOT / "constraints.txt"), str(wheel))
    assert "agentkit-of-others" not in stranger.run("agentkit", "doctor", code=1).stdout

    stranger.install("--no-deps", str(_other_distribution(tmp_path / "other")))
    shadowed = stranger.run("deai-agentkit", "doctor", code=2)
    assert f"also that of {OTHER} 1.0" in shadowed.stderr
    assert f"pip uninstall {OTHER}" in shadowed.stderr

    stranger.run("python", "-m", "pip", "uninstall", "-q", "-y", OTHER)
    stranger.install("--force-reinstall", "--no-deps", str(wheel))
    assert stranger.run("deai-agentkit", "--version").stdout.strip() == "0.1.0"


def _other_distribution(folder: Path) -> Path:
    """Make a distribution with an empty `agentkit/__init__.py`, as others have it."""
    (folder / "agentkit").mkdir(parents=True)
    (folder / "agentkit" / "__init__.py").touch()
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "{OTHER}"\nversion = "1.0"\n'
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[tool.hatch.build.targets.wheel]\npackages = ["agentkit"]\n'
    )
    return folder
