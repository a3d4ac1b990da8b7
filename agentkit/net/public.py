"""Which hosts are on the public internet, and not on this machine's own network.

An agent is asked to fetch addresses that it was told by others.  What answers only to its own
network, such as a router or a cloud's metadata, is not for them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

NAT64 = IPv6Network("64:ff9b::/96")
COMPATIBLE = IPv6Network("::/96")
"""IPv6 addresses that end with an IPv4 address, to which a gateway may pass them on."""


async def is_public(host: str) -> bool:
    """Return whether all addresses of a host are public ones; False for a name without any."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(is_public_address(str(address[4][0])) for address in found)


def is_public_address(text: str) -> bool:
    """Return whether an IP address is one of the public internet, and no way around to another."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    inner = _inside_of(address) if isinstance(address, IPv6Address) else None
    return all(a.is_global and not a.is_multicast for a in (address, inner) if a)


def _inside_of(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address to which an IPv6 address may lead, None for all others."""
    if address in NAT64 or address in COMPATIBLE:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.sixtofour or address.ipv4_mapped


class PublicResolver(AbstractResolver):
    """Resolves names for connections, and raises OSError for one that is not public.

    A name may point elsewhere than when `is_public` was asked (DNS rebinding); what is returned
    here is what is connected to.
    """

    def __init__(self) -> None:
        self._names = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host; see `aiohttp.abc.AbstractResolver`."""
        found = await self._names.resolve(host, port, family)
        if not all(is_public_address(each["host"]) for each in found):
            raise OSError("this name does not point to a host of the public internet")
        return found

    async def close(self) -> None:
        """Release what resolves names."""
        await self._names.close()
