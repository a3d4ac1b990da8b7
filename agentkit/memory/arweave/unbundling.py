"""Finds items inside of layer-1 transactions and unpacks them here.

Most gateways do not unpack bundles, so our transactions have a tag that says whose items they
contain.  Anybody can post a transaction with that tag, so only items with the owner's signature
count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from agentkit.errors import StateCorrupt, StateError
from agentkit.memory.arweave.ans104 import BUNDLE_TAGS, Item, parse_entry, parse_item, split_bundle
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.arweave.merged_results import Report
from agentkit.memory.arweave.tags import Tags

APP_BUNDLE: Tags = (("App-Name", "agentkit"), ("Schema", "1"), ("Kind", "bundle"))
MOST_BUNDLES = 10_000
"""How many transactions are read at most: anybody can post any number with our tags."""


def bundle_tags(owner: str) -> Tags:
    """Return the tags of a bundle with items of `owner`, an address as gateways index it."""
    return (*BUNDLE_TAGS, *APP_BUNDLE, ("Agent", owner))


@dataclass(frozen=True, slots=True)
class Carried:
    """An item, the id of its transaction, and that one's block, None until it is mined."""

    item: Item
    carrier: str
    height: int | None


@dataclass(frozen=True, slots=True)
class Unbundled:
    """Items of an owner in layer-1 transactions, oldest first.

    `refused` has a sentence for each transaction that could not be read.
    """

    items: tuple[Carried, ...]
    reports: tuple[Report, ...]
    refused: tuple[str, ...]


async def find_bundled_items(
    gateways: Gateways, owner: str, *, skip: Collection[str] = (), at_once: int = 8
) -> Unbundled:
    """Find the items of an owner in layer-1 transactions, and verify their signatures.

    Transactions whose ids are in `skip` are not read; `at_once` are read at the same time.  Raises
    StoreUnavailable if no gateway lists anything.
    """
    results = await gateways.find("", bundle_tags(owner))
    limit = asyncio.Semaphore(at_once)
    items: dict[str, Carried] = {}
    refused: list[str] = []

    async def read_bundle(name: str, height: int | None) -> None:
        """Add the owner's items in one transaction, or the reason why it was refused."""
        try:
            async with limit:
                owned = await gateways.fetch_accepted(name, lambda data: _owned_items(data, owner))
        except StateError as error:
            refused.append(f"transaction {name}: {error}")
        else:
            for item in owned:
                items.setdefault(item.id, Carried(item=item, carrier=name, height=height))

    to_read = [listed for listed in results.items if listed.id not in skip][-MOST_BUNDLES:]
    await asyncio.gather(*(read_bundle(listed.id, listed.height) for listed in to_read))

    oldest_first = sorted(
        items.values(), key=lambda carried: (carried.height is None, carried.height or 0)
    )
    return Unbundled(items=tuple(oldest_first), reports=results.reports, refused=tuple(refused))


def _owned_items(data: bytes, owner: str) -> list[Item]:
    """Return the items of an owner in a bundle; raises StateCorrupt if one of them is not genuine.

    The whole bundle is refused then, because another gateway may have it intact.  To leave out the
    one item would lose it silently.
    """
    return [parse_entry(name, raw) for name, raw in split_bundle(data) if _claims_owner(raw, owner)]


def _claims_owner(raw: bytes, owner: str) -> bool:
    """Whether an item names this owner; bytes that are not an item do not."""
    try:
        return parse_item(raw).address == owner
    except StateCorrupt:
        return False
