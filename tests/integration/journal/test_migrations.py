"""Opening a state file of another schema: what is written, by whom, and what is left alone."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.golden_files import figures, unpacked
from support.timing import limit

from agentkit.errors import StoreUnavailable
from agentkit.journal.journal import Journal
from agentkit.journal.migrations import copy_of

OPENS = (
    "import asyncio, sys; from pathlib import Path;"
    "from agentkit.journal.journal import Journal\n"
    "async def main():\n"
    "    journal = await Journal.open(Path(sys.argv[1]), sys.argv[2])\n"
    "    print(await journal.check())\n"
    "    await journal.close()\n"
    "sys.stdin.readline(); asyncio.run(main())\n"
)

HAS_IT_OPEN = (
    "import sqlite3, sys; db = sqlite3.connect(sys.argv[1])\n"
    "db.execute('pragma journal_mode=wal'); db.execute('select * from meta').fetchall()\n"
    "print('open', flush=True); sys.stdin.readline()\n"
)


async def test_processes_that_open_an_old_file_at_once_migrate_it_once(tmp_path: Path) -> None:
    then, path = figures("schema-1", "agent"), unpacked("schema-1", "agent", tmp_path / "home")
    command = [sys.executable, "-c", OPENS, str(path.parent), then["wallet"]]
    racers = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = [racer.communicate("go\n", timeout=limit(120)) for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4, said
    assert [out.strip() for out, _ in said] == [str(then["checked"])] * 4
    assert sum("migrating" in err for _, err in said) == 1


async def test_a_file_that_another_process_has_open_is_not_migrated(tmp_path: Path) -> None:
    """An older agentkit would go on writing what it knows into a layout that it does not."""
    then, path = figures("schema-2", "killed"), unpacked("schema-2", "killed", tmp_path / "home")
    command = [sys.executable, "-c", HAS_IT_OPEN, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "open\n"
        before = path.read_bytes()
        with pytest.raises(StoreUnavailable, match="another process has it open") as raised:
            await Journal.open(path.parent, then["wallet"])
        assert raised.value.hint.startswith("end the agents")
        assert path.read_bytes() == before
        assert not copy_of(path, 2).exists()
        other.communicate("go\n")
    await (await Journal.open(path.parent, then["wallet"])).close()
    assert copy_of(path, 2).exists()
