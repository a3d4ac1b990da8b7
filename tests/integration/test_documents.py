"""What an earlier version wrote down, sent and derived is byte for byte the same in this one."""

import importlib.util
import json
from types import ModuleType
from typing import Any

import pytest
from support.golden_files import HOMES, golden

__all__ = ["golden"]


def maker() -> ModuleType:
    """Return the script that made the documents."""
    spec = importlib.util.spec_from_file_location("make_documents", HOMES / "documents.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("part", ["graph", "specs", "wire", "mapped", "receipts"])
def test_fixed_inputs_come_to_the_same_bytes(golden: dict[str, Any], part: str) -> None:
    made = json.loads(json.dumps(maker().build()[part]))
    assert made == golden[part]
