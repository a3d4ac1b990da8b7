"""A softmax head on text embeddings: trained in seconds without a GPU, stored as readable JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.errors import Refused, brief

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

FORMAT = "softmax-head/1"
MEDIA_TYPE = "application/vnd.agentkit.head+json"

_BATCH = 16
_RATE = 4.0
_DECAY = 1e-4
_DIGITS = 6  # of a weight: more would not survive another machine's rounding


def examples(
    rows: Iterable[Mapping[str, Any]], text: str, label: str
) -> tuple[list[str], list[str]]:
    """Return the texts and labels of a training set; raises Refused when it is not one."""
    texts, labels = [], []
    for number, row in enumerate(rows, 1):
        texts.append(_cell(row, text, number))
        labels.append(_cell(row, label, number))
    if not texts:
        raise Refused("the dataset has no rows to train on", of_task=True)
    if len(set(labels)) < 2:
        raise Refused(
            f"column {label!r} holds one label only, {labels[0]!r}: nothing to tell apart",
            of_task=True,
        )
    return texts, labels


def _cell(row: Mapping[str, Any], column: str, number: int) -> str:
    """Return a cell of the dataset as text; raises Refused with row and column."""
    if column not in row:
        told = f"row {number} of the dataset has no column {column!r}, only {sorted(row)}"
        raise Refused(brief(told), of_task=True)
    value = row[column]
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, int):
        return str(value)
    raise Refused(
        f"row {number} of the dataset holds no text in column {column!r}: {brief(repr(value))}",
        of_task=True,
    )


def base_of(document: bytes) -> str:
    """Return the model whose embeddings a head reads; raises Refused for another document."""
    return str(_parsed(document)["base"])


def _parsed(document: bytes) -> dict[str, Any]:
    try:
        head = json.loads(document)
    except ValueError as error:
        raise Refused(f"the model is not JSON: {error}") from error
    if not isinstance(head, dict) or head.get("format") != FORMAT or "base" not in head:
        raise Refused(f"the model is not in the format {FORMAT!r}")
    return head


def fit(
    *, vectors: str, labels: list[str], base: str, epochs: int, seed: int, out: str
) -> dict[str, Any]:
    """Train on the float32 file `vectors` and write the head to `out`; returns its metrics."""
    import numpy as np

    names = sorted(set(labels))
    wanted = np.array([names.index(label) for label in labels])
    seen = np.fromfile(vectors, np.float32).reshape(len(labels), -1).astype(np.float64)
    weights = _descend(_with_bias(seen), np.eye(len(names))[wanted], epochs, seed)
    weights = np.round(weights, _DIGITS) + 0.0  # no "-0.0"
    metrics = _metrics(_with_bias(seen) @ weights, wanted) | {"rows": len(labels), "epochs": epochs}
    trained = {
        "format": FORMAT,
        "base": base,
        "labels": names,
        "weights": weights[:-1].T.tolist(),
        "bias": weights[-1].tolist(),
        "metrics": metrics,
    }
    Path(out).write_text(json.dumps(trained, sort_keys=True, ensure_ascii=False), encoding="utf-8")
    return metrics


def _with_bias(seen: Matrix) -> Matrix:
    import numpy as np

    return np.hstack([seen, np.ones((len(seen), 1))])


def _descend(seen: Matrix, wanted: Matrix, epochs: int, seed: int) -> Matrix:
    """Go down the cross-entropy in small batches, drawn in an order that the seed alone decides."""
    import numpy as np

    draw = np.random.default_rng(seed)
    weights = np.zeros((seen.shape[1], wanted.shape[1]))
    for _ in range(epochs):
        order = draw.permutation(len(seen))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            miss = _softmax(seen[batch] @ weights) - wanted[batch]
            weights -= _RATE * (seen[batch].T @ miss / len(batch) + _DECAY * weights)
    return weights


def _softmax(scores: Matrix) -> Matrix:
    import numpy as np

    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _metrics(scores: Matrix, wanted: NDArray[np.int64]) -> dict[str, Any]:
    import numpy as np

    right = _softmax(scores)[np.arange(len(wanted)), wanted]
    return {
        "accuracy": round(float((scores.argmax(axis=1) == wanted).mean()), 4),
        "loss": round(float(-np.log(np.maximum(right, 1e-12)).mean()), 4),
    }


def predict(*, head: str, vector: list[float]) -> str:
    """Return the label that the head in the file `head` gives a vector."""
    import numpy as np

    trained = _parsed(Path(head).read_bytes())
    try:
        weights = np.array(trained["weights"], np.float64)
        scores = weights @ np.array(vector) + np.array(trained["bias"], np.float64)
        return str(trained["labels"][int(scores.argmax())])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Refused(
            f"the model's labels, weights and bias do not fit together: {error}"
        ) from None
