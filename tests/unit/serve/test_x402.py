"""A provider node whose chats can be bought one by one over x402, by whoever passes by."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from conformance.chains import KEYS
from conformance.chains import Node as ChainNode
from paying import MODEL, World, chain_of, facilitator, payer_of, world_on

from agentkit.artifacts import Text
from agentkit.keys.signer import KeySigner
from agentkit.market.x402 import REQUIRED, Challenge
from agentkit.payments.chain import Web3Chain
from agentkit.pool.call import Done
from agentkit.providers.openai import Account
from agentkit.serve.app import node_app
from agentkit.serve.node import Node, NodeSettings

OWNER = KeySigner(KEYS[1])
PATH = "/v1/chat/completions"


class Parrot:
    """A pool without a model: it says how often it was asked."""

    asked = 0

    def facts(self) -> dict[str, Any]:
        return {"kinds": ["infer"], "models": [MODEL]}

    async def run(
        self, name: str, kind: str, params: dict[str, Any], inputs: Any, *, declared: Any = None
    ) -> Done:
        self.asked += 1
        text = Text.of(f"{self.asked}: {params['prompt']}".encode())
        return Done((text,), {"input": 3, "output": 2}, MODEL)

    async def close(self) -> None:
        return


@pytest.fixture(scope="module")
def chain(tmp_path_factory: Any) -> Iterator[ChainNode]:
    with chain_of("embedded", tmp_path_factory.mktemp("chain")) as running:
        yield running


@pytest.fixture
async def world(chain: ChainNode) -> AsyncIterator[World]:
    async with world_on(chain) as made:
        yield made


@pytest.fixture
async def node(world: World, tmp_path: Path) -> AsyncIterator[tuple[Node, str]]:
    async with facilitator(world, tmp_path) as url:
        settings = NodeSettings(
            "lone",
            tmp_path / "node",
            api_keys=("open sesame",),
            facilitator=url,
            request_price="0.002 USDC",
        )
        made = await Node.open(settings, OWNER, Web3Chain(world.network), world.network)
        made.pool = Parrot()  # type: ignore[assignment]
        async with TestServer(node_app(made)) as server:
            yield made, str(server.make_url("")).rstrip("/")
        await made.close()


def chat(**changes: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], **changes}


async def test_an_agent_buys_a_chat(world: World, node: tuple[Node, str], tmp_path: Path) -> None:
    made, url = node
    before = await world.balance(OWNER.address)
    key = bytes(range(32))
    await world.mint(KeySigner(key).address, 10_000)
    served = Account(prices={}, models={MODEL: MODEL})
    async with payer_of(world.network, tmp_path, url, key, account=served) as wallet:
        result = await wallet.run()
    assert result.receipts[0].standing == "paid"
    assert result.paid.units == 2000
    assert made.pool.asked == 1  # type: ignore[attr-defined]
    assert await world.balance(OWNER.address) == before + 2000


async def test_only_what_the_node_would_do_is_sold(node: tuple[Node, str]) -> None:
    made, url = node
    async with aiohttp.ClientSession() as http:

        async def asked(body: Any, **headers: str) -> tuple[int, bool]:
            async with http.post(url + PATH, json=body, headers=headers) as said:
                return said.status, REQUIRED in said.headers

        assert await asked(chat()) == (402, True)
        assert await asked(chat(), Authorization="Bearer open sesame") == (200, False)
        assert await asked(chat(model="unknown")) == (402, False)
        assert await asked(chat(stream=True)) == (422, False)
        assert await asked([]) == (400, False)
        async with http.post(url + PATH, json=chat()) as said:
            (entry,) = Challenge.read(said.headers[REQUIRED]).accepts
    assert (entry["payTo"], entry["amount"]) == (OWNER.address, "2000")
    assert made.pool.asked == 1  # type: ignore[attr-defined]
