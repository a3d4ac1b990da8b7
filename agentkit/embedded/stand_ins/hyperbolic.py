"""An OpenAI-compatible llama.cpp node, wire shape after Hyperbolic's serverless inference.

What it imitates on purpose: a User-Agent and a key are required; a missing field is FastAPI's 422
list, a model error is vLLM's object with a numeric code, account matters have `error_code`; 429
comes without headers.  Credit is prepaid, and there is no call for a top-up: what an address that
was bound before transfers to the deposit address is credited a while later, in whole cents, as this
front sees it in the token's log.  The balance is shown in cents, rounded down, and nothing else is:
no single debit, no transaction.  A chat is debited when it is done, whoever still listens.
"""

from __future__ import annotations

import re
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from agentkit.embedded.stand_ins.core import MAX_BODY, Behind, body_of, trimmed, whole
from agentkit.keys.messages import address_word
from agentkit.market.chain import Network
from agentkit.market.offer import charge
from agentkit.money import Rate
from agentkit.net.bodies import bounded_bodies
from agentkit.net.guard import guard, has_token
from agentkit.payments.abi import TRANSFER
from agentkit.payments.credit import units_per_cent

SERVED_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
LABEL = "stand-in: a llama.cpp node on this machine, wire shape after Hyperbolic"
PRICES = {
    "request": "0.00002 USDC per 1 request",
    "input": "0.30 USDC per 1M tokens",
    "output": "0.50 USDC per 1M tokens",
}
"""What this front charges; the real service publishes its prices in its documentation."""

DEFAULT_LIMIT = 512
TEMPLATE_TOKENS = 64
"""The most that a chat template adds to a prompt."""

CREDIT_SECONDS = 0.3
"""Seconds after which a transfer that was seen is credited; the real service takes minutes."""

SCHEMA = """
create table if not exists topups(tx text primary key, units integer not null) strict;
create table if not exists bound(address text primary key, block integer not null) strict;
create table if not exists seen(tx text primary key, units integer not null, at real not null)
  strict;
create table if not exists debits(
  answer text primary key, units integer not null, input integer not null,
  output integer not null, at real not null
) strict;
"""


class Credit:
    """The account's books: which addresses are bound, what was topped up, what was debited.

    No endpoint of the front shows them.  The network's own control does, to tests and the demo.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=full")
        self._db.executescript(SCHEMA)
        self.working = 0

    def close(self) -> None:
        self._db.close()

    @property
    def topped_up(self) -> int:
        return self._sum("select sum(units) from topups")

    @property
    def debited(self) -> int:
        return self._sum("select sum(units) from debits")

    @property
    def left(self) -> int:
        return self.topped_up - self.debited

    def bind(self, address: str, block: int) -> None:
        """Credit what an address transfers from a block on; bound again, nothing changes.

        Wallets of one embedded network share an account, so several addresses may be bound.
        """
        self._db.execute("insert or ignore into bound values(?,?)", (address.lower(), block))

    def bound(self) -> dict[str, int]:
        """Return the block from which on the transfers of each bound address count."""
        return dict(self._db.execute("select address, block from bound"))

    def see(self, transfer: str, units: int) -> None:
        """Note a transfer of a bound address, which is credited after a while."""
        row = (transfer, units, time.time())
        self._db.execute("insert or ignore into seen values(?,?,?)", row)

    def credit_seen(self, before: float, per_cent: int) -> None:
        """Credit what was seen before a moment, once, in whole cents."""
        self._db.execute(
            "insert or ignore into topups select tx, units / ?1 * ?1 from seen where at < ?2",
            (per_cent, before),
        )

    def debit(self, answer: str, units: int, usage: Mapping[str, int]) -> None:
        row = (answer, units, usage.get("input", 0), usage.get("output", 0), time.time())
        self._db.execute("insert into debits values(?,?,?,?,?)", row)

    def debits(self) -> list[dict[str, Any]]:
        names = ("answer", "units", "input", "output", "at")
        rows = self._db.execute(f"select {', '.join(names)} from debits order by rowid")  # noqa: S608
        return [dict(zip(names, row, strict=True)) for row in rows]

    def books(self) -> dict[str, Any]:
        """Return everything, for tests and the demo."""
        return {
            "topped_up": self.topped_up,
            "debited": self.debited,
            "left": self.left,
            "working": self.working,
            "debits": self.debits(),
        }

    def _sum(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0] or 0)


def hyperbolic_app(
    behind: Behind, credit: Credit, network: Network, *, key: str, payee: str, per_minute: int = 600
) -> web.Application:
    """Return the front's application; `payee` is where top-ups are transferred to."""
    front = Hyperbolic(behind, credit, network, key=key, payee=payee, per_minute=per_minute)
    app = web.Application(
        client_max_size=MAX_BODY, middlewares=[guard(), bounded_bodies(MAX_BODY), front.admit]
    )
    app.add_routes(
        [
            web.get("/v1/models", front.models),
            web.get("/models/{name:.*}/price", front.price),
            web.post("/v1/chat/completions", front.chat),
            web.post("/v1/completions", front.completions),
            web.post("/settings/crypto-address", front.bind),
            web.get("/billing/get_current_balance", front.balance),
        ]
    )
    return app


class Hyperbolic:
    """The endpoints of the front."""

    def __init__(
        self,
        behind: Behind,
        credit: Credit,
        network: Network,
        *,
        key: str,
        payee: str,
        per_minute: int,
    ) -> None:
        self._behind = behind
        self._credit = credit
        self._network = network
        self._key = key
        self._payee = payee
        self._per_minute = per_minute
        self._rates = {unit: Rate.parse(text) for unit, text in PRICES.items()}
        self._recent: deque[float] = deque()
        self._cent = units_per_cent(network.currency)

    @web.middleware
    async def admit(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Refuse clients without a name, without the key, or in too great a hurry."""
        agent = request.headers.get("User-Agent", "")
        if not agent or agent.startswith("Python/"):
            return web.Response(status=403, text="error code: 1010")
        if not has_token(request, self._key):
            return web.json_response({"detail": "Invalid authentication credentials"}, status=401)
        if self._too_fast():
            return web.json_response({"detail": "Rate limit exceeded"}, status=429)
        answer: web.StreamResponse = await handler(request)
        return answer

    def _too_fast(self) -> bool:
        now = time.monotonic()
        while self._recent and self._recent[0] < now - 60:
            self._recent.popleft()
        self._recent.append(now)
        return len(self._recent) > self._per_minute

    async def models(self, request: web.Request) -> web.Response:
        listed = [{"id": SERVED_MODEL, "object": "model", "created": 0, "owned_by": "Hyperbolic"}]
        return web.json_response({"object": "list", "data": listed})

    async def price(self, request: web.Request) -> web.Response:
        return web.json_response({})  # the published schema of this answer is empty

    async def chat(self, request: web.Request) -> web.Response:
        return await self._complete(request, "/v1/chat/completions", "messages")

    async def completions(self, request: web.Request) -> web.Response:
        return await self._complete(request, "/v1/completions", "prompt")

    async def _complete(self, request: web.Request, path: str, needed: str) -> web.Response:
        """Check a request as Hyperbolic does; do it if the credit covers the most it can cost."""
        body = await body_of(request) or {}
        for name in ("model", needed):
            if name not in body:
                missing = {
                    "loc": ["body", name],
                    "msg": "field required",
                    "type": "value_error.missing",
                }
                return web.json_response({"detail": [missing]}, status=422)
        if body["model"] != SERVED_MODEL:
            return _vllm(404, f"The model `{body['model']}` does not exist.", "NotFoundError")
        limit = whole(body.get("max_tokens")) or DEFAULT_LIMIT
        await self._look_for_transfers()
        if self._cost(_size(body[needed]) + TEMPLATE_TOKENS, limit) > self._credit.left:
            return web.json_response(
                {"error_code": 102, "message": "Insufficient balance"}, status=402
            )
        # aiohttp does not cancel this when the client goes: work and debit come to their end.
        return await self._work(path, body, limit)

    async def _work(self, path: str, body: dict[str, Any], limit: int) -> web.Response:
        """Ask the model, debit what was used, and answer."""
        self._credit.working += 1
        try:
            status, answer = await self._behind.ask(path, body, limit)
        finally:
            self._credit.working -= 1
        if status != 200:
            message = str(answer.get("error", {}).get("message", "the model failed"))
            return _vllm(status, message, "BadRequestError")
        answer = trimmed(answer, SERVED_MODEL)
        usage = {
            "request": 1,
            "input": answer["usage"]["prompt_tokens"],
            "output": answer["usage"]["completion_tokens"],
        }
        self._credit.debit(answer["id"], self._cost(usage["input"], usage["output"]), usage)
        return web.json_response(answer)

    def _cost(self, tokens_in: int, tokens_out: int) -> int:
        units = {"request": 1, "input": tokens_in, "output": tokens_out}
        return charge(self._rates["request"].amount.asset, self._rates, units).units

    # -- account ---------------------------------------------------------------------------------

    async def bind(self, request: web.Request) -> web.Response:
        """Bind an address to the account: what it transfers from now on is credited."""
        address = str((await body_of(request) or {}).get("address", ""))
        if not re.fullmatch(r"0x[0-9a-fA-F]{40}", address):
            message = "Invalid wallet address format"
            return web.json_response({"error_code": 104, "message": message}, status=400)
        head = int(str(await self._ask_chain("eth_blockNumber")), 16)
        self._credit.bind(address, head + 1)
        return web.json_response({"success": True})

    async def balance(self, request: web.Request) -> web.Response:
        """Show the credit that is left, in whole cents."""
        await self._look_for_transfers()
        return web.json_response({"credits": str(self._credit.left // self._cent)})

    async def _look_for_transfers(self) -> None:
        """Note what bound addresses have transferred to us, and credit what was noted a while ago.

        A chain that does not answer is asked again with the next request.
        """
        bound = self._credit.bound()
        if not bound:
            return
        wanted = {
            "address": self._network.token,
            "fromBlock": hex(min(bound.values())),
            "topics": ["0x" + TRANSFER.hex(), None, "0x" + address_word(self._payee).hex()],
        }
        try:
            logs = await self._ask_chain("eth_getLogs", wanted)
        except aiohttp.ClientError:
            return
        for log in logs or ():
            sender = f"0x{log['topics'][1][-40:]}".lower()
            if int(log["blockNumber"], 16) >= bound.get(sender, sys.maxsize):
                transfer = f"{log['transactionHash']}:{log['logIndex']}"
                self._credit.see(transfer, int(log["data"], 16))
        self._credit.credit_seen(time.time() - CREDIT_SECONDS, self._cent)

    async def _ask_chain(self, method: str, *params: Any) -> Any:
        """Return what a node of the chain answers to a call."""
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self._network.rpc, json=question) as answer,
        ):
            return (await answer.json()).get("result")


def _size(asked: object) -> int:
    """Return the bytes of a prompt or of all messages: no text has more tokens than bytes."""
    if isinstance(asked, list):
        texts = [message.get("content", "") for message in asked if isinstance(message, dict)]
        return sum(len(str(text).encode()) for text in texts)
    return len(str(asked).encode())


def _vllm(status: int, message: str, kind: str) -> web.Response:
    error = {"object": "error", "message": message, "type": kind, "param": None, "code": status}
    return web.json_response(error, status=status)
