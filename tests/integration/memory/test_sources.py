"""A source is read from wherever its URI says, and never more than it may be."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.arweave_wallet import arweave_wallet
from support.byte_flip_proxy import Flipping

from agentkit.embedded.gateway import Gateway, gateway_app
from agentkit.errors import StateError, StoreUnavailable, WrongInput
from agentkit.keys.signer import KeySigner
from agentkit.memory.artifacts import sources as sources_module
from agentkit.memory.artifacts.encryption import ArtifactCipher
from agentkit.memory.artifacts.ipfs import Ipfs
from agentkit.memory.artifacts.sources import Sources
from agentkit.memory.arweave.ans104 import make_item
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.arweave.layer1 import make_transaction

ROWS = b'{"text": "a"}\n{"text": "b"}\n'
SIGNER = KeySigner(bytes(range(1, 33)))


@pytest.fixture
async def gateways(tmp_path: Path) -> AsyncIterator[Gateways]:
    real = Gateway.open(tmp_path / "gateway")
    async with (
        TestServer(gateway_app(real, token="t")) as server,
        Gateways([str(server.make_url(""))], rounds=1, timeout=5.0) as client,
    ):
        yield client
    real.close()


async def test_an_item_and_a_transaction_are_read_from_arweave_and_verified(
    gateways: Gateways,
) -> None:
    item = make_item(SIGNER, ROWS, (("Content-Type", "application/jsonl"),))
    wallet = arweave_wallet()
    mint = f"{gateways._endpoints[0].url}/mint/{wallet.address}/{10**13}"
    async with gateways._session.get(mint, headers={"Authorization": "Bearer t"}) as minted:
        assert minted.status == 200
    large = os.urandom(300_000)
    tx, chunks = make_transaction(
        wallet, large, (), anchor=await gateways.anchor(), reward=await gateways.price(len(large))
    )
    await gateways.post_item(item.raw)
    await gateways.post_transaction(tx, chunks)
    sources = Sources(gateways)
    assert await sources.read(f"ar://{item.id}") == ROWS
    assert await sources.read(f"ar://{tx.id}") == large


async def test_what_a_gateway_made_up_is_refused(gateways: Gateways) -> None:
    item = make_item(SIGNER, ROWS)
    await gateways.post_item(item.raw)
    front = Flipping(gateways._endpoints[0].url)
    front.at = 5
    async with (
        TestServer(front.app) as server,
        Gateways([str(server.make_url(""))], rounds=1, timeout=5.0) as lied_to,
    ):
        with pytest.raises(StateError):
            await Sources(lied_to).read(f"ar://{item.id}")
    assert front.flipped


async def test_ipfs_is_read_from_the_node(kubo_rpc: str) -> None:
    ipfs = Ipfs(kubo_rpc, ArtifactCipher(bytes(32)))
    cid = await ipfs.add(ROWS)
    assert await Sources(None, ipfs).read(f"ipfs://{cid}") == ROWS
    await ipfs.close()


async def test_the_web_is_read_to_its_end_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slowly(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(20):
            await answer.write(b"x" * 10_000)
        return answer

    app = web.Application()
    app.router.add_get("/rows.jsonl", slowly)
    async with TestServer(app) as server:
        url = str(server.make_url("/rows.jsonl"))
        assert len(await Sources().read(url)) == 200_000
        with pytest.raises(StoreUnavailable, match="404"):
            await Sources().read(str(server.make_url("/nothing")))
        monkeypatch.setattr(sources_module, "MOST_BYTES", 100_000)
        with pytest.raises(WrongInput, match="larger than"):
            await Sources().read(url)


async def test_an_id_that_is_none_is_refused(gateways: Gateways) -> None:
    with pytest.raises(WrongInput, match="names no item"):
        await Sources(gateways).read("ar://../../info")
