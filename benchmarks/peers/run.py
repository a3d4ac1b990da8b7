"""What other engines cost for each node, next to plain asyncio + graphlib and to agentkit.

    python benchmarks/peers/run.py --shapes fan --nodes 1000 --only dbos,langgraph

Every engine has a virtual environment of its own (made at the first run, under --venvs) and runs in
a fresh process.  Nodes are no-ops that mix their parents' values; every value of every turn is
checked.  The time is the median turn, of the run alone; import, engine start and building the graph
are "start s"; MB is the peak over all processes of the engine.  "commit" is what a bare SQLite
commit took in us just before and after: where it differs much, stored engines do not compare.
"states": a task's state is stored, its result is not.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime import bare_commits, expected, shape

HERE = Path(__file__).resolve().parent
SHAPES = ("chain", "fan", "layered")
TURNS, REFERENCE_TURNS = 3, 15
LIMIT_S, INSTALL_LIMIT_S = 240, 1800
HONESTY = "No-op benchmarks show overhead, not usefulness: a node that calls a model takes seconds."


@dataclass(frozen=True)
class Peer:
    """An engine at the version it is measured at; `stored`: what a killed run leaves behind."""

    name: str
    version: str
    stored: str
    requirements: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


PEERS = (
    Peer("dbos", "3.4.0", "yes", ("dbos==3.4.0",)),
    Peer(
        "langgraph",
        "1.2.22",
        "yes",
        ("langgraph==1.2.22", "langgraph-checkpoint-sqlite==3.1.2"),
        {"LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false"},
    ),
    Peer(
        "prefect",
        "3.8.8",
        "states",
        ("prefect==3.8.8", "fastapi<0.145"),  # with a newer FastAPI its server does not start
        {
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_LOGGING_LEVEL": "ERROR",
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
        },
    ),
    Peer("dask", "2026.8.0", "no", ("dask==2026.8.0", "distributed==2026.8.0")),
    Peer(
        "ray",
        "2.60.0",
        "no",
        ("ray==2.60.0",),
        {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
    ),
)
REFERENCE = Peer("asyncio", platform.python_version(), "no", ())
AGENTKIT = Peer("agentkit", importlib.metadata.version("deai-agentkit"), "yes", ())
FOREIGN = ("DASK_", "DBOS_", "LANGCHAIN_", "LANGGRAPH_", "LANGSMITH_", "PREFECT_", "RAY_", "PYTHON")


@dataclass(frozen=True)
class Row:
    """A line of the table; without `us_per_node` there is an `error`."""

    peer: str
    version: str
    stored: str
    shape: str
    nodes: int
    us_per_node: float | None = None
    to_reference: float | None = None
    to_agentkit: float | None = None
    start_s: float | None = None
    peak_mb: int | None = None
    commit_us: int | None = None
    error: str | None = None


Measure = Callable[[Row], Row]


class Failed(Exception):
    """An engine could not be installed, did not end well or in time, or was wrong."""


# Environments


def installed(peer: Peer, venvs: Path) -> Path:
    """Return the interpreter of the peer's environment, which is made if it is not there whole."""
    folder = venvs / peer.name
    mark, python = folder / "requirements.txt", folder / "bin" / "python"
    wanted = "\n".join([f"# Python {platform.python_version()}", *peer.requirements])
    if mark.exists() and mark.read_text() == wanted and python.exists():
        return python
    print(f"installing {peer.name}", file=sys.stderr)
    if (folder / "pyvenv.cfg").exists():
        shutil.rmtree(folder)
    checked(sys.executable, "-m", "venv", str(folder))
    checked(str(python), "-m", "pip", "install", "--disable-pip-version-check", *peer.requirements)
    mark.write_text(wanted)
    return python


def checked(*command: str) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"not installed in {INSTALL_LIMIT_S} s") from error
    if done.returncode:
        raise Failed(f"not installed: {last_line(done.stderr, done.stdout)}")


# Processes


def family(session: int) -> Iterator[int]:
    """Yield the processes of a session: the one we started and what it started."""
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if os.getsid(pid) == session:
                yield pid


def memory_mb(pid: int) -> float:
    """Return a process's share of memory; what it shares with others is counted once in all."""
    try:
        info = psutil.Process(pid).memory_full_info()
    except psutil.Error:
        return 0.0
    return float(getattr(info, "pss", info.uss)) / 2**20


def watched(process: subprocess.Popen[bytes]) -> float:
    """Wait for the process to end, and return the peak memory of its family in MB."""
    peak, deadline = 0.0, time.monotonic() + LIMIT_S
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise Failed(f"not done in {LIMIT_S} s")
        peak = max(peak, sum(map(memory_mb, family(process.pid))))
        time.sleep(0.2)
    return peak


def end(process: subprocess.Popen[bytes]) -> None:
    while alive := [pid for pid in family(process.pid) if running(pid)]:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
        process.poll()


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def ran(command: list[str], home: Path, environment: Mapping[str, str]) -> tuple[str, float]:
    """Run a command in a session of its own; return its output and the peak memory in MB."""
    out, err = home / "stdout", home / "stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            peak = watched(process)
        finally:
            end(process)
    told, complaint = (file.read_text(errors="replace") for file in (out, err))
    if process.returncode:
        raise Failed(f"exit {process.returncode}: {last_line(complaint, told)}")
    return told, peak


def last_line(*texts: str) -> str:
    lines = [line.strip() for text in reversed(texts) for line in text.splitlines()]
    return next((line[:160] for line in reversed(lines) if line), "without a word")


# Measurements


def secluded(peer: Peer, home: Path) -> dict[str, str]:
    """Return an environment without the user's settings of any peer, and with a home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    quiet = {"DO_NOT_TRACK": "1", "NO_PROXY": "127.0.0.1,localhost", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**kept, **quiet, **peer.environment, "HOME": str(home), "TMPDIR": str(home)}


def measured(peer: Peer, python: Path, turns: int, row: Row) -> Row:
    """Run `peer_NAME.py` on the row's graph and check every value that it reports."""
    parents = shape(row.shape, row.nodes)
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        task = {"parents": parents, "turns": turns, "spawned": time.time()}
        (home / "task.json").write_text(json.dumps(task))
        command = [str(python), str(HERE / f"peer_{peer.name}.py"), str(home / "task.json")]
        _, peak = ran(command, home, secluded(peer, home))
        told = json.loads((home / "report.json").read_text())
    right = expected(parents)
    if wrong := sum(values != right for values in told["values"]):
        raise Failed(f"WRONG values in {wrong} of {turns} turns")
    return replace(
        row,
        us_per_node=round(1e6 * statistics.median(told["seconds"]) / len(parents), 1),
        start_s=round(told["start_s"], 2),
        peak_mb=round(max(peak, told["peak_mb"])),
    )


def agentkit(row: Row) -> Row:
    command = [sys.executable, str(HERE.parent / "runtime.py"), "--json"]
    command += ["--shape", row.shape, "--nodes", str(row.nodes)]
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        told, _ = ran(command, Path(folder), os.environ)
    figures = json.loads(told)
    return replace(row, us_per_node=figures["us_per_node"], peak_mb=figures["rss_mb"])


def attempt(peer: Peer, name: str, nodes: int, measure: Measure) -> Row:
    """Measure one on a shape, and the disk before and after; what fails is a row with an error."""
    print(f"{peer.name} on {name}", file=sys.stderr)
    row, before = Row(peer.name, peer.version, peer.stored, name, nodes), commits()
    try:
        row = measure(row)
    except (Failed, OSError, KeyError, ValueError) as error:
        row = replace(row, error=" ".join(str(error).split()))
    return replace(row, commit_us=round(1e6 * statistics.mean(before + commits())))


def commits() -> list[float]:
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        return bare_commits(Path(folder), 50)


def contenders(only: list[str], venvs: Path) -> list[tuple[Peer, Measure]]:
    """Return who is measured and how; the first two are what all are compared with."""
    plain = partial(measured, REFERENCE, Path(sys.executable), REFERENCE_TURNS)
    peers = [(peer, prepared(peer, venvs)) for peer in PEERS if peer.name in only]
    return [(REFERENCE, plain), (AGENTKIT, agentkit), *peers]


def prepared(peer: Peer, venvs: Path) -> Measure:
    try:
        return partial(measured, peer, installed(peer, venvs), TURNS)
    except Failed as error:
        return partial(refused, error)


def refused(error: Failed, row: Row) -> Row:
    raise error


def rows(name: str, nodes: int, who: list[tuple[Peer, Measure]]) -> list[Row]:
    """Measure everyone on one shape."""
    made = [attempt(peer, name, nodes, measure) for peer, measure in who]
    plain, own = (row.us_per_node for row in made[:2])
    return [
        replace(row, to_reference=ratio(row, plain), to_agentkit=ratio(row, own)) for row in made
    ]


def ratio(row: Row, base: float | None) -> float | None:
    if row.us_per_node is None or base is None:
        return None
    return float(f"{row.us_per_node / base:.3g}")


# Output

COLUMNS = {
    "peer": "peer",
    "version": "version",
    "stored": "stored",
    "shape": "shape",
    "us_per_node": "us/node",
    "to_reference": "x asyncio",
    "to_agentkit": "x agentkit",
    "start_s": "start s",
    "peak_mb": "MB",
    "commit_us": "commit",
}
NAMES = 4  # the first columns, which every row has; an error stands in place of the others


def cells(row: Row) -> list[str]:
    values = [getattr(row, column) for column in COLUMNS]
    if row.error is not None:
        return [*values[:NAMES], row.error]
    return [*values[:NAMES], *map(figure, values[NAMES:])]


def figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"


def table(made: list[Row]) -> str:
    lines = [list(COLUMNS.values()), *map(cells, made)]
    whole = [line for line in lines if len(line) == len(COLUMNS)]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    return "\n".join("  ".join(padded(line, widths)) for line in lines)


def padded(line: list[str], widths: list[int]) -> list[str]:
    pairs = list(zip(line, widths, strict=False))  # a line with an error has fewer
    names = [cell.ljust(width) for cell, width in pairs[:NAMES]]
    return [*names, *(cell.rjust(width) for cell, width in pairs[NAMES:])]


def several(allowed: tuple[str, ...]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := set(chosen).difference(allowed):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not of {allowed}")
        return chosen

    return names


def main() -> int:
    known = tuple(peer.name for peer in PEERS)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shapes", type=several(SHAPES), default=list(SHAPES))
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--only", type=several(known), default=[], help=",".join(known))
    parser.add_argument("--venvs", type=Path, default=Path.home() / ".cache/agentkit/peers")
    parser.add_argument("--json", action="store_true", help="one object a line")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    who, made = contenders(options.only or list(known), options.venvs.resolve()), list[Row]()
    for name in options.shapes:
        made += rows(name, options.nodes, who)
        if options.json:
            for row in made[-len(who) :]:
                print(json.dumps(asdict(row)), flush=True)
    if not options.json:
        print(table(made), HONESTY, sep="\n\n")
    named = {REFERENCE.name, AGENTKIT.name, *options.only}
    return int(any(row.error is not None and row.peer in named for row in made))


if __name__ == "__main__":
    sys.exit(main())
