"""Answers of a chain's node, within bounds: web3 reads whatever is sent, into memory."""

from __future__ import annotations

from aiohttp import ClientResponse, ClientSession, TCPConnector

from agentkit.errors import ProtocolBroken

MAX_ANSWER = 64 << 20
"""The largest answer that is read, in bytes: the logs of 10,000 blocks are far smaller."""


class BoundedAnswer(ClientResponse):
    """An answer that is read up to `MAX_ANSWER`."""

    async def read(self) -> bytes:
        body = bytearray()
        async for part in self.content.iter_chunked(1 << 16):
            body += part
            if len(body) > MAX_ANSWER:
                self.close()
                raise ProtocolBroken(f"the chain answers with more than {MAX_ANSWER >> 20} MiB")
        return bytes(body)


def bounded_session() -> ClientSession:
    """Return a session as web3 makes its own, whose answers are bounded."""
    return ClientSession(
        raise_for_status=True,
        connector=TCPConnector(force_close=True),
        response_class=BoundedAnswer,
    )
