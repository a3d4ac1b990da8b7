"""The gateway behind HTTP: the paths of Arweave nodes, gateways and of the Turbo upload service.

`/mint`, `/mine` and what begins with `/bench/` exist only here: the hand of the test bench, see
`agentkit.embedded.gateway.faults`; they need the network's token.  The gateway blocks, so it runs
in one thread of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from agentkit.embedded.gateway.faults import Bench, Failure, Faults
from agentkit.embedded.gateway.gateway import Gateway
from agentkit.embedded.gateway.rejected import Rejected
from agentkit.errors import StateCorrupt
from agentkit.keys.messages import address_of
from agentkit.memory.arweave.ans104 import ETHEREUM, Item
from agentkit.net.bodies import bounded_bodies
from agentkit.net.guard import guard, require_token

NETWORK = "agentkit.embedded"
MAX_ITEM_BODY = 64 * 1024 * 1024
MAX_TX_BODY = 15 * 1024 * 1024  # of real nodes
MAX_CHUNK_BODY = 1024 * 1024
MAX_QUERY_BODY = 64 * 1024
MAX_BODIES = {"/v1/tx": MAX_ITEM_BODY, "/tx": MAX_TX_BODY, "/chunk": MAX_CHUNK_BODY}
MAX_BYTES_AT_ONCE = 4 * MAX_ITEM_BODY
_DEADLINE_BLOCKS = 200
_ID = "{id:[A-Za-z0-9_-]{43}}"
_WALLET = "{address:[A-Za-z0-9_-]{43}}"
_SIZE = "{size:[0-9]{1,15}}"
_WINSTON = "{winston:[0-9]{1,18}}"

Answer: TypeAlias = Callable[[web.Request], Awaitable[web.Response]]

R = TypeVar("R")


def gateway_app(gateway: Gateway, *, token: str = "") -> web.Application:
    """Return the HTTP face of a gateway; its thread ends with the app, the gateway stays open.

    `token` opens the switches of the test bench; without one they stay closed.
    """
    front = _Front(gateway)
    bodies = bounded_bodies(MAX_QUERY_BODY, by_route=MAX_BODIES, at_once=MAX_BYTES_AT_ONCE)
    app = web.Application(client_max_size=MAX_ITEM_BODY, middlewares=[guard(), bodies])
    app.on_cleanup.append(front.end)
    posts: dict[str, Answer] = {
        "/v1/tx": front.post_item,
        "/tx": front.post_transaction,
        "/chunk": front.post_chunk,
        "/graphql": front.query,
    }
    gets: dict[str, Answer] = {
        "/info": front.info,
        "/tx_anchor": front.anchor,
        f"/price/{_SIZE}": front.price,
        f"/price/{_SIZE}/{_WALLET}": front.price,
        f"/wallet/{_WALLET}/balance": front.balance,
        f"/mint/{_WALLET}/{_WINSTON}": _for_testers(token, front.mint),
        "/mine": _for_testers(token, front.mine),
        f"/tx/{_ID}": front.transaction,
        f"/tx/{_ID}/status": front.status,
        f"/raw/{_ID}": front.data,
        f"/{_ID}": front.data,
    }
    bench = gateway.bench
    app.add_routes(web.post(p, _failing(bench, _refusing(a))) for p, a in posts.items())
    app.add_routes(web.get(p, _failing(bench, _refusing(a))) for p, a in gets.items())
    app.add_routes(
        [
            web.get("/bench/faults", _for_testers(token, front.faults)),
            web.post("/bench/faults", _for_testers(token, _refusing(front.set_faults))),
            web.post("/bench/reorg/{depth:[0-9]{1,4}}", _for_testers(token, front.reorg)),
            web.post(f"/bench/lose/{_ID}", _for_testers(token, front.lose)),
        ]
    )
    return app


class _Query(BaseModel):
    query: str
    variables: dict[str, Any] | None = None


class _Front:
    """One method a path: read the request, ask the gateway in its thread, write the answer."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._thread = ThreadPoolExecutor(1, "arweave-gateway")

    async def end(self, _app: web.Application) -> None:
        """End the thread, once it is done with what it is at."""
        self._thread.shutdown()

    async def post_item(self, request: web.Request) -> web.Response:
        """Take a data item as Turbo's upload service does."""
        if request.content_type != "application/octet-stream":
            raise Rejected("Invalid Content-Type: send application/octet-stream")
        raw = await request.read()
        item, new = await self._ask(self._gateway.post_item, raw)
        if not new:
            return web.Response(status=202, text="Data item already exists")
        height = await self._ask(self._gateway.height)
        return web.json_response(_receipt(item, height))

    async def post_transaction(self, request: web.Request) -> web.Response:
        body = await request.read()
        if await self._ask(self._gateway.post_transaction, body):
            return web.Response(text="OK")
        return web.Response(status=208, text="Transaction already processed.")

    async def post_chunk(self, request: web.Request) -> web.Response:
        await self._ask(self._gateway.post_chunk, await request.read())
        return web.json_response({})

    async def query(self, request: web.Request) -> web.Response:
        try:
            wire = _Query.model_validate_json(await request.read())
        except ValidationError as error:
            raise Rejected("this is not a GraphQL request") from error
        answer = await self._ask(self._gateway.query, wire.query, wire.variables or {})
        return web.json_response(answer)

    async def info(self, _request: web.Request) -> web.Response:
        """Say how high the weave is, as nodes do."""
        height = await self._ask(self._gateway.height)
        document = {
            "network": NETWORK,
            "version": 5,
            "height": height,
            "blocks": height + 1,
            "current": await self._ask(self._gateway.block),
            "freeUploadLimitBytes": MAX_ITEM_BODY,
        }
        return web.json_response(document)

    async def anchor(self, _request: web.Request) -> web.Response:
        return web.Response(text=await self._ask(self._gateway.anchor))

    async def price(self, request: web.Request) -> web.Response:
        size, target = int(request.match_info["size"]), request.match_info.get("address", "")
        return web.Response(text=str(await self._ask(self._gateway.price, size, target)))

    async def balance(self, request: web.Request) -> web.Response:
        address = request.match_info["address"]
        return web.Response(text=str(await self._ask(self._gateway.balance, address)))

    async def mint(self, request: web.Request) -> web.Response:
        address, winston = request.match_info["address"], int(request.match_info["winston"])
        return web.Response(text=str(await self._ask(self._gateway.mint, address, winston)))

    async def mine(self, _request: web.Request) -> web.Response:
        return web.json_response({"height": await self._ask(self._gateway.mine)})

    async def transaction(self, request: web.Request) -> web.Response:
        """Answer with a transaction's header; 202 while it waits, 410 once it was dropped."""
        name = request.match_info["id"]
        document = await self._ask(self._gateway.transaction, name)
        if document is not None:
            return web.json_response(document)
        dropped = await self._ask(self._gateway.dropped, name)
        if dropped:
            return web.json_response([dropped], status=410)
        mined = await self._ask(self._gateway.status, name)
        return _absent(pending=mined is not None and mined.height is None)

    async def status(self, request: web.Request) -> web.Response:
        """Say in which block a transaction or an item is, and how deep."""
        mined = await self._ask(self._gateway.status, request.match_info["id"])
        if mined is None or mined.height is None:
            return _absent(pending=mined is not None)
        document = {
            "block_height": mined.height,
            "block_indep_hash": mined.block,
            "number_of_confirmations": mined.confirmations,
        }
        return web.json_response(document)

    async def data(self, request: web.Request) -> web.Response:
        data = await self._ask(self._gateway.data, request.match_info["id"])
        # Never with the type its tags name: a page from here would be a page of this origin.
        return web.Response(body=data) if data is not None else _absent(pending=False)

    # -- the test bench --------------------------------------------------------------------------

    async def faults(self, _request: web.Request) -> web.Response:
        bench = self._gateway.bench
        document = {"faults": bench.faults.model_dump(mode="json"), "reached": dict(bench.reached)}
        return web.json_response(document)

    async def set_faults(self, request: web.Request) -> web.Response:
        try:
            faults = Faults.model_validate_json(await request.read())
        except ValidationError as error:
            raise Rejected(f"these are not valid faults: {error}") from error
        await self._ask(self._gateway.set_faults, faults)
        return web.json_response({})

    async def reorg(self, request: web.Request) -> web.Response:
        depth, keep = int(request.match_info["depth"]), "keep" in request.query
        height = await self._ask(partial(self._gateway.reorg, keep=keep), depth)
        return web.json_response({"height": height})

    async def lose(self, request: web.Request) -> web.Response:
        await self._ask(self._gateway.lose, request.match_info["id"])
        return web.json_response({})

    async def _ask(self, call: Callable[..., R], *args: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)


def _for_testers(token: str, answer: Answer) -> Answer:
    """Let only those who have the token use a switch, which no real gateway has."""

    async def answered(request: web.Request) -> web.Response:
        require_token(request, token)
        return await answer(request)

    return answered


def _refusing(answer: Answer) -> Answer:
    """Turn what an answer raises into the status that says so."""

    async def answered(request: web.Request) -> web.Response:
        try:
            return await answer(request)
        except Rejected as refusal:
            return web.Response(status=refusal.status, text=refusal.reason)
        except StateCorrupt as damage:
            return web.Response(status=500, text=str(damage))

    return answered


def _failing(bench: Bench, answer: Answer) -> Answer:
    """Let a request go wrong as the bench has it."""

    async def answered(request: web.Request) -> web.Response:
        failure = bench.failing(request.method, request.path)
        if failure is None:
            return await answer(request)
        await asyncio.sleep(failure.delay)
        if failure.done:
            await answer(request)
        return _failed(request, failure)

    return answered


def _failed(request: web.Request, failure: Failure) -> web.Response:
    if not failure.status:
        if request.transport:
            request.transport.abort()
        return web.Response()
    headers = {"Retry-After": failure.retry_after} if failure.retry_after else None
    return web.Response(status=failure.status, text=failure.text, headers=headers)


def _absent(*, pending: bool) -> web.Response:
    return web.Response(status=202, text="Pending") if pending else web.Response(status=404)


def _receipt(item: Item, height: int) -> dict[str, Any]:
    """Return a receipt in Turbo's form; nobody signs it, since nobody is owed anything here."""
    ethereum = item.signature_type == ETHEREUM
    return {
        "id": item.id,
        "owner": address_of(item.owner) if ethereum else item.address,
        "dataCaches": [NETWORK],
        "fastFinalityIndexes": [NETWORK],
        "deadlineHeight": height + _DEADLINE_BLOCKS,
        "timestamp": int(time.time() * 1000),
        "version": "0.2.0",
        "signature": "",
        "public": "",
        "winc": "0",
    }
