"""SIGKILL in the middle of a LangGraph thread: it goes on, here and from the key alone."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.memory_fixtures import elsewhere, mind
from support.processes import langgraph_thread

LINES = 100


def killed_at(home: Path, moment: int) -> int:
    """Let a process write until some line, kill it a little later; return the last it told of."""
    child = subprocess.Popen(
        [sys.executable, langgraph_thread.__file__, str(home), str(LINES)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert child.stdout
    told = -1
    for said in child.stdout:
        told = int(said.removeprefix("line "))
        if told >= moment:
            break
    time.sleep(random.Random(moment).uniform(0, 0.01))
    child.send_signal(signal.SIGKILL)
    told = max([told, *(int(said.removeprefix("line ")) for said in child.stdout if "\n" in said)])
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    return told


async def test_a_killed_thread_loses_no_line_here_nor_elsewhere(tmp_path: Path) -> None:
    told = killed_at(tmp_path / "home", 15)
    again = killed_at(tmp_path / "home", told + 15)
    assert told + 15 <= again < LINES - 1
    async with mind(tmp_path / "home") as one:
        await one.journal.check()
        app = langgraph_thread.writing(one)
        state = await app.aget_state(langgraph_thread.THREAD)
        assert again <= len(state.values["lines"]) <= again + 1
        async with elsewhere(one, tmp_path) as other:
            app = langgraph_thread.writing(other)
            assert (await app.aget_state(langgraph_thread.THREAD)).values == state.values
            await langgraph_thread.go(other, LINES)
            lines = (await app.aget_state(langgraph_thread.THREAD)).values["lines"]
    assert lines == [langgraph_thread.line(number) for number in range(LINES)]
