"""What to do about a run that paused, in words that start with a verb and commands that work."""

from __future__ import annotations

from collections.abc import Sequence

from agentkit.errors import AgentKitError, OverBudget
from agentkit.graph.code import shown
from agentkit.graph.registry import Node
from agentkit.kinds.registry import kind_of


def command_for(run: str, *, uncertain: bool = False) -> str:
    """Return the command that goes on with a run."""
    return f"agentkit resume {run}" + (" --rebuy" if uncertain else "")


def after(cause: AgentKitError, run: str) -> str:
    """Return the hint of what a run paused for, and how to go on after it; "" without one."""
    if isinstance(cause, OverBudget) and cause.limit == "budget":
        return f'allow more with `{command_for(run)} --budget "{cause.needed}"`'
    if isinstance(cause, OverBudget) and cause.limit == "hold":
        return replan(run)
    return f"{cause.hint}; then go on with `{command_for(run)}`" if cause.hint else ""


def replan(run: str) -> str:
    """Return how to go on under a new plan of what is left."""
    return (
        f"plan what is left with `agentkit plan GRAPH --rest {run} --out plan.json`, GRAPH being"
        f" the graph of the run, then go on with `{command_for(run)} --plan plan.json`"
    )


def try_again_or_replan(run: str) -> str:
    """Return how to go on when no offer of a plan is left."""
    return f"wait and go on with `{command_for(run)}`; or {replan(run)}"


def after_offers(errors: Sequence[AgentKitError], run: str) -> str:
    """Return how to go on when every offer ended in an error: first as the last one advises."""
    advice = errors[-1].hint if errors else ""
    if not advice or advice == errors[-1].default_hint:
        return try_again_or_replan(run)
    return f"{advice}; then go on with `{command_for(run)}`, or {replan(run)}"


def look_before_buying_again(run: str, provider: str) -> str:
    """Return what to do about a purchase of which nobody knows whether it was made."""
    return (
        f"look at {shown(provider)} whether it was done and billed; then buy it again with"
        f" `{command_for(run, uncertain=True)}`, or end the run with `agentkit cancel {run}`"
    )


def mend(run: str, node: Node) -> str:
    """Return what to do about a node whose function raised, or whose file cannot be read."""
    go_on = f"`{command_for(run)}`"
    in_python = f"ak.resume({run!r}, graph=graph)"
    if file := kind_of(node).file_to_mend(node):
        return f"mend {shown(file)}, then go on with {go_on}"
    specs = node.callables().values()
    files = {spec.file for spec in specs if spec.portable and spec.module != "__main__"}
    if not files:
        return (
            f"mend the function of {node.name!r}, build the graph again in the same way, and go on"
            f" with {in_python}; what was bought is not bought again"
        )
    return (
        f"mend the function of {node.name!r} in {shown(min(files))}, then go on with {go_on},"
        f" which names the --trust-code to add, or with {in_python}; what was bought is not bought"
        " again"
    )


def mend_kind(run: str, node: Node) -> str:
    """Return what to do about a node whose kind has a defect."""
    package = type(kind_of(node)).__module__.partition(".")[0]
    return (
        f"mend or upgrade the package {package!r}, which brings the kind {node.kind!r}, then go on"
        f" with `{command_for(run)}`"
    )
