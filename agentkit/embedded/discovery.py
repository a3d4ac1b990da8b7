"""Find the embedded network, start it, stop it.  Loads neither chain nor model.

The network's file counts only while the process it names answers under its own number, so a
file that a crash left behind misleads nobody.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agentkit.errors import ConfigError, MissingExtra, StateTooNew, StoreUnavailable
from agentkit.net.environment import child_environment, import_path
from agentkit.net.proxies import open_direct

FILE = "network.json"
LOG = "network.log"
START_LOCK = "start.lock"

VERSION_FILE = "version"
VERSION = 1
"""Of what the network keeps in its folder: chain, gateway, credit, and what its file says.

It rises when an older network could not read what a newer one left.  A folder without the file
is of version 1.
"""

NEEDED = {
    "eth": "py-evm",
    "graphql": "graphql-core",
    "xllamacpp": "xllamacpp",
    "duckdb": "duckdb",
    "numpy": "numpy",
}
"""Modules that the network's process loads, and the packages that bring them."""

START_SECONDS = 60.0
STOP_SECONDS = 15.0


HINT = "hint: "
"""How the line of a traceback begins that holds an error's hint."""

_children: list[subprocess.Popen[bytes]] = []
"""Networks this process started: they outlive it, and are reaped if it outlives them."""


@dataclass(frozen=True)
class NetworkFile:
    """What a running embedded network says of itself; `token` and `providers` hold test secrets."""

    pid: int
    url: str
    token: str = field(repr=False)
    network: dict[str, Any]
    gateway: str
    agent_key: str
    providers: dict[str, Any] = field(repr=False)
    nodes: dict[str, str]
    started_s: float = 0.0
    facilitator: str = ""


def find(folder: Path) -> NetworkFile | None:
    """Return the network that runs in a folder, None when none does."""
    try:
        known = NetworkFile(**json.loads((folder / FILE).read_text()))
        return known if _get(f"{known.url}/health")["pid"] == known.pid else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def ensure(folder: Path, *arguments: str) -> NetworkFile:
    """Return the running network, started if need be; safe for several processes at once.

    Raises MissingExtra, and StoreUnavailable when it does not come up.
    """
    found = find(folder)
    if found:
        return found
    check_installed()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / START_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return find(folder) or _start(folder, arguments)


def check_installed() -> None:
    """Raise MissingExtra unless everything that the network's process loads is there."""
    for module, package in NEEDED.items():
        if importlib.util.find_spec(module) is None:
            raise MissingExtra("embedded", package)


def stop(folder: Path) -> bool:
    """Stop the network and wait for its end; False when none was running."""
    found = find(folder)
    if found is None:
        return False
    _post(f"{found.url}/stop", found.token)
    until = time.monotonic() + STOP_SECONDS
    while time.monotonic() < until:
        if not _alive(found.pid):
            return True
        time.sleep(0.05)
    raise StoreUnavailable(
        f"the embedded network (process {found.pid}) does not stop", hint=f"kill {found.pid}"
    )


def reset(folder: Path) -> None:
    """Stop the network and forget its chain, its keys and all it stored."""
    stop(folder)
    if folder.exists() and not (folder / FILE).exists() and not (folder / "chain.db").exists():
        raise ConfigError(
            f"{folder} does not look like an embedded network", hint="check AGENTKIT_NETWORK"
        )
    shutil.rmtree(folder, ignore_errors=True)


def ask(network: NetworkFile, path: str) -> Any:
    """Return what the network's control answers at `path`."""
    return _get(network.url + path, network.token)


# -- inside --------------------------------------------------------------------------------------


def check_version(folder: Path) -> None:
    """Raise StateTooNew, and write nothing, where a newer version keeps its network."""
    try:
        text = (folder / VERSION_FILE).read_text().strip()
    except OSError:
        return
    version = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    if version > VERSION:
        raise StateTooNew(
            folder,
            f"an embedded network of version {version}",
            f"this agentkit keeps version {VERSION}",
            hint="use the newer agentkit, or start anew with `agentkit network reset`:"
            " all its money is test money",
        )


def _start(folder: Path, arguments: tuple[str, ...]) -> NetworkFile:
    """Start the network's process and wait until its file says that it answers."""
    check_version(folder)
    with (folder / LOG).open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "agentkit.embedded", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env=child_environment(downloads=True, PYTHONPATH=import_path()),
        )
    _children.append(child)
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        found = find(folder)
        if found:
            return found
        if child.poll() is not None:
            break
        time.sleep(0.02)
    child.kill()
    child.wait()
    cause, hint = _last_words(folder / LOG)
    raise StoreUnavailable(
        f"the embedded network did not start: {cause}", hint=hint or f"look into {folder / LOG}"
    )


def _last_words(log: Path) -> tuple[str, str]:
    """Return the last line that a process wrote, and the hint of an error of ours after it."""
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line for line in text.splitlines() if line.strip()] or ["it said nothing"]
    if len(lines) < 2 or not lines[-1].startswith(HINT):
        return lines[-1], ""
    return re.sub(r"^agentkit\.errors\.\w+: ", "", lines[-2]), lines[-1].removeprefix(HINT)


def _get(url: str, token: str = "") -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # loopback, from our file
    with open_direct(request, 5) as answer:
        return json.load(answer)


def _post(url: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, method="POST", headers=headers)  # noqa: S310
    with open_direct(request, 5):
        return


def _alive(pid: int) -> bool:
    """Return whether a process runs; a child of ours that has ended is waited for first."""
    for child in _children:
        child.poll()
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def write(folder: Path, network: NetworkFile) -> None:
    """Write the network's file, mode 600, whole or not at all."""
    draft = folder / f".{FILE}.draft"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(network), file)
    draft.replace(folder / FILE)
