"""What a folder that a stranger made can do to whoever enters it, and what a person consents to."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel, SecretStr
from support.strangers_folder import GAIA, cli, home, strangers_folder, trusted, write

import agentkit
from agentkit.agent import Agent
from agentkit.cli.setup import FIRST_GRAPH
from agentkit.config import (
    ApprovalSettings,
    ProviderSettings,
    SecretInFile,
    Settings,
    WalletSettings,
    consent,
    trust,
)
from agentkit.config.reading import MAX_SETTINGS_BYTES
from agentkit.errors import ConfigError, Untrusted
from agentkit.graph.builder import JobGraph
from agentkit.keys import keystore

__all__ = ["home", "strangers_folder"]

ADDRESS = "0x" + "11" * 20


def write_own(home: Path, text: str) -> None:
    file = home / ".config/agentkit/config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def asked() -> Untrusted:
    with pytest.raises(Untrusted) as raised:
        Settings.read()
    return raised.value


# -- every key -----------------------------------------------------------------------------------

FREE = {
    "home": "'inside'",
    "allowance.per_task": "'1 USDC'",
    "allowance.per_run": "'1 USDC'",
    "allowance.per_day": "'1 USDC'",
    "allowance.total": "'1 USDC'",
    "allowance.per_provider": "'1 USDC'",
    "allowance.exposure": "'1 USDC'",
    "allowance.per_minute": "1",
    "allowance.providers": "['native']",
    "approval.above": "'1 USDC'",
    "approval.patience": "1.0",
    "memory.seal_before_pay": "'1 USDC'",
    "memory.stable_before_pay": "'1 USDC'",
    "providers.gaia.label": "'a name'",
    "providers.gaia.enabled": "false",
}
"""What needs no consent, with a value that restricts a user who set nothing."""

ASKED = {
    "network": "'base'",
    "network_home": "'inside'",
    "wallet.keystore": "'inside.json'",
    "wallet.unlock": "{ env = 'A_VARIABLE' }",
    "wallet.signer": "'here'",
    "chain.rpc": "'https://a.example'",
    "chain.channels": f"'{ADDRESS}'",
    "chain.escrow": f"'{ADDRESS}'",
    "chain.anchor": f"'{ADDRESS}'",
    "chain.token_name": "'USDC'",
    "chain.finality": "1",
    "usd": "'usdc'",
    "networks.gaia.chain_id": "10",
    "networks.gaia.rpc": "['https://a.example', 'https://b.example']",
    "networks.gaia.token": f"'{ADDRESS}'",
    "networks.gaia.token_name": "'USDC'",
    "networks.gaia.token_version": "'1'",
    "networks.gaia.finality": "1",
    "networks.gaia.coin": "'ETH'",
    "networks.gaia.gas_oracle": f"'{ADDRESS}'",
    "networks.gaia.facilitator": "'https://a.example'",
    "allowance.gas": "'0.1 ETH'",
    "allowance.rebuy_below": "'1 USDC'",
    "allowance.payees": f"['{ADDRESS}']",
    "providers.gaia.adapter": "'native'",
    "providers.gaia.url": "'https://a.example'",
    "providers.gaia.urls": "['https://a.example']",
    "providers.gaia.api_key": "{ env = 'A_VARIABLE' }",
    "providers.gaia.price": "{ input = '1 USDC per 1M tokens' }",
    "providers.gaia.models": "{ small = 'large' }",
    "providers.gaia.accepts": "{ small = ['large'] }",
    "providers.gaia.overhead_tokens": "9",
    "providers.gaia.reasoning_tokens": "9",
    "providers.gaia.payee": f"'{ADDRESS}'",
    "payments.escrow_from": "'1 USDC'",
    "payments.escrow_after": "1.0",
    "payments.arbiter": f"'{ADDRESS}'",
    "payments.arbiter_above": "'1 USDC'",
    "payments.close_idle": "1.0",
    "memory.gateways": "['https://a.example']",
    "memory.encryption": "'shred'",
    "memory.upload": "'turbo'",
    "memory.turbo": "'https://a.example'",
    "memory.jwk": "'inside.json'",
    "memory.pay": "'x402'",
    "memory.per_upload": "'1 USDC'",
    "memory.total": "'1 USDC'",
    "memory.interval": "1.0",
    "memory.head_anchor": "'evm'",
    "memory.anchor_interval": "1.0",
    "memory.arweave_up_to": "1",
    "memory.ipfs": "'http://127.0.0.1:1'",
    "approval.ask": "'https://a.example'",
    "approval.token": "{ env = 'A_VARIABLE' }",
    "serve.name": "'mine'",
    "serve.label": "'a name'",
    "serve.port": "9000",
    "serve.slots": "2",
    "serve.threads": "2",
    "serve.nice": "1",
    "serve.percent": "50",
    "serve.price": "{ infer = { input = '1 USDC per 1M tokens' } }",
    "serve.window": "'1 USDC'",
    "serve.offers_last": "1.0",
    "serve.facilitator": "'https://a.example'",
    "serve.request_price": "'1 USDC'",
    "serve.host_names": "['a.example']",
    "serve.gpu": "'a card'",
    "serve.vram": "8",
    "serve.api_keys": "[{ env = 'A_VARIABLE' }]",
    "serve.token": "{ env = 'A_VARIABLE' }",
    "serve.public_metrics": "true",
}
"""What needs consent, with a value that is valid."""

NOT_IN_FILES = {"passphrase"}


def keys_of(model: type[BaseModel]) -> Iterator[str]:
    """Yield the keys of a settings model, sections walked, a provider called gaia."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        inner = get_args(kind)[1] if get_origin(kind) is dict else kind
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            path = f"{name}.gaia" if get_origin(kind) is dict else name
            yield from (f"{path}.{below}" for below in keys_of(inner))
        else:
            yield name


def test_somebody_decided_for_every_key_there_is() -> None:
    assert set(keys_of(Settings)) == FREE.keys() | ASKED.keys() | NOT_IN_FILES
    free = {key.replace("gaia", "*") for key in FREE}
    only_lowered = {"allowance.gas", "allowance.rebuy_below"}
    only_lowered |= {"memory.per_upload", "memory.total", "memory.arweave_up_to"}
    assert consent.RULES.keys() == free | only_lowered


@pytest.mark.parametrize("key", sorted(ASKED))
def test_what_could_do_harm_counts_only_once_trusted(folder: Path, home: Path, key: str) -> None:
    write_own(home, GAIA + "url = 'https://mine.example'\n")
    write(folder, f"{key} = {ASKED[key]}\n")
    request = asked()
    assert any(shown.startswith(key) for shown in request.shown)
    assert request.exit_code == 2
    trusted(folder)
    assert Settings.read().origins[key.split(".", maxsplit=1)[0]] == "agentkit.toml"


@pytest.mark.parametrize("key", sorted(FREE))
def test_what_restricts_needs_no_trust(folder: Path, home: Path, key: str) -> None:
    write_own(home, GAIA + "url = 'https://mine.example'\n")
    write(folder, f"{key} = {FREE[key]}\n")
    assert Settings.read().origins[key.split(".", maxsplit=1)[0]] == "agentkit.toml"
    assert not (home / ".config/agentkit/trust.json").exists()


def test_a_new_key_needs_consent_until_somebody_decides(folder: Path) -> None:
    class Later(Settings):
        colour: str = ""

    write(folder, "colour = 'red'\n")
    with pytest.raises(Untrusted, match="colour"):
        Later.read()


def test_a_secret_that_may_stand_in_clear_is_never_shown() -> None:
    sections = {
        "providers.*": ProviderSettings,
        "approval": ApprovalSettings,
        "wallet": WalletSettings,
    }
    in_clear = {
        f"{section}.{name}"
        for section, model in sections.items()
        for name, field in model.model_fields.items()
        if SecretStr in (field.annotation, *get_args(field.annotation))
    }
    assert in_clear == consent.SECRET_KEYS


# -- limits and paths ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "theirs", "free"),
    [
        ("per_run = '2 USDC'", "per_run = '2 USDC'", True),
        ("per_run = '2 USDC'", "per_run = '2.000001 USDC'", False),
        ("per_run = '2 USDC'", "per_run = '1 ETH'", False),
        ("per_minute = 5", "per_minute = 6", False),
        ("per_minute = 5", "per_minute = 5", True),
        ("gas = '0.1 ETH'", "gas = '0.1 ETH'", True),
        ("gas = '0.1 ETH'", "gas = '0.2 ETH'", False),
        ("rebuy_below = '1 USDC'", "rebuy_below = '2 USDC'", False),
        ("providers = ['a', 'b']", "providers = ['b']", True),
        ("providers = ['a', 'b']", "providers = ['*']", False),
    ],
)
def test_a_limit_above_the_users_own_needs_consent(
    folder: Path, home: Path, own: str, theirs: str, free: bool
) -> None:
    write_own(home, f"[allowance]\n{own}\n")
    write(folder, f"[allowance]\n{theirs}\n")
    if free:
        Settings.read()
    else:
        assert list(asked().shown) == [f"allowance.{theirs.split(' ', maxsplit=1)[0]}"]


def test_a_limit_of_the_environment_is_the_users_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTKIT_APPROVAL", '{"above": "1 USDC"}')
    write(folder, "[approval]\nabove = '2 USDC'\n")
    assert list(asked().shown) == ["approval.above"]


@pytest.mark.parametrize("path", ["../elsewhere", "/elsewhere", "~/elsewhere", "link/x", "loop"])
def test_a_path_that_leads_out_of_the_folder_needs_consent(folder: Path, path: str) -> None:
    (folder / "link").symlink_to(folder.parent)
    (folder / "loop").symlink_to("loop")
    write(folder, f"home = '{path}'\n")
    assert list(asked().shown) == ["home"]


def test_the_books_of_real_money_do_not_begin_again_in_a_strangers_folder(
    folder: Path, home: Path
) -> None:
    write_own(home, "network = 'base'\n")
    write(folder, "home = 'inside'\n")
    assert list(asked().shown) == ["home"]


def test_a_provider_that_the_user_does_not_have_brings_code(folder: Path) -> None:
    write(folder, "[providers.plugin]\nlabel = 'harmless'\n")
    assert asked().shown == {"providers.plugin.adapter": '"plugin"'}
    write(folder, "[providers.plugin]\nenabled = false\n")
    Settings.read()


@pytest.mark.parametrize("name", ["AGENTKIT_PASSPHRASE", "agentkit_passphrase", "MY_PASSPHRASE"])
@pytest.mark.parametrize("key", ["providers.gaia.api_key", "approval.token"])
def test_what_opens_the_wallet_is_never_sent_even_by_a_named_file(
    folder: Path, name: str, key: str
) -> None:
    text = f"wallet.unlock = {{ env = 'MY_PASSPHRASE' }}\n{key} = {{ env = '{name}' }}\n"
    (folder / "named.toml").write_text(text)
    with pytest.raises(ConfigError, match=f"{key} names {name}") as raised:
        Settings.read(folder / "named.toml")
    assert raised.value.hint == f"name another variable in {key}"


def test_a_folders_address_does_not_get_the_users_key_unasked(folder: Path, home: Path) -> None:
    """Settings merge key by key, so the folder's address joins the user's key."""
    write_own(home, GAIA + "url = 'https://mine.example'\napi_key = { env = 'GAIA_KEY' }\n")
    write(folder, GAIA + "url = 'https://theirs.example'\n")
    shown = asked().shown["providers.gaia.url"]
    assert shown == '"https://theirs.example"  (your own providers.gaia.api_key goes there)'


def test_a_key_that_the_user_sets_later_does_not_go_to_an_address_trusted_before(
    folder: Path, home: Path
) -> None:
    write_own(home, GAIA + "url = 'https://mine.example'\n")
    write(folder, GAIA + "url = 'https://theirs.example'\n")
    trusted(folder)
    Settings.read()
    write_own(home, GAIA + "url = 'https://mine.example'\napi_key = { env = 'GAIA_KEY' }\n")
    assert asked().changed == {"providers.gaia.url": "changed"}


# -- consent -------------------------------------------------------------------------------------


def test_trust_shows_what_is_consented_to_and_keeps_no_secret(folder: Path, home: Path) -> None:
    write(folder, GAIA + "url = 'https://a.example'\napi_key = 'sk-very-secret'\n")
    told = cli("trust", ".")
    assert told.exit_code == 0
    assert '"https://a.example"' in told.stdout
    record = home / ".config/agentkit/trust.json"
    for text in (told.output, record.read_text()):
        assert "sk-very-secret" not in text
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE(record.parent.stat().st_mode) == 0o700
    assert Settings.read().providers["gaia"].key() == "sk-very-secret"


def test_an_edit_of_a_consented_key_asks_again_and_nothing_else_does(folder: Path) -> None:
    write(folder, "network = 'base'\nchain.rpc = 'https://a.example'\n")
    trusted(folder)
    write(folder, "# a comment\nhome = 'inside'\nchain.rpc='https://a.example'\nnetwork='base'\n")
    assert asked().changed == {"home": "new"}  # on a real network
    write(folder, "# a comment\n[chain]\nrpc='https://a.example'\n[allowance]\nper_run='1 USDC'\n")
    assert asked().changed == {"network": "removed"}
    write(folder, "network = 'base'\nchain.rpc = 'https://a.example'\n[approval]\npatience = 1\n")
    Settings.read()
    write(folder, "network = 'base'\nchain.rpc = 'https://b.example'\n")
    request = asked()
    assert request.changed == {"chain.rpc": "changed"}
    assert "was changed since you trusted it: chain.rpc" in str(request)


def test_consent_is_to_what_was_shown_whatever_the_file_says_by_then(folder: Path) -> None:
    write(folder, "network = 'base'\n")
    request = asked()
    write(folder, "network = 'base-sepolia'\n")
    trust.grant(request)
    assert asked().changed == {"network": "changed"}


def test_consent_can_be_listed_and_taken_back(folder: Path) -> None:
    write(folder, "network = 'base'\n")
    trusted(folder)
    assert json.loads(cli("trust", "--list", "--json").stdout) == {str(folder): ["network"]}
    assert "trusted no more" in cli("trust", ".", "--forget").stdout
    asked()


def test_json_says_what_was_consented_to(folder: Path) -> None:
    write(folder, "network = 'base'\n")
    told = json.loads(cli("trust", str(folder / "agentkit.toml"), "--json").stdout)
    assert told == {
        "folder": str(folder),
        "trusted": True,
        "settings": {"network": '"base"'},
        "changed": {"network": "new"},
    }


def test_a_value_cannot_rewrite_the_screen(folder: Path) -> None:
    write(folder, 'network = "base\\u001b[2K\\u202e"\n[providers."\\u001b[2J"]\nadapter = "x"\n')
    request = asked()
    for text in (str(request), *request.shown, *request.shown.values()):
        assert text.isprintable()
        assert text.isascii()


def test_another_folder_or_the_same_by_another_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "network = 'base'\n")
    trusted(folder)
    (tmp_path / "alias").symlink_to(folder)
    monkeypatch.chdir(tmp_path / "alias")
    Settings.read()
    below = folder / "below"
    below.mkdir()
    write(below, "network = 'base'\n")
    monkeypatch.chdir(below)
    asked()


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1, "folders": []}', "[" * 100_000])
def test_a_damaged_record_is_no_consent(folder: Path, home: Path, text: str) -> None:
    write(folder, "network = 'base'\n")
    trusted(folder)
    record = home / ".config/agentkit/trust.json"
    record.write_text(text)
    with pytest.raises(ConfigError, match=r"trust\.json is damaged"):
        Settings.read()


def test_a_record_that_others_could_have_written_is_no_consent(folder: Path, home: Path) -> None:
    write(folder, "network = 'base'\n")
    trusted(folder)
    (home / ".config/agentkit/trust.json").chmod(0o666)
    with pytest.raises(ConfigError, match="others can write"):
        Settings.read()


def test_the_library_asks_nobody(folder: Path) -> None:
    write(folder, "network = 'base'\n")
    with pytest.raises(Untrusted) as raised:
        Agent.from_config()
    assert raised.value.hint.startswith(f"run `agentkit trust '{folder}'`")


@pytest.mark.parametrize("how", ["--config", "AGENTKIT_CONFIG", "from_config"])
def test_a_file_that_is_named_is_trusted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    write(folder, "network = 'base'\n")
    file = folder / "agentkit.toml"
    if how == "--config":
        assert cli("network", "status", "--config", str(file)).exit_code == 0
    elif how == "from_config":
        assert Agent.from_config(file).settings.network == "base"
    else:
        monkeypatch.setenv("AGENTKIT_CONFIG", str(file))
        assert Agent.from_config().settings.network == "base"


def test_a_folder_named_in_the_environment_is_trusted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "network = 'base'\n")
    monkeypatch.setenv("AGENTKIT_TRUST", "")
    asked()
    monkeypatch.setenv("AGENTKIT_TRUST", str(folder.parent))
    asked()
    monkeypatch.setenv("AGENTKIT_TRUST", os.pathsep.join(["/elsewhere", "", f"{folder}/"]))
    assert Settings.read().network == "base"
    monkeypatch.setenv("AGENTKIT_TRUST", ".")
    with pytest.raises(ConfigError, match="not an absolute path"):
        Settings.read()


def test_a_file_that_others_can_change_always_asks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "[approval]\npatience = 1\n")
    trusted(folder)
    Settings.read()
    for path, mode in ((folder / "agentkit.toml", 0o666), (folder, 0o777)):
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        monkeypatch.setenv("AGENTKIT_TRUST", str(folder))
        request = asked()
        assert "everybody can write to" in str(request)
        assert "--config" in request.hint
        assert cli("trust", ".").exit_code == 2
        path.chmod(before)
        monkeypatch.delenv("AGENTKIT_TRUST")


def test_a_file_of_another_user_always_asks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "network = 'base'\n")
    trusted(folder)
    Settings.read()
    if os.geteuid() == 0:
        os.chown(folder / "agentkit.toml", 54321, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        monkeypatch.setattr(trust, "read_records", dict)
    request = asked()
    assert "belongs to another user" in str(request)
    trust.grant(request)  # a person's yes, for this process
    assert Settings.read().network == "base"
    write(folder, "network = 'base-sepolia'\n")
    asked()


# -- init ----------------------------------------------------------------------------------------


def test_init_consents_to_what_it_wrote_and_to_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTKIT_PASSPHRASE", "correct horse")
    monkeypatch.setattr("agentkit.cli.setup.FIRST_CONFIG", "network = 'base'\n")
    assert "agentkit.toml written" in cli("init").stdout
    assert Settings.read().network == "base"
    write(folder, "network = 'base-sepolia'\n")
    assert cli("init").exit_code == 2
    asked()
    write(folder, "home = 'inside'\n")
    assert "agentkit.toml was there already" in cli("init").stdout
    write(folder, "network = 'base-sepolia'\n")
    asked()


def test_every_process_of_ours_is_started_apart_from_the_working_directory() -> None:
    package = Path(agentkit.__file__).parent
    sources = [path.read_text() for path in package.rglob("*.py")]
    started = [match for text in sources for match in re.findall(r'executable,\s*("[^"]*")', text)]
    assert len(started) >= 6
    assert set(started) == {'"-P"'}


# -- files as they come --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        (b"\xff\xfen\x00=\x001\x00", "not text in UTF-8"),
        (b"label = '\xe9'", "not text in UTF-8"),
        (b"x = " + b"[" * 30_000, "nests deeper"),
        (b"a." * 9 + b"a = 1", "nests deeper"),
        (b"a." * 20_000 + b"a = 1", "nests deeper"),
        (b"x = " + b"9" * 10_000, "not a TOML file"),
        (b"#" * (MAX_SETTINGS_BYTES + 1), "larger than"),
        (b"= =", "not a TOML file"),
    ],
)
def test_a_settings_file_that_is_none_is_told_in_a_sentence(
    folder: Path, raw: bytes, cause: str
) -> None:
    (folder / "agentkit.toml").write_bytes(raw)
    with pytest.raises(ConfigError, match=cause) as raised:
        Settings.read()
    assert "agentkit.toml" in str(raised.value)
    assert raised.value.exit_code == 2


def test_a_settings_file_that_never_ends_is_not_read(folder: Path) -> None:
    for make in (os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")):
        path = folder / "agentkit.toml"
        make(path)
        with pytest.raises(ConfigError, match="not a regular file"):
            Settings.read()
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_byte_order_mark_is_no_part_of_settings_or_secrets(folder: Path) -> None:
    (folder / "agentkit.toml").write_bytes(b"\xef\xbb\xbf[allowance]\r\nper_run = '1 USDC'\r\n")
    assert str(Settings.read().allowance.per_run) == "1.00 USDC"
    secret = folder / "secret"
    secret.write_bytes(b"\xef\xbb\xbfcorrect horse\r\n")
    secret.chmod(0o600)
    assert SecretInFile(file=secret).read() == "correct horse"


def test_a_byte_order_mark_is_no_part_of_graphs_and_keys_either(folder: Path) -> None:
    graph = folder / "graph.toml"
    graph.write_text(FIRST_GRAPH, encoding="utf-8-sig")
    assert JobGraph.load(graph).freeze().name == "hello"
    key = folder / "key.json"
    address = keystore.create_test_key(key).address
    key.write_bytes(b"\xef\xbb\xbf" + key.read_bytes())
    assert keystore.unlock(key, real=False).address == address


def test_an_empty_variable_is_not_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = Settings.read()
    for name in ("HOME", "NETWORK", "CONFIG", "TRUST", "WALLET__KEYSTORE", "MEMORY__JWK"):
        monkeypatch.setenv(f"AGENTKIT_{name}", "")
    assert Settings.read().model_dump() == default.model_dump()
    assert default.home != Path()


@pytest.mark.parametrize("path", ["", "~nobody-of-this-name/x", "a\\u0000b"])
def test_a_path_that_no_file_can_have_is_refused(folder: Path, path: str) -> None:
    write(folder, f'home = "{path}"\n')
    with pytest.raises(ConfigError, match=r"home in agentkit\.toml"):
        Settings.read()
