"""SIGKILL while steps are written, sealed and posted; then another machine with the key alone.

`AGENTKIT_MEMORY_KILLS=50 pytest tests/crash/test_memory.py -s` for the long form, in which every
restore is a process of its own; in the short one only the last of each wallet is.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.processes import PROGRAMS
from support.processes.gateway import serving
from support.timing import limit

from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.journal.rows import Row
from agentkit.journal.transaction import JournalTransaction
from agentkit.keys import keystore
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.restore import wallet_restore

LONG = "AGENTKIT_MEMORY_KILLS" in os.environ
KILLS = int(os.environ.get("AGENTKIT_MEMORY_KILLS", "4"))
CHILD = PROGRAMS / "note_writer.py"


@dataclass
class Machine:
    """The machine that dies again and again, and what it said before."""

    folder: Path
    address: str
    url: str
    acknowledged: int = 0
    flushed: int = 0
    heads: list[tuple[int, int]] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / self.address.lower()

    def child(self) -> subprocess.Popen[str]:
        key = self.folder.parent / "key.json"
        return subprocess.Popen(
            [sys.executable, str(CHILD), str(self.home), str(key), self.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def live(self, child: subprocess.Popen[str], seconds: float) -> None:
        """Let a child work and kill it; what it had said counts."""
        assert child.stdin and child.stdout
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "go\n"
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        said, _ = child.communicate(timeout=limit(60))
        assert child.returncode == -signal.SIGKILL  # it was at work
        for line in said.splitlines():
            word, _, number = line.partition(" ")
            if word == "a":
                self.acknowledged = int(number)
            elif word == "f" and number:
                self.flushed = int(number)


@contextmanager
def children(machine: Machine) -> Iterator[Iterator[subprocess.Popen[str]]]:
    """Yield children, each started while the one before it is at work."""
    spare = [machine.child()]

    def following() -> Iterator[subprocess.Popen[str]]:
        for number in range(KILLS):
            if number < KILLS - 1:
                spare.append(machine.child())
            yield spare.pop(0)

    try:
        yield following()
    finally:
        for one in spare:
            one.kill()
            one.communicate()


def restored(machine: Machine, into: Path) -> dict[str, object]:
    """Restore in a new process that knows the key and the gateway, and nothing else."""
    told = subprocess.run(
        [
            *(sys.executable, "-m", "agentkit", "memory", "restore", "--json"),
            *("--keystore", str(machine.folder.parent / "key.json"), "--gateway", machine.url),
        ],
        capture_output=True,
        text=True,
        timeout=limit(120),
        env={
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOME": str(into / "nobody"),
            "AGENTKIT_HOME": str(into),
            "AGENTKIT_NETWORK": str(into / "no-network"),
        },
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return json.loads(told.stdout)  # type: ignore[no-any-return]


def restored_here(machine: Machine, into: Path) -> dict[str, object]:
    """Restore in this process, which knows no more."""

    async def go() -> dict[str, object]:
        signer = keystore.unlock(machine.folder.parent / "key.json", real=False)
        async with Gateways([machine.url]) as gateways:
            found = await wallet_restore.fetch(signer, gateways)
        journal = await wallet_restore.restore(found, into / signer.address.lower(), signer.address)
        await journal.close()
        return {"warnings": list(found.warnings), "left": found.earlier}

    return asyncio.run(go())


async def read(home: Path, address: str) -> tuple[list[str], list[Row]]:
    """Return the notes and the rows of a state file, all of it checked."""
    journal = await Journal.open(home, address)

    def look(tx: JournalTransaction) -> tuple[list[str], list[Row]]:
        return [note.text for note in tx.every(r.Note, "t|")], list(tx.rows("wallet"))

    try:
        await journal.check()
        return await journal.commit(look)
    finally:
        await journal.close()


def in_order(texts: list[str]) -> bool:
    """Whether these are all steps from the first on; records are sorted by their keys."""
    return sorted(texts) == sorted(f"step {n + 1}" for n in range(len(texts)))


@pytest.mark.timeout(120 + 15 * KILLS)
@pytest.mark.parametrize("wallet", [1, 2])
def test_what_was_flushed_comes_back_from_the_key_alone(tmp_path: Path, wallet: int) -> None:
    draw = random.Random(wallet)
    signer = keystore.create_test_key(tmp_path / "key.json")
    with serving(tmp_path / "weave") as url:
        machine = Machine(tmp_path / "old", signer.address, url)
        with children(machine) as waiting:
            for kill in range(KILLS):
                machine.live(next(waiting), draw.uniform(0.0, 0.6))
                here, rows = asyncio.run(read(machine.home, signer.address))
                assert in_order(here)
                assert len(here) >= machine.acknowledged  # no acknowledged step is lost
                machine.folder.rename(tmp_path / "gone")
                if machine.flushed:
                    apart = LONG or kill == KILLS - 1
                    told = (restored if apart else restored_here)(machine, tmp_path / f"new {kill}")
                    into = tmp_path / f"new {kill}" / signer.address.lower()
                    there, copies = asyncio.run(read(into, signer.address))
                    assert in_order(there)
                    assert machine.flushed <= len(there) <= len(here)
                    assert told["warnings"] == [ALONE]
                    known = {row.seq: row for row in rows}
                    assert all(known[row.seq] == row for row in copies[:-1])
                    machine.heads.append((len(there), int(str(told["left"]))))
                (tmp_path / "gone").rename(machine.folder)
    assert machine.flushed >= 5
    assert machine.heads
    print(
        f"\n{KILLS} kills: {machine.acknowledged} steps acknowledged, {machine.flushed} flushed;"
        f" {len(machine.heads)} restores, {sum(left > 0 for _, left in machine.heads)} of them"
        " from a snapshot"
    )


ALONE = "head not corroborated: only one gateway was asked whether this is the newest state"
