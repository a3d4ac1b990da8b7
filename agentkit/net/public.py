"""Which hosts are on the public internet, and not on this machine's own network."""

from __future__ import annotations

import asyncio
import ipaddress
import socket


async def is_public(host: str) -> bool:
    """Return whether all addresses of a host are public ones; False for a name without any.

    An agent is asked to fetch addresses that it was told by others.  What answers only to its own
    network, such as a router or a cloud's metadata, is not for them.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    addresses = {str(address[4][0]).partition("%")[0] for address in found}
    return bool(addresses) and all(ipaddress.ip_address(text).is_global for text in addresses)
