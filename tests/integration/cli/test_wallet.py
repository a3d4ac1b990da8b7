"""The wallet's verbs that need no network: funding, export, a signer of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.keystore_files import PASSPHRASE
from support.timing import accepts_connections, limit, wait_until
from support.wallet_verbs import address, cli

from agentkit.keys import keystore
from agentkit.keys.messages import Domain, Voucher
from agentkit.keys.process_signer import ProcessSigner

__all__ = ["address", "cli"]


def test_a_wallet_is_made_once_whatever_dies(tmp_path: Path) -> None:
    """Written whole or not at all: a half-written keystore would be lost money."""
    path = tmp_path / "wallet.json"
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from agentkit.keys import keystore\n"
        "real = os.link\n"
        "def die(*names): os.kill(os.getpid(), 9)\n"
        "os.link = die\n"
        "keystore.create(Path(sys.argv[1]), 'x')\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert not path.exists()
    assert (
        keystore.create(path, PASSPHRASE).address
        == keystore.unlock(path, PASSPHRASE, real=True).address
    )


def test_a_signer_serves_agents_of_this_user_until_it_is_told_to_end(
    cli: Any, address: str, tmp_path: Path
) -> None:
    path = tmp_path / "signer"
    command = [sys.executable, "-m", "agentkit", "wallet", "signer", "--socket", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as serving:
        wait_until(lambda: accepts_connections(path), 60)
        signer = ProcessSigner(path)
        assert signer.address == address
        assert (
            len(signer.sign_voucher(Domain("a", "1", 1, address), Voucher(bytes(32), 1, 1))) == 65
        )
        signer.close()
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(limit(30)) == 0
        assert serving.stderr
        assert address in serving.stderr.read()
    assert not path.exists()
