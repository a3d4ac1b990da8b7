"""What a run leaves behind: artifacts, receipts, and what was paid."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from agentkit.artifacts import Artifact
from agentkit.errors import RunFailed, UnknownInput
from agentkit.graph.refs import Ref
from agentkit.journal.run_state import RunState
from agentkit.market.attempt import result_digest
from agentkit.market.plan import Plan
from agentkit.market.receipt import RECEIVED, Receipt, Standing
from agentkit.money import Money
from agentkit.runtime.context import Resources
from agentkit.runtime.stop import pause_of

A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True, repr=False)
class RunResult:
    """What a finished run produced and what it cost.

    `skipped` says by node why it was not done, `skipped_items` by node and number of its row.
    """

    run_id: str
    plan: Plan
    artifacts: Mapping[str, tuple[Artifact, ...]]
    receipts: tuple[Receipt, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    skipped_items: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    @overload
    def __getitem__(self, ref: Ref[A]) -> A: ...

    @overload
    def __getitem__(self, ref: str) -> Artifact: ...

    def __getitem__(self, ref: Ref[Any] | str) -> Artifact:
        """Return the artifact of a ref, or the first output of a node by name.

        Raises UnknownInput for a node that there is not, or that was skipped.
        """
        name, output = (ref, 0) if isinstance(ref, str) else (ref.node, ref.output)
        if name in self.skipped:
            raise UnknownInput(
                f"node {name!r} was skipped: {self.skipped[name]}",
                hint=f"look at result.skipped before result[{name!r}]",
            )
        if name not in self.artifacts:
            raise UnknownInput(f"the run had no node {name!r}")
        return self.artifacts[name][output]

    def receipt(self, ref: Ref[Any] | str, item: int | None = None) -> Receipt:
        """Return the receipt of what a node delivered; for a mapped node, of one row by its number.

        It says how the answer came about: `model`, `finish_reason`, `truncated`, `usage`.  Raises
        UnknownInput where nothing was bought, such as for an answer that is taken again (`cache`).
        """
        name = ref if isinstance(ref, str) else ref.node
        found = [
            receipt
            for receipt in self.receipts
            if (receipt.attempt.node, receipt.attempt.item) == (name, item)
            and receipt.standing in RECEIVED
        ]
        outputs = result_digest([output.digest for output in self.artifacts.get(name, ())])
        for receipt in found:
            if receipt.result == outputs:  # what was bought several times has several
                return receipt
        if found:
            return found[0]
        what = f"node {name!r}" if item is None else f"row {item} of node {name!r}"
        raise UnknownInput(f"nothing was bought for {what}", hint="look at result.receipts")

    @property
    def truncated(self) -> Mapping[str, tuple[int | None, ...]]:
        """The answers that were cut at their limit of tokens: rows by node, None for no row."""
        cut: dict[str, tuple[int | None, ...]] = {}
        for receipt in self.receipts:
            if receipt.truncated and receipt.standing in RECEIVED:
                node = receipt.attempt.node
                cut[node] = tuple(dict.fromkeys((*cut.get(node, ()), receipt.attempt.item)))
        return cut

    def __repr__(self) -> str:
        return f"<RunResult {self.run_id}: {len(self.artifacts)} nodes, paid {self.paid}>"

    @property
    def paid(self) -> Money:
        """What was paid; neither what others bill nor what is uncertain."""
        return self.total("paid")

    @property
    def uncertain(self) -> Money:
        """What counts as spent and brought nothing, or nobody can say whether it did."""
        return self.total("uncertain") + self.total("charged, not received")

    @property
    def billed_elsewhere(self) -> Money:
        """What providers bill by themselves, at the configured prices."""
        return self.total("billed elsewhere")

    def total(self, standing: Standing) -> Money:
        """Return the sum of the receipts of one standing."""
        return total(self.receipts, standing, self.plan.price)

    def data(self) -> dict[str, Any]:
        """Return what was done and paid as plain JSON."""
        return {
            "run": self.run_id,
            "paid": str(self.paid),
            "uncertain": str(self.uncertain),
            "billed_elsewhere": str(self.billed_elsewhere),
            "nodes": {name: [a.digest for a in outs] for name, outs in self.artifacts.items()},
            "skipped": dict(self.skipped),
            "skipped_items": {node: dict(items) for node, items in self.skipped_items.items()},
            "truncated": {node: list(items) for node, items in self.truncated.items()},
        }

    def summary(self) -> str:
        """Return `data` as text, for notes and logs."""
        return json.dumps(self.data())


def total(receipts: Sequence[Receipt], standing: Standing, like: Money) -> Money:
    """Return the sum of the receipts of one standing, in the asset of `like`."""
    units = sum(receipt.amount.units for receipt in receipts if receipt.standing == standing)
    return Money(units, like.asset)


async def result_of(resources: Resources, state: RunState) -> RunResult:
    """Return what a run left; raises RunFailed or RunPaused for one that is not done."""
    if state.outcome == "failed":
        failures = tuple(state.failures.items())
        raise RunFailed(state.run, failures, uncertain=bool(state.unresolved))
    if state.outcome == "cancelled":
        hint = "run the graph again if it is wanted after all"
        raise RunFailed(state.run, (), uncertain=bool(state.unresolved), hint=hint)
    if state.outcome != "done":
        raise pause_of(state)
    artifacts = {name: await resources.get_all(outputs) for name, outputs in state.done.items()}
    return RunResult(
        state.run,
        state.planned,
        artifacts,
        tuple(state.receipts),
        state.skipped,
        state.skipped_items,
    )
