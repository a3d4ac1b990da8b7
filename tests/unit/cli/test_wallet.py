"""The wallet's verbs that need no network: funding, export, a signer of its own."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from support.keystore_files import PASSPHRASE
from support.wallet_verbs import address, cli

from agentkit.keys import keystore

__all__ = ["address", "cli"]


def test_fund_says_what_to_send_where_and_asks_nobody(cli: Any, address: str) -> None:
    told = cli("wallet", "fund")
    assert told.exit_code == 0, told.output
    for word in (
        address,
        "base-sepolia (chain 84532)",
        "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
    ):
        assert word in told.stdout
    assert json.loads(cli("wallet", "fund", "--json").stdout)["to"] == address


def test_fund_names_the_coin_that_the_network_takes_for_gas(
    cli: Any, address: str, tmp_path: Path
) -> None:
    """ETH that is sent to a network of another coin is lost to this wallet."""
    settings = tmp_path / "agentkit.toml"
    settings.write_text(settings.read_text().replace("base-sepolia", "polygon-amoy"))
    told = cli("wallet", "fund")
    assert "a little POL on the same network" in told.stdout, told.output
    assert "ETH" not in told.stdout


def test_fund_shows_the_key_s_own_address_or_none(cli: Any, address: str, tmp_path: Path) -> None:
    """Whoever can change the file must not be able to say where the money goes."""
    path = tmp_path / "wallet.json"
    thief = "22" * 20
    path.write_text(json.dumps(json.loads(path.read_text()) | {"address": thief}))
    told = cli("wallet", "fund")
    assert told.exit_code == 2
    assert told.stdout == ""
    assert f"its key is that of {address}" in told.stderr


def test_on_the_embedded_network_the_wallet_that_does_not_pay_is_not_exported(
    cli: Any, address: str, tmp_path: Path
) -> None:
    (tmp_path / "agentkit.toml").write_text('[wallet]\nkeystore = "wallet.json"')
    told = cli("wallet", "export", "out.json")
    assert told.exit_code == 2
    assert "throwaway key" in told.stderr
    assert not (tmp_path / "out.json").exists()


def test_without_a_wallet_there_is_nothing_to_fund(cli: Any) -> None:
    told = cli("wallet", "fund")
    assert told.exit_code == 2
    assert "there is no keystore at wallet.json" in told.stderr
    assert "agentkit init" in told.stderr


def test_export_copies_what_is_encrypted_and_overwrites_nothing(
    cli: Any, address: str, tmp_path: Path
) -> None:
    out = tmp_path / "backup.json"
    told = cli("wallet", "export", str(out))
    assert told.exit_code == 0, told.output
    assert address in told.stdout
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert keystore.unlock(out, PASSPHRASE, real=True).address == address
    assert PASSPHRASE not in out.read_text()
    again = cli("wallet", "export", str(out))
    assert again.exit_code == 2
    assert "already exists" in again.stderr
