"""Whether a result may be paid: it must be what was asked for, at no more than was agreed."""

from __future__ import annotations

import json
from typing import Any

from agentkit.artifacts import Artifact, Json
from agentkit.errors import BadAmount, BadOutput
from agentkit.graph.nodes import InferNode, SqlNode, TrainNode
from agentkit.market.attempt import Attempt, Result
from agentkit.market.offer import Offer, charge
from agentkit.runtime.resolve import expected_outputs


def check(
    node: InferNode | TrainNode | SqlNode, offer: Offer, attempt: Attempt, result: Result
) -> None:
    """Raise BadOutput, saying why, unless the result keeps to the node and the offer."""
    wrong = _wrong_price(offer, attempt, result) or _wrong_outputs(node, result)
    if wrong:
        raise BadOutput(wrong, provider=offer.label)


def _wrong_price(offer: Offer, attempt: Attempt, result: Result) -> str:
    try:
        owed = charge(attempt.at_most.asset, offer.rates, result.usage)
    except BadAmount as unpriced:
        return str(unpriced)
    if result.price != owed:
        return f"asks {result.price} where its rates and usage come to {owed}"
    if result.price > attempt.at_most:
        return f"asks {result.price}, above the at most of {attempt.at_most}"
    return ""


def _wrong_outputs(node: InferNode | TrainNode | SqlNode, result: Result) -> str:
    wanted = expected_outputs(node)
    given = tuple(type(output) for output in result.outputs)
    if given != wanted:
        return f"delivered {[g.__name__ for g in given]} instead of {[w.__name__ for w in wanted]}"
    if not isinstance(node, SqlNode) and not all(output.size for output in result.outputs):
        return "delivered an empty output"  # a query may well find nothing
    if isinstance(node, InferNode) and isinstance(node.output, dict):
        return _against_schema(result.outputs[0], node.output)
    return ""


def _against_schema(output: Artifact, schema: dict[str, Any]) -> str:
    import jsonschema

    try:
        value = output.value if isinstance(output, Json) else json.loads(output.read())
        jsonschema.validate(value, schema)
    except (ValueError, jsonschema.ValidationError) as wrong:
        return f"the answer does not fit the schema: {str(wrong).splitlines()[0]}"
    return ""
