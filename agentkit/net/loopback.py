"""What is this machine by its name."""

from __future__ import annotations

import ipaddress


def is_loopback(name: str) -> bool:
    """Return whether a host's name or address can only be this machine."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
