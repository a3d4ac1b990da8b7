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
from types import ModuleType

from agentkit.errors import WrongInput
from agentkit.tables import read_rows

GROUPS = {
    "math": ("math", "cmath", "statistics", "random", "fractions", "decimal"),
    "files": ("os.path", "shutil", "pathlib", "glob", "tempfile", "zipfile", "tarfile"),
    "network": (
        "socket",
        "http.client",
        "urllib.request",
        "smtplib",
        "ftplib",
        "ssl",
        "imaplib",
        "ipaddress",
        "poplib",
    ),
    "time": ("datetime", "calendar", "time", "zoneinfo"),
}
"""What modules are for, in words that a small model knows."""
MOST_ROWS = 160
MOST_LABELS = 6
EXAMPLES_EACH = 3
LEAST_ROWS = 4
SHORTEST, LONGEST = 25, 220


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
    except OSError as error:
        raise WrongInput(
            f"{file} cannot be read: {error.strerror}", hint="check --input"
        ) from error
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
    if each < LEAST_ROWS:
        raise WrongInput(
            f"{origin} has too few rows of a label",
            hint=f"give every label {LEAST_ROWS + EXAMPLES_EACH} rows",
        )
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
    """Yield the first sentence about every public function, class and method of a module."""
    for thing in _members(importlib.import_module(module)):
        lines = (inspect.getdoc(thing) or "").splitlines()
        prose = [line for line in lines if not _SIGNATURE.match(line)]
        sentence = re.split(r"(?<=[.!?]) ", _plain(" ".join(prose)))[0]
        if SHORTEST <= len(sentence) <= LONGEST:
            yield sentence


def _members(module: ModuleType) -> Iterator[object]:
    """Yield the public functions and classes of a module, and the methods of its own classes."""
    for thing in _public(module):
        if inspect.isroutine(thing) or inspect.isclass(thing):
            yield thing
        if inspect.isclass(thing) and thing.__module__.split(".")[0] in (
            module.__name__,
            "pathlib",
        ):
            yield from (method for method in _public(thing) if inspect.isroutine(method))


def _public(holder: object) -> Iterator[object]:
    """Yield what a module or class defines under public names, by name."""
    for name in sorted(vars(holder)):
        if not name.startswith("_"):
            yield getattr(holder, name)


_SIGNATURE = re.compile(r"\s*[\w.]+\(.*\)(\s*->.*)?\s*$")


def _plain(text: str) -> str:
    return " ".join(text.split())[:LONGEST]
