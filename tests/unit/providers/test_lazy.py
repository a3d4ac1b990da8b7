"""One provider's missing key, or its adapter's bug, is that provider's own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import AdapterFailed, ConfigError, Unavailable
from agentkit.market.seams import Provider
from agentkit.providers.lazy import LateProvider
from agentkit.testing.fakes import FakeProvider


class Buggy:
    """An adapter of another package that breaks where it is told to."""

    name = "buggy"

    def __init__(self, verb: str, value: Any = None) -> None:
        self._verb, self._value = verb, value

    def __getattr__(self, verb: str) -> Any:
        async def called(*arguments: Any) -> Any:
            if verb == self._verb and self._value is None:
                raise TypeError("unsupported operand")
            return self._value

        return called


def late(make: Callable[[], Any]) -> LateProvider:
    return LateProvider("late", make)


async def test_it_is_opened_when_it_is_used_and_once(tmp_path: Path) -> None:
    opened: list[Provider] = []

    def make() -> Provider:
        opened.append(FakeProvider("late", tmp_path))
        return opened[0]

    provider = late(make)
    await provider.close()
    assert not opened
    await provider.describe()
    await provider.describe()
    assert len(opened) == 1
    await provider.close()


async def test_settings_that_cannot_be_used_are_told_once_and_leave_it_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def make() -> Provider:
        raise ConfigError("the environment variable KEY is not set", hint="export KEY=...")

    provider = late(make)
    for ask in (provider.describe, lambda: provider.offers(None)):  # type: ignore[arg-type]
        with caplog.at_level(logging.WARNING), pytest.raises(Unavailable) as left_out:
            await ask()
        assert "the environment variable KEY is not set" in str(left_out.value)
        assert left_out.value.hint == "export KEY=..."
    assert len(caplog.records) == 1


VERBS = ["describe", "offers", "submit", "find", "status", "result", "cancel", "carry"]


@pytest.mark.parametrize("verb", VERBS)
async def test_a_bug_is_told_with_its_place(verb: str) -> None:
    arguments = {"describe": 0, "submit": 4}.get(verb, 1)
    with pytest.raises(AdapterFailed) as bug:
        await getattr(late(lambda: Buggy(verb)), verb)(*[None] * arguments)
    assert "TypeError: unsupported operand (test_lazy.py:" in str(bug.value)
    assert bug.value.unknown


@pytest.mark.parametrize(
    ("verb", "value"), [("describe", "up"), ("offers", 7), ("offers", ["one"])]
)
async def test_what_is_no_answer_of_an_adapter_is_its_bug(verb: str, value: Any) -> None:
    with pytest.raises(AdapterFailed):
        await getattr(late(lambda: Buggy(verb, value)), verb)(*[None] * (verb == "offers"))


async def test_a_factory_with_a_bug_is_that_providers_own() -> None:
    def make() -> Provider:
        raise AttributeError("no such thing")

    with pytest.raises(AdapterFailed, match="AttributeError"):
        await late(make).describe()


async def test_a_bug_at_the_close_keeps_no_other_from_closing() -> None:
    provider = late(lambda: Buggy("close"))
    with pytest.raises(AdapterFailed):
        await provider.describe()
    await provider.close()
