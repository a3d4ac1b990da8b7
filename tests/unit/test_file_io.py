"""Files that people name may be anything: devices, pipes, folders, on a disk that is full."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentkit.errors import AgentKitError, ConfigError, StoreUnavailable, WrongInput
from agentkit.file_io import read_bytes, write_text
from agentkit.graph.builder import JobGraph
from agentkit.market.plan import Plan
from agentkit.payments.receipts import Bundle


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/full", "/dev/null", "/dev", "pipe", "a\0b"])
def test_only_regular_files_are_read(name: str, pipe: Path) -> None:
    with pytest.raises(WrongInput):
        read_bytes(pipe.parent / name, 1000)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert read_bytes(tmp_path / "file", 100) == b"x" * 100
    with pytest.raises(WrongInput, match="larger"):
        read_bytes(tmp_path / "file", 99)


def test_a_full_disk_leaves_no_draft_and_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_text(path, "one")
    draft_onto_full = tmp_path / "full"
    draft_onto_full.symlink_to("/dev/full")
    with pytest.raises(StoreUnavailable, match="No space left"):
        write_text(draft_onto_full, "two")
    with pytest.raises(ConfigError, match="no-such"):
        write_text(tmp_path / "no-such" / "plan.json", "two")
    assert path.read_text() == "one"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["full", "plan.json"]


def test_every_file_a_person_names_is_refused_in_our_words(pipe: Path) -> None:
    deep = pipe.parent / "deep.json"
    deep.write_text("[" * 100_000)
    odd = pipe.parent / "odd.json"
    odd.write_bytes(b"\xff\xfe\x00")
    surrogate = pipe.parent / "half.json"
    surrogate.write_text('{"name": "g", "nodes": [], "x": "\\ud83d"}')
    for path in (deep, odd, surrogate, pipe, Path("/dev/full"), pipe.parent, Path("none.json")):
        for read in (JobGraph.load, Plan.load, Bundle.load):
            with pytest.raises(AgentKitError) as refused:
                read(path)
            assert refused.value.hint


def test_a_deep_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.toml"
    path.write_text("name = " + "[" * 50_000)
    with pytest.raises(AgentKitError, match="cannot be read"):
        JobGraph.load(path)
