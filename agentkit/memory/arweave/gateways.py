"""A client of several Arweave gateways, none of which is trusted.

Posting may be repeated as safely as reading: the bytes were signed before, and the same bytes are
the same item.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
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
from agentkit.memory.arweave.layer1 import (
    WeaveTransaction,
    chunk_body,
    parse_transaction,
    verify_transaction,
)
from agentkit.memory.arweave.listing import (
    MAX_PAGE_BYTES,
    PAGE,
    Page,
    find_query,
    ids_query,
    read_page,
)
from agentkit.memory.arweave.merged_results import (
    Listing,
    MergedItem,
    MergedResults,
    merge_listings,
)
from agentkit.memory.arweave.merkle import Chunk

MAX_ITEM_BYTES = 64 * 1024 * 1024
MAX_LISTING_BYTES = 64 * 1024 * 1024
"""How many bytes of listings are read from one gateway in one `find`."""
_SHORT = 64 * 1024
_TAKEN = (200, 202, 208)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ItemStatus:
    """What gateways say of an id: whether they know it, in which block, and how deep that is.

    `certain` says that every gateway answered, so that an id that none knows is not there.
    """

    known: bool
    height: int | None = None
    confirmations: int = 0
    certain: bool = True


class Gateways(Client):
    """A client of one or more gateways; use it with `async with`, or call `close`.

    `uploads` are the URLs of services that take data items, by default the gateways themselves.

    Every method may raise StoreUnavailable, once all gateways failed, and StateCorrupt, if all of
    them answered something that cannot be true.
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
        """Post a signed item and return its id; posting it again is no error."""
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
        """Post a layer-1 transaction with all its data, and return its id.

        A single chunk is sent inside the transaction's JSON, more than one chunk by chunk.  If a
        gateway fails half-way and is asked again, only the chunks that it has not taken are sent.
        """
        if len(chunks) == 1:
            inline_data = chunks[0].data
            separate_chunks: Sequence[Chunk] = ()
        else:
            inline_data = b""
            separate_chunks = chunks
        body = json.dumps({**tx.document(), "data": b64url(inline_data)}).encode()
        taken_counts: dict[str, int] = defaultdict(int)  # by URL

        async def post(endpoint: Endpoint) -> str:
            await self._post_header(endpoint, body)
            for chunk in separate_chunks[taken_counts[endpoint.url] :]:
                await endpoint.post(self._session, "/chunk", chunk_body(tx, chunk))
                taken_counts[endpoint.url] += 1
            return tx.id

        return await self._first(post)

    async def seed(self, tx: WeaveTransaction, chunks: Sequence[Chunk]) -> None:
        """Send a transaction's header and all its chunks to every gateway again.

        A block proves only the header: the data of a mined transaction may have got lost.  Returns
        once every gateway was tried and at least one took everything.
        """
        body = json.dumps(tx.document()).encode()

        async def post(endpoint: Endpoint) -> None:
            await self._post_header(endpoint, body)
            for chunk in chunks:
                await endpoint.post(self._session, "/chunk", chunk_body(tx, chunk))

        await self._ask_all(post)

    async def _post_header(self, endpoint: Endpoint, body: bytes) -> None:
        """Post a transaction's JSON.

        A node that has it already may answer 208, or 400 with "already" in the text: both count as
        taken.
        """
        status, answer = await endpoint.post(self._session, "/tx", body, good=(*_TAKEN, 400))
        if status == 400 and b"already" not in answer.lower():
            raise endpoint.refused(status, answer)

    # -- reading ---------------------------------------------------------------------------------

    async def find(
        self, owner_address: str, tags: Collection[tuple[str, str]] = ()
    ) -> MergedResults:
        """Return the items that an owner posted with these tags, merged from all gateways.

        Several tags of one name are alternatives.  With the owner "" anybody's items are listed, so
        that the caller has to check who signed them.  Raises StoreUnavailable if all gateways
        failed and none listed anything; the results say which ones failed.
        """
        listings = await asyncio.gather(
            *(self._listing(endpoint, owner_address, tags) for endpoint in self._endpoints)
        )
        if all(listing.problem and not listing.entries for listing in listings):
            problems = "; ".join(listing.problem for listing in listings)
            raise StoreUnavailable(problems, hint="check memory.gateways")
        return merge_listings(listings)

    async def item(self, listed: MergedItem) -> Item:
        """Fetch a listed item and verify its id, owner and signature over data and tags."""
        return await self.fetch_accepted(listed.id, listed.with_data)

    async def fetch_accepted(
        self,
        name: str,
        accept: Callable[[bytes], T],
        on_refused: Callable[[str, StateCorrupt], None] | None = None,
    ) -> T:
        """Fetch the data under an id and return `accept(data)`.

        `accept` runs in a thread.  If it raises StateCorrupt, `on_refused` is called with the
        gateway's URL and the error, and the next gateway is asked.
        """

        async def fetch(endpoint: Endpoint) -> T:
            data = await self._fetch_data(endpoint, name, MAX_ITEM_BYTES)
            try:
                return await asyncio.to_thread(accept, data)
            except StateCorrupt as error:
                if on_refused is not None:
                    on_refused(endpoint.url, error)
                raise

        return await self._first(fetch)

    async def item_data(self, name: str, *, limit: int = MAX_ITEM_BYTES) -> bytes:
        """Return the data under an id, at most `limit` bytes, without verifying it."""
        return await self.read_data(name, bytes, limit=limit)

    async def read_data(
        self, name: str, read: Callable[[bytes], T], *, limit: int = MAX_ITEM_BYTES
    ) -> T:
        """Fetch the data under an id, at most `limit` bytes, and return `read(data)`.

        `read` runs in a thread and has to verify the data; if it raises StateCorrupt, the next
        gateway is asked.
        """
        checked_id = _checked_id(name)

        async def fetch(endpoint: Endpoint) -> T:
            data = await self._fetch_data(endpoint, checked_id, limit)
            return await asyncio.to_thread(read, data)

        return await self._first(fetch)

    async def content(self, name: str, *, limit: int = MAX_ITEM_BYTES) -> bytes:
        """Return the data under the id of an item or transaction, after verifying its signature."""
        checked_id = _checked_id(name)

        async def fetch(endpoint: Endpoint) -> bytes:
            data = await self._fetch_data(endpoint, checked_id, limit)
            await self._verify_content(endpoint, checked_id, data)
            return data

        return await self._first(fetch)

    async def _verify_content(self, endpoint: Endpoint, name: str, data: bytes) -> None:
        """Verify data as that of a data item, else as that of a transaction.

        The signatures of the two cover different fields, and an id does not say which it is of.
        Raises StateCorrupt.
        """
        page = await self._fetch_page(ids_query([name]), endpoint)
        entries = {entry.id: entry for entry in page.entries if entry.id == name}
        for listed in merge_listings([Listing(endpoint.url, entries)]).items:
            with suppress(StateCorrupt):
                await asyncio.to_thread(listed.with_data, data)
                return

        header = await endpoint.get(self._session, f"/tx/{name}", limit=_SHORT)
        tx, _ = parse_transaction(header)
        if tx.id != name:
            raise StateCorrupt(f"it has transaction {tx.id} under the name {name}")
        await asyncio.to_thread(verify_transaction, tx, data)

    async def _fetch_data(self, endpoint: Endpoint, name: str, limit: int) -> bytes:
        """Fetch data from one gateway; one without the path `/raw` has it at the root."""
        status, data = await endpoint.look(
            self._session, f"/raw/{name}", limit=limit, good=(200, 404)
        )
        if status == 404:
            return await endpoint.get(self._session, f"/{name}", limit=limit)
        return data

    async def holds(self, name: str, data: bytes) -> bool:
        """Whether some gateway serves exactly `data` under an id.

        Raises StoreUnavailable if none does and one of them failed in a way that may pass.
        """
        _checked_id(name)

        async def compare(endpoint: Endpoint) -> bool:
            served = await self._fetch_data(endpoint, name, max(len(data), _SHORT))
            if served != data:
                raise StateCorrupt("what it serves is not what was posted")
            return True

        try:
            return await self._first(compare)
        except StateCorrupt:
            return False
        except StoreUnavailable as error:
            if isinstance(error.__cause__, NoAnswer) and not error.__cause__.passing:
                return False
            raise

    async def status(self, name: str) -> ItemStatus:
        """Return the status of an id; it does not prove that the data is there, `item` does."""
        return (await self.statuses([name]))[name]

    async def statuses(self, names: Sequence[str]) -> dict[str, ItemStatus]:
        """Return the status of each id, from the gateway that says the most of it."""
        unique_names = [_checked_id(name) for name in dict.fromkeys(names)]
        if not unique_names:
            return {}
        answers = await self._ask_all(partial(self._fetch_statuses, unique_names))
        certain = len(answers) == len(self._endpoints)
        unknown = ItemStatus(known=False)

        best: dict[str, ItemStatus] = {}
        for name in unique_names:
            candidates = [answer.get(name, unknown) for answer in answers]
            status = max(candidates, key=lambda status: (status.known, status.confirmations))
            best[name] = replace(status, certain=certain)
        return best

    async def _fetch_statuses(
        self, names: Sequence[str], endpoint: Endpoint
    ) -> dict[str, ItemStatus]:
        """Return the statuses of the ids that one gateway knows."""
        heights: dict[str, int | None] = {}
        for start in range(0, len(names), PAGE):
            page = await self._fetch_page(ids_query(names[start : start + PAGE]), endpoint)
            heights |= {entry.id: entry.height for entry in page.entries}

        newest = 0
        if any(height is not None for height in heights.values()):
            newest = await self._fetch_height(endpoint)
        statuses: dict[str, ItemStatus] = {}
        for name, height in heights.items():
            # The newest block itself is one confirmation.
            confirmations = 0 if height is None else max(0, newest - height + 1)
            statuses[name] = ItemStatus(known=True, height=height, confirmations=confirmations)
        return statuses

    async def heights(self) -> list[int]:
        """Return the height of the newest block according to each gateway that answers."""
        return await self._ask_all(self._fetch_height)

    async def _fetch_height(self, endpoint: Endpoint) -> int:
        info = await endpoint.get(self._session, "/info", limit=_SHORT)
        return read_json(_Info, info).height

    async def balance(self, address: str) -> int:
        """Return a wallet's balance in winston (10^-12 AR)."""
        return await self._fetch_number(f"/wallet/{_checked_id(address)}/balance")

    async def price(self, size: int, target: str = "") -> int:
        """Return the fee of a layer-1 transaction with `size` bytes of data, in winston."""
        path = f"/price/{size}/{_checked_id(target)}" if target else f"/price/{size}"
        return await self._fetch_number(path)

    async def _fetch_number(self, path: str) -> int:
        """Return the number that a gateway answers as plain text."""

        async def ask(endpoint: Endpoint) -> int:
            answer = await endpoint.get(self._session, path, limit=24)
            if not answer.isdigit():
                raise StateCorrupt("its answer is not a number")
            return int(answer)

        return await self._first(ask)

    async def anchor(self) -> str:
        """Return a recent block's hash, which a new transaction has to contain."""

        async def ask(endpoint: Endpoint) -> str:
            answer = await endpoint.get(self._session, "/tx_anchor", limit=64)
            anchor = answer.decode("ascii", "replace")
            if len(unb64url(anchor)) not in (32, 48):  # a transaction's id, or a block's hash
                raise StateCorrupt("its anchor is not a hash")
            return anchor

        return await self._first(ask)

    # -- asking all gateways ---------------------------------------------------------------------

    async def _ask_all(self, call: Callable[[Endpoint], Awaitable[T]]) -> list[T]:
        """Return the answers of all gateways that answer; raises the first error if none does."""

        async def ask(endpoint: Endpoint) -> T | StateError:
            try:
                return await self._first(call, [endpoint])
            except StateError as error:
                return error

        outcomes = await asyncio.gather(*map(ask, self._endpoints))
        answers: list[T] = []
        errors: list[StateError] = []
        for outcome in outcomes:
            if isinstance(outcome, StateError):
                errors.append(outcome)
            else:
                answers.append(outcome)
        if errors and not answers:
            raise errors[0]
        return answers

    async def _listing(
        self, endpoint: Endpoint, owner: str, tags: Collection[tuple[str, str]]
    ) -> Listing:
        """Return what one gateway lists, up to its first failure, which is then its problem."""
        listing = Listing(endpoint.url)
        try:
            await self._read_pages(endpoint, listing, owner=owner, tags=tags)
        except StateError as error:
            listing.problem = str(error)
        return listing

    async def _read_pages(
        self,
        endpoint: Endpoint,
        listing: Listing,
        *,
        owner: str,
        tags: Collection[tuple[str, str]],
    ) -> None:
        """Read a gateway's listing page by page into `listing`; raises StateCorrupt.

        A gateway could send pages for ever.  So the bytes are limited, and a cursor that comes
        again ends the reading.
        """
        remaining_bytes = MAX_LISTING_BYTES
        cursor = ""
        used_cursors = set[str]()
        while remaining_bytes > 0 and cursor not in used_cursors:
            used_cursors.add(cursor)
            query = find_query(owner, tags, cursor)
            page = await self._first(partial(self._fetch_page, query), [endpoint])
            listing.add(page, owner, tags)
            remaining_bytes -= page.size
            cursor = page.cursor
            if not cursor:
                return
        raise StateCorrupt(f"{endpoint.url}: its listing does not end")

    async def _fetch_page(self, query: bytes, endpoint: Endpoint) -> Page:
        _, answer = await endpoint.post(self._session, "/graphql", query, limit=MAX_PAGE_BYTES)
        return read_page(answer)


class _Receipt(BaseModel):
    id: str


class _Info(BaseModel):
    height: int = Field(ge=0)


def _checked_id(name: str) -> str:
    """Return an id that is safe in a URL's path; raises StateCorrupt for anything else."""
    if len(unb64url(name)) != 32:
        raise StateCorrupt(f"{name[:64]!r} is not an id of Arweave")
    return name
