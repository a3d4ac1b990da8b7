"""Values of channels by version: whatever follows whatever, each reads back as it was."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.drawn_cases import cases

from agentkit.tools.channels import ChannelValue, read

lists = st.lists(st.integers(0, 2) | st.sampled_from(["", "xy"]), max_size=5)
values = lists | st.integers(0, 2) | st.just({"a": [1]})
histories = st.lists(st.tuples(values, st.integers(0, 9)), min_size=1, max_size=8)


@settings(max_examples=cases(100))
@given(histories)
def test_every_version_of_a_tree_of_versions_reads_back(history: list[tuple[Any, int]]) -> None:
    stored: dict[str, Any] = {}
    for number, (value, back) in enumerate(history):
        older = str(max(0, number - 1 - back % 3))  # forks too
        stored |= ChannelValue.of(value).stored(str(number), older, stored.get)
    for number, (value, _) in enumerate(history):
        assert read(str(number), stored.get) == value
