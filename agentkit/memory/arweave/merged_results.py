"""Merges the listings of several gateways: the items, and how each gateway did."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from agentkit.errors import StateCorrupt
from agentkit.memory.arweave.ans104 import Item, from_fields
from agentkit.memory.arweave.listing import Claim, Listed, Page, check_entry
from agentkit.memory.arweave.tags import Tags


@dataclass(frozen=True, slots=True)
class MergedItem:
    """An item that gateways list; `height` is None until it is in a block.

    If gateways describe one id differently, `claims` has each description.  `bundles` are the
    bundles in which gateways found the item.  All of it is unverified until `with_data`.
    """

    id: str
    height: int | None
    claims: tuple[Claim, ...]
    bundles: frozenset[str] = frozenset()

    @property
    def tags(self) -> Tags:
        """The tags of the first description."""
        return self.claims[0].tags

    def with_data(self, data: bytes) -> Item:
        """Return the verified item of this id with its data.

        Each description is tried.  Raises StateCorrupt if none makes a valid item.
        """
        last_error = StateCorrupt(f"nothing is claimed of {self.id}")
        for claim in self.claims:
            try:
                return _verified_item(self.id, claim, data)
            except StateCorrupt as error:
                last_error = error
        raise last_error


@dataclass(frozen=True, slots=True)
class Report:
    """How one gateway did.

    `listed` counts its items, `missing` those that only other gateways list.  `problem` is what
    went wrong, "" if nothing did.
    """

    url: str
    listed: int
    missing: int
    problem: str


@dataclass(frozen=True, slots=True)
class MergedResults:
    """All items that any gateway lists, oldest first, and a report on each gateway."""

    items: tuple[MergedItem, ...]
    reports: tuple[Report, ...]

    @property
    def failed(self) -> tuple[Report, ...]:
        """The gateways that failed before the end of their listing, or listed false entries."""
        return tuple(report for report in self.reports if report.problem)

    @property
    def behind(self) -> tuple[Report, ...]:
        """The gateways without a problem that lack an item that another one lists."""
        return tuple(report for report in self.reports if report.missing and not report.problem)


@dataclass(slots=True)
class Listing:
    """The entries of one gateway while its pages are read; `problem` is the first error."""

    url: str
    entries: dict[str, Listed] = field(default_factory=dict)
    problem: str = ""

    def add(self, page: Page, owner: str, tags: Collection[tuple[str, str]]) -> None:
        """Add the entries of a page that answer the query; the first that does not is a problem."""
        for entry in page.entries:
            try:
                check_entry(entry, owner, tags)
            except StateCorrupt as error:
                self.problem = self.problem or f"{self.url}: {error}"
            else:
                self.entries.setdefault(entry.id, entry)


def merge_listings(listings: Sequence[Listing]) -> MergedResults:
    """Return the union of listings by id, sorted by height, items without a block last."""
    entries_by_id: dict[str, list[Listed]] = {}
    for listing in listings:
        for name, entry in listing.entries.items():
            entries_by_id.setdefault(name, []).append(entry)
    items = [_merge_entries(name, entries) for name, entries in entries_by_id.items()]
    items.sort(key=lambda item: (item.height is None, item.height or 0))

    reports = tuple(
        Report(
            url=listing.url,
            listed=len(listing.entries),
            missing=len(entries_by_id) - len(listing.entries),
            problem=listing.problem,
        )
        for listing in listings
    )
    return MergedResults(items=tuple(items), reports=reports)


def _merge_entries(name: str, entries: Sequence[Listed]) -> MergedItem:
    """Return what several gateways list of one id."""
    heights = [entry.height for entry in entries if entry.height is not None]
    unique_claims = dict.fromkeys(entry.claim for entry in entries)
    return MergedItem(
        id=name,
        height=min(heights, default=None),
        claims=tuple(unique_claims),
        bundles=frozenset(entry.bundle for entry in entries if entry.bundle),
    )


def _verified_item(name: str, claim: Claim, data: bytes) -> Item:
    """Return the item of a claim and its data; raises StateCorrupt if its id is not `name`."""
    item = from_fields(
        owner=claim.owner,
        signature=claim.signature,
        tags=claim.tags,
        data=data,
        anchor=claim.anchor,
        target=claim.target,
    )
    if item.id != name:
        raise StateCorrupt(f"what is claimed of {name} is true of {item.id}")
    return item
