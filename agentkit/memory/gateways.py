"""Arweave through several gateways, none of which is trusted.

Posting is as safe to repeat as reading, because the bytes are signed before: the same bytes are
the same item.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeVar

import aiohttp
from pydantic import BaseModel, Field, ValidationError

from agentkit.errors import ConfigError, StateCorrupt, StateError, StoreUnavailable
from agentkit.memory.ans104 import Item, parse_item
from agentkit.memory.b64 import b64url, unb64url
from agentkit.memory.endpoint import Endpoint
from agentkit.memory.failover import Patience, first_answer
from agentkit.memory.findings import Findings, Found, Listing, united
from agentkit.memory.layer1 import WeaveTransaction
from agentkit.memory.listing import MAX_PAGE_BYTES, Page, find_query, id_query, read_page
from agentkit.memory.merkle import Chunk

MAX_ITEM_BYTES = 64 * 1024 * 1024
MAX_LISTING_BYTES = 64 * 1024 * 1024
"""Bytes of listing that one gateway may make us read for one `find`."""
_SHORT = 64 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Status:
    """What a gateway says of an id: known at all, in which block, how many blocks deep."""

    known: bool
    height: int | None = None
    confirmations: int = 0


class Gateways:
    """A client of one or more gateways; use it as an async context, or `close` it.

    `uploads` are the services that take data items, by default the gateways themselves.
    `timeout` is the seconds an answer may take beyond the time its bytes need, `rounds` how often
    everybody is asked, `backoff` the seconds the first pause lasts at most.

    Every method may raise StoreUnavailable, once all gateways failed, and StateCorrupt, when all
    of them answered what cannot be.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        uploads: Sequence[str] = (),
        timeout: float = 30.0,
        rounds: int = 4,
        backoff: float = 0.5,
    ) -> None:
        if not urls:
            raise ConfigError("no Arweave gateway is configured", hint="set memory.gateways")
        self._endpoints = [Endpoint(url, timeout) for url in dict.fromkeys(urls)]
        self._uploads = [Endpoint(url, timeout) for url in dict.fromkeys(uploads)]
        self._patience = Patience(rounds, backoff)
        self._opened: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; a closed client opens new ones when it is used again."""
        session, self._opened = self._opened, None
        if session:
            await session.close()

    # -- writing ---------------------------------------------------------------------------------

    async def post_item(self, raw: bytes) -> str:
        """Hand over a signed item, new or known, and return its id."""
        name = parse_item(raw).id

        async def post(endpoint: Endpoint) -> str:
            status, answer = await endpoint.post(
                self._session,
                "/v1/tx",
                raw,
                content_type="application/octet-stream",
                good=(200, 202),
            )
            if status == 200 and _read(_Receipt, answer).id != name:
                raise StateCorrupt("its receipt is one for another item")
            return name

        return await self._first(post, self._uploads)

    async def post_transaction(self, tx: WeaveTransaction, chunks: Sequence[Chunk]) -> str:
        """Hand over a layer-1 transaction with all its data, and return its id.

        A single chunk travels inside the transaction.  A gateway that fails half-way is sent only
        the chunks it has not taken, if its turn comes again.
        """
        inline, seeds = (chunks[0].data, ()) if len(chunks) == 1 else (b"", chunks)
        body = json.dumps({**tx.document(), "data": b64url(inline)}).encode()
        taken: dict[str, int] = {}

        async def post(endpoint: Endpoint) -> str:
            await endpoint.post(self._session, "/tx", body, good=(200, 202, 208))
            for chunk in seeds[taken.get(endpoint.url, 0) :]:
                await endpoint.post(self._session, "/chunk", _seed(tx, chunk))
                taken[endpoint.url] = taken.get(endpoint.url, 0) + 1
            return tx.id

        return await self._first(post)

    # -- reading ---------------------------------------------------------------------------------

    async def find(self, owner_address: str, tags: Collection[tuple[str, str]] = ()) -> Findings:
        """Return what an owner posted under all of `tags`, as the union over all gateways.

        Raises StoreUnavailable when all of them failed and none listed anything; when some did,
        the findings say which.
        """
        listings = await asyncio.gather(
            *(self._listing(endpoint, owner_address, tags) for endpoint in self._endpoints)
        )
        if all(listing.problem and not listing.entries for listing in listings):
            said = "; ".join(listing.problem for listing in listings)
            raise StoreUnavailable(said, hint="check memory.gateways")
        return united(listings)

    async def item(self, found: Found) -> Item:
        """Fetch a found item and verify its id, owner and signature over data and tags."""
        return await self.accepted(found.id, found.with_data)

    async def accepted(
        self,
        name: str,
        accept: Callable[[bytes], T],
        heard: Callable[[str, StateCorrupt], None] = lambda url, lie: None,
    ) -> T:
        """Return what `accept` makes of the data under an id, once a gateway's is accepted.

        `accept` runs in a thread and raises StateCorrupt for data that cannot be; `heard` is told
        of each gateway that sent such.
        """

        async def fetch(endpoint: Endpoint) -> T:
            data = await endpoint.get(self._session, f"/raw/{name}", limit=MAX_ITEM_BYTES)
            try:
                return await asyncio.to_thread(accept, data)
            except StateCorrupt as lie:
                heard(endpoint.url, lie)
                raise

        return await self._first(fetch)

    async def item_data(self, name: str, *, limit: int = MAX_ITEM_BYTES) -> bytes:
        """Return the data under an id, at most `limit` bytes, as a gateway has it: unverified."""
        path = f"/raw/{_checked(name)}"

        async def fetch(endpoint: Endpoint) -> bytes:
            return await endpoint.get(self._session, path, limit=limit)

        return await self._first(fetch)

    async def status(self, name: str) -> Status:
        """Return the best that any gateway says of an id; only `item` proves the data is there."""
        query = id_query(_checked(name))

        async def ask(endpoint: Endpoint) -> Status:
            page = await self._page(query, endpoint)
            entry = next((entry for entry in page.entries if entry.id == name), None)
            if entry is None or entry.height is None:
                return Status(known=entry is not None)
            info = _read(_Info, await endpoint.get(self._session, "/info", limit=_SHORT))
            return Status(True, entry.height, max(0, info.height - entry.height + 1))

        answers = await self._everyone(ask)
        return max(answers, key=lambda status: (status.known, status.confirmations))

    async def price(self, size: int, target: str = "") -> int:
        """Return the fee of a layer-1 transaction with `size` bytes, in winston (10^-12 AR)."""
        path = f"/price/{size}/{_checked(target)}" if target else f"/price/{size}"

        async def ask(endpoint: Endpoint) -> int:
            answer = await endpoint.get(self._session, path, limit=24)
            if not answer.isdigit():
                raise StateCorrupt("its price is not a number")
            return int(answer)

        return await self._first(ask)

    async def anchor(self) -> str:
        """Return a recent block's hash, which a transaction signed now has to name."""

        async def ask(endpoint: Endpoint) -> str:
            answer = await endpoint.get(self._session, "/tx_anchor", limit=64)
            anchor = answer.decode("ascii", "replace")
            if len(unb64url(anchor)) not in (32, 48):
                raise StateCorrupt("its anchor is not a hash")
            return anchor

        return await self._first(ask)

    # -- asking around ---------------------------------------------------------------------------

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit_per_host=8),
            )
        return self._opened

    async def _first(
        self, call: Callable[[Endpoint], Awaitable[T]], endpoints: Sequence[Endpoint] = ()
    ) -> T:
        return await first_answer(call, endpoints or self._endpoints, self._patience)

    async def _everyone(self, call: Callable[[Endpoint], Awaitable[T]]) -> list[T]:
        """Return the answers of those that have one; raises the first failure if none has."""

        async def one(endpoint: Endpoint) -> T | StateError:
            try:
                return await self._first(call, [endpoint])
            except StateError as problem:
                return problem

        told = await asyncio.gather(*map(one, self._endpoints))
        answers = [answer for answer in told if not isinstance(answer, StateError)]
        for problem in told if not answers else ():
            if isinstance(problem, StateError):
                raise problem
        return answers

    async def _listing(
        self, endpoint: Endpoint, owner: str, tags: Collection[tuple[str, str]]
    ) -> Listing:
        listing = Listing(endpoint.url)
        try:
            await self._read_all(endpoint, listing, owner, tags)
        except StateError as problem:
            listing.problem = str(problem)
        return listing

    async def _read_all(
        self, endpoint: Endpoint, listing: Listing, owner: str, tags: Collection[tuple[str, str]]
    ) -> None:
        left, cursor, seen = MAX_LISTING_BYTES, "", set[str]()
        while left > 0 and cursor not in seen:
            seen.add(cursor)
            query = find_query(owner, tags, cursor)
            page = await self._first(partial(self._page, query), [endpoint])
            listing.add(page, owner, tags)
            left, cursor = left - page.size, page.cursor
            if not cursor:
                return
        raise StateCorrupt(f"{endpoint.url}: its listing does not end")

    async def _page(self, query: bytes, endpoint: Endpoint) -> Page:
        _, answer = await endpoint.post(self._session, "/graphql", query, limit=MAX_PAGE_BYTES)
        return read_page(answer)


class _Receipt(BaseModel):
    id: str


class _Info(BaseModel):
    height: int = Field(ge=0)


M = TypeVar("M", bound=BaseModel)


def _read(model: type[M], answer: bytes) -> M:
    try:
        return model.model_validate_json(answer)
    except ValidationError as wrong:
        raise StateCorrupt("its answer is not the JSON it should be") from wrong


def _seed(tx: WeaveTransaction, chunk: Chunk) -> bytes:
    document = {
        "data_root": b64url(tx.data_root),
        "data_size": str(tx.data_size),
        "data_path": b64url(chunk.path),
        "offset": str(chunk.offset),
        "chunk": b64url(chunk.data),
    }
    return json.dumps(document).encode()


def _checked(name: str) -> str:
    """Return an id that may stand in a path; raises StateCorrupt for anything else."""
    if len(unb64url(name)) != 32:
        raise StateCorrupt(f"{name[:64]!r} is not an id of Arweave")
    return name
