"""Keeps web pages away from the servers of this machine; the middleware of every door of ours.

A server on loopback is reachable by every page that a browser here shows.  A page can post to it
without being able to read the answer (cross-site request forgery), and can read answers as well if
it makes its own name point to 127.0.0.1 (DNS rebinding).  Against the first a request's `Origin`
and `Sec-Fetch-Site` (Fetch Metadata), which browsers set and pages cannot, must not name another
site; against the second its `Host` must be one of ours.  Programs send neither, and pass.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Collection
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from agentkit.net.loopback import is_loopback

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, 9.2.1), which is so at our doors as well."""

FORM_TYPES = frozenset({"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
"""The types of body that a page may send to another site without asking it first (Fetch, CORS)."""


def guard(host_names: Collection[str] = ()) -> Any:
    """Return a middleware that refuses what a web page of another site sends.

    It answers 403, or 415 for a body of a form's type.  `host_names` are the names under which
    this door is published, besides those of loopback: of a proxy that passes requests on here.
    """
    published = frozenset(name.lower() for name in host_names)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = refusal_of(request, published)
        return refusal if refusal is not None else await handler(request)

    return guarded


def refusal_of(request: web.Request, published: frozenset[str]) -> web.Response | None:
    """Return the answer to a request that may be a web page's; None for one that may pass."""
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or not is_ours(hosts[0], published):
        return web.Response(status=403, text="this server does not go by that Host")
    if not _same_site(request, hosts[0]):
        return web.Response(status=403, text="this server takes no requests of other sites")
    if request.method not in SAFE_METHODS and request.content_type in FORM_TYPES:
        return web.Response(status=415, text="send application/json")
    return None


def is_ours(host: str, published: frozenset[str] = frozenset()) -> bool:
    """Return whether a `Host` is a name of loopback or a published one, whatever its port."""
    name = _name_of(host)
    return name in published or is_loopback(name)


def _name_of(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _same_site(request: web.Request, host: str) -> bool:
    """Return whether a request comes from a program, or from a page that this door served."""
    if request.headers.get("Sec-Fetch-Site", "none").lower() not in ("none", "same-origin"):
        return False
    return all(
        origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
        for origin in request.headers.getall("Origin", [])
    )


def has_token(request: web.Request, token: str) -> bool:
    """Return whether a request carries `token` as its bearer (RFC 6750); no token opens nothing."""
    given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
    return bool(token) and hmac.compare_digest(given, f"Bearer {token}".encode())


def require_token(request: web.Request, token: str) -> None:
    """Raise HTTPForbidden unless a request carries the token."""
    if not has_token(request, token):
        raise web.HTTPForbidden(text="this needs the token in the network's file")
