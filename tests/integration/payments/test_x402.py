"""The x402 SDK is an extra: who pays and who sells does without, and a facilitator says so."""

import subprocess
import sys


def test_payer_and_seller_load_no_sdk() -> None:
    loaded = (
        "import sys, agentkit.agent, agentkit.serve.app, agentkit.payments.x402.rail;"
        "print([m for m in ('x402', 'web3', 'eth_account') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True)
    assert said.stdout == b"[]\n"
