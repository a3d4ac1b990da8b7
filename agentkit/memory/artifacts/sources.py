"""Reads the URI of a `source=`: over https, from Arweave, from IPFS, or through fsspec."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from agentkit.errors import MissingExtra, StateCorrupt, StoreUnavailable, WrongInput
from agentkit.memory.artifacts.ipfs import Ipfs
from agentkit.memory.arweave.gateways import Gateways
from agentkit.net.proxies import proxy_for

MOST_BYTES = 256 * 1024 * 1024
"""The largest source that is read."""

WEB_SECONDS = 300.0

_ID = re.compile(r"[A-Za-z0-9_-]{43}")


class Sources:
    """Reads URIs by scheme; `gateways` and `ipfs` are None where none is configured."""

    def __init__(self, gateways: Gateways | None = None, ipfs: Ipfs | None = None) -> None:
        self._gateways = gateways
        self._ipfs = ipfs
        self._readers: Mapping[str, Callable[[str], Awaitable[bytes]]] = {
            "http": _read_web,
            "https": _read_web,
            "ar": self._read_arweave,
            "ipfs": self._read_ipfs,
        }

    async def read(self, uri: str) -> bytes:
        """Return the bytes under a URI.

        Bytes from Arweave are verified against the id; other sources are trusted.  Raises
        WrongInput, StoreUnavailable, StateCorrupt, and MissingExtra for a scheme that needs fsspec.
        """
        read = self._readers.get(urlsplit(uri).scheme, _read_by_fsspec)
        return await read(uri)

    async def _read_arweave(self, uri: str) -> bytes:
        """Read an item by its id, and verify its signature."""
        if self._gateways is None:
            raise WrongInput(f"{uri} needs a gateway", hint="set memory.gateways")
        name = uri.removeprefix("ar://")
        if not _ID.fullmatch(name):
            raise WrongInput(f"{uri} names no item", hint="give ar:// and an id of 43 characters")
        try:
            return await self._gateways.content(name, limit=MOST_BYTES)
        except StateCorrupt as error:
            raise StateCorrupt(f"{uri} cannot be trusted: {error}") from error

    async def _read_ipfs(self, uri: str) -> bytes:
        if self._ipfs is None:
            raise WrongInput(
                f"{uri} needs a Kubo node", hint='set memory.ipfs = "http://127.0.0.1:5001"'
            )
        return await self._ipfs.cat(uri.removeprefix("ipfs://"), MOST_BYTES)


async def _read_web(uri: str) -> bytes:
    """Fetch a URL within bounds of size and time; raises StoreUnavailable, WrongInput."""
    try:
        timeout = aiohttp.ClientTimeout(total=WEB_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(uri, proxy=proxy_for(uri)) as answer,
        ):
            answer.raise_for_status()
            data = await _read_bounded(answer.content, uri)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise StoreUnavailable(f"{uri} cannot be fetched: {error}") from error
    return data


async def _read_bounded(content: aiohttp.StreamReader, uri: str) -> bytes:
    """Read a body; raises WrongInput as soon as it is too large, whatever its length header."""
    data = bytearray()
    async for part in content.iter_any():
        data += part
        _check_size(len(data), uri)
    return bytes(data)


async def _read_by_fsspec(uri: str) -> bytes:
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtra("sources", "fsspec") from error
    return await asyncio.to_thread(_read_opened, fsspec, uri)


def _read_opened(fsspec: Any, uri: str) -> bytes:
    """Read a URI through fsspec, and turn its errors into WrongInput or StoreUnavailable."""
    try:
        with fsspec.open(uri, "rb") as file:
            data: bytes = file.read(MOST_BYTES + 1)  # one byte more shows that it is too large
    except ImportError as error:
        raise WrongInput(f"{uri} cannot be read: {error}", hint="install that package") from None
    except FileNotFoundError as error:
        raise WrongInput(f"{uri} is not there", hint="give source= a URI that exists") from error
    except (OSError, ValueError) as error:
        raise StoreUnavailable(f"{uri} cannot be read: {error}") from error
    _check_size(len(data), uri)
    return data


def _check_size(size: int, uri: str) -> None:
    if size > MOST_BYTES:
        raise WrongInput(
            f"{uri} is larger than {MOST_BYTES >> 20} MiB", hint="give a part of it as source="
        )
