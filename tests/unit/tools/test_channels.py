"""Values of channels by version: whatever follows whatever, each reads back as it was."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkit.errors import StateCorrupt
from agentkit.tools import channels
from agentkit.tools.channels import Channel, chain, read

lists = st.lists(st.integers(0, 2) | st.sampled_from(["", "xy"]), max_size=5)
values = lists | st.integers(0, 2) | st.just({"a": [1]})
histories = st.lists(st.tuples(values, st.integers(0, 9)), min_size=1, max_size=8)


@settings(max_examples=100)
@given(histories)
def test_every_version_of_a_tree_of_versions_reads_back(history: list[tuple[Any, int]]) -> None:
    stored: dict[str, Any] = {}
    for number, (value, back) in enumerate(history):
        older = str(max(0, number - 1 - back % 3))  # forks too
        stored |= Channel.of(value).stored(str(number), older, stored.get)
    for number, (value, _) in enumerate(history):
        assert read(str(number), stored.get) == value


def test_what_was_added_is_stored_in_links_and_a_missing_one_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channels, "MOST_LINK", 10)
    stored = Channel.of(["aaaa", "bbbb", "cccc"]).stored("1", "1", {}.get)
    stored |= Channel.of(["aaaa", "bbbb", "cccc", "d", "eeee"]).stored("2", "1", stored.get)
    assert list(chain("2", stored.get)) == ["2", "1", "1/1", "1/0"]
    assert stored["2"]["added"] == ["d", "eeee"]
    assert read("2", stored.get) == ["aaaa", "bbbb", "cccc", "d", "eeee"]
    del stored["1/0"]
    with pytest.raises(StateCorrupt, match="stands on is missing"):
        read("2", stored.get)
