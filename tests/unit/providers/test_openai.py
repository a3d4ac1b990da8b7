"""The OpenAI-compatible adapter against a provider that misbehaves.

The provider here is a stand-in of these tests, a small web server on this machine: it lists one
model, gives a good answer until a test tells it which fault to show, and counts what it was asked.
"""

import pytest
from support.openai_endpoint import KEY, PRICES, SERVED

from agentkit.errors import ConfigError
from agentkit.money import Rate
from agentkit.providers.openai import GAIA, EndpointSettings, OpenAI, check_prices
from agentkit.testing.fakes import NETWORK


def test_the_key_is_in_no_repr_of_the_adapter() -> None:
    account = EndpointSettings(PRICES, {"m": SERVED}, key=KEY)
    adapter = OpenAI("far", "http://127.0.0.1:9/v1", NETWORK, GAIA, account)
    assert KEY not in f"{adapter!r} {adapter!s} {adapter._http!r}"


def test_the_key_is_in_no_repr_of_the_account() -> None:
    assert KEY not in repr(EndpointSettings(PRICES, {"m": SERVED}, key=KEY))


def test_a_price_of_something_else_is_no_price() -> None:
    wrong = EndpointSettings({"tokens": Rate.parse("1 USDC per 1M tokens")}, {})
    with pytest.raises(ConfigError, match=r"providers.far.price.tokens"):
        check_prices("far", wrong)


def test_no_cut_of_a_message_leaves_a_part_of_the_key() -> None:
    key = "sk-proj-" + "A1b2C3d4" * 20
    account = EndpointSettings(PRICES, {"m": SERVED}, key=key)
    adapter = OpenAI("far", "http://127.0.0.1:9/v1", NETWORK, GAIA, account)
    for length in (len(key), 100, 40, 12):
        told = adapter._without_key(f"Bearer {key[:length]}' rejected")
        assert told == "Bearer ***' rejected"
