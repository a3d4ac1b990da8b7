"""The contracts in the package are what their sources say, and speak the words we sign."""

import subprocess
import sys
from pathlib import Path


def test_loading_needs_neither_compiler_nor_web3() -> None:
    code = (
        "import sys; from agentkit.payments.contracts import load; load('TestUSD');"
        "sys.exit(bool({'vyper', 'web3', 'eth_abi'} & set(sys.modules)))"
    )
    root = str(Path(__file__).parents[3])
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root).returncode == 0
