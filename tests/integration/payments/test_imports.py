"""What reaching for the chain must not do to the process."""

from __future__ import annotations

import subprocess
import sys

NESTED = """
import json, sys
before = sys.getrecursionlimit()
from agentkit.payments.rpc_endpoint import _connect
_connect("http://127.0.0.1:9")
assert "py_ecc" in sys.modules, "the package that raises the limit was not loaded"
from agentkit.payments.facilitator.sdk import exact_scheme
assert sys.getrecursionlimit() == before
try:
    json.loads("[" * 200_000)
except RecursionError:
    print("still here")
"""


def test_a_nested_answer_does_not_end_a_process_that_uses_the_chain() -> None:
    done = subprocess.run([sys.executable, "-c", NESTED], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("still here", 0), done.stderr
