"""The nodes of a graph as they are placed: their offers, their order, what passes between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agentkit.market.offer import Offer
from agentkit.planner.solver.schedule import scheduled


@dataclass(frozen=True)
class Candidate:
    """A node to place: its offers, best first, how many purchases, what it waits for.

    `costs` are what each offer comes to in base units as the solver weighs it, `seconds` how long
    it takes.  A node with no offers runs on this machine and takes `eta` seconds.  `sizes` are
    the bytes that come from each parent.  `ordered`: a policy has ordered the offers, and that
    order has to hold as far as the deadline allows.
    """

    name: str
    offers: tuple[Offer, ...]
    parents: tuple[str, ...]
    items: int = 1
    eta: float = 0.0
    costs: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    ordered: bool = False

    def lasts(self, offer: Offer | None) -> float:
        """Return how long the node takes with an offer of its own, None for this machine."""
        if offer is None:
            return self.eta
        if not self.seconds:
            return offer.seconds(self.items)
        return next(s for s, o in zip(self.seconds, self.offers, strict=True) if o is offer)

    def demand(self, offer: Offer | None) -> int:
        """Return how many purchases are made at once."""
        return min(self.items, max(offer.lanes, 1)) if offer else 1


@dataclass(frozen=True)
class Timeline:
    """When each node begins and ends, in seconds from the start, and the longest way there."""

    ends: Mapping[str, float]
    path: tuple[str, ...]

    @property
    def finish(self) -> float:
        return max(self.ends.values(), default=0.0)


def timeline(candidates: Sequence[Candidate], chosen: Mapping[str, Offer]) -> Timeline:
    """Return when the nodes are done with the offers chosen, on the lanes that providers have.

    `candidates` stand in an order in which each comes after its parents.
    """
    number = {node.name: place for place, node in enumerate(candidates)}
    offers = [chosen.get(node.name) for node in candidates]
    after: list[list[tuple[int, float]]] = [[] for _ in candidates]
    for place, node in enumerate(candidates):
        for parent in node.parents:
            size = node.sizes.get(parent, 0)
            after[number[parent]].append(
                (place, delay(offers[number[parent]], offers[place], size))
            )
    labels = {offer.label: place for place, offer in enumerate(offers) if offer}
    lanes = {labels[offer.label]: max(offer.lanes, 1) for offer in offers if offer}
    _, ends = scheduled(
        [node.lasts(offer) for node, offer in zip(candidates, offers, strict=True)],
        after,
        sites=[labels[offer.label] if offer else -1 for offer in offers],
        demands=[node.demand(offer) for node, offer in zip(candidates, offers, strict=True)],
        lanes=lanes,
        ids=range(len(candidates)),
    )
    return Timeline(
        {node.name: end for node, end in zip(candidates, ends, strict=True)},
        _path(candidates, ends),
    )


def delay(source: Offer | None, target: Offer | None, size: int) -> float:
    """Return how long `size` bytes are under way from one offer's place to another's."""
    if source is None or not source.bandwidth or (target and target.label == source.label):
        return 0.0
    return size / source.bandwidth


def longest_path(
    candidates: Sequence[Candidate], chosen: Mapping[str, Offer]
) -> tuple[float, tuple[str, ...]]:
    """Return when the last node ends, in seconds, and the nodes it waited for one by one."""
    whole = timeline(candidates, chosen)
    return whole.finish, whole.path


def _path(candidates: Sequence[Candidate], ends: Sequence[float]) -> tuple[str, ...]:
    """Return the nodes from a first one to the last to end, each the latest parent of the next."""
    end = dict(zip((node.name for node in candidates), ends, strict=True))
    parents = {node.name: node.parents for node in candidates}
    path: list[str] = []
    name = max(end, key=lambda key: end[key], default=None)
    while name is not None:
        path.append(name)
        name = max(parents[name], key=lambda key: end[key], default=None)
    return tuple(reversed(path))
