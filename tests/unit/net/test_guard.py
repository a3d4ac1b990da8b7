"""No web page works a server of this machine, whatever it may send."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentkit.net.guard import is_ours


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost", True),
        ("LocalHost:8700", True),
        ("127.0.0.1:1", True),
        ("127.9.9.9", True),
        ("[::1]:8700", True),
        ("[::1", False),
        ("localhost@evil.example", False),
        ("evil.example#localhost", False),
        ("::ffff:1.2.3.4", False),
    ],
)
def test_what_is_this_machine(host: str, ours: bool) -> None:
    assert is_ours(host) is ours


# -- no door and no client is forgotten ----------------------------------------------------------

SOURCES = Path(__file__).resolve().parents[3] / "agentkit"


def places_with(text: str) -> dict[str, str]:
    """Return the modules of the package that hold a text, by path."""
    sources = {str(path.relative_to(SOURCES)): path.read_text() for path in SOURCES.rglob("*.py")}
    return {place: source for place, source in sources.items() if text in source}


def test_every_server_has_the_guard_first() -> None:
    places = places_with("web.Application(")
    assert len(places) == 10
    for place, source in places.items():
        assert "middlewares=[guard()" in source or "middlewares = [guard(" in source, place


def test_every_client_knows_its_proxy_or_speaks_to_loopback_alone() -> None:
    loopback = {
        "cli/demo/crash.py",
        "embedded/stand_ins/core.py",
        "embedded/stand_ins/hyperbolic.py",
        "memory/arweave/client.py",  # which asks through an Endpoint
        "payments/rpc_answers.py",  # whose sessions web3 asks with the proxy of `_connect`
        "pool/llama.py",
        "testing/rpc.py",
    }
    clients = places_with("ClientSession(") | places_with("AsyncHTTPProvider(")
    assert {place for place, source in clients.items() if "proxy_for(" not in source} == loopback
    assert "proxy_for(" in places_with("class Endpoint")["memory/arweave/endpoint.py"]
    assert places_with("urllib.request.urlopen") == {}
    assert places_with("trust_env") == {}
