"""A softmax classifier on text embeddings, trained in seconds without a GPU, stored as JSON."""

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
_LEARNING_RATE = 4.0
_WEIGHT_DECAY = 1e-4
_DIGITS = 6  # of a stored weight: further digits would differ between machines


def examples(
    rows: Iterable[Mapping[str, Any]], text: str, label: str
) -> tuple[list[str], list[str]]:
    """Return the texts and labels in two columns of a dataset; raises Refused.

    Refused are missing or empty cells, a dataset without rows, and one with a single label.
    """
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
        message = f"row {number} of the dataset has no column {column!r}, only {sorted(row)}"
        raise Refused(brief(message), of_task=True)
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
    """Return the name of the model whose embeddings a head reads; raises Refused."""
    return str(_parse(document)["base"])


def _parse(document: bytes) -> dict[str, Any]:
    """Parse a stored head; raises Refused for any other document."""
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
    """Train a head on the float32 file `vectors`, write it to `out`, and return its metrics.

    `labels` are those of the vectors, in order; `base` is the model that made the vectors.
    """
    import numpy as np

    names = sorted(set(labels))
    classes = np.array([names.index(label) for label in labels])
    one_hot = np.eye(len(names))[classes]
    features = np.fromfile(vectors, np.float32).reshape(len(labels), -1).astype(np.float64)
    features = _with_bias(features)

    weights = _train(features, one_hot, epochs=epochs, seed=seed)
    weights = np.round(weights, _DIGITS) + 0.0  # adding 0 turns -0.0 into 0.0
    metrics = _metrics(features @ weights, classes) | {"rows": len(labels), "epochs": epochs}

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


def _with_bias(features: Matrix) -> Matrix:
    """Return features with a column of ones, whose weight is the bias."""
    import numpy as np

    return np.hstack([features, np.ones((len(features), 1))])


def _train(features: Matrix, one_hot: Matrix, *, epochs: int, seed: int) -> Matrix:
    """Return weights by stochastic gradient descent on the cross-entropy.

    The seed alone decides the order of the batches, so training again gives the same weights.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    weights = np.zeros((features.shape[1], one_hot.shape[1]))
    for _ in range(epochs):
        order = generator.permutation(len(features))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            error = _softmax(features[batch] @ weights) - one_hot[batch]
            gradient = features[batch].T @ error / len(batch) + _WEIGHT_DECAY * weights
            weights -= _LEARNING_RATE * gradient
    return weights


def _softmax(scores: Matrix) -> Matrix:
    """Return probabilities; the largest score is subtracted first, so that `exp` stays finite."""
    import numpy as np

    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _metrics(scores: Matrix, classes: NDArray[np.int64]) -> dict[str, Any]:
    """Return the accuracy and the mean cross-entropy of scores on the training set."""
    import numpy as np

    class_probabilities = _softmax(scores)[np.arange(len(classes)), classes]
    return {
        "accuracy": round(float((scores.argmax(axis=1) == classes).mean()), 4),
        "loss": round(float(-np.log(np.maximum(class_probabilities, 1e-12)).mean()), 4),
    }


def predict(*, head: str, vector: list[float]) -> str:
    """Return the label that the head in the file `head` gives a vector."""
    import numpy as np

    trained = _parse(Path(head).read_bytes())
    try:
        weights = np.array(trained["weights"], np.float64)
        scores = weights @ np.array(vector) + np.array(trained["bias"], np.float64)
        return str(trained["labels"][int(scores.argmax())])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Refused(
            f"the model's labels, weights and bias do not fit together: {error}"
        ) from None
