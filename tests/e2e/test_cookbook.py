"""The notebooks, each executed in a real kernel."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

COOKBOOK = Path(__file__).parents[2] / "cookbook"
NOTEBOOKS = sorted(path.name for path in COOKBOOK.glob("[0-9]*.py"))


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cookbook_run", COOKBOOK / "run.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_five() -> None:
    assert len(NOTEBOOKS) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_its_first_cell_to_its_last(
    name: str, runner: ModuleType, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(own_folder))
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    notebook = runner.execute(COOKBOOK / name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    shown = "".join(o.get("text", "") for cell in code for o in cell.outputs)
    assert "paid" in shown
