"""What a resume may change: the plan of what is left, and functions of nodes that are not done."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from agentkit.errors import ConfigError, WrongInput
from agentkit.graph.callables import CallableSpec, Consent
from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.nodes import PaidNode
from agentkit.journal.events import Approved
from agentkit.journal.run_state import RunState
from agentkit.market.plan import Plan
from agentkit.runtime.context import Resources
from agentkit.runtime.verifiers import verifiers_of


@dataclass(frozen=True)
class Changes:
    """What a resume changes.

    `plan` is None while the earlier one stays in force.  `code` are the sha256 of files that the
    run may load from now on.
    """

    plan: Plan | None
    code: frozenset[str] = frozenset()


def changes_of(
    resources: Resources,
    state: RunState,
    *,
    plan: Plan | None,
    graph: FrozenGraph | None,
    trust_code: Collection[str],
    ends: bool,
) -> Changes:
    """Load the functions that the rest of a run needs, and return what that changes.

    A run that only `ends` (it was cancelled) calls no function, so none has to be here.  Raises
    WrongInput, UntrustedCode and ConfigError, as `runtime.run.resume` does.
    """
    plan = plan and _continued(plan, state)
    if graph and state.planned.graph.same_but_for_code(graph):
        plan = (plan or state.planned).model_copy(update={"graph": graph})
    if ends:
        return Changes(plan)

    before = (plan or state.planned).graph
    _check_done_nodes(before, state)
    consent = Consent.to(state.code, _functions_of(state.planned.graph), mended=trust_code)
    needed = before.by_name.keys() - state.done.keys()
    adopted = before.adopt(graph, needed, consent)
    if adopted is not before:
        plan = (plan or state.planned).model_copy(update={"graph": adopted})
    check_resources(resources, plan or state.planned, needed)
    return Changes(plan, _code_from_now_on(adopted, needed, consent, own=graph is not None))


def approvals(plan: Plan, names: Sequence[str]) -> list[Approved]:
    """Return that the user agreed to nodes; raises PlanError for one that there is not."""
    amounts = {name: plan.node(name).at_most for name in names}
    return [
        Approved(node=name, amount=amount, by="resume")
        for name, amount in amounts.items()
        if amount
    ]


def _check_done_nodes(graph: FrozenGraph, state: RunState) -> None:
    """Raise WrongInput for a graph that changes the functions of nodes that are done."""
    if graph is state.planned.graph:
        return
    changed = [name for name in state.planned.graph.changed_in(graph) if name in state.done]
    if changed:
        raise WrongInput(
            f"node {changed[0]!r} of run {state.run} is done, and its function is another now",
            hint=f"put back the function of {changed[0]!r}, or run the mended graph anew",
        )


def _code_from_now_on(
    graph: FrozenGraph, needed: Collection[str], consent: Consent, *, own: bool
) -> frozenset[str]:
    """Return the sha256 of files that this resume adds to what the run may load later.

    `own`: the functions are those of this process, which needs nobody's consent to them.
    """
    if not own and not consent.mended:
        return frozenset()
    digests = graph.code_digests(needed)
    return digests if own else digests & consent.digests


def _functions_of(graph: FrozenGraph) -> list[CallableSpec]:
    return [spec for node in graph.nodes for spec in node.callables().values()]


def check_resources(resources: Resources, plan: Plan, needed: Collection[str]) -> None:
    """Raise ConfigError for a verifier or a rail that the plan needs and is not set up.

    `needed` names the nodes that are still to be done.
    """
    for node in plan.graph.nodes:
        if isinstance(node, PaidNode) and node.verify and node.name in needed:
            verifiers_of(plan.graph.checks(node.name))
    for planned in plan.nodes:
        for offer in planned.offers if planned.offer else ():
            if offer.rail not in resources.rails:
                raise ConfigError(
                    f"node {planned.name!r} is to be paid by {offer.rail!r}, which is not set up",
                    hint="open the agent with the settings the plan was made with, or plan again",
                )


def _continued(plan: Plan, state: RunState) -> Plan:
    """Return a new plan for a run, under the run's budget unless it has one of its own."""
    if plan.graph.shape != state.planned.graph.shape:
        raise WrongInput(
            f"the plan is for graph {plan.graph.digest[:6]}, and run {state.run} is of graph"
            f" {state.planned.graph.digest[:6]}",
            hint="plan the graph of the run, exactly as it was",
        )
    return plan if plan.budget else plan.model_copy(update={"budget": state.planned.budget})
