"""Providers are reached through the user's proxy, and this machine never is."""

from __future__ import annotations

import pytest

from agentkit.errors import ConfigError
from agentkit.net.proxies import proxy_for


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "https://LOCALHOST"]
)
def test_this_machine_has_no_proxy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://proxy.example:3128")
    assert proxy_for(url) is None
    assert proxy_for("https://provider.example/v1") == "http://proxy.example:3128"


def test_a_proxy_that_cannot_be_used_is_not_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9050")
    with pytest.raises(ConfigError, match="not one over HTTP") as raised:
        proxy_for("https://provider.example")
    assert "HTTPS_PROXY" in raised.value.hint
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "proxy.example:3128")
    assert proxy_for("https://provider.example") == "http://proxy.example:3128"
