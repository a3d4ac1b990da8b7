"""Benchmarks of several parts, each run in a process of its own and able to run alone."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def run(about: str, folder: str, names: Sequence[str], lines: Callable[[Any], list[str]]) -> None:
    """Run the parts in a folder beside this file; print their figures, or `lines` of them."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for name in names:
        figures |= _part(Path(__file__).parent / folder / f"{name}.py")
    print(json.dumps(figures) if options.json else "\n".join(lines(figures)))


def _part(path: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(path), "--json"], check=True, stdout=subprocess.PIPE, text=True
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures
