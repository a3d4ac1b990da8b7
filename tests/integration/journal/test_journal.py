import subprocess
import sys
from pathlib import Path

from support.timing import limit


def test_processes_that_open_a_new_file_at_once_all_get_it(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path;"
        "from agentkit.journal.journal import Journal\n"
        "async def main():\n"
        "    journal = await Journal.open(Path(sys.argv[1]), '0xaa')\n"
        "    await journal.close()\n"
        "sys.stdin.readline(); asyncio.run(main())\n"
    )
    for attempt in range(3):
        command = [sys.executable, "-c", code, str(tmp_path / str(attempt))]
        racers = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for _ in range(6)]
        for racer in racers:
            racer.communicate("go\n", timeout=limit(60))
        assert [racer.returncode for racer in racers] == [0] * 6
