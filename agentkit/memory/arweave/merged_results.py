"""What several gateways list, put together: items found, and how each gateway did."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from agentkit.errors import StateCorrupt
from agentkit.memory.arweave.ans104 import Item, from_fields
from agentkit.memory.arweave.listing import Claim, Listed, Page, check
from agentkit.memory.arweave.tags import Tags


@dataclass(frozen=True, slots=True)
class MergedItem:
    """An item that gateways list; `height` is None until a block holds it.

    Its tags are claims until its data is there.  Gateways that tell different tales of one id
    each have theirs in `claims`, and in `bundles` where they took it from.
    """

    id: str
    height: int | None
    claims: tuple[Claim, ...]
    bundles: frozenset[str] = frozenset()

    @property
    def tags(self) -> Tags:
        """Tags as the first gateway has them."""
        return self.claims[0].tags

    def with_data(self, data: bytes) -> Item:
        """Return the verified item of this id; raises StateCorrupt when no claim holds."""
        problem = StateCorrupt(f"nothing is claimed of {self.id}")
        for claim in self.claims:
            try:
                return _proven(self.id, claim, data)
            except StateCorrupt as lie:
                problem = lie
        raise problem


@dataclass(frozen=True, slots=True)
class Report:
    """How one gateway did: items it listed, items only others list, what went wrong."""

    url: str
    listed: int
    missing: int
    problem: str


@dataclass(frozen=True, slots=True)
class MergedResults:
    """The union of what all gateways list, oldest first, and how each of them did."""

    found: tuple[MergedItem, ...]
    reports: tuple[Report, ...]

    @property
    def failed(self) -> tuple[Report, ...]:
        """Gateways that did not list all they hold, or listed what cannot be."""
        return tuple(report for report in self.reports if report.problem)

    @property
    def behind(self) -> tuple[Report, ...]:
        """Gateways that answered well and lack something another one lists."""
        return tuple(r for r in self.reports if r.missing and not r.problem)


@dataclass(slots=True)
class Listing:
    """What one gateway lists, as it comes in; `problem` is the first thing that went wrong."""

    url: str
    entries: dict[str, Listed] = field(default_factory=dict)
    problem: str = ""

    def add(self, page: Page, owner: str, tags: Collection[tuple[str, str]]) -> None:
        """Take what can be true of a page, and note what cannot."""
        for entry in page.entries:
            try:
                check(entry, owner, tags)
            except StateCorrupt as lie:
                self.problem = self.problem or f"{self.url}: {lie}"
            else:
                self.entries.setdefault(entry.id, entry)


def united(listings: Sequence[Listing]) -> MergedResults:
    """Return the union of listings by id."""
    told: dict[str, list[Listed]] = {}
    for listing in listings:
        for name, entry in listing.entries.items():
            told.setdefault(name, []).append(entry)
    found = sorted((_merged(name, tales) for name, tales in told.items()), key=_age)
    reports = (
        Report(one.url, len(one.entries), len(told) - len(one.entries), one.problem)
        for one in listings
    )
    return MergedResults(tuple(found), tuple(reports))


def _merged(name: str, tales: Sequence[Listed]) -> MergedItem:
    heights = [tale.height for tale in tales if tale.height is not None]
    claims = dict.fromkeys(tale.claim for tale in tales)
    bundles = frozenset(tale.bundle for tale in tales if tale.bundle)
    return MergedItem(name, min(heights, default=None), tuple(claims), bundles)


def _age(found: MergedItem) -> tuple[bool, int]:
    return found.height is None, found.height or 0


def _proven(name: str, claim: Claim, data: bytes) -> Item:
    """Return the item that a claim and its data make; raises StateCorrupt for one of another id."""
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
