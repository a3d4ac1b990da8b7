"""Base of clients that ask several equivalent services over one HTTP session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Self, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from agentkit.errors import StateCorrupt
from agentkit.memory.arweave.endpoint import Endpoint
from agentkit.memory.arweave.failover import Patience, first_answer

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class Client:
    """A client of one or more endpoints; use it with `async with`, or call `close`.

    `timeout` is how many seconds an answer may take, on top of the time that its bytes need.
    `rounds` is how often all endpoints are asked before the client gives up.  `backoff` is the
    longest first pause between two rounds, in seconds.
    """

    def __init__(
        self, urls: Sequence[str], *, timeout: float = 30.0, rounds: int = 4, backoff: float = 0.5
    ) -> None:
        self._endpoints = [Endpoint(url, timeout) for url in dict.fromkeys(urls)]
        self._patience = Patience(rounds=rounds, backoff=backoff)
        self._open_session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; a closed client opens new ones when it is used again."""
        session = self._open_session
        self._open_session = None
        if session:
            await session.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        """The HTTP session, opened at its first use."""
        if self._open_session is None:
            self._open_session = aiohttp.ClientSession(
                # No compression: a small answer could decompress to any number of bytes.
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit_per_host=8),
            )
        return self._open_session

    async def _first(
        self, call: Callable[[Endpoint], Awaitable[T]], endpoints: Sequence[Endpoint] = ()
    ) -> T:
        """Return the first good answer to `call` from any endpoint; see `first_answer`."""
        return await first_answer(call, endpoints or self._endpoints, self._patience)


def read_json(model: type[M], answer: bytes) -> M:
    """Parse an answer as JSON of a pydantic model; raises StateCorrupt."""
    try:
        return model.model_validate_json(answer)
    except ValidationError as error:
        raise StateCorrupt("its answer is not the JSON it should be") from error
