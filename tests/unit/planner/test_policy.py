"""A policy means what it looks like, or is refused: a denied provider is never paid."""

from __future__ import annotations

import logging

import pytest

from agentkit.errors import ConfigError
from agentkit.planner import policy
from agentkit.planner.policy import check_patterns, parse, patterns_of

PROVIDERS = ("native", "gaia", "hyperbolic")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("deny(gaia)", "deny(gaia)"),
        ('deny("gaia")', "deny(gaia)"),
        ("deny('gaia')", "deny(gaia)"),
        ('deny( "gaia" , native/* )', "deny(gaia, native/*)"),
        ('prefer("native", within="10%")', "prefer(native, within=10%)"),
        ("prefer(native, within=10%)", "prefer(native, within=10%)"),
        ("prefer(native, 10%)", "prefer(native, within=10%)"),
        ('max_price("0.1 USDC")', "max_price(0.10 USDC)"),
        ('deny("gaia") >> allow(native) | cheapest', "deny(gaia) >> allow(native) | cheapest"),
    ],
)
def test_quotes_are_understood_as_in_python(text: str, name: str) -> None:
    assert str(parse(text)) == name


@pytest.mark.parametrize(
    "text",
    [
        'deny("gaia)',
        "deny('gaia\")",
        'deny(gaia"x")',
        "deny()",
        'deny("")',
        "deny(,)",
        "deny(names=gaia)",
        "prefer(native, within=10)",
        "denny(gaia)",
        "",
    ],
)
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(text)
    assert refused.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "deny(gaai)",
        "allow(natve)",
        "allow(nat?)",
        "cheapest >> deny(gaai)",
        "deny(gaai) | cheapest",
    ],
)
def test_a_name_that_fits_nobody_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="fits no configured provider") as refused:
        check_patterns(parse(text), PROVIDERS)
    assert "gaia, hyperbolic, native" in refused.value.hint


@pytest.mark.parametrize(
    "text", ["deny(gaia)", "deny(ga*)", "allow(native/fast)", "prefer(native)"]
)
def test_a_name_that_fits_is_fine(text: str, caplog: pytest.LogCaptureFixture) -> None:
    check_patterns(parse(text), PROVIDERS)
    assert not caplog.records


@pytest.mark.parametrize("text", ["prefer(natve)", "deny(unverified-*)"])
def test_what_does_no_harm_is_noted(text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_patterns(parse(text), PROVIDERS)
    assert "fits no configured provider" in caplog.text


def test_patterns_are_known_however_policies_are_put_together() -> None:
    plain = lambda offers: offers  # noqa: E731
    whole = plain >> (policy.deny("a") | policy.allow("b")) >> policy.prefer("c")
    assert [pattern.text for pattern in patterns_of(whole)] == ["a", "b", "c"]
    assert patterns_of(plain) == ()
