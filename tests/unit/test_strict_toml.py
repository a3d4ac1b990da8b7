"""A graph or a settings file of a stranger is read in linear time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from agentkit import strict_toml
from agentkit.errors import GraphError
from agentkit.graph import codec

DEEP = ".".join("a" * 40_000)


@pytest.mark.parametrize(
    "text",
    [
        f"{DEEP} = 1",
        f"[{DEEP}]",
        f"[[ {DEEP}]]",
        f"x = {{ {DEEP} = 1 }}",
        f"x = {{ y = 1, {DEEP} = 1 }}",
        " . ".join(['"a"'] * 40_000) + " = 1",
        "\n\t" + ".".join(["'a'"] * 40_000) + " = 1",
    ],
    ids=["key", "table", "list of tables", "inline", "second inline", "quoted", "indented"],
)
def test_a_key_of_many_parts_is_refused_at_once(text: str) -> None:
    started = time.process_time()
    with pytest.raises(RecursionError, match="more than 100 parts"):
        strict_toml.loads(text)
    assert time.process_time() - started < 2


def test_a_graph_with_such_a_key_is_told_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "graph.toml"
    path.write_text(f'name = "g"\n{DEEP} = 1\n')
    with pytest.raises(GraphError, match=r"graph.toml cannot be read .* \(at line 2\)"):
        codec.load(path)


def test_what_settings_and_graphs_hold_is_read() -> None:
    text = 'a.b."c.d" = "x.y.z"\n[t.u]\nlist = [1.5, 2]\nlong = """\nOne. Two. Three.\n"""\n'
    assert strict_toml.loads(text) == {
        "a": {"b": {"c.d": "x.y.z"}},
        "t": {"u": {"list": [1.5, 2], "long": "One. Two. Three.\n"}},
    }


@pytest.mark.parametrize("piece", [",", '"', "'", ",'", ',"', "a", "a.", " ", "[", "{,", '"a"'])
def test_looking_for_such_keys_is_linear_itself(piece: str) -> None:
    started = time.process_time()
    strict_toml._LONG_KEY.search(piece * 200_000)
    assert time.process_time() - started < 2
