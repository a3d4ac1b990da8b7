from __future__ import annotations

import subprocess
import sys
import time

import pytest

from agentkit import framing

STRAY = """
import os
from agentkit.pool.parent_watch import tie
requests, answer = tie()
print("a library says hello", flush=True)
os.write(1, b"and so does its C part")
answer(next(requests))
"""


def test_stray_prints_do_not_reach_the_answers() -> None:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    child = subprocess.Popen([sys.executable, "-c", STRAY], **pipes)
    assert child.stdin
    assert child.stdout
    framing.write(child.stdin, {"id": "7", "a": 1}, 100)
    assert framing.read(child.stdout, 100) == {"id": "7", "a": 1}
    rest, errors = child.communicate(timeout=5)
    assert rest == b""
    assert b"hello" in errors
    assert b"C part" in errors


@pytest.mark.parametrize("task", [None, {"task": "query", "sql": "select sleep_ms(60000)"}])
def test_the_end_of_the_pipe_ends_the_child_even_at_work(
    task: dict[str, object] | None, tmp_path: object
) -> None:
    command = [sys.executable, "-m", "agentkit.pool.worker_child", "0"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin
    assert child.stdout
    if task:
        rest = {"tables": {}, "folder": str(tmp_path), "memory_mib": 100, "out": f"{tmp_path}/out"}
        framing.write(child.stdin, task | rest | {"id": "1"}, 1000)
    time.sleep(1)
    assert child.poll() is None
    child.stdin.close()
    child.wait(2)
    assert child.stdout.read() == b""
    child.stdout.close()
