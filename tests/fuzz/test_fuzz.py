"""A minute of fuzzing: whatever bytes a reader gets, it takes them or refuses them in our words."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris")

RUNS = {
    "graph": 8_000,
    "toml": 20_000,
    "plan": 8_000,
    "settings": 10_000,
    "receipt": 10_000,
    "voucher": 100_000,
    "item": 400_000,
    "bundle": 400_000,
    "table": 40_000,
}
"""Some seconds of each.  They are the same runs each time: new ones by another `-seed`."""


@pytest.mark.slow
@pytest.mark.parametrize("reader", RUNS)
def test_no_bytes_bring_a_foreign_exception(reader: str, tmp_path: Path) -> None:
    told = subprocess.run(
        [
            *(sys.executable, str(Path(__file__).with_name("readers.py")), reader),
            *(f"-runs={RUNS[reader]}", "-seed=1", "-max_len=1024"),
            *("-rss_limit_mb=2048", "-timeout=10", "-max_total_time=60"),
            f"-artifact_prefix={tmp_path}/",
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=tmp_path,
    )
    assert told.returncode == 0, told.stderr[-3000:]
    runs = re.search(r"Done (\d+) runs", told.stderr)
    assert runs
    assert int(runs[1]) > 500, "the reader was reached, again and again"
