"""Where settings come from, and that nobody reaches a real network by accident."""

import sys
from pathlib import Path

import keyring
import pytest
from keyring.errors import KeyringError

from agentkit.config import Settings
from agentkit.errors import ConfigError, MissingExtra


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("agentkit.config.settings.USER_FILE", tmp_path / "user.toml")
    monkeypatch.setenv("AGENTKIT_TRUST", str(tmp_path))
    return tmp_path


def test_arguments_win_over_environment_over_files_over_defaults(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings.read().memory.upload is None
    (here / "user.toml").write_text("home = 'user'\n[memory]\nupload = 'l1'\n")
    (here / "agentkit.toml").write_text("home = 'local'\n")
    settings = Settings.read()
    assert (settings.home, settings.memory.upload) == (Path("local"), "l1")
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


# -- what opens the wallet -----------------------------------------------------------------------


def test_a_passphrase_comes_from_where_it_is_said_to_lie(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTKIT_PASSPHRASE", "from the environment")
    monkeypatch.setenv("MY_PASSPHRASE", "from a variable of mine")
    secret = here / "secret"
    secret.write_text("from a file\n")
    secret.chmod(0o600)
    monkeypatch.setattr(keyring, "get_password", lambda *who: f"from the keyring of {who}")
    for unlock, passphrase in (
        ("", "from the environment"),
        ("unlock = { env = 'MY_PASSPHRASE' }", "from a variable of mine"),
        (f"unlock = {{ file = '{secret}' }}", "from a file"),
        ("unlock = { keyring = 'mine' }", "from the keyring of ('mine', 'agentkit')"),
    ):
        (here / "agentkit.toml").write_text(f"[wallet]\n{unlock}\n")
        settings = Settings.read()
        assert settings.secret() == passphrase
        assert passphrase not in repr(settings)


@pytest.mark.parametrize(
    ("unlock", "said", "hint"),
    [
        ("{ env = 'NOT_SET' }", "variable NOT_SET is not set", "export NOT_SET=..."),
        ("{ file = 'nowhere' }", "nowhere cannot be read", "check wallet.unlock.file"),
        ("{ file = 'open' }", "others can read the secret in open", "run chmod 600 open"),
        ("{ keyring = 'empty' }", "has no secret of 'empty'", "keyring set empty agentkit"),
        ("{ keyring = 'locked' }", "the keyring cannot be read", "unlock it"),
    ],
)
def test_a_passphrase_that_is_not_there_is_said_so(
    here: Path, monkeypatch: pytest.MonkeyPatch, unlock: str, said: str, hint: str
) -> None:
    def get_password(service: str, user: str) -> str | None:
        if service == "locked":
            raise KeyringError("it is locked")
        return None

    monkeypatch.setattr(keyring, "get_password", get_password)
    monkeypatch.delenv("NOT_SET", raising=False)
    (here / "open").write_text("secret")
    (here / "open").chmod(0o644)
    (here / "agentkit.toml").write_text(f"[wallet]\nunlock = {unlock}\n")
    with pytest.raises(ConfigError, match=said) as wrong:
        Settings.read().secret()
    assert hint in wrong.value.hint


def test_without_the_keyring_package_its_extra_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    (here / "agentkit.toml").write_text("[wallet]\nunlock = { keyring = 'mine' }\n")
    with pytest.raises(MissingExtra) as wrong:
        Settings.read().secret()
    assert "deai-agentkit[keyring]" in wrong.value.hint


@pytest.mark.parametrize("address", ["0x12", "me", "0x" + "g" * 40])
def test_an_arbiter_is_an_address(here: Path, address: str) -> None:
    (here / "agentkit.toml").write_text(f"[payments]\narbiter = '{address}'\n")
    with pytest.raises(ConfigError, match="is not a valid address"):
        Settings.read()


# -- serve ---------------------------------------------------------------------------------------


def test_a_flag_of_serve_wins_over_its_key_and_leaves_the_others(here: Path) -> None:
    (here / "agentkit.toml").write_text(
        "[serve]\nport = 9000\nslots = 2\nhost_names = ['a.example', 'b.example']\n"
        "[serve.price.infer]\ninput = '0.5 USDC per 1M tokens'\n"
    )
    serve = Settings.read(
        serve={"slots": 3, "price": {"infer": {"output": "2 USDC per 1M tokens"}}}
    ).serve
    assert (serve.port, serve.slots, serve.threads) == (9000, 3, 1)
    assert serve.host_names == ("a.example", "b.example")
    assert {unit: str(rate) for unit, rate in serve.price["infer"].items()} == {
        "input": "0.50 USDC per 1M tokens",
        "output": "2.00 USDC per 1M tokens",
    }


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("port = 0", "port"),
        ("port = 65536", "port"),
        ("slots = 65", "slots"),
        ("percent = 0", "percent"),
        ("name = '../x'", "name"),
        ("name = ''", "name"),
        ("window = 0.05", "window"),
        ("request_price = '-1 USDC'", "request_price"),
        ("offers_last = inf", "offers_last"),
        ("facilitator = 'ftp://x'", "facilitator"),
        ("price.infer.input = 'cheap'", "price.infer.input"),
        ("api_keys = ['open sesame']", "api_keys.0"),
        ("token = 'open sesame'", "token"),
        ("prot = 9000", "prot"),
    ],
)
def test_what_serve_cannot_be_set_to_is_named(here: Path, line: str, where: str) -> None:
    (here / "agentkit.toml").write_text(f"[serve]\n{line}\n")
    with pytest.raises(ConfigError, match=rf"serve\.{where}.* in agentkit\.toml") as wrong:
        Settings.read()
    assert "open sesame" not in str(wrong.value)


@pytest.mark.parametrize("key", ["token = {", "api_keys = [{"])
def test_what_opens_the_wallet_opens_no_node(here: Path, key: str) -> None:
    end = "}]" if "[" in key else "}"
    (here / "agentkit.toml").write_text(f"[serve]\n{key} env = 'agentkit_passphrase' {end}\n")
    with pytest.raises(ConfigError, match=r"serve\.(token|api_keys\.0) names .*never sent"):
        Settings.read()
