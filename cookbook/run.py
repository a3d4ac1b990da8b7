"""Run the notebooks in a real kernel and write them, with their outputs, beside the sources.

python cookbook/run.py [NOTEBOOK.py ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
SECONDS_FOR_A_CELL = 120


def notebooks() -> list[Path]:
    """Return the sources in their order."""
    return sorted(HERE.glob("[0-9]*.py"))


def execute(source: Path) -> nbformat.NotebookNode:
    """Run one notebook in a fresh kernel; raises CellExecutionError at the first error."""
    notebook = jupytext.read(source)
    NotebookClient(notebook, timeout=SECONDS_FOR_A_CELL, kernel_name="python3").execute()
    return notebook


def main(names: list[str]) -> None:
    for source in [Path(name) for name in names] or notebooks():
        nbformat.write(execute(source), source.with_suffix(".ipynb"))
        print(source.with_suffix(".ipynb"))


if __name__ == "__main__":
    main(sys.argv[1:])
