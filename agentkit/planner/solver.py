"""Choosing one offer for every node.  The one function a stronger solver replaces is `solve`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentkit.errors import PastDeadline
from agentkit.market.offer import Offer


@dataclass(frozen=True)
class Candidate:
    """A node to place: its offers, best first, how many purchases, what it waits for.

    A node with no offers runs on this machine and takes `eta` seconds.
    """

    name: str
    offers: tuple[Offer, ...]
    parents: tuple[str, ...]
    items: int = 1
    eta: float = 0.0

    def seconds(self, chosen: Mapping[str, Offer]) -> float:
        offer = chosen.get(self.name)
        return offer.seconds(self.items) if offer else self.eta


def solve(candidates: Sequence[Candidate], deadline: float | None) -> dict[str, Offer]:
    """Return an offer for every node that has some, finishing within `deadline` seconds.

    Starts from each node's first offer and, while that is too late, buys time on the longest
    path where a second costs least.  Raises PastDeadline when even the fastest offers are late.
    """
    chosen = {node.name: node.offers[0] for node in candidates if node.offers}
    if deadline is None:
        return chosen
    while True:
        finish, path = longest_path(candidates, chosen)
        if finish <= deadline:
            return chosen
        swaps = [
            (_price_of_a_second(node, chosen[node.name], other), node.name, other)
            for node in candidates
            if node.name in path and node.name in chosen
            for other in node.offers
            if other.seconds(node.items) < chosen[node.name].seconds(node.items)
        ]
        if not swaps:
            raise PastDeadline(finish, deadline, path)
        _, name, offer = min(swaps, key=lambda swap: swap[:2])
        chosen[name] = offer


def _price_of_a_second(node: Candidate, now: Offer, other: Offer) -> float:
    dearer = (other.price.units - now.price.units) * node.items
    return dearer / (now.seconds(node.items) - other.seconds(node.items))


def longest_path(
    candidates: Sequence[Candidate], chosen: Mapping[str, Offer]
) -> tuple[float, tuple[str, ...]]:
    """Return when the last node ends, in seconds, and the nodes it waited for one by one.

    `candidates` stand in an order in which each comes after its parents.
    """
    ends: dict[str, float] = {}
    before: dict[str, str | None] = {}
    for node in candidates:
        latest = max(node.parents, key=lambda name: ends[name], default=None)
        before[node.name] = latest
        ends[node.name] = (ends[latest] if latest else 0.0) + node.seconds(chosen)
    if not ends:
        return 0.0, ()
    name: str | None = max(ends, key=lambda key: ends[key])
    finish, path = ends[name or ""], []
    while name:
        path.append(name)
        name = before[name]
    return finish, tuple(reversed(path))
