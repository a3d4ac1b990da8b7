"""What an earlier version wrote down, sent and derived is byte for byte the same in this one."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.golden_files import DOCUMENTS, golden, unpacked

from agentkit.graph import codec
from agentkit.journal.upgrades import read_event
from agentkit.market.plan import Plan
from agentkit.market.receipt import Receipt
from agentkit.market.task import TaskSpec
from agentkit.providers.wire import WireTask
from agentkit.runtime.event_stream import line_of

__all__ = ["golden"]


def test_a_graph_that_was_written_is_read_and_has_its_digest(
    tmp_path: Path, golden: dict[str, Any]
) -> None:
    for suffix in ("json", "toml"):
        path = tmp_path / f"graph.{suffix}"
        path.write_text(golden["graph"][suffix])
        graph = codec.load(path)
        assert graph.digest == golden["graph"]["digest"]
        codec.save(graph, path)
        assert path.read_text() == golden["graph"][suffix]


def test_values_that_were_written_are_read_and_written_as_they_were(golden: dict[str, Any]) -> None:
    for text in golden["specs"].values():
        assert TaskSpec.model_validate_json(text).encode() == text
    for text in golden["receipts"]:
        assert Receipt.model_validate_json(text).encode() == text
    for name, text in golden["wire"]["tasks"].items():
        task = WireTask.model_validate_json(text)
        assert task.model_dump_json() == text
        assert task.digest == golden["wire"]["task digests"][name]


def test_a_plan_that_was_saved_is_the_same_plan(tmp_path: Path) -> None:
    plan = Plan.load(DOCUMENTS / "plan.json")
    assert plan.id == json.loads((DOCUMENTS / "plan.json").read_text())["digest"]
    plan.save(tmp_path / "plan.json")
    assert (tmp_path / "plan.json").read_bytes() == (DOCUMENTS / "plan.json").read_bytes()


@pytest.mark.parametrize("name", ["kinds-wallet", "kinds-node", "agent"])
def test_events_are_written_and_printed_as_they_were(tmp_path: Path, name: str) -> None:
    with closing(sqlite3.connect(unpacked("schema-4", name, tmp_path / "home"))) as db:
        rows = db.execute("select kind, version, body from events").fetchall()
    assert rows
    for kind, version, body in rows:
        event = read_event(kind, version, body)
        assert event.encode() == body
        assert json.loads(line_of(event))["event"] == kind
