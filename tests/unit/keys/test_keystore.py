"""Key files as people have them: opened, or named for what they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eth_keyfile.keyfile import create_keyfile_json

from agentkit.errors import ConfigError, WrongKey
from agentkit.keys import keystore
from agentkit.keys.signer import KeySigner

KEY, PASSPHRASE = b"\x11" * 32, "correct horse"
ADDRESS = KeySigner(KEY).address


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    return create_keyfile_json(KEY, PASSPHRASE.encode(), kdf="pbkdf2", iterations=10)


def written(path: Path, document: Any) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    path.chmod(0o600)
    return path


def crypto(plain: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return plain | {"crypto": plain["crypto"] | changes}


def kdf(plain: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return crypto(plain, kdfparams=plain["crypto"]["kdfparams"] | changes)


OPENS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "as geth writes it": lambda plain: plain,
    "capitals": lambda p: {"Crypto": p["crypto"], "Version": 3, "Address": p["address"]},
    "version as text": lambda plain: plain | {"version": "3"},
    "no address": lambda p: {name: p[name] for name in ("crypto", "version")},
    "address with 0x": lambda plain: plain | {"address": ADDRESS},
    "fields of others": lambda plain: plain | {"x-ethers": {"client": "ethers.js"}},
}
REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "metamask": (lambda _: {"data": "a", "iv": "b", "salt": "c"}, "a MetaMask vault"),
    "version 1": (lambda plain: plain | {"version": "1"}, "of version 1"),
    "version 4": (lambda plain: plain | {"version": 4}, "version 4 keystore"),
    "no version": (lambda p: {"crypto": p["crypto"]}, "of version none"),
    "presale": (lambda _: {"encseed": "00", "ethaddr": "00"}, "presale"),
    "no crypto": (lambda _: {"version": 3}, "without its part `crypto`"),
    "cipher": (lambda p: crypto(p, cipher="aes-256-gcm"), "aes-256-gcm"),
    "kdf": (lambda p: crypto(p, kdf="argon2"), "argon2"),
    "mac": (lambda p: crypto(p, mac=7), "crypto.mac"),
    "no iv": (lambda p: crypto(p, cipherparams={}), "cipherparams.iv"),
    "rounds": (lambda p: kdf(p, c=10**12), "too much work"),
    "salt": (lambda p: kdf(p, salt="zz"), "kdfparams"),
    "memory": (
        lambda p: crypto(
            p, kdf="scrypt", kdfparams={"n": 1 << 30, "r": 8, "p": 1, "dklen": 32, "salt": "00"}
        ),
        "too much work",
    ),
    "hex key": (lambda _: "0x" + "11" * 32, "private key in clear"),
    "words": (lambda _: "abandon abandon about", "not JSON"),
    "list": (lambda _: [1], "no object"),
    "deep": (lambda _: "[" * 100_000, "not JSON"),
    "number": (lambda _: "9" * 5000, "not JSON"),
}


@pytest.mark.parametrize("how", OPENS)
def test_keystores_of_other_wallets_open(plain: dict[str, Any], tmp_path: Path, how: str) -> None:
    path = written(tmp_path / "wallet.json", OPENS[how](plain))
    assert keystore.unlock(path, PASSPHRASE, real=True).address == ADDRESS
    copied = tmp_path / "copy.json"
    assert keystore.copy(path, copied, PASSPHRASE) == ADDRESS
    assert keystore.unlock(copied, PASSPHRASE, real=True).address == ADDRESS


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_keystore_is_named(plain: dict[str, Any], tmp_path: Path, what: str) -> None:
    make, words = REFUSED[what]
    path = written(tmp_path / "wallet.json", make(plain))
    with pytest.raises(ConfigError) as refused:
        keystore.unlock(path, PASSPHRASE, real=True)
    assert words in str(refused.value)
    assert "passphrase" not in str(refused.value)
    assert refused.value.hint


def test_a_wrong_passphrase_is_that_alone(plain: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path / "wallet.json", plain)
    with pytest.raises(WrongKey, match="the passphrase does not open"):
        keystore.unlock(path, "wrong", real=True)


def test_an_address_that_is_not_the_key_s_is_never_shown(
    plain: dict[str, Any], tmp_path: Path
) -> None:
    path = written(tmp_path / "wallet.json", plain | {"address": "22" * 20})
    with pytest.raises(WrongKey, match=ADDRESS):
        keystore.unlock(path, PASSPHRASE, real=True)
    with pytest.raises(WrongKey):
        keystore.copy(path, tmp_path / "copy.json", PASSPHRASE)
    assert not (tmp_path / "copy.json").exists()
