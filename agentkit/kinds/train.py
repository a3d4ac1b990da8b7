"""Trainings: train a model on the rows of a dataset."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from agentkit.errors import WrongInput
from agentkit.graph.nodes import Needs, TrainNode
from agentkit.kinds.artifact_checks import as_table
from agentkit.kinds.kind import BoughtKind, Inputs, guessed_spec
from agentkit.kinds.sizes import Sizes, size_of
from agentkit.market.offer import Offer
from agentkit.market.task import Load, Task, TaskSpec, with_cpu
from agentkit.market.value import digest_of

PARAMS = {"base", "method", "text", "label", "epochs", "seed"}
"""The fields of a node that its task tells the provider."""

CPU_SHARE = 100
"""The processor time that is declared at most, by that which is expected."""


class Train(BoughtKind[TrainNode]):
    """Trains in one purchase; the load is the rows, each counted once an epoch."""

    node_type = TrainNode

    def models(self, node: TrainNode) -> tuple[str, ...]:
        return (node.base,)

    # -- planning --------------------------------------------------------------------------------

    def spec(self, node: TrainNode, sizes: Sizes) -> TaskSpec:
        """Return the spec; raises WrongInput where the columns are known and one is missing."""
        dataset = size_of(sizes, node.dataset)
        if dataset.columns is not None:
            _check_trainable(node, dataset.rows, dataset.columns)
        rows = dataset.rows * node.epochs
        most = rows if dataset.bound else 4 * rows
        return guessed_spec(node, self.with_cpu(Load(expected={"row": rows}, most={"row": most})))

    def with_cpu(self, load: Load) -> Load:
        return with_cpu(load, share=CPU_SHARE)

    def question(self, node: TrainNode) -> dict[str, Any]:
        return {"model": node.base, "method": node.method}

    def pricing_key(self, node: TrainNode, load: Load) -> str:
        return digest_of(node.name)  # each training is asked for by itself

    def unfit(self, node: TrainNode, load: Load, offer: Offer) -> str:
        """Say which method or hardware of the node the offer lacks."""
        if offer.tuning and node.method not in offer.tuning:
            return f"trains by {', '.join(offer.tuning)}, not by {node.method}"
        needs = node.needs or Needs()
        if needs.gpu and offer.gpu != needs.gpu:
            return f"runs on {offer.gpu or 'no GPU that it names'}, not on {needs.gpu}"
        if offer.vram < needs.vram:
            return f"has {offer.vram} GB of GPU memory, and {needs.vram} are needed"
        return ""

    # -- buying ----------------------------------------------------------------------------------

    def task(self, node: TrainNode, inputs: Inputs, item: Any = None) -> Task:
        """Return the training; raises WrongInput where nothing can be learned."""
        examples = as_table(inputs["dataset"]).rows()
        in_every_row = set.intersection(*map(set, examples)) if examples else set()
        _check_trainable(node, len(examples), in_every_row)
        rows = len(examples) * node.epochs
        load = self.with_cpu(Load(expected={"row": rows}, most={"row": rows}))
        return Task("train", node.model_dump(mode="json", include=PARAMS), load, dict(inputs))


def _check_trainable(node: TrainNode, rows: int, in_every_row: Collection[str]) -> None:
    """Raise WrongInput where there is nothing to train on, or where a column is missing.

    Which columns a provider's own method reads, only that provider knows.
    """
    if not rows:
        raise WrongInput(
            f"node {node.name!r} has no rows to train on",
            hint="check the query or the split before it: it leaves none",
        )
    names = ", ".join(sorted(in_every_row)) or "only columns that all rows have"
    for column in (node.text, node.label) if node.method == "head" else ():
        if column not in in_every_row:
            raise WrongInput(
                f"node {node.name!r} trains on the column {column!r}, and not every row has it",
                hint=f"set text= and label= to two of: {names}",
            )
