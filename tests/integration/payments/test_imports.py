"""What reaching for the chain must not do to the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


ASIDE = """
import asyncio, sys, threading
sys.path.append(sys.argv[1])
from agentkit.errors import AgentKitError
from agentkit.payments.chain import Web3Chain
from support.x402_market import network_at

class Watch:
    threads = set()
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "web3":
            self.threads.add(threading.current_thread() is threading.main_thread())

async def ask():
    chain = Web3Chain(network_at("http://127.0.0.1:9", "0x" + "11" * 20))
    for question in (chain.receipt("0x" + "22" * 32), chain.data_of("0x" + "22" * 32)):
        try:
            await question
        except AgentKitError as error:
            print(type(error).__name__)
    await chain.close()

assert "web3" not in sys.modules
sys.meta_path.insert(0, Watch())
asyncio.run(ask())
print(Watch.threads)
"""


def test_web3_is_imported_in_one_thread_and_not_in_that_of_the_event_loop() -> None:
    """Two threads that import it at once can each be handed what is not complete."""
    tests = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", ASIDE, tests]
    done = subprocess.run(command, capture_output=True, text=True)
    said = ["StoreUnavailable", "StoreUnavailable", "{False}"]
    assert (done.stdout.split("\n")[:3], done.returncode) == (said, 0), done.stderr
