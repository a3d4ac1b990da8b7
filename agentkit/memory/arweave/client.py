"""A client of several services over one session: who is asked, and how often."""

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
    """Endpoints and the session to them; use it as an async context, or `close` it.

    `timeout` is the seconds an answer may take beyond the time its bytes need, `rounds` how often
    everybody is asked, `backoff` the seconds the first pause lasts at most.
    """

    def __init__(
        self, urls: Sequence[str], *, timeout: float = 30.0, rounds: int = 4, backoff: float = 0.5
    ) -> None:
        self._endpoints = [Endpoint(url, timeout) for url in dict.fromkeys(urls)]
        self._patience = Patience(rounds, backoff)
        self._opened: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; a closed client opens new ones when it is used again."""
        session, self._opened = self._opened, None
        if session:
            await session.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        """The session, opened when it is first used; its bodies come as they were sent."""
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit_per_host=8),
            )
        return self._opened

    async def _first(
        self, call: Callable[[Endpoint], Awaitable[T]], endpoints: Sequence[Endpoint] = ()
    ) -> T:
        return await first_answer(call, endpoints or self._endpoints, self._patience)


def read_json(model: type[M], answer: bytes) -> M:
    """Read an answer; raises StateCorrupt."""
    try:
        return model.model_validate_json(answer)
    except ValidationError as error:
        raise StateCorrupt("its answer is not the JSON it should be") from error
