"""A file of code in a folder, and a graph whose second node calls it."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from agentkit.graph.builder import JobGraph
from agentkit.graph.callables import load_file

NAME = "code_of_a_run"
SOURCE = "def shout(text):\n    return str(text.read().decode()).upper()\n"


def file_in(folder: Path) -> Path:
    path = folder / f"{NAME}.py"
    path.write_text(SOURCE)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def graph_of(path: Path) -> JobGraph:
    graph = JobGraph("g")
    asked = graph.infer("ask", model="m", prompt="hello", approve=True)
    graph.local("after", load_file(path, NAME).shout, asked)
    return graph


def forget() -> None:
    """Have this process know as little as a new one."""
    sys.modules.pop(NAME, None)
