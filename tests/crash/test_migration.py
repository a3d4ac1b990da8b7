"""A migration that is killed at any moment leaves the old file or the new one, nothing between."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.golden_files import SCHEMAS, unpacked
from support.processes import PROGRAMS
from support.timing import limit

from agentkit.journal.store import SCHEMA_VERSION

KILLS = 50

REWRITES_ROWS_BELOW = 4
"""Schemas below it have rows that a later step rewrites; from it on the steps add tables alone."""

OLD = [folder for folder, schema in SCHEMAS.items() if schema < SCHEMA_VERSION]


@pytest.mark.parametrize("folder", OLD)
def test_a_migration_killed_anywhere_is_done_by_the_next_process(
    tmp_path: Path, folder: str
) -> None:
    original = unpacked(folder, "agent", tmp_path / "original")
    (tmp_path / "killed").mkdir()
    command = [sys.executable, str(PROGRAMS / "killed_migrations.py")]
    done = subprocess.run(
        [*command, str(original), str(tmp_path / "killed"), str(KILLS)],
        capture_output=True,
        text=True,
        timeout=limit(240),
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    print(folder, seen)
    assert seen["killed"] == KILLS
    # Before the copy was there, with it, while rows were written, and after the commit.
    assert KILLS / 5 <= seen["copied"] < KILLS
    rewrites = SCHEMAS[folder] < REWRITES_ROWS_BELOW
    assert (KILLS / 5 if rewrites else 1) <= seen["in_transaction"] < KILLS
    assert 1 <= seen["migrated"] < KILLS / 5
