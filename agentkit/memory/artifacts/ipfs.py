"""Artifacts on IPFS, through the RPC of a Kubo node that is ours.

The RPC (https://docs.ipfs.tech/reference/kubo/rpc) takes POST only and has no authentication: it
must never be reachable from outside.  A CID depends on how a file was cut into blocks, so it is a
locator and no identity.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from functools import partial
from urllib.parse import quote

from agentkit.artifacts import Artifact
from agentkit.errors import StoreUnavailable
from agentkit.memory.artifacts.encryption import OVERHEAD, Cover
from agentkit.memory.artifacts.locations import read_from
from agentkit.memory.arweave.client import Client
from agentkit.memory.arweave.endpoint import Endpoint

MOST_BYTES = 1024**3
"""The largest artifact that is taken; it passes through memory."""

_ADD = "/api/v0/add?cid-version=1&raw-leaves=true&pin=true&quieter=true"


class Ipfs(Client):
    """A store on a Kubo node, `rpc` the address of its RPC; close it."""

    def __init__(self, rpc: str, cover: Cover, *, timeout: float = 30.0, rounds: int = 3) -> None:
        super().__init__([rpc], timeout=timeout, rounds=rounds)
        self._cover = cover

    @property
    def scheme(self) -> str:
        return "ipfs"

    async def put(self, artifact: Artifact) -> Artifact:
        if artifact.size > MOST_BYTES:
            raise StoreUnavailable(f"artifact {artifact.digest[:12]} is larger than 1 GiB")
        data = await asyncio.to_thread(artifact.read)
        covered = await asyncio.to_thread(self._cover.covered, data, artifact.digest)
        return artifact.located(f"ipfs://{await self.add(covered)}")

    async def get(self, artifact: Artifact) -> Artifact:
        async def read(cid: str) -> bytes:
            stored = await self.cat(cid, artifact.size + OVERHEAD)
            return await asyncio.to_thread(self._cover.opened, stored, artifact.digest)

        return await read_from(artifact, self.scheme, read)

    async def add(self, data: bytes) -> str:
        """Add and pin bytes as they are, and return their CID; raises StoreUnavailable."""
        mark = secrets.token_hex(16)
        head = (
            f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="artifact"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = b"".join((head.encode(), data, f"\r\n--{mark}--\r\n".encode()))
        answer = await self._ask(_ADD, body, f"multipart/form-data; boundary={mark}", 64 * 1024)
        return _cid(answer)

    async def cat(self, path: str, limit: int) -> bytes:
        """Return what lies under a CID or path, at most `limit` bytes; raises StoreUnavailable."""
        where = f"/api/v0/cat?arg={quote(path, safe='')}"
        return await self._ask(where, b"", "application/x-www-form-urlencoded", limit)

    async def _ask(self, path: str, body: bytes, content_type: str, limit: int) -> bytes:
        """Post to Kubo's RPC and return its answer; raises StoreUnavailable."""

        async def post(endpoint: Endpoint) -> bytes:
            send = partial(endpoint.post, self._session, path, body)
            return (await send(content_type=content_type, limit=limit))[1]

        try:
            return await self._first(post)
        except StoreUnavailable as error:
            raise StoreUnavailable(str(error), hint="start Kubo, or check memory.ipfs") from error


def _cid(answer: bytes) -> str:
    """Return the CID in the answer of `add`: JSON lines, the last of which is the whole."""
    try:
        cid = json.loads(answer.splitlines()[-1])["Hash"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise StoreUnavailable("the IPFS node did not say what it added") from error
    if not (isinstance(cid, str) and cid.isalnum() and len(cid) <= 128):
        raise StoreUnavailable("the IPFS node named what it added in an odd way")
    return cid
