from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from support.pool_fixtures import Find
from support.timing import limit

from agentkit.errors import LeaseLost, RateLimited, Refused
from agentkit.pool.pool import Pool
from agentkit.pool.request import Done

Until = Callable[[Callable[[], object]], Awaitable[None]]

SLEEP = {"op": "sql", "sql": "select sleep_ms(60000)"}
QUICK = {"op": "sql", "sql": "select 42 as answer"}
LONG_PROMPT = {"model": "smollm2-135m", "prompt": "word " * 1900, "max_tokens": 100}
SHORT_PROMPT = {"model": "smollm2-135m", "prompt": "Hi", "max_tokens": 1}
WORK = [
    pytest.param("data", SLEEP, QUICK, "worker_child", id="worker"),
    pytest.param("infer", LONG_PROMPT, SHORT_PROMPT, "llama_child", id="server"),
]


def start(pool: Pool, key: str, kind: str, params: dict[str, Any]) -> asyncio.Task[Done]:
    return asyncio.ensure_future(pool.run(key, kind, params, {}))


@pytest.mark.parametrize(("kind", "long", "short", "module"), WORK)
async def test_a_killed_child_loses_its_call_and_the_next_one_works(
    pool: Pool,
    begun: list[str],
    children: Find,
    until: Until,
    kind: str,
    long: dict[str, Any],
    short: dict[str, Any],
    module: str,
) -> None:
    lost = start(pool, "lost", kind, long)
    await until(lambda: begun and children(module))
    await asyncio.sleep(0.2)
    (child,) = children(module)
    child.send_signal(signal.SIGKILL)
    with pytest.raises(LeaseLost, match="killed by SIGKILL"):
        await lost
    assert begun == ["lost"]  # nothing was tried again behind the caller's back

    assert (await pool.run("next", kind, short, {})).outputs
    (other,) = children(module)
    assert other.pid != child.pid
    other.send_signal(signal.SIGKILL)  # idle this time
    await until(lambda: not children(module))
    await asyncio.sleep(0.1)
    assert (await pool.run("last", kind, short, {})).outputs


@pytest.mark.parametrize(("kind", "long", "short", "module"), WORK)
async def test_cancelling_kills_the_child_and_the_next_call_works(
    pool: Pool,
    begun: list[str],
    children: Find,
    until: Until,
    kind: str,
    long: dict[str, Any],
    short: dict[str, Any],
    module: str,
) -> None:
    running, waiting = start(pool, "running", kind, long), start(pool, "waiting", kind, short)
    await until(lambda: begun)
    (child,) = children(module)
    assert pool.running() == ["running", "waiting"]
    await pool.cancel("waiting")
    assert child.is_running()
    child.suspend()  # so that it cannot end by itself when its pipe does
    start_of_kill = time.monotonic()
    await pool.cancel("running")
    assert time.monotonic() - start_of_kill < 1
    assert child not in children(module)
    for call, key in ((running, "running"), (waiting, "waiting")):
        with pytest.raises(LeaseLost, match=f"'{key}' was cancelled"):
            await call
    await pool.cancel("running")
    assert pool.running() == []
    assert begun == ["running"]
    assert (await pool.run("next", kind, short, {})).outputs


async def test_a_caller_that_gives_up_takes_the_child_with_it(
    pool: Pool, begun: list[str], children: Find
) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await pool.run("call", "data", SLEEP, {})
    assert begun == ["call"]
    assert children("worker_child") == []
    assert pool.running() == []


async def test_a_key_runs_once_at_a_time(pool: Pool, begun: list[str], until: Until) -> None:
    first = start(pool, "same", "data", SLEEP)
    await until(lambda: begun)
    with pytest.raises(Refused, match="'same' is running already"):
        await pool.run("same", "data", QUICK, {})
    assert pool.running() == ["same"]
    await pool.cancel("same")
    with pytest.raises(LeaseLost):
        await first


async def test_a_full_queue_turns_calls_away(
    tmp_path: Path, begun: list[str], until: Until
) -> None:
    pool = Pool(scratch=tmp_path, max_queue=2, on_execute=begun.append)
    first = start(pool, "first", "data", SLEEP)
    await until(lambda: begun)
    second, third = start(pool, "second", "data", QUICK), start(pool, "third", "data", QUICK)
    await asyncio.sleep(0.05)
    with pytest.raises(RateLimited, match="2 calls wait") as caught:
        await pool.run("fourth", "data", QUICK, {})
    assert caught.value.retry_after > 0
    await pool.cancel("second")
    fourth = start(pool, "fourth", "data", QUICK)
    await asyncio.sleep(0.05)
    await pool.cancel("first")
    assert (await third).outputs == (await fourth).outputs
    assert begun == ["first", "third", "fourth"]
    await asyncio.gather(first, second, return_exceptions=True)
    await pool.close()


async def test_without_a_queue_an_idle_slot_still_works(tmp_path: Path) -> None:
    pool = Pool(scratch=tmp_path, max_queue=0)
    assert (await pool.run("call", "data", QUICK, {})).outputs
    await pool.close()


async def test_two_slots_work_side_by_side(
    tmp_path: Path, begun: list[str], children: Find, until: Until
) -> None:
    pool = Pool(scratch=tmp_path, worker_slots=2, on_execute=begun.append)
    for key in ("one", "two"):  # one after the other: the warm slot is used again
        await pool.run(key, "data", QUICK, {})
    assert len(children("worker_child")) == 1
    both = [start(pool, key, "data", SLEEP) for key in ("three", "four")]
    await until(lambda: len(begun) == 4)
    assert len(children("worker_child")) == 2
    await pool.close()
    assert children("worker_child") == []
    for call in both:
        with pytest.raises(LeaseLost):
            await call


@pytest.mark.parametrize(
    ("limits", "why"),
    [({"seconds": 0.5}, "longer than 0.5 s"), ({"memory_mib": 20}, "more than 20 MiB")],
)
async def test_a_task_over_a_limit_is_killed_and_refused(
    tmp_path: Path, children: Find, limits: dict[str, Any], why: str
) -> None:
    pool = Pool(scratch=tmp_path, **limits)
    with pytest.raises(Refused, match=why):
        await pool.run("call", "data", SLEEP, {})
    assert children("worker_child") == []
    await pool.close()


async def test_children_see_no_secret_and_leave_no_file(
    tmp_path: Path, children: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTKIT_PASSPHRASE", "opensesame")
    pool = Pool(scratch=tmp_path / "pool", nice=3)
    await pool.run("call", "data", QUICK, {})
    await pool.core("all-minilm-l6-v2")
    for child in children("agentkit.pool"):
        environment = child.environ()
        assert "opensesame" not in environment.values()
        assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
        assert environment["HOME"].startswith(str(tmp_path))
        assert child.nice() == psutil.Process().nice() + 3
        assert os.getpgid(child.pid) == child.pid
    assert not list((tmp_path / "pool").glob("*/task-*"))
    await pool.close()
    assert list((tmp_path / "pool").iterdir()) == []
    with pytest.raises(LeaseLost, match="closed"):
        await pool.run("call", "data", QUICK, {})
    with pytest.raises(LeaseLost, match="closed"):
        await pool.core("all-minilm-l6-v2")


async def test_a_front_has_a_server_of_its_own(
    pool: Pool, begun: list[str], children: Find, until: Until
) -> None:
    core, same = await asyncio.gather(pool.core("smollm2-135m"), pool.core("smollm2-135m"))
    assert core == same
    assert core.key not in repr(core)
    (server,) = children("llama_child")
    assert {at.laddr.ip for at in server.net_connections() if at.status == "LISTEN"} == {
        "127.0.0.1"
    }
    lost = start(pool, "lost", "infer", LONG_PROMPT)
    await until(lambda: begun)
    await pool.cancel("lost")
    with pytest.raises(LeaseLost):
        await lost
    async with aiohttp.ClientSession(core.url) as http:
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        async with http.post("/v1/chat/completions", json=body) as reply:
            assert reply.status == 401
        key = {"Authorization": f"Bearer {core.key}"}
        async with http.post("/v1/chat/completions", json=body, headers=key) as reply:
            assert (await reply.json())["usage"]["completion_tokens"] == 2
    server.send_signal(signal.SIGKILL)
    await until(lambda: not children("llama_child"))
    async with asyncio.timeout(limit(5)):
        while (await pool.core("smollm2-135m")).key == core.key:  # it may not have heard yet
            await asyncio.sleep(0.05)
    with pytest.raises(Refused, match="no model 'gpt-9'"):
        await pool.core("gpt-9")


PARENT = """
import asyncio, json, sys
from pathlib import Path
import psutil
from agentkit.pool.pool import Pool

async def main():
    begun = []
    pool = Pool(scratch=Path(sys.argv[1]), on_execute=begun.append)
    work = [("data", json.loads(sys.argv[2])), ("infer", json.loads(sys.argv[3]))]
    calls = [asyncio.ensure_future(pool.run(kind, kind, asked, {})) for kind, asked in work]
    await pool.core("all-minilm-l6-v2")
    while len(begun) < 2:
        await asyncio.sleep(0.01)
    print(json.dumps([child.pid for child in psutil.Process().children()]), flush=True)
    await asyncio.gather(*calls)

asyncio.run(main())
"""


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_when_the_parent_is_killed_its_children_are_gone_in_two_seconds(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path), json.dumps(SLEEP)]
    parent = subprocess.Popen([*command, json.dumps(LONG_PROMPT)], stdout=subprocess.PIPE)
    assert parent.stdout
    pids = json.loads(parent.stdout.readline())
    assert len(pids) == 3
    assert not any(map(gone, pids))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 2
    while not all(map(gone, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert all(map(gone, pids))
