"""Verbs that are imported when they are called."""

import subprocess
import sys

HEAVY = ("agentkit.agent", "agentkit.config", "aiohttp", "pydantic", "web3")


def test_help_imports_none_of_the_verbs() -> None:
    code = f"""
import sys
from agentkit.cli.main import run
sys.argv = ["agentkit", "--help"]
try:
    run()
except SystemExit:
    pass
print("loaded:", [name for name in {HEAVY} if name in sys.modules])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "loaded: []"
