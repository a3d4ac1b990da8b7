"""Provider nodes that die, repeat themselves, come late, or say half or far too much."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.fault_jobs import ROWS, in_books, rows_of
from support.processes import PROGRAMS, provider_node
from support.processes.run_with_faults import CHATTY, CHATTY_MODEL, chatty
from support.timing import limit, until
from support.toy_market import Toy, toy

from agentkit.artifacts import Dataset, Text
from agentkit.errors import RunPaused
from agentkit.graph.builder import JobGraph
from agentkit.graph.nodes import Timeouts
from agentkit.journal import events as e
from agentkit.market.attempt import Attempt, JobStatus, Payment
from agentkit.market.offer import Offer
from agentkit.market.task import Task
from agentkit.providers.openai import MAX_ANSWER
from agentkit.runtime import history
from agentkit.runtime import run as runs
from agentkit.runtime.attempt import recovery
from agentkit.testing.fakes import ToyRail

MIB = 1024 * 1024


async def charged(market: Toy) -> list[str]:
    """Return the attempts that the rail paid."""
    rows = await market.journal.rows(e.WALLET)
    return [json.loads(row.body)["json_text"] for row in rows if row.kind == "Extra"]


def asking(**more: Any) -> JobGraph:
    graph = JobGraph("asking")
    graph.infer("ask", model="m", prompt="hello", **more)
    return graph


# -- nodes in processes of their own -------------------------------------------------------------


async def test_a_node_killed_after_it_accepted_is_not_paid_and_another_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "FIND_PATIENCE", 0.5)
    with (
        provider_node.running(tmp_path / "one", "one", delay=60.0) as (one, process),
        provider_node.running(tmp_path / "two", "two") as (two, _),
    ):
        async with toy(tmp_path, one=one, two=two) as market:
            run = await runs.start(market.means, await market.plan(asking(retries=1)))
            await until(lambda: one.count("accepted"))
            process.kill()
            assert process.wait() == -signal.SIGKILL
            result = await run.result()
            (past,) = run.status.purchases.values()
            assert [line["attempt"] for line in one.log] == [past.attempts[0].id]  # it had it
            assert one.executions == []
            (receipt,) = result.receipts
            assert receipt.attempt.provider == "two"
            assert await charged(market) == two.executions == [receipt.attempt.id]
            assert not past.open
            assert past.uncertain == 0  # nobody is paid before delivery


class Stammering(provider_node.Away):
    """An adapter whose every request reaches the node twice."""

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        sends = (super(Stammering, self).submit(task, offer, attempt, payment) for _ in range(2))
        return (await asyncio.gather(*sends))[0]


async def test_a_request_that_arrives_twice_is_one_purchase(tmp_path: Path) -> None:
    with provider_node.running(tmp_path / "one", "one"):
        one = Stammering("one", tmp_path / "one")
        async with toy(tmp_path, one=one) as market:
            result = await market.run(asking())
            (receipt,) = result.receipts
            assert sum(one.count("repeated").values()) == 1  # it had really come again
            assert one.executions == [receipt.attempt.id] == await charged(market)


async def test_what_comes_after_the_fail_over_is_not_paid(tmp_path: Path) -> None:
    """The late node does its work to the end, whatever it is told; the run is still going then."""
    with (
        provider_node.running(tmp_path / "one", "one", delay=1.5) as (one, _),
        provider_node.running(tmp_path / "two", "two") as (two, _),
    ):

        def when_late(text: Text) -> str:
            asyncio.run(until(lambda: one.count("finished")))
            return text.text

        async with toy(tmp_path, one=one, two=two) as market:
            graph = asking(retries=0, timeout=Timeouts(execute=0.4))
            graph.local("wait", when_late, graph.ref("ask"))
            result = await market.run(graph)
            (receipt,) = result.receipts
            assert receipt.attempt.provider == "two"
            said = dict.fromkeys(line["what"] for line in one.log)
            assert list(said) == ["accepted", "called off", "finished"]  # it came, and too late
            assert len(one.executions) == 1
            assert await charged(market) == two.executions == [receipt.attempt.id]
            state = await history.read(market.journal, result.run_id)
            assert not any(past.open or past.uncertain for past in state.purchases.values())
            assert (await market.journal.commit(in_books))["open"] == 0


# -- what a real adapter hears -------------------------------------------------------------------


def good(prompt: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": f"re: {prompt}"}}
    usage = {"prompt_tokens": 3, "completion_tokens": 3}
    return {"id": "x", "model": CHATTY_MODEL, "choices": [choice], "usage": usage}


Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def well(request: web.Request) -> web.StreamResponse:
    return web.json_response(good((await request.json())["messages"][0]["content"]))


async def half(request: web.Request) -> web.StreamResponse:
    whole = json.dumps(good("hello")).encode()
    response = web.StreamResponse(headers={"Content-Length": str(len(whole))})
    await response.prepare(request)
    await response.write(whole[: len(whole) // 2])
    assert request.transport
    request.transport.close()
    return response


async def no(request: web.Request) -> web.StreamResponse:
    return web.Response(status=400, text="no")


@dataclass
class Endpoint:
    """A chat endpoint that behaves as it is told, and counts."""

    reply: Reply = well
    asked: int = 0
    written: int = 0
    url: str = ""
    faults: list[str] = field(default_factory=list)

    async def work(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        self.faults.append(getattr(self.reply, "__name__", ""))
        return await self.reply(request)

    async def endless(self, request: web.Request) -> web.StreamResponse:
        """Answer for as long as somebody listens."""
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            while self.written < 200 * MAX_ANSWER:
                await response.write(b" " * MIB)
                self.written += MIB
        return response


@asynccontextmanager
async def closing(provider: Any) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await provider.close()


@asynccontextmanager
async def endpoint() -> AsyncIterator[Endpoint]:
    stand_in = Endpoint()

    async def models(request: web.Request) -> web.StreamResponse:
        return web.json_response({"data": [{"id": CHATTY_MODEL}]})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/{path:.*}", stand_in.work)
    async with TestServer(app) as server:
        stand_in.url = str(server.make_url("/v1"))
        yield stand_in


async def test_half_an_answer_counts_and_another_is_bought_when_the_user_says_so(
    tmp_path: Path,
) -> None:
    async with endpoint() as far, endpoint() as near:
        far.reply = half
        providers: Any = {"far": chatty("far", far.url), "near": chatty("near", near.url)}
        async with (
            closing(providers["far"]),
            closing(providers["near"]),
            toy(tmp_path, rail=ToyRail(CHATTY.pays), **providers) as market,
        ):
            run = await runs.start(market.means, await market.plan(asking(retries=0)))
            with pytest.raises(RunPaused) as paused:
                await run.result()
            assert (far.asked, near.asked) == (1, 0)  # it was reached, and nobody else was paid
            assert paused.value.uncertain
            far.reply = no
            run = await runs.resume(market.means, run.id, rebuy=True)
            result = await run.result()
            text = result["ask"]
            assert isinstance(text, Text) and text.text == "re: hello"
            assert Counter(x.standing for x in result.receipts) == {"uncertain": 1, "paid": 1}
            assert (far.faults, near.asked) == (["half", "no"], 1)


@dataclass
class Stammerer:
    """Speaks HTTP, and gives each answer twice; the second one a little later."""

    said: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                answer = self._answer(await self._read(reader))
                writer.write(answer)
                await writer.drain()
                await asyncio.sleep(0.002)
                writer.write(answer)
                await writer.drain()
        writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> str:
        """Return the prompt of a request, "" for one that has none."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next((x.split(":")[1] for x in head.splitlines() if "content-length" in x), "0")
        body = await reader.readexactly(int(length))
        self.said.append(json.loads(body)["messages"][0]["content"] if body else "")
        return self.said[-1]

    def _answer(self, prompt: str) -> bytes:
        data = json.dumps(good(prompt) if prompt else {"data": [{"id": CHATTY_MODEL}]}).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)


@asynccontextmanager
async def stammerer() -> AsyncIterator[tuple[Stammerer, Any]]:
    """Yield one, and the real adapter in front of it."""
    there = Stammerer()
    server = await asyncio.start_server(there.serve, "127.0.0.1", 0)
    far = chatty("far", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    try:
        yield there, far
    finally:
        await far.close()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.05)  # until the last connection has heard of it


async def test_an_answer_given_twice_is_not_taken_for_the_next_one(tmp_path: Path) -> None:
    """On a connection that is used again, the second copy lies where the next answer belongs."""
    graph = JobGraph("twice")
    rows = graph.data("rows", source=rows_of(tmp_path))
    graph.infer("ask", model="m", over=rows, prompt="{text}", retries=0)
    async with (
        stammerer() as (there, far),
        toy(tmp_path, rail=ToyRail(CHATTY.pays), far=far) as market,
    ):
        result = await market.run(graph)
        table = result["ask"]
        assert isinstance(table, Dataset)
        assert len(there.said) == 1 + ROWS
        assert [x["ask"] for x in table.rows()] == [f"re: {x['text']}" for x in table.rows()]
        assert len(result.receipts) == ROWS


async def test_an_answer_larger_than_memory_allows_is_let_go_at_its_limit(tmp_path: Path) -> None:
    async with endpoint() as far:
        far.reply = far.endless
        children = str(PROGRAMS / "run_with_faults.py")
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, children, "listen", str(tmp_path), far.url),
            stdout=asyncio.subprocess.PIPE,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        output, _ = await asyncio.wait_for(child.communicate(), limit(60))
        assert child.returncode == 0
        heard = json.loads(output)
        assert far.asked == 1
        assert heard["error"] == "RunPaused" and "too large" in heard["says"]
        assert MAX_ANSWER <= far.written < MAX_ANSWER + 16 * MIB  # what lies in sockets
        assert heard["grown_kib"] < (1.5 * MAX_ANSWER + 16 * MIB) / 1024
        print(f"\nread {far.written // MIB} MiB, grown by {heard['grown_kib'] // 1024} MiB")
