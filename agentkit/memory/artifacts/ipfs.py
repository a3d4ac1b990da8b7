"""Artifacts on IPFS, through the RPC of a Kubo node that the user runs.

The RPC (https://docs.ipfs.tech/reference/kubo/rpc) takes POST only and has no authentication: it
must never be reachable from outside.  A CID depends on how a file was cut into blocks, so it says
where an artifact is, and not what it is.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from urllib.parse import quote

from agentkit.artifacts import Artifact
from agentkit.errors import StoreUnavailable
from agentkit.memory.artifacts.encryption import OVERHEAD, ArtifactCipher
from agentkit.memory.artifacts.locations import read_from
from agentkit.memory.arweave.client import Client
from agentkit.memory.arweave.endpoint import Endpoint

MOST_BYTES = 1024**3
"""The largest artifact that is stored; the whole of it is held in memory meanwhile."""

_ADD = "/api/v0/add?cid-version=1&raw-leaves=true&pin=true&quieter=true"


class Ipfs(Client):
    """A store on a Kubo node; `rpc` is the URL of its RPC.  Call `close` when done with it."""

    def __init__(
        self, rpc: str, cipher: ArtifactCipher, *, timeout: float = 30.0, rounds: int = 3
    ) -> None:
        super().__init__([rpc], timeout=timeout, rounds=rounds)
        self._cipher = cipher

    @property
    def scheme(self) -> str:
        return "ipfs"

    async def put(self, artifact: Artifact) -> Artifact:
        if artifact.size > MOST_BYTES:
            raise StoreUnavailable(f"artifact {artifact.digest[:12]} is larger than 1 GiB")
        data = await asyncio.to_thread(artifact.read)
        encrypted = await asyncio.to_thread(self._cipher.encrypt, data, artifact.digest)
        return artifact.located(f"ipfs://{await self.add(encrypted)}")

    async def get(self, artifact: Artifact) -> Artifact:
        async def read(cid: str) -> bytes:
            stored = await self.cat(cid, artifact.size + OVERHEAD)
            return await asyncio.to_thread(self._cipher.decrypt, stored, artifact.digest)

        return await read_from(artifact, self.scheme, read)

    async def add(self, data: bytes) -> str:
        """Add and pin bytes as they are, and return their CID; raises StoreUnavailable."""
        # Kubo takes files only as multipart/form-data; the boundary must not occur in the data.
        boundary = secrets.token_hex(16)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="artifact"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = b"".join((head.encode(), data, f"\r\n--{boundary}--\r\n".encode()))
        answer = await self._call(
            _ADD,
            body,
            content_type=f"multipart/form-data; boundary={boundary}",
            limit=64 * 1024,
        )
        return _read_cid(answer)

    async def cat(self, path: str, limit: int) -> bytes:
        """Return the file under a CID or path, at most `limit` bytes; raises StoreUnavailable."""
        return await self._call(
            f"/api/v0/cat?arg={quote(path, safe='')}",
            b"",
            content_type="application/x-www-form-urlencoded",
            limit=limit,
        )

    async def _call(self, path: str, body: bytes, *, content_type: str, limit: int) -> bytes:
        """Call Kubo's RPC and return its answer of at most `limit` bytes.

        Raises StoreUnavailable.
        """

        async def post(endpoint: Endpoint) -> bytes:
            _, answer = await endpoint.post(
                self._session, path, body, content_type=content_type, limit=limit
            )
            return answer

        try:
            return await self._first(post)
        except StoreUnavailable as error:
            raise StoreUnavailable(str(error), hint="start Kubo, or check memory.ipfs") from error


def _read_cid(answer: bytes) -> str:
    """Return the CID in the answer of `add`; raises StoreUnavailable.

    The answer is lines of JSON, one for each part of the file; the last is for all of it.
    """
    try:
        cid = json.loads(answer.splitlines()[-1])["Hash"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise StoreUnavailable("the IPFS node did not say what it added") from error
    if not (isinstance(cid, str) and cid.isalnum() and len(cid) <= 128):
        raise StoreUnavailable("the IPFS node named what it added in an odd way")
    return cid
