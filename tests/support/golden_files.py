"""The golden homes, see `tests/homes/README.md`: where they lie, and how one is laid out."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import zstandard

HOMES = Path(__file__).parents[1] / "homes"

SCHEMAS = {"schema-1": 1, "schema-2": 2, "schema-3-early": 3, "schema-3": 3, "schema-4": 4}
"""The schema of the state files in each folder."""

FILES = [
    (path.parent.name, path.name.removesuffix(".db.zst")) for path in sorted(HOMES.glob("*/*.zst"))
]
"""Folder and name of every golden state file."""


def made_by() -> ModuleType:
    """Return the script that made the homes, for the key and for the figures that it reads."""
    spec = importlib.util.spec_from_file_location("make_homes", HOMES / "make.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figures(folder: str, name: str) -> dict[str, Any]:
    """Return what the version that wrote a state file read out of it."""
    return json.loads((HOMES / folder / "figures.json").read_text())[name]  # type: ignore[no-any-return]


def unpacked(folder: str, name: str, home: Path) -> Path:
    """Lay a golden state file into a new home; returns its path."""
    home.mkdir(parents=True)
    packed = (HOMES / folder / f"{name}.db.zst").read_bytes()
    path = home / "state.db"
    path.write_bytes(zstandard.ZstdDecompressor().decompress(packed))
    return path
