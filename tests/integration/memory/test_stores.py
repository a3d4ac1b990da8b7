"""Artifacts in three stores: the digest is what counts, wherever the bytes come from."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer
from support.byte_flip_proxy import Flipping

from agentkit.artifacts import Artifact, Blob
from agentkit.embedded.gateway import Gateway, gateway_app
from agentkit.errors import StateCorrupt, StoreUnavailable
from agentkit.keys.signer import KeySigner
from agentkit.memory.artifacts.encryption import ArtifactCipher
from agentkit.memory.artifacts.ipfs import Ipfs
from agentkit.memory.artifacts.local import LocalStore
from agentkit.memory.artifacts.onchain import Onchain
from agentkit.memory.artifacts.stores import Remote, Stores
from agentkit.memory.arweave.gateways import Gateways

SIGNER = KeySigner(bytes(range(1, 33)))
COVER = ArtifactCipher(SIGNER.derive("test"))
SECRET = b"a result that is nobody's business " * 30


@dataclass
class Three:
    """The three stores as one, and what stands before the two that are remote."""

    stores: Stores
    local: LocalStore
    chain: Onchain
    ipfs: Ipfs
    gateway: Flipping
    kubo: Flipping
    folder: Path

    async def forget(self, artifact: Artifact) -> None:
        self.file(artifact).unlink()

    def file(self, artifact: Artifact) -> Path:
        return self.folder / artifact.digest[:2] / artifact.digest


@pytest.fixture
async def three(tmp_path: Path, kubo_rpc: str) -> AsyncIterator[Three]:
    async with AsyncExitStack() as stack:
        real = Gateway.open(tmp_path / "gateway")
        stack.callback(real.close)
        served = await stack.enter_async_context(TestServer(gateway_app(real)))
        fronts = []
        for url in (str(served.make_url("")), kubo_rpc):
            front = Flipping(url.rstrip("/"))
            front_server = await stack.enter_async_context(TestServer(front.app))
            fronts.append((front, str(front_server.make_url("")).rstrip("/")))
        (gateway, gateway_url), (kubo, kubo_url) = fronts
        gateways = await stack.enter_async_context(
            Gateways([gateway_url], timeout=5.0, rounds=1, backoff=0.001)
        )
        ipfs = Ipfs(kubo_url, COVER, rounds=1)
        stack.push_async_callback(ipfs.close)
        chain = Onchain(gateways, SIGNER, COVER, gateways.post_item)
        local = LocalStore(tmp_path / "artifacts")
        stores = Stores(local, [Remote(chain, 256 * 1024), Remote(ipfs, 2**30)])
        yield Three(stores, local, chain, ipfs, gateway, kubo, tmp_path / "artifacts")


def bare(artifact: Artifact) -> Artifact:
    """Return an artifact as the journal knows it: no bytes."""
    return replace(artifact, content=None)


@pytest.mark.parametrize(
    ("size", "scheme"), [(0, "ar"), (1, "ar"), (256 * 1024, "ar"), (256 * 1024 + 1, "ipfs")]
)
async def test_small_ones_go_to_arweave_large_ones_to_ipfs_and_all_come_back(
    three: Three, size: int, scheme: str
) -> None:
    artifact = Blob.of(os.urandom(size))
    put = await three.stores.put(artifact)
    assert [at.split(":")[0] for at in put.locators] == ["file", scheme]
    assert (await three.stores.put(artifact)).locators == put.locators, "it was stored twice"
    await three.forget(put)
    found = await three.stores.get(bare(put))
    assert found.read() == artifact.read()
    assert three.file(put).read_bytes() == artifact.read(), "it is not kept here again"


async def test_no_store_learns_what_an_artifact_holds(three: Three) -> None:
    for store in (three.chain, three.ipfs):
        put = await store.put(Blob.of(SECRET))
        (locator,) = put.locators
        where = locator.partition("://")[2]
        if store is three.ipfs:
            stored = await three.ipfs.cat(where, 10_000)
        else:
            stored = await three.chain._gateways.item_data(where)
        assert len(stored) == len(SECRET) + 16
        assert SECRET[:16] not in stored


async def test_one_flipped_byte_anywhere_is_caught_and_another_place_is_used(three: Three) -> None:
    artifact = Blob.of(SECRET)
    on_both = await three.ipfs.put(await three.chain.put(await three.local.put(artifact)))
    for place in (0, 500, len(SECRET) - 1):
        data = bytearray(SECRET)
        data[place] ^= 1
        three.file(on_both).write_bytes(data)
        three.gateway.at = place
        before = three.gateway.flipped
        found = await three.stores.get(bare(on_both))
        assert found.read() == SECRET
        assert three.gateway.flipped > before, "the flipped byte was never read"
        assert three.file(on_both).read_bytes() == SECRET, "it was not mended here"


async def test_when_every_place_lies_it_says_so(three: Three) -> None:
    put = await three.ipfs.put(await three.chain.put(await three.local.put(Blob.of(SECRET))))
    three.file(put).write_bytes(SECRET[:-1] + b"!")
    three.gateway.at = three.kubo.at = 7
    with pytest.raises(StateCorrupt, match="cannot be had") as raised:
        await three.stores.get(bare(put))
    assert (three.gateway.flipped, three.kubo.flipped) == (1, 1)
    assert all(locator in str(raised.value) for locator in put.locators)


async def test_what_was_never_stored_is_unavailable(three: Three) -> None:
    with pytest.raises(StoreUnavailable, match="no place is known"):
        await three.stores.get(Blob("00" * 32, 1, ""))


async def test_a_remote_store_that_is_down_costs_nothing_but_the_place(
    three: Three, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ipfs = Ipfs("http://127.0.0.1:9", COVER, rounds=1)
    stores = Stores(three.local, [Remote(ipfs, 2**30)])
    put = await stores.put(Blob.of(SECRET))
    await ipfs.close()
    assert put.locators == (f"file:{put.digest}",)
    assert "is on this machine only" in caplog.text
    assert (await stores.get(bare(put))).read() == SECRET
    with pytest.raises(StoreUnavailable) as raised:
        await ipfs.put(Blob.of(SECRET))
    assert raised.value.hint == "start Kubo, or check memory.ipfs"
    await ipfs.close()


async def test_another_key_opens_nothing(three: Three) -> None:
    put = await three.ipfs.put(Blob.of(SECRET))
    other = ArtifactCipher(bytes(32))
    stored = await three.ipfs.cat(put.locators[0].removeprefix("ipfs://"), 10_000)
    with pytest.raises(StateCorrupt, match="not for this key"):
        other.decrypt(stored, put.digest)


async def test_a_plain_artifact_is_taken_for_what_it_hashes_to(three: Three) -> None:
    """A provider may have put its result on IPFS as it is."""
    cid = await three.ipfs.add(SECRET)
    plain = Blob.of(SECRET).located(f"ipfs://{cid}")
    assert (await three.stores.get(bare(plain))).read() == SECRET


async def test_a_store_that_sends_without_end_is_cut_short(three: Three) -> None:
    put = await three.ipfs.put(Blob.of(SECRET))
    short = replace(bare(put), size=100)
    with pytest.raises(StoreUnavailable, match="sent more than 116 bytes"):
        await three.ipfs.get(short)


async def test_the_same_bytes_are_stored_once_by_many_at_a_time(three: Three) -> None:
    puts = await asyncio.gather(*(three.stores.put(Blob.of(SECRET)) for _ in range(8)))
    assert len({put.locators for put in puts}) == 1
