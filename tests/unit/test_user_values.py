"""A slip in a value that a user writes is an error of ours, with a hint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentkit as ak
from agentkit.config import Settings
from agentkit.graph import codec

SLIPS: dict[str, tuple[Callable[[], Any], type[Exception], str, str]] = {
    "a limit": (lambda: ak.Allowance(per_hour="1 USDC"), ak.ConfigError, "per_hour", "per_day"),
    "a need": (lambda: ak.Needs(gpus=1), ak.GraphError, "gpus", "count"),
    "a stage": (lambda: ak.Timeouts(run=1), ak.GraphError, "run", "execute"),
    "an amount": (lambda: ak.Allowance(per_day=1.5), ak.BadAmount, "per_day", "USDC"),
    "a number": (lambda: ak.Needs(vram=-1), ak.GraphError, "vram", "mend"),
    "a share": (lambda: ak.policy.prefer("a", within=10), ak.ConfigError, "10", "10%"),  # type: ignore[arg-type]
    "a file": (lambda: ak.Agent.from_config("x.toml"), ak.ConfigError, "x.toml", "check"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_says_what_to_write_instead(slip: str) -> None:
    make, kind, words, hint = SLIPS[slip]
    with pytest.raises(kind) as refused:
        make()
    assert isinstance(refused.value, ak.AgentKitError)
    assert words in str(refused.value)
    assert hint in refused.value.hint


def test_in_a_document_it_is_still_told_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[allowance]\nper_hour = '1 USDC'\n")
    with pytest.raises(ak.ConfigError, match=r"allowance\.per_hour in .*settings\.toml"):
        Settings.read(tmp_path / "settings.toml")
    node = {"kind": "infer", "name": "a", "model": "m", "prompt": "p", "timeout": {"run": 1}}
    graph = {"name": "g", "nodes": [node]}
    with pytest.raises(ak.GraphError, match=r"'a'.*run"):
        codec.decode(graph)
