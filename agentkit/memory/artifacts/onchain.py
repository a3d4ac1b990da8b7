"""Artifacts on Arweave, each as a data item of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agentkit.artifacts import Artifact
from agentkit.errors import StoreUnavailable
from agentkit.journal.outbox_tables import OutgoingSegment
from agentkit.keys.signer import Signer
from agentkit.memory.artifacts.encryption import OVERHEAD, ArtifactCipher
from agentkit.memory.artifacts.locations import read_from
from agentkit.memory.arweave.ans104 import make_item, parse_item
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.uploads.upload_paths import UploadPath

TAGS = (("App-Name", "agentkit"), ("Schema", "1"), ("Kind", "artifact"))
MOST_BYTES = 60 * 1024 * 1024
"""The largest artifact that is stored; gateways refuse items much larger than this."""

STREAM = "artifact"
"""Stands in an outgoing segment in place of a stream's name; an artifact belongs to no stream."""


def item_poster(path: UploadPath) -> Callable[[bytes], Awaitable[str]]:
    """Return a function that sends one signed item along an upload path and returns its id.

    The item is not written to the outbox: the artifact is on this machine, and can be sent again.
    """

    async def post(raw: bytes) -> str:
        item = parse_item(raw)
        segment = OutgoingSegment(
            item=item.id, stream=STREAM, first=0, last=0, raw=raw, state="sealed", at=0
        )
        await path.send([segment])
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
        cipher: ArtifactCipher,
        post: Callable[[bytes], Awaitable[str]],
    ) -> None:
        self._gateways = gateways
        self._signer = signer
        self._cipher = cipher
        self._post = post

    @property
    def scheme(self) -> str:
        return "ar"

    async def put(self, artifact: Artifact) -> Artifact:
        """Encrypt an artifact and post it; raises StoreUnavailable."""
        if artifact.size > MOST_BYTES:
            raise StoreUnavailable(f"artifact {artifact.digest[:12]} is larger than an item can be")
        data = await asyncio.to_thread(artifact.read)
        encrypted = await asyncio.to_thread(self._cipher.encrypt, data, artifact.digest)
        item = await asyncio.to_thread(make_item, self._signer, encrypted, TAGS)
        return artifact.located(f"ar://{await self._post(item.raw)}")

    async def get(self, artifact: Artifact) -> Artifact:
        """Fetch an artifact from the first gateway whose bytes have its digest."""

        def decrypt(stored: bytes) -> bytes:
            return self._cipher.decrypt(stored, artifact.digest)

        async def read(name: str) -> bytes:
            limit = artifact.size + OVERHEAD
            return await self._gateways.read_data(name, decrypt, limit=limit)

        return await read_from(artifact, self.scheme, read)
