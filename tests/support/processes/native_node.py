"""A native node in a process of its own, to be killed: prints its address, then serves."""

import asyncio
import sys
from pathlib import Path

from aiohttp import web

from agentkit.embedded import discovery
from agentkit.keys import keystore
from agentkit.market.chain import Network
from agentkit.payments.chain import Web3Chain
from agentkit.serve.app import node_app
from agentkit.serve.node import Node, NodeSettings


async def main() -> None:
    home, network_folder = Path(sys.argv[1]), Path(sys.argv[2])
    found = discovery.find(network_folder)
    assert found
    network = Network.model_validate(found.network)
    signer = keystore.create_test_key(home / "key.json")
    settings = NodeSettings("lone", home, percent=10, facilitator=found.facilitator)
    node = await Node.open(settings, signer, Web3Chain(network), network)
    runner = web.AppRunner(node_app(node))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
