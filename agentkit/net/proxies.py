"""Which proxy a request goes through: as the environment says, and never one for loopback."""

from __future__ import annotations

import urllib.request
from typing import Any
from urllib.parse import urlsplit

from agentkit.errors import ConfigError
from agentkit.net.loopback import is_loopback


def proxy_for(url: str) -> str | None:
    """Return the address of the proxy for a URL, None for a direct connection.

    `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` count as they do for curl.  Raises ConfigError for a
    proxy that cannot be used: to pass it by could show an address that it is there to hide.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not proxy.startswith(("http://", "https://")):
        raise ConfigError(
            f"the proxy for {parts.scheme}:// is not one over HTTP",
            hint=f"set {parts.scheme.upper()}_PROXY to http://..., or NO_PROXY to {host}",
        )
    return proxy


def open_direct(request: urllib.request.Request, seconds: float) -> Any:
    """Open a request to loopback, past every proxy; the answer is to be closed."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=seconds)
