"""The golden homes, see `tests/homes/README.md`: where they lie, and how one is laid out."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import zstandard

HOMES = Path(__file__).parents[1] / "homes"
DOCUMENTS = HOMES / "documents"

SCHEMAS = {
    "schema-1": 1,
    "schema-2": 2,
    "schema-3-early": 3,
    "schema-3": 3,
    "schema-4": 4,
    "schema-5": 5,
}
"""The schema of the state files in each folder."""

FILES = [
    (path.parent.name, path.name.removesuffix(".db.zst")) for path in sorted(HOMES.glob("*/*.zst"))
]
"""Folder and name of every golden state file."""

NEW_SCOPES = ("held|", "open:", "signed|", "uploads|")
"""What the books of schema 1 and 2 did not count yet."""


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


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    """What an earlier version wrote down, by name."""
    return json.loads((DOCUMENTS / "documents.json").read_text())  # type: ignore[no-any-return]


def unpacked(folder: str, name: str, home: Path) -> Path:
    """Lay a golden state file into a new home; returns its path."""
    home.mkdir(parents=True)
    packed = (HOMES / folder / f"{name}.db.zst").read_bytes()
    path = home / "state.db"
    path.write_bytes(zstandard.ZstdDecompressor().decompress(packed))
    return path


def all_rows(path: Path, table: str, columns: str = "*") -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"select {columns} from {table} order by 1, 2").fetchall()


def assert_same_money(now: dict[str, Any], then: dict[str, Any]) -> None:
    """Assert that figures are those of the version that wrote the file, and nothing is new."""
    new = {scope for scope in now["totals"] if scope not in then["totals"]}
    assert all(scope.startswith(NEW_SCOPES) for scope in new), new
    old = {k: units for k, units in now["totals"].items() if k not in new}
    assert old == then["totals"], (old, then["totals"])
    for name, value in now.items():
        if name != "totals":
            known = then.get(name, {})  # a sum that is newer than the file is empty
            assert value == known, (name, value, known)
