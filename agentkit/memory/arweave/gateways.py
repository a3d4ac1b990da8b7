"""Arweave through several gateways, none of which is trusted.

Posting is as safe to repeat as reading, because the bytes are signed before: the same bytes are
the same item.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from pydantic import BaseModel, Field

from agentkit.errors import ConfigError, StateCorrupt, StateError, StoreUnavailable
from agentkit.memory.arweave.ans104 import Item, parse_item
from agentkit.memory.arweave.base64url import b64url, unb64url
from agentkit.memory.arweave.client import Client, read_json
from agentkit.memory.arweave.endpoint import Endpoint, NoAnswer
from agentkit.memory.arweave.layer1 import WeaveTransaction, parse_transaction, verify_transaction
from agentkit.memory.arweave.listing import (
    MAX_PAGE_BYTES,
    PAGE,
    Page,
    find_query,
    ids_query,
    read_page,
)
from agentkit.memory.arweave.merged_results import Listing, MergedItem, MergedResults, united
from agentkit.memory.arweave.merkle import Chunk

MAX_ITEM_BYTES = 64 * 1024 * 1024
MAX_LISTING_BYTES = 64 * 1024 * 1024
"""Bytes of listing that one gateway may make us read for one `find`."""
_SHORT = 64 * 1024
_TAKEN = (200, 202, 208)

T = TypeVar("T")
"""Makes the request for what an owner posted under some tags, after a cursor."""


@dataclass(frozen=True, slots=True)
class ItemStatus:
    """What gateways say of an id: known at all, in which block, how many blocks deep.

    `certain` when every one of them answered, so that what none knows is not there.
    """

    known: bool
    height: int | None = None
    confirmations: int = 0
    certain: bool = True


class Gateways(Client):
    """A client of one or more gateways; use it as an async context, or `close` it.

    `uploads` are the services that take data items, by default the gateways themselves.

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
        super().__init__(urls, timeout=timeout, rounds=rounds, backoff=backoff)
        self._uploads = [Endpoint(url, timeout) for url in dict.fromkeys(uploads)]

    # -- writing ---------------------------------------------------------------------------------

    async def post_item(self, raw: bytes) -> str:
        """Hand over a signed item, new or known, and return its id."""
        name = parse_item(raw).id

        async def post(endpoint: Endpoint) -> str:
            """Post to one gateway; raises StateCorrupt for a receipt of another item."""
            status, answer = await endpoint.post(
                self._session,
                "/v1/tx",
                raw,
                content_type="application/octet-stream",
                good=(200, 202),
            )
            if status == 200 and read_json(_Receipt, answer).id != name:
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
            await self._post_header(endpoint, body)
            for chunk in seeds[taken.get(endpoint.url, 0) :]:
                await endpoint.post(self._session, "/chunk", _seed(tx, chunk))
                taken[endpoint.url] = taken.get(endpoint.url, 0) + 1
            return tx.id

        return await self._first(post)

    async def seed(self, tx: WeaveTransaction, chunks: Sequence[Chunk]) -> None:
        """Hand the header and every chunk to all gateways again: what is mined may lack its data.

        Returns when one of them has taken them all.
        """
        body = json.dumps(tx.document()).encode()

        async def post(endpoint: Endpoint) -> None:
            await self._post_header(endpoint, body)
            for chunk in chunks:
                await endpoint.post(self._session, "/chunk", _seed(tx, chunk))

        await self._everyone(post)

    async def _post_header(self, endpoint: Endpoint, body: bytes) -> None:
        """Hand over a transaction; nodes that have it already say so in several ways."""
        status, said = await endpoint.post(self._session, "/tx", body, good=(*_TAKEN, 400))
        if status == 400 and b"already" not in said.lower():
            raise endpoint.refused(status, said)

    # -- reading ---------------------------------------------------------------------------------

    async def find(
        self, owner_address: str, tags: Collection[tuple[str, str]] = ()
    ) -> MergedResults:
        """Return what an owner posted under `tags`, as the union over all gateways.

        Tags of one name are alternatives.  No owner is anybody: what is found then is worth what
        the items in its data can prove.  Raises StoreUnavailable when all gateways failed and none
        listed anything; when some did, the findings say which.
        """
        listings = await asyncio.gather(
            *(self._listing(endpoint, owner_address, tags) for endpoint in self._endpoints)
        )
        if all(listing.problem and not listing.entries for listing in listings):
            said = "; ".join(listing.problem for listing in listings)
            raise StoreUnavailable(said, hint="check memory.gateways")
        return united(listings)

    async def item(self, found: MergedItem) -> Item:
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
            data = await self._data(endpoint, name, MAX_ITEM_BYTES)
            try:
                return await asyncio.to_thread(accept, data)
            except StateCorrupt as lie:
                heard(endpoint.url, lie)
                raise

        return await self._first(fetch)

    async def item_data(self, name: str, *, limit: int = MAX_ITEM_BYTES) -> bytes:
        """Return the data under an id, at most `limit` bytes, as a gateway has it: unverified."""
        return await self.data_as(name, bytes, limit=limit)

    async def data_as(
        self, name: str, read: Callable[[bytes], T], *, limit: int = MAX_ITEM_BYTES
    ) -> T:
        """Return what `read` makes of the data under an id, at most `limit` bytes of it.

        Nothing is verified but by `read`, which runs in a thread; where it raises StateCorrupt the
        next gateway is asked.
        """
        path = _checked(name)

        async def fetch(endpoint: Endpoint) -> T:
            return await asyncio.to_thread(read, await self._data(endpoint, path, limit))

        return await self._first(fetch)

    async def content(self, name: str, *, limit: int = MAX_ITEM_BYTES) -> bytes:
        """Return the data under the id of an item or transaction, its signature verified."""
        path = _checked(name)

        async def fetch(endpoint: Endpoint) -> bytes:
            """Fetch from one gateway and prove the bytes, as an item or a transaction's data."""
            data = await self._data(endpoint, path, limit)
            page = await self._page(ids_query([path]), endpoint)
            entries = {entry.id: entry for entry in page.entries if entry.id == path}
            for found in united([Listing(endpoint.url, entries)]).found:
                with suppress(StateCorrupt):  # a transaction's signature covers other fields
                    return (await asyncio.to_thread(found.with_data, data)).data
            header = await endpoint.get(self._session, f"/tx/{path}", limit=_SHORT)
            tx, _ = parse_transaction(header)
            if tx.id != path:
                raise StateCorrupt(f"it has transaction {tx.id} under the name {path}")
            await asyncio.to_thread(verify_transaction, tx, data)
            return data

        return await self._first(fetch)

    async def _data(self, endpoint: Endpoint, name: str, limit: int) -> bytes:
        """Fetch data as it is; a gateway without `/raw` has it at the root."""
        path, good = f"/raw/{name}", (200, 404)
        status, data = await endpoint.look(self._session, path, limit=limit, good=good)
        if status == 404:
            return await endpoint.get(self._session, f"/{name}", limit=limit)
        return data

    async def holds(self, name: str, data: bytes) -> bool:
        """Whether some gateway serves exactly `data` under an id.

        Raises StoreUnavailable while one of them may still turn out to.
        """
        _checked(name)

        async def look(endpoint: Endpoint) -> bool:
            if await self._data(endpoint, name, max(len(data), _SHORT)) != data:
                raise StateCorrupt("what it serves is not what was posted")
            return True

        try:
            return await self._first(look)
        except StateCorrupt:
            return False
        except StoreUnavailable as error:
            if isinstance(error.__cause__, NoAnswer) and not error.__cause__.passing:
                return False
            raise

    async def status(self, name: str) -> ItemStatus:
        """Return the best that any gateway says of an id; only `item` proves the data is there."""
        return (await self.statuses([name]))[name]

    async def statuses(self, names: Sequence[str]) -> dict[str, ItemStatus]:
        """Return the best that any gateway says of each id."""
        wanted = [_checked(name) for name in dict.fromkeys(names)]
        if not wanted:
            return {}
        told = await self._everyone(partial(self._statuses, wanted))
        certain = len(told) == len(self._endpoints)
        unknown = ItemStatus(known=False)
        return {
            name: replace(
                max((one.get(name, unknown) for one in told), key=_sureness), certain=certain
            )
            for name in wanted
        }

    async def _statuses(self, names: Sequence[str], endpoint: Endpoint) -> dict[str, ItemStatus]:
        """Return what one gateway says of items: at which height they are, and how deep."""
        pages = [
            await self._page(ids_query(names[place : place + PAGE]), endpoint)
            for place in range(0, len(names), PAGE)
        ]
        heights = {entry.id: entry.height for page in pages for entry in page.entries}
        top = 0
        if any(height is not None for height in heights.values()):
            top = await self._height(endpoint)
        return {
            name: ItemStatus(True, height, 0 if height is None else max(0, top - height + 1))
            for name, height in heights.items()
        }

    async def heights(self) -> list[int]:
        """Return the number of the newest block, as each gateway has it that answers."""
        return await self._everyone(self._height)

    async def _height(self, endpoint: Endpoint) -> int:
        info = await endpoint.get(self._session, "/info", limit=_SHORT)
        return read_json(_Info, info).height

    async def balance(self, address: str) -> int:
        """Return the winston that a wallet holds."""
        return await self._number(f"/wallet/{_checked(address)}/balance")

    async def price(self, size: int, target: str = "") -> int:
        """Return the fee of a layer-1 transaction with `size` bytes, in winston (10^-12 AR)."""
        path = f"/price/{size}/{_checked(target)}" if target else f"/price/{size}"

        return await self._number(path)

    async def _number(self, path: str) -> int:
        async def ask(endpoint: Endpoint) -> int:
            answer = await endpoint.get(self._session, path, limit=24)
            if not answer.isdigit():
                raise StateCorrupt("its answer is not a number")
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
        """Return what one gateway lists, as far as it came."""
        listing = Listing(endpoint.url)
        try:
            await self._read_all(endpoint, listing, owner, tags)
        except StateError as problem:
            listing.problem = str(problem)
        return listing

    async def _read_all(
        self, endpoint: Endpoint, listing: Listing, owner: str, tags: Collection[tuple[str, str]]
    ) -> None:
        """Read a listing page by page; one that repeats its cursor does not end, and is refused."""
        left = MAX_LISTING_BYTES
        cursor = ""
        seen = set[str]()
        while left > 0 and cursor not in seen:
            seen.add(cursor)
            asked = find_query(owner, tags, cursor)
            page = await self._first(partial(self._page, asked), [endpoint])
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


def _sureness(status: ItemStatus) -> tuple[bool, int]:
    return status.known, status.confirmations


def _seed(tx: WeaveTransaction, chunk: Chunk) -> bytes:
    """Return a chunk as nodes take it at `/chunk`."""
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
