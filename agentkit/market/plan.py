"""A plan: one offer and ranked alternates for every node, with totals and an expiry."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from agentkit import strict_json
from agentkit.display.text import clock, columns, duration
from agentkit.errors import PlanError, UnknownKind, WrongInput
from agentkit.file_io import read_bytes, write_text
from agentkit.graph.frozen import FrozenGraph
from agentkit.market.offer import Offer, Rejection
from agentkit.market.task import TaskSpec
from agentkit.market.value import Value, digest_of
from agentkit.money import Money

MAX_BYTES = 256 << 20
"""The largest plan file that is read: some 100,000 nodes with their offers."""

VERSION = 1
"""The version of saved plans; it rises with `journal.events.VERSION` once plans change."""

HEADINGS = ("node", "kind", "provider", "on", "price", "at most", "ETA", "others")

HERE_SECONDS = 0.2
"""Seconds that a node on this machine is expected to take."""

UNITS = (1, "a second"), (60, "a minute"), (3600, "an hour"), (86400, "a day")
"""Units of time, in seconds, in which a plan says what time is worth."""


class PlannedNode(Value):
    """Where one node runs.  Without an offer it runs on this machine and costs nothing.

    `offer` is the chosen one, `alternates` follow in the order of fail-over.  `at_most` covers
    all items at the most expensive of them; None costs nothing.  `rejected` is what `explain`
    shows beside them.
    """

    name: str
    spec: TaskSpec | None = None
    offer: Offer | None = None
    alternates: tuple[Offer, ...] = ()
    at_most: Money | None = None
    rejected: tuple[Rejection, ...] = ()

    @property
    def items(self) -> int:
        """How many purchases the node may need."""
        return self.spec.items if self.spec else 1

    @property
    def price(self) -> Money | None:
        """What the node is expected to cost, None for nothing."""
        if not (self.offer and self.spec):
            return None
        replicas = self.offers[: self.spec.replicas]  # each replica goes to another offer
        units = sum(offer.price.units for offer in replicas)
        return Money(units * self.spec.likely, self.offer.price.asset)

    @property
    def eta(self) -> float:
        """How long the node is expected to take, in seconds."""
        if self.offer and self.spec:
            return self.offer.seconds(self.spec.likely)
        return HERE_SECONDS

    @property
    def offers(self) -> tuple[Offer, ...]:
        """The chosen offer and its alternates, in the order of fail-over."""
        return (self.offer, *self.alternates) if self.offer else ()


class Fee(Value):
    """A row of the plan that is not a node: gas or uploads, in the coin it is paid in."""

    name: str
    on: str
    price: Money
    at_most: Money


class Plan(Value):
    """What would run where and at what price; making it spends nothing.

    Times are unix seconds; `deadline` is absolute.  `wallet` and `network`: the address and chain
    whose money the plan was made for.  `bound`: no plan within the deadline and the policies has
    a lower price.  `second`: about how many base units a deadline one second later would save.
    `path`: the nodes of the critical path.  `risk`: the share of cases in which nodes take no
    longer than planned.  `stays`: nodes whose outputs would be lost with this machine.
    """

    graph: FrozenGraph
    nodes: tuple[PlannedNode, ...]
    fees: tuple[Fee, ...] = ()
    price: Money
    at_most: Money
    eta: float
    budget: Money | None = None
    deadline: float | None = None
    made: float
    expires: float
    network: str
    wallet: str
    balance: Money | None = None
    bound: Money | None = None
    second: float = 0.0
    path: tuple[str, ...] = ()
    risk: float = 0.5
    objective: str = "cost"
    stays: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Digest of the whole plan; its first six digits are its name for people."""
        return digest_of("plan", self.encode())

    def node(self, name: str) -> PlannedNode:
        """Return where a node runs; raises PlanError for an unknown name."""
        planned = self._by_name.get(name)
        if planned is None:
            names = ", ".join(list(self._by_name)[:20])
            raise PlanError(f"the plan has no node {name!r}", hint=f"name one of: {names}")
        return planned

    @cached_property
    def _by_name(self) -> dict[str, PlannedNode]:
        return {planned.name: planned for planned in self.nodes}

    def explain(self, name: str) -> str:
        """Return a table of every offer for a node: which is chosen, and why others are not."""
        planned = self.node(name)
        if planned.offer is None and not planned.rejected:
            return f"{name} runs on this machine and costs nothing"

        rows = [("offer", "on", "price", "at most", "eta", "standing")]
        for rank, offer in enumerate(planned.offers):
            rows.append(
                (
                    offer.label,
                    offer.on,
                    str(offer.price),
                    str(offer.at_most),
                    duration(offer.seconds(planned.items)),
                    _rank_text(offer, rank),
                )
            )
        rows += [
            (rejection.label, "", "", "", "", f"left out: {rejection.reason}")
            for rejection in planned.rejected
        ]

        count = "one purchase" if planned.items == 1 else f"at most {planned.items} purchases, each"
        return f"{name}: {count}{_estimate(planned.spec)}\n" + columns(rows, right=(2, 3, 4))

    def diff(self, other: Plan) -> str:
        """Return a table of what another plan changes: places, prices and times, node by node."""
        rows = [("node", "here", "there", "price", "eta")]
        names = dict.fromkeys([*self._by_name, *other._by_name])  # in order, each once
        for name in names:
            before = self._by_name.get(name)
            after = other._by_name.get(name)
            if _place(before) == _place(after):
                continue
            price = _percent(_units(before), _units(after))
            seconds = (after.eta if after else 0.0) - (before.eta if before else 0.0)
            rows.append((name, _place(before), _place(after), price, _signed_duration(seconds)))

        rows.append(
            (
                "total",
                f"{self.price} -> {other.price}",
                f"{duration(self.eta)} -> {duration(other.eta)}",
                _percent(self.price.units, other.price.units),
                _signed_duration(other.eta - self.eta),
            )
        )
        return f"plan {self.id[:6]} -> {other.id[:6]}\n" + columns(rows, right=(3, 4))

    def saved_by(self, seconds: float) -> Money:
        """Return about how much money a deadline `seconds` later would save."""
        units = min(self.price.units, int(self.second * max(0.0, seconds)))
        return Money(units, self.price.asset)

    def sooner_by(self, amount: Money) -> float:
        """Return about how many seconds sooner the plan would end for `amount` more money."""
        units = self.price.same(amount)
        if not self.second:
            return 0.0
        return min(self.eta, units / self.second)

    def __repr__(self) -> str:
        return f"<Plan {self.id[:6]} of {self.graph.name!r}: {self.price}, at most {self.at_most}>"

    def __str__(self) -> str:
        """Return the plan as people read it before they approve it."""
        nodes = f"{len(self.nodes)} node" + "s" * (len(self.nodes) != 1)
        valid_for = duration(self.expires - time.time())
        head = f"plan {self.id[:6]} · {self.graph.name} · {nodes} · prices hold for {valid_for}"
        table = columns(self._rows(), right=(4, 5, 6, 7))
        foot = [*self._optimality(), f"held on run: {self.at_most}"]
        if self.balance is not None:
            foot.append(f"wallet {self.balance} on {self.network}")

        text = f"{head}\n\n{table}\n\n{' · '.join(foot)}"
        notes = [*self._value_of_time(), *self._not_portable(), *self._code_notes()]
        return "\n".join([text, *notes])

    def _optimality(self) -> list[str]:
        """Return how far the price can be above the best one."""
        if self.bound is None or not self.price:
            return []
        if self.bound >= self.price:
            return ["optimal"]
        gap = self.price.units / self.bound.units - 1 if self.bound else 1.0
        return [f"optimal within {gap:.1%} (bound {self.bound.number})"]

    def _not_portable(self) -> list[str]:
        """Return which outputs would be lost with this machine."""
        if not self.stays:
            return []
        names = ", ".join(self.stays[:5]) + (", ..." if len(self.stays) > 5 else "")
        return [f"not portable: {names} (large outputs stay on this machine; set memory.ipfs)"]

    def _code_notes(self) -> list[str]:
        """Return which code files a run would load because the graph's document names them."""
        return [f"runs code on this machine: {file}" for file in self.graph.code_to_load()]

    def _value_of_time(self) -> list[str]:
        """Return what time is worth, where it is worth something."""
        lines = []
        if self.second > 0:
            seconds, name = max(unit for unit in UNITS if unit[0] <= max(1.0, self.eta))
            amount = self._some_money()
            lines.append(
                f"{name} later saves about {self.saved_by(seconds).rough} · {amount} more ends it"
                f" about {duration(self.sooner_by(amount))} sooner"
            )
        if self.risk != 0.5:
            lines.append(f"times are kept in {self.risk:.0%} of cases")
        return lines

    def _some_money(self) -> Money:
        """Return the largest power of ten that buys less than half of the plan's time."""
        half_of_time = max(1.0, self.second * self.eta / 2)
        exponent = max(0, math.floor(math.log10(half_of_time)))
        return Money(10**exponent, self.price.asset)

    def _rows(self) -> list[tuple[str, ...]]:
        """Return the rows of the plan's table: nodes, fees and the total with its limits."""
        rows: list[tuple[str, ...]] = [HEADINGS]
        rows += [self._row(planned) for planned in self.nodes]
        rows += [
            (fee.name, "fee", "-", fee.on, fee.price.rough, fee.at_most.rough, "", "")
            for fee in self.fees
        ]
        limits = [f"of {self.budget}"] if self.budget else []
        limits += [f"by {clock(self.deadline)}"] if self.deadline else []
        total = ("total", "", "", "", self.price.number, self.at_most.number, duration(self.eta))
        return [*rows, (*total, ", ".join(limits))]

    def _row(self, planned: PlannedNode) -> tuple[str, ...]:
        """Return a node's row of the plan's table."""
        offer = planned.offer
        return (
            planned.name,
            self.graph.by_name[planned.name].kind,
            offer.provider if offer else "-",
            offer.on if offer else "this machine",
            planned.price.number if planned.price else "0.00",
            planned.at_most.number if planned.at_most else "0.00",
            duration(planned.eta),
            str(len(planned.alternates)),
        )

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON, with its digest, so that `load` finds out if it was changed."""
        document = {"version": VERSION, "plan": json.loads(self.encode()), "digest": self.id}
        write_text(Path(path), json.dumps(document, indent=2) + "\n")

    def _checked(self) -> Self:
        """Return a plan that was read from a file, checked: somebody may have edited it.

        The graph is built anew, which checks and orders it.  Raises GraphError and ValueError.
        """
        graph = FrozenGraph.build(self.graph.name, self.graph.nodes)
        planned = [node.name for node in self.nodes]
        if len(set(planned)) < len(planned) or not set(planned) <= set(graph.by_name):
            raise ValueError("its nodes are not those of its graph")
        if not _is_finite(self.model_dump()):  # a number of very many digits is read as infinite
            raise ValueError("one of its numbers is infinite")
        return self.model_copy(update={"graph": graph})

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a saved plan.

        Raises PlanError for what is not a plan, was changed or is of a newer version, and
        UnknownKind for a kind of work that is not installed.
        """
        again = "make it again with `agentkit plan`"
        try:
            data = read_bytes(Path(path), MAX_BYTES)
        except WrongInput as error:
            raise PlanError(str(error), hint="check the path") from error
        try:
            document = strict_json.loads(data)
            _refuse_newer(path, document)
            plan = cls.model_validate(document["plan"])._checked()
        except UnknownKind:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PlanError(f"{path} is not a plan", hint=again) from error
        # Compared after reading: the digest is over the plan's meaning, not over the file's text.
        if plan.id != document.get("digest"):
            raise PlanError(f"the plan {path} was changed after it was made", hint=again)
        return plan


def _is_finite(value: Any) -> bool:
    """Return whether no number in a document is infinite or NaN."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return True


def _refuse_newer(path: str | Path, document: Any) -> None:
    """Raise PlanError for a plan of a newer version, which may mean something else."""
    version = document.get("version", 1)  # files of version 1 do not always say so
    if isinstance(version, int) and version > VERSION:
        raise PlanError(
            f"a newer version of agentkit wrote the plan {path}: it is of version {version}, and"
            f" this agentkit reads version {VERSION}",
            hint="install the newest with `pip install --upgrade deai-agentkit`, or make the plan"
            " again with `agentkit plan`",
        )


def _estimate(spec: TaskSpec | None) -> str:
    """Return how much work a purchase is expected to be, how sure that is, and on what basis."""
    if spec is None:
        return ""
    units = ", ".join(f"{count} {unit}" for unit, count in spec.load.expected.items())
    most = ", ".join(f"{count} {unit}" for unit, count in spec.load.most.items())
    error = f" ±{spec.spread:.0%}" if spec.spread else ""
    return f"\nestimated: {units}{error} ({spec.basis or 'given'}), at most {most}"


def _rank_text(offer: Offer, rank: int) -> str:
    """Return an offer's rank in fail-over, how the chosen one is paid, and its reputation."""
    if rank:
        text = f"alternate {rank}"
    else:
        paid = "billed elsewhere" if offer.pays == "billed" else f"paid by {offer.rail}"
        reason = f" ({offer.paid_because})" if offer.paid_because else ""
        text = f"chosen, {paid}{reason}"
    if offer.reputation < 1:
        text += f", {offer.reputation:.0%} of what it delivered verified"
    return text


def _place(planned: PlannedNode | None) -> str:
    """Return where a node runs, "-" for a node that a plan lacks."""
    if planned is None:
        return "-"
    offer = planned.offer
    return f"{offer.label} on {offer.on}" if offer else "this machine"


def _units(planned: PlannedNode | None) -> int:
    return planned.price.units if planned and planned.price else 0


def _percent(before: int, after: int) -> str:
    """Return the change of an amount in percent."""
    if before == after:
        return "same"
    return f"{after / before - 1:+.1%}" if before else "new"


def _signed_duration(seconds: float) -> str:
    """Return a change of time with its sign, "same" below half a second."""
    if abs(seconds) < 0.5:
        return "same"
    return f"{'+' if seconds > 0 else '-'}{duration(abs(seconds))}"
