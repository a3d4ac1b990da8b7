"""Where settings come from, and that nobody reaches a real network by accident."""

from pathlib import Path

import pytest

from agentkit.config import Settings
from agentkit.errors import ConfigError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("agentkit.config.USER_FILE", tmp_path / "user.toml")
    return tmp_path


def test_arguments_win_over_environment_over_files_over_defaults(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings.read().memory.upload == "turbo"
    (here / "user.toml").write_text("home = 'user'\n[memory]\nupload = 'user'\n")
    (here / "agentkit.toml").write_text("home = 'local'\n")
    settings = Settings.read()
    assert (settings.home, settings.memory.upload) == (Path("local"), "user")
    assert settings.origins["home"] == str(Path("agentkit.toml"))
    monkeypatch.setenv("AGENTKIT_HOME", "environment")
    assert Settings.read().home == Path("environment")
    settings = Settings.read(home=Path("argument"))
    assert (settings.home, settings.origins["home"]) == (Path("argument"), "argument")


def test_one_file_can_be_named_instead(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "user.toml").write_text("network = 'base'\n")
    (here / "agentkit.toml").write_text("network = 'base'\n")
    (here / "only.toml").write_text("home = 'only'\n")
    monkeypatch.setenv("AGENTKIT_CONFIG", str(here / "only.toml"))
    settings = Settings.read()
    assert (settings.home, settings.network) == (Path("only"), None)
    monkeypatch.setenv("AGENTKIT_CONFIG", str(here / "gone.toml"))
    with pytest.raises(ConfigError, match=r"gone\.toml") as raised:
        Settings.read()
    assert "AGENTKIT_CONFIG" in raised.value.hint


def test_the_environment_never_sets_a_real_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTKIT_NETWORK", "base")
    settings = Settings.read()
    assert settings.network is None
    assert settings.network_home == Path("base")


def test_secrets_are_named_by_their_variable_and_never_shown(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "agentkit.toml").write_text("[providers.gaia]\napi_key = { env = 'GAIA_KEY' }\n")
    monkeypatch.setenv("AGENTKIT_PASSPHRASE", "correct horse")
    settings = Settings.read()
    with pytest.raises(ConfigError, match="GAIA_KEY") as raised:
        settings.providers["gaia"].key()
    assert "export GAIA_KEY" in raised.value.hint
    monkeypatch.setenv("GAIA_KEY", "sk-very-secret")
    assert settings.providers["gaia"].key() == "sk-very-secret"
    shown = repr(settings) + str(settings) + settings.model_dump_json()
    assert "sk-very-secret" not in shown
    assert "correct horse" not in shown


def test_a_float_is_no_amount_of_money(here: Path) -> None:
    (here / "agentkit.toml").write_text("[allowance]\nper_run = 2.0\n")
    with pytest.raises(ConfigError, match=r"allowance\.per_run in agentkit\.toml"):
        Settings.read()
