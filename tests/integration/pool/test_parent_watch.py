from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.timing import limit, wait_until

from agentkit import framing

STRAY = """
import os
from agentkit.pool.parent_watch import bind_to_parent
requests, answer = bind_to_parent()
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
    rest, errors = child.communicate(timeout=limit(30))
    assert rest == b""
    assert b"hello" in errors
    assert b"C part" in errors


ENDLESS = "select count(*) from range(10_000_000) a, range(10_000_000) b"


def processor_time(child: subprocess.Popen[bytes]) -> float:
    times = psutil.Process(child.pid).cpu_times()
    return times.user + times.system


@pytest.mark.parametrize("sql", ["", ENDLESS], ids=["idle", "at work"])
def test_the_end_of_the_pipe_ends_the_child_even_at_work(sql: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agentkit.pool.worker_child", "0"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin
    assert child.stdout

    def ask(identity: str, sql: str) -> None:
        request = {"id": identity, "task": "query", "sql": sql, "tables": {}, "memory_mib": 100}
        request |= {"folder": str(tmp_path), "out": f"{tmp_path}/out"}
        framing.write(child.stdin, request, 1000)

    ask("1", "select 1 as one")  # once it has answered, the child is up and waits
    assert framing.read(child.stdout, 1000)
    if sql:
        idle = processor_time(child)
        ask("2", sql)
        wait_until(lambda: processor_time(child) > idle + 0.1)
    assert child.poll() is None
    child.stdin.close()
    child.wait(limit(2))
    assert child.stdout.read() == b""
    child.stdout.close()
