"""What `agentkit serve` makes of its flags and of `[serve]`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agentkit.cli.selling import _node_settings, _prices, _until
from agentkit.config import ServeSettings
from agentkit.errors import ConfigError
from agentkit.serve.node import PRICES, NodeSettings


def test_without_settings_a_node_is_what_it_was(tmp_path: Path) -> None:
    assert _node_settings(ServeSettings(), tmp_path) == NodeSettings("node", tmp_path)


def test_each_key_reaches_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "open sesame")
    given = {
        "name": "mine",
        "label": "a line",
        "slots": 2,
        "threads": 3,
        "nice": 4,
        "percent": 50,
        "offers_last": 5.0,
        "window": "1.00 USDC",
        "gpu": "a card",
        "vram": 8,
        "facilitator": "https://a.example",
        "request_price": "0.50 USDC",
    }
    serve = ServeSettings.model_validate(
        given | {"api_keys": [{"env": "A_KEY"}], "price": {"data": {"byte": "3 USDC per 1M bytes"}}}
    )
    made = _node_settings(serve, tmp_path)
    assert {key: getattr(made, key) for key in given} == given
    assert made.api_keys == ("open sesame",)
    assert made.prices["data"] == PRICES["data"] | {"byte": "3.00 USDC per 1M bytes"}
    assert made.prices["infer"] == PRICES["infer"]


@pytest.mark.parametrize("place", ["infer.inputs", "paint.input"])
def test_the_price_of_nothing_is_refused_and_says_what_there_is(tmp_path: Path, place: str) -> None:
    service, _, unit = place.partition(".")
    serve = ServeSettings.model_validate({"price": {service: {unit: "1 USDC per 1K rows"}}})
    with pytest.raises(ConfigError, match=f"serve.price.{place}") as wrong:
        _node_settings(serve, tmp_path)
    assert "infer.input" in wrong.value.hint


def test_rates_are_given_as_flags() -> None:
    assert _prices(["a.b=1 USDC per row", "a.c=2 USDC per row"]) == {
        "a": {"b": "1 USDC per row", "c": "2 USDC per row"}
    }
    for wrong in ("", "a.b", "a=1", ".b=1", "a.=1"):
        with pytest.raises(ConfigError, match="--price"):
            _prices([wrong])


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_second_stop_ends_the_claiming(stopped: bool) -> None:
    begun, stopping, ended = asyncio.Event(), asyncio.Event(), []

    async def claiming() -> None:
        begun.set()
        try:
            await (asyncio.sleep(0) if not stopped else asyncio.Event().wait())
        finally:
            ended.append("claiming")

    waiting = asyncio.create_task(_until(claiming(), stopping))
    await begun.wait()
    if stopped:
        stopping.set()
    await waiting
    assert ended == ["claiming"]
