"""Items that travel in layer-1 transactions, found and taken apart here.

Most gateways unbundle nothing, so our transactions say whose items are in them.  Anybody can say
so: what counts is that an item in the data has our signature.
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
"""Transactions that are looked into: anybody can tag theirs as ours."""


def bundle_tags(owner: str) -> Tags:
    """Return the tags of a transaction around items of `owner` (as gateways index it)."""
    return (*BUNDLE_TAGS, *APP_BUNDLE, ("Agent", owner))


@dataclass(frozen=True, slots=True)
class Carried:
    """An item, the transaction it came in, and the block that holds that, None for none yet."""

    item: Item
    carrier: str
    height: int | None


@dataclass(frozen=True, slots=True)
class Unbundled:
    """Items of an owner in layer-1 transactions, oldest first.

    `refused` says what was wrong with transactions that could not be read.
    """

    items: tuple[Carried, ...]
    reports: tuple[Report, ...]
    refused: tuple[str, ...]


async def unbundled(
    gateways: Gateways, owner: str, *, but: Collection[str] = (), at_once: int = 8
) -> Unbundled:
    """Return what the transactions say to hold of an owner and do hold, signatures checked.

    Transactions in `but` are not looked into.  Raises StoreUnavailable when no gateway lists
    anything.
    """
    findings = await gateways.find("", bundle_tags(owner))
    limit = asyncio.Semaphore(at_once)
    items: dict[str, Carried] = {}
    refused: list[str] = []

    async def one(name: str, height: int | None) -> None:
        try:
            async with limit:
                found = await gateways.accepted(name, lambda data: _owned(data, owner))
            for item in found:
                items.setdefault(item.id, Carried(item, name, height))
        except StateError as error:
            refused.append(f"transaction {name}: {error}")

    found = [one for one in findings.found if one.id not in but][-MOST_BUNDLES:]
    await asyncio.gather(*(one(f.id, f.height) for f in found))
    ordered = sorted(items.values(), key=lambda one: (one.height is None, one.height or 0))
    return Unbundled(tuple(ordered), findings.reports, tuple(refused))


def _owned(data: bytes, owner: str) -> list[Item]:
    """Return the items of an owner in a bundle; raises StateCorrupt where one of them is forged.

    Another gateway may have it whole; one that is left out would be missed by nobody.
    """
    return [parse_entry(name, raw) for name, raw in split_bundle(data) if _names(raw, owner)]


def _names(raw: bytes, owner: str) -> bool:
    """Whether an item says that it is an owner's; what is no item at all is nobody's."""
    try:
        return parse_item(raw).address == owner
    except StateCorrupt:
        return False
