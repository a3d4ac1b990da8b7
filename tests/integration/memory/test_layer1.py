import json
import subprocess
import sys

from support.layer1_transactions import filled
from support.timing import limit

from agentkit.memory.arweave.layer1 import parse_transaction, verify_transaction
from agentkit.memory.arweave.merkle import MAX_CHUNK

# -- transactions --------------------------------------------------------------------------------


def test_a_transaction_goes_round(signed, wallet):
    tx, chunks = signed
    verify_transaction(tx, filled(600_000))
    read, data = parse_transaction(json.dumps(tx.document()).encode())
    assert (read, data) == (tx, b"")
    assert (tx.address, tx.tags) == (wallet.address, (("Größe", "☕"), ("n", "")))
    assert [len(chunk.data) for chunk in chunks] == [MAX_CHUNK, MAX_CHUNK, 600_000 - 2 * MAX_CHUNK]


def test_neither_imports_nor_signing_touch_sigpipe_or_load_the_uploader():
    # Python ignores SIGPIPE; with the default action a write to a closed socket ends the process.
    program = (
        "import signal, sys\n"
        "import agentkit.memory.arweave.gateways, agentkit.embedded.gateway\n"
        "from agentkit.memory.arweave.jwk import JwkWallet, make_jwk\n"
        "JwkWallet(make_jwk()).sign_tx(b'message')\n"
        "assert 'arweave' in sys.modules\n"
        "assert 'arweave.transaction_uploader' not in sys.modules\n"
        "assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=limit(60))


def test_items_are_made_without_the_client_libraries():
    program = (
        "import sys, agentkit.memory.arweave.ans104\n"
        "heavy = {'aiohttp', 'arweave', 'graphql', 'pydantic', 'requests', 'tenacity', 'web3'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import agentkit.memory.arweave.gateways, agentkit.embedded.gateway\n"
        "late = {'arweave', 'graphql', 'requests', 'web3'}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=limit(60))
