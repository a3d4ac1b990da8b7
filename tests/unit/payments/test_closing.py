"""Closing everything: what fails for one provider keeps no money from the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentkit.errors import (
    AgentKitError,
    ConfigError,
    InsufficientFunds,
    ProtocolBroken,
    Refused,
    SettlementFailed,
    StoreUnavailable,
)
from agentkit.market.attempt import Message
from agentkit.market.seams import Provider
from agentkit.payments.closing import close_all
from agentkit.testing.fakes import FakeProvider, ToyRail


class Closing(ToyRail):
    """Has something with two providers; what the first says ends in `wrong`, alone in `alone`."""

    def __init__(self, wrong: AgentKitError, alone: AgentKitError | str) -> None:
        super().__init__()
        self.wrong, self.alone = wrong, alone

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        return [Message(rail="toy", provider=name, verb="close") for name in ("one", "two")]

    async def finish(self, answer: Message) -> None:
        if answer.provider == "one":
            raise self.wrong

    async def insist(self, message: Message) -> str:
        if isinstance(self.alone, AgentKitError):
            raise self.alone
        return self.alone


@pytest.mark.parametrize(
    ("wrong", "alone", "said"),
    [
        (SettlementFailed("it reverts"), "", "not closed: it reverts"),
        (SettlementFailed("it reverts"), "found on the chain", "found on the chain"),
        (
            SettlementFailed("it reverts"),
            StoreUnavailable("away"),
            "and without the provider: away",
        ),
        (Refused("not me"), InsufficientFunds("no gas"), "and without the provider: no gas"),
        (StoreUnavailable("the chain is away"), "", "not closed: the chain is away"),
        (InsufficientFunds("no gas"), "", "not closed: no gas"),
        (ConfigError("it is chain 7"), "", "not closed: it is chain 7"),
        (Refused("not me"), ConfigError("it is chain 7"), "the provider: it is chain 7"),
    ],
)
async def test_what_fails_for_one_keeps_nothing_from_the_next(
    tmp_path: Path, wrong: AgentKitError, alone: AgentKitError | str, said: str
) -> None:
    providers: dict[str, Provider] = {
        name: FakeProvider(name, tmp_path / name) for name in ("one", "two")
    }
    outcomes = await close_all({"toy": Closing(wrong, alone)}, providers, 0.0)
    assert said in outcomes["one/"]
    assert outcomes["two/"] == "closed"


class Mute(FakeProvider):
    """Takes a message and never answers."""

    async def carry(self, message: Message) -> Message:
        await asyncio.Event().wait()
        return message


async def test_a_provider_that_never_answers_is_left_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentkit.payments.closing.CLOSE_SECONDS", 0.01)
    providers: dict[str, Provider] = {
        "one": Mute("one", tmp_path / "one"),
        "two": FakeProvider("two", tmp_path / "two"),
    }
    rail = Closing(SettlementFailed("never reached"), "asked for on chain")
    outcomes = await close_all({"toy": rail}, providers, 0.0)
    assert outcomes == {"one/": "asked for on chain", "two/": "closed"}


class Lost(ToyRail):
    """Its chain's address ends in an error."""

    def __init__(self, wrong: AgentKitError) -> None:
        super().__init__()
        self.wrong = wrong

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        raise self.wrong


@pytest.mark.parametrize(
    "wrong",
    [
        StoreUnavailable("it is away"),
        ProtocolBroken("it answers with 0 words"),
        ConfigError("it is chain 7"),
    ],
)
async def test_one_network_keeps_no_money_on_the_others(
    tmp_path: Path, wrong: AgentKitError
) -> None:
    providers: dict[str, Provider] = {
        name: FakeProvider(name, tmp_path / name) for name in ("one", "two")
    }
    rails = {"lost": Lost(wrong), "toy": Closing(SettlementFailed("it reverts"), "asked for")}
    outcomes = await close_all(rails, providers, 0.0)
    assert outcomes.pop("all over toy").startswith("not closed: it ")
    assert outcomes == {"one/": "asked for", "two/": "closed"}


class Twice(Closing):
    """Has two channels with the first provider, one of which cannot be closed."""

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        return [
            Message(rail="toy", provider=name, verb="close", body={"channel": channel * 64})
            for name, channel in (("one", "a"), ("two", "b"), ("two", "c"))
        ]

    async def finish(self, answer: Message) -> None:
        if answer.body["channel"].startswith("b"):
            raise self.wrong


async def test_a_channel_that_stays_open_is_not_told_as_its_neighbour(tmp_path: Path) -> None:
    """The command would say that all is closed, and end with 0."""
    providers: dict[str, Provider] = {
        name: FakeProvider(name, tmp_path / name) for name in ("one", "two")
    }
    outcomes = await close_all({"toy": Twice(Refused("no"), "")}, providers, 0.0)
    assert list(outcomes.values()) == ["closed", "not closed: no", "closed"]
