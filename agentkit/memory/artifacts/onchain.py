"""Artifacts on Arweave, each a data item of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agentkit.artifacts import Artifact
from agentkit.errors import StoreUnavailable
from agentkit.journal.outbox_tables import OutgoingSegment
from agentkit.keys.signer import Signer
from agentkit.memory.artifacts.encryption import OVERHEAD, Cover
from agentkit.memory.artifacts.locations import read_from
from agentkit.memory.arweave.ans104 import make_item, parse_item
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.uploads.upload_paths import UploadPath

TAGS = (("App-Name", "agentkit"), ("Schema", "1"), ("Kind", "artifact"))
MOST_BYTES = 60 * 1024 * 1024
"""The largest artifact that is taken; gateways have limits of about that size."""

STREAM = "artifact"
"""Where the stream of a segment stands; artifacts are in none."""


def along(path: UploadPath) -> Callable[[bytes], Awaitable[str]]:
    """Return what hands an item over on an upload path, outside of the outbox."""

    async def post(raw: bytes) -> str:
        item = parse_item(raw)
        await path.send([OutgoingSegment(item.id, STREAM, 0, 0, raw, "sealed", 0)])
        return item.id

    return post


class Onchain:
    """A store on Arweave: items signed by the agent's key, read from any of the gateways.

    `post` hands a signed item over and returns its id.
    """

    def __init__(
        self,
        gateways: Gateways,
        signer: Signer,
        cover: Cover,
        post: Callable[[bytes], Awaitable[str]],
    ) -> None:
        self._gateways = gateways
        self._signer = signer
        self._cover = cover
        self._post = post

    @property
    def scheme(self) -> str:
        return "ar"

    async def put(self, artifact: Artifact) -> Artifact:
        if artifact.size > MOST_BYTES:
            raise StoreUnavailable(f"artifact {artifact.digest[:12]} is larger than an item can be")
        data = await asyncio.to_thread(artifact.read)
        covered = await asyncio.to_thread(self._cover.covered, data, artifact.digest)
        item = await asyncio.to_thread(make_item, self._signer, covered, TAGS)
        return artifact.located(f"ar://{await self._post(item.raw)}")

    async def get(self, artifact: Artifact) -> Artifact:
        def opened(stored: bytes) -> bytes:
            return self._cover.opened(stored, artifact.digest)

        async def read(name: str) -> bytes:
            return await self._gateways.data_as(name, opened, limit=artifact.size + OVERHEAD)

        return await read_from(artifact, self.scheme, read)
