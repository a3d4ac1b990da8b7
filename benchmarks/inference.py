"""What asking a model costs beside the model: ratios from one run, the reference beside them.

    python benchmarks/inference.py --json

`submit`: an adapter's `Provider.submit` against a bare POST of the same body by aiohttp, 64 at
once, both with kept connections, to an endpoint that answers at once in a process of its own.
Rounds take turns; the figure is the median of their ratios.

`offers`: twelve endpoints, each asked about twelve nodes of different sizes, 50 ms before each list
of models: how many lists are asked for, and the seconds until all offers are there.

`seeds`: one question with a long beginning and a seed, twenty times, other questions in between, by
a slot of our own pool (llama.cpp, one thread): how many answers are equal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from agentkit.graph.nodes import InferNode
from agentkit.kinds.infer import Infer, infer_load
from agentkit.market.attempt import Attempt, Payment, purchase_id
from agentkit.market.offer import Offer, charge
from agentkit.market.task import TaskSpec
from agentkit.money import Rate
from agentkit.pool.pool import Pool
from agentkit.providers.openai import GAIA, EndpointSettings, OpenAI
from agentkit.testing.fakes import NETWORK, USDC

AT_ONCE = 64
ROUNDS = 15
CALLS = 640
"""Calls of each side in a round."""

ENDPOINTS = 12
NODES = 12
LIST_SECONDS = 0.05

REPEATS = 20
MODEL = "smollm2-135m"

PRICES = {
    "input": Rate.parse("10 USDC per 1M tokens"),
    "output": Rate.parse("20 USDC per 1M tokens"),
}
SETTINGS = EndpointSettings(prices=PRICES, models={"m": "m"})

ANSWER = {
    "id": "1",
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there."},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}


# -- an endpoint in a process of its own ---------------------------------------------------------


def _serve(told: Connection, pause: float) -> None:
    """Answer every question at once, and a list of models after a pause; tell the address."""
    asyncio.run(_serving(told, pause))


async def _serving(told: Connection, pause: float) -> None:
    lists = 0

    async def models(request: web.Request) -> web.Response:
        nonlocal lists
        lists += 1
        await asyncio.sleep(pause)
        return web.json_response({"data": [{"id": "m"}]})

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(ANSWER)

    async def counted(request: web.Request) -> web.Response:
        return web.json_response(lists)

    app = web.Application()
    app.router.add_get("/{n}/v1/models", models)
    app.router.add_post("/{n}/v1/chat/completions", chat)
    app.router.add_get("/lists", counted)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    told.send(f"http://127.0.0.1:{runner.addresses[0][1]}")
    await asyncio.Event().wait()


@contextmanager
def endpoint(pause: float = 0.0) -> Iterator[str]:
    """Run an endpoint; yields its address."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(there, pause), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.kill()
        process.join()


# -- submit --------------------------------------------------------------------------------------


def question(tokens: int = 8) -> InferNode:
    fields = {"kind": "infer", "name": "ask", "model": "m", "prompt": "Hi"}
    return InferNode.model_validate({**fields, "max_tokens": tokens})


async def submit() -> dict[str, Any]:
    """Return how much longer an adapter takes than a bare POST."""
    with endpoint() as url:
        adapter = OpenAI("far", f"{url}/0/v1", NETWORK, GAIA, SETTINGS)
        asked = question()
        (offer,) = await adapter.offers(TaskSpec(node=asked, load=infer_load(2, asked)))
        task = Infer().task(asked, {})
        _, body = adapter._request(task, "m")
        address = f"{url}/0/v1/chat/completions"
        numbers = iter(range(10**9))

        async def ours() -> None:
            attempt = _attempt(offer, task, next(numbers))
            await adapter.submit(task, offer, attempt, Payment(rail=offer.rail))

        connector = aiohttp.TCPConnector(limit=AT_ONCE)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def bare() -> None:
                async with session.post(address, json=body) as said:
                    await said.json()

            await _seconds(ours)
            await _seconds(bare)
            pairs = [(await _seconds(ours), await _seconds(bare)) for _ in range(ROUNDS)]
        await adapter.close()
    ratios = sorted(one / other for one, other in pairs)
    return {
        "at_once": AT_ONCE,
        "submit_over_bare_post": round(statistics.median(ratios), 2),
        "rounds": [round(ratios[0], 2), round(ratios[-1], 2)],
        "bare_posts_per_second": round(CALLS / statistics.median(bare for _, bare in pairs)),
    }


def _attempt(offer: Offer, task: Any, number: int) -> Attempt:
    return Attempt.at(
        purchase_id("bench", f"ask{number}"),
        0,
        offer,
        run="bench",
        item=None,
        task=task.digest,
        at_most=charge(USDC, offer.rates, offer.most(task.load)),
    )


async def _seconds(call: Any) -> float:
    """Return the seconds that CALLS calls take, AT_ONCE of them at once."""
    left = iter(range(CALLS))

    async def lane() -> None:
        for _ in left:
            await call()

    began = time.perf_counter()
    await asyncio.gather(*[lane() for _ in range(AT_ONCE)])
    return time.perf_counter() - began


# -- offers --------------------------------------------------------------------------------------


async def offers() -> dict[str, Any]:
    """Return how often lists of models are read for many nodes, and how long that takes."""
    with endpoint(LIST_SECONDS) as url:
        adapters = [
            OpenAI(f"far{n}", f"{url}/{n}/v1", NETWORK, GAIA, SETTINGS) for n in range(ENDPOINTS)
        ]
        nodes = [question(tokens) for tokens in range(8, 8 + NODES)]
        specs = [TaskSpec(node=node, load=infer_load(2, node)) for node in nodes]
        began = time.perf_counter()
        await asyncio.gather(*[a.offers(spec) for a in adapters for spec in specs])
        seconds = time.perf_counter() - began
        async with aiohttp.ClientSession() as session, session.get(f"{url}/lists") as said:
            lists = await said.json()
        for adapter in adapters:
            await adapter.close()
    return {"endpoints": ENDPOINTS, "nodes": NODES, "lists": lists, "seconds": round(seconds, 3)}


# -- seeds ---------------------------------------------------------------------------------------


async def seeds() -> dict[str, Any]:
    """Return how many of the answers to one question with a seed are equal."""
    long = "The harbour lies in the north, and ships come in from all sides. " * 12
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(scratch=Path(folder))

        async def ask(prompt: str, **more: Any) -> str:
            params = {"model": MODEL, "prompt": prompt, "max_tokens": 24, "temperature": 1.0}
            done = await pool.run("bench", "infer", {**params, **more}, {})
            return done.outputs[0].digest

        answers = []
        for number in range(REPEATS):
            answers.append(await ask(f"{long}Tell a story of it.", seed=7))
            await ask(f"{long}What is ship number {number} called?")
        await pool.close()
    most = max(answers.count(answer) for answer in answers)
    return {"asked": REPEATS, "equal": most}


async def measured() -> dict[str, Any]:
    return {"submit": await submit(), "offers": await offers(), "seeds": await seeds()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    figures = asyncio.run(measured())
    if as_json:
        print(json.dumps(figures))
        return
    for name, row in figures.items():
        print(name, *[f"{key}={value}" for key, value in row.items()], sep="  ")


if __name__ == "__main__":
    main()
