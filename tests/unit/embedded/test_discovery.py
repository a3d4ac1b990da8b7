"""The life of the embedded network's process: who starts it, who outlives whom, what is left."""

from pathlib import Path

import pytest

from agentkit.embedded import discovery
from agentkit.errors import ConfigError, MissingExtra


def test_what_is_no_network_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="does not look like"):
        discovery.reset(tmp_path)
    assert (tmp_path / "precious.txt").exists()


def test_a_missing_extra_names_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "NEEDED", {"no_such_module_here": "no-such-package"})
    with pytest.raises(MissingExtra, match="no-such-package") as raised:
        discovery.ensure(tmp_path / "net")
    assert raised.value.hint == 'install it with: pip install "deai-agentkit[embedded]"'
    assert raised.value.exit_code == 2
