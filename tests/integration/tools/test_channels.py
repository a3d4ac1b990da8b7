"""Values of channels by version: whatever follows whatever, each reads back as it was."""

import pytest

from agentkit.errors import StateCorrupt
from agentkit.tools import channels
from agentkit.tools.channels import ChannelValue, chain, read


def test_what_was_added_is_stored_in_links_and_a_missing_one_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channels, "MOST_LINK", 10)
    stored = ChannelValue.of(["aaaa", "bbbb", "cccc"]).stored("1", "1", {}.get)
    stored |= ChannelValue.of(["aaaa", "bbbb", "cccc", "d", "eeee"]).stored("2", "1", stored.get)
    assert list(chain("2", stored.get)) == ["2", "1", "1/1", "1/0"]
    assert stored["2"]["added"] == ["d", "eeee"]
    assert read("2", stored.get) == ["aaaa", "bbbb", "cccc", "d", "eeee"]
    del stored["1/0"]
    with pytest.raises(StateCorrupt, match="stands on is missing"):
        read("2", stored.get)
