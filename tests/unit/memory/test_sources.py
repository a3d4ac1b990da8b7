"""A source is read from wherever its URI says, and never more than it may be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agentkit.errors import MissingExtra, StateError, StoreUnavailable, WrongInput
from agentkit.memory.artifacts.sources import Sources

ROWS = b'{"text": "a"}\n{"text": "b"}\n'


async def test_other_schemes_are_read_by_fsspec(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(ROWS)
    assert await Sources().read(f"file://{tmp_path}/rows.jsonl") == ROWS
    import fsspec

    with fsspec.open("memory://rows.jsonl", "wb") as file:
        file.write(ROWS)
    assert await Sources().read("memory://rows.jsonl") == ROWS


@pytest.mark.parametrize(
    ("uri", "error", "hint"),
    [
        ("ar://" + "A" * 43, WrongInput, "set memory.gateways"),
        ("ipfs://bafy", WrongInput, "set memory.ipfs"),
        ("file:///nowhere/rows.jsonl", WrongInput, "give source="),
        ("s3://bucket/rows.jsonl", WrongInput, "install that package"),
        ("gopher://old/rows.jsonl", StoreUnavailable, ""),
    ],
)
async def test_what_cannot_be_read_says_why(uri: str, error: type[StateError], hint: str) -> None:
    with pytest.raises(error) as raised:
        await Sources().read(uri)
    assert uri in str(raised.value)
    assert raised.value.hint.startswith(hint)


async def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtra) as raised:
        await Sources().read("memory://rows.jsonl")
    assert "deai-agentkit[sources]" in raised.value.hint
