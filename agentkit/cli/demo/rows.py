"""What the demo works on: labelled texts that nobody wrote for it.

By default the docstrings of Python's own standard library, as they are on this machine; the label
is what the module is for.  Or a file of the user's, with the columns `text` and `label`.
"""

from __future__ import annotations

import importlib
import inspect
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agentkit.errors import WrongInput
from agentkit.runtime.here import read_rows

GROUPS = {
    "maths": ("math", "cmath", "statistics", "random", "fractions", "decimal"),
    "files": ("os", "os.path", "shutil", "pathlib", "glob", "tempfile", "zipfile", "tarfile"),
    "network": (
        "socket",
        "http.client",
        "urllib.parse",
        "urllib.request",
        "smtplib",
        "ftplib",
        "ssl",
    ),
    "dates": ("datetime", "calendar", "time", "zoneinfo"),
}
MOST_ROWS = 160
MOST_LABELS = 6
EXAMPLES_EACH = 2
SHORTEST, LONGEST = 25, 240


@dataclass(frozen=True)
class Input:
    """Rows to work on, a few more as examples for a prompt, and where they are from."""

    rows: list[dict[str, str]]
    examples: list[dict[str, str]]
    labels: list[str]
    origin: str


def read(file: Path | None) -> Input:
    """Return the demo's input; raises WrongInput for a file it cannot use."""
    if file is None:
        return _prepared(list(_docstrings()), "docstrings of Python's standard library")
    try:
        rows = read_rows(file.read_bytes(), file.name)
    except OSError as wrong:
        raise WrongInput(
            f"{file} cannot be read: {wrong.strerror}", hint="check --input"
        ) from wrong
    missing = [name for name in ("text", "label") if any(not row.get(name) for row in rows)]
    if missing or not rows:
        raise WrongInput(
            f"{file} needs the columns text and label in every row",
            hint='write rows like {"text": "…", "label": "…"} into a .jsonl or .csv file',
        )
    plain = [{"text": _plain(str(row["text"])), "label": str(row["label"])} for row in rows]
    return _prepared(plain, str(file))


def _prepared(rows: list[dict[str, str]], origin: str) -> Input:
    """Take as many rows of each label, drawn by a fixed seed, and set examples aside."""
    by_label: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        by_label[row["label"]].append(row)
    labels = sorted(by_label)
    if not 2 <= len(labels) <= MOST_LABELS:
        raise WrongInput(
            f"{origin} has {len(labels)} labels", hint=f"give it 2 to {MOST_LABELS} labels"
        )
    draw = random.Random(7)  # noqa: S311  # the same rows each time
    each = min(
        MOST_ROWS // len(labels), *(len(found) - EXAMPLES_EACH for found in by_label.values())
    )
    if each < 4:
        raise WrongInput(f"{origin} has too few rows of a label", hint="give every label 6 rows")
    examples, kept = [], []
    for label in labels:
        drawn = draw.sample(by_label[label], each + EXAMPLES_EACH)
        examples += drawn[:EXAMPLES_EACH]
        kept += drawn[EXAMPLES_EACH:]
    draw.shuffle(kept)
    draw.shuffle(examples)
    return Input(kept, examples, labels, origin)


def _docstrings() -> Iterator[dict[str, str]]:
    seen: set[str] = set()
    for label, modules in GROUPS.items():
        for name in modules:
            for text in _first_sentences(name):
                if text not in seen:
                    seen.add(text)
                    yield {"text": text, "label": label}


def _first_sentences(module: str) -> Iterator[str]:
    """Yield the first sentence of every public function and class of a module."""
    found = importlib.import_module(module)
    for name in sorted(vars(found)):
        thing = getattr(found, name)
        if name.startswith("_") or not (inspect.isroutine(thing) or inspect.isclass(thing)):
            continue
        text = _plain(inspect.getdoc(thing) or "")
        sentence = re.split(r"(?<=[.!?]) ", text)[0]
        if SHORTEST <= len(sentence) <= LONGEST:
            yield sentence


def _plain(text: str) -> str:
    return " ".join(text.split())[:LONGEST]
