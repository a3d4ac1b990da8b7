"""Whether a result may be paid: it must be what was asked for, at no more than was agreed."""

from __future__ import annotations

import asyncio

from agentkit.errors import BadAmount, BadOutput
from agentkit.graph.callables import guarding
from agentkit.graph.nodes import PaidNode
from agentkit.kinds.registry import bought_kind
from agentkit.market.attempt import Attempt, Result
from agentkit.market.offer import Offer, charge
from agentkit.market.task import Task


def check_bill(task: Task, offer: Offer, attempt: Attempt, result: Result) -> None:
    """Raise BadOutput, saying why, for a price or for counts beyond what was agreed."""
    wrong = _wrong_price(offer, attempt, result) or _wrong_counts(task, offer, result)
    if wrong:
        raise BadOutput(wrong, provider=offer.label)


async def check_outputs(node: PaidNode, offer: Offer, result: Result) -> None:
    """Raise BadOutput, saying why, for outputs that are not what the node asked for.

    Runs in a thread where that takes longer than a moment.  The node's kind may be another
    package's, so anything else that is raised here is a defect of the kind.
    """
    size = sum(output.size for output in result.outputs)
    with guarding():
        if bought_kind(node).is_quick_to_check(node, size):
            wrong = _wrong_outputs(node, result)
        else:
            wrong = await asyncio.to_thread(_wrong_outputs, node, result)
    if wrong:
        raise BadOutput(wrong, provider=offer.label)


def _wrong_counts(task: Task, offer: Offer, result: Result) -> str:
    """Say what was counted beyond what the task can come to, each unit by itself.

    A prompt has no more tokens than bytes, an answer no more than its limit: within that, nobody
    but the provider can say how many there were.
    """
    allowed = offer.most(task.load)
    for unit, count in result.usage.items():
        most = allowed.get(unit, 0)
        if count > most:
            return f"counts {count} of {unit} where there are {most} at most"
    return ""


def _wrong_price(offer: Offer, attempt: Attempt, result: Result) -> str:
    """Say why a result's price is not what its rates and usage come to, "" if it is."""
    try:
        owed = charge(attempt.at_most.asset, offer.rates, result.usage)
    except BadAmount as error:
        return str(error)
    # Over a channel a server charges what a request came to by its own meter, up to its price.
    is_metered_below = bool(offer.channel) and result.price < owed
    if result.price != owed and not is_metered_below:
        return f"asks {result.price} where its rates and usage come to {owed}"
    if result.price > attempt.at_most:
        return f"asks {result.price}, above the at most of {attempt.at_most}"
    return ""


def _wrong_outputs(node: PaidNode, result: Result) -> str:
    """Say why a result's outputs are not what the node asked for, "" if they are."""
    kind = bought_kind(node)
    wanted = tuple(kind.outputs(node))
    given = tuple(type(output) for output in result.outputs)
    if given != wanted:
        return f"delivered {[g.__name__ for g in given]} instead of {[w.__name__ for w in wanted]}"
    return kind.fault_in(node, result.outputs)
