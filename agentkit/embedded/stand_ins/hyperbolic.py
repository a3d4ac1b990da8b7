"""An OpenAI-compatible llama.cpp node, wire shape after Hyperbolic's serverless inference.

What it imitates on purpose: a User-Agent and a key are required; a missing field is FastAPI's 422
list, a model error is vLLM's object with a numeric code, account matters have `error_code`; 429
comes without headers.  Credit is prepaid: a top-up counts once this front has seen the token's
Transfer log by itself; a chat is debited when it is done, whoever still listens.
"""

from __future__ import annotations

import re
import sqlite3
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

SCHEMA = """
create table if not exists topups(tx text primary key, units integer not null) strict;
create table if not exists debits(
  answer text primary key, units integer not null, input integer not null,
  output integer not null, at real not null
) strict;
"""


class Credit:
    """The account's books: what was topped up, what was debited."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=full")
        self._db.executescript(SCHEMA)

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

    def add(self, transaction: str, units: int) -> None:
        """Credit a transfer; the same one again changes nothing."""
        self._db.execute("insert or ignore into topups values(?,?)", (transaction, units))

    def has(self, transaction: str) -> bool:
        found = self._db.execute("select 1 from topups where tx=?", (transaction,))
        return found.fetchone() is not None

    def debit(self, answer: str, units: int, usage: Mapping[str, int]) -> None:
        row = (answer, units, usage.get("input", 0), usage.get("output", 0), time.time())
        self._db.execute("insert into debits values(?,?,?,?,?)", row)

    def debits(self) -> list[dict[str, Any]]:
        names = ("answer", "units", "input", "output", "at")
        rows = self._db.execute(f"select {', '.join(names)} from debits order by rowid")  # noqa: S608
        return [dict(zip(names, row, strict=True)) for row in rows]

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
            web.post("/billing/topup", front.topup),
            web.get("/billing/balance", front.balance),
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
        self.working = 0

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
        if self._cost(_size(body[needed]) + TEMPLATE_TOKENS, limit) > self._credit.left:
            return web.json_response(
                {"error_code": 102, "message": "Insufficient balance"}, status=402
            )
        # aiohttp does not cancel this when the client goes: work and debit come to their end.
        return await self._work(path, body, limit)

    async def _work(self, path: str, body: dict[str, Any], limit: int) -> web.Response:
        """Ask the model, debit what was used, and answer."""
        self.working += 1
        try:
            status, answer = await self._behind.ask(path, body, limit)
        finally:
            self.working -= 1
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

    async def topup(self, request: web.Request) -> web.Response:
        """Credit a transfer that this front sees on the chain; refuse one that it does not."""
        transaction = str((await body_of(request) or {}).get("transaction", ""))
        if not re.fullmatch(r"0x[0-9a-f]{64}", transaction):
            return web.json_response({"error_code": 104, "message": "no transaction"}, status=400)
        if not self._credit.has(transaction):
            units = await self._transferred(transaction)
            if not units:
                message = "no transfer to this account in that transaction"
                return web.json_response({"error_code": 105, "message": message}, status=402)
            self._credit.add(transaction, units)
        return web.json_response({"credited": True, "balance_units": self._credit.left})

    async def balance(self, request: web.Request) -> web.Response:
        """Show the credit that is left, and every debit."""
        return web.json_response(
            {
                "topped_up": self._credit.topped_up,
                "debited": self._credit.debited,
                "left": self._credit.left,
                "working": self.working,
                "debits": self._credit.debits(),
            }
        )

    async def _transferred(self, transaction: str) -> int:
        """Return the units that a transaction moved to our address, read from its logs."""
        question = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "eth_getTransactionReceipt",
            "params": [transaction],
        }
        async with (
            aiohttp.ClientSession() as session,
            session.post(self._network.rpc, json=question) as answer,
        ):
            receipt = (await answer.json()).get("result") or {}
        wanted = ["0x" + TRANSFER.hex(), "0x" + address_word(self._payee).hex()]
        return sum(
            int(log["data"], 16)
            for log in receipt.get("logs", ())
            if log["address"].lower() == self._network.token.lower()
            and [log["topics"][0], log["topics"][-1]] == wanted
        )


def _size(asked: object) -> int:
    """Return the bytes of a prompt or of all messages: no text has more tokens than bytes."""
    if isinstance(asked, list):
        texts = [message.get("content", "") for message in asked if isinstance(message, dict)]
        return sum(len(str(text).encode()) for text in texts)
    return len(str(asked).encode())


def _vllm(status: int, message: str, kind: str) -> web.Response:
    error = {"object": "error", "message": message, "type": kind, "param": None, "code": status}
    return web.json_response(error, status=status)
