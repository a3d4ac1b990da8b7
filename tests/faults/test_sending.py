"""Whatever dies or lies between a wallet and its chain, each task is paid once.

All scenarios are played once for the whole module, two at a time; each has its own test here.
"""

import asyncio
from collections.abc import Iterable

import pytest
from support.sending_scenarios import (
    CONTROLS,
    DYING_STARTS,
    SCENARIOS,
    TASKS,
    Outcome,
    Scenario,
    play,
)

pytestmark = [pytest.mark.anvil, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, bool], Outcome]:
    """What came of every scenario, by its name and whether the control paid."""

    async def played() -> list[tuple[tuple[str, bool], Outcome]]:
        gate = asyncio.Semaphore(2)

        async def one(scenario: Scenario, naive: bool) -> tuple[tuple[str, bool], Outcome]:
            async with gate:
                return (scenario.name, naive), await play(scenario, naive=naive)

        both: Iterable[tuple[list[Scenario], bool]] = ((SCENARIOS, False), (CONTROLS, True))
        return await asyncio.gather(*(one(s, naive) for group, naive in both for s in group))

    return dict(asyncio.run(played()))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_each_task_is_paid_once(
    scenario: Scenario, outcomes: dict[tuple[str, bool], Outcome]
) -> None:
    found = outcomes[scenario.name, False]
    assert (found.paid, found.final) == (TASKS, TASKS), found.says
    assert_reached(scenario, found)
    if scenario.bumps:
        assert found.signed > TASKS, "nothing was signed for more"
        assert found.nonces == TASKS, "and not under another nonce"


@pytest.mark.parametrize("scenario", CONTROLS, ids=lambda scenario: scenario.name)
def test_a_payer_that_writes_down_afterwards_pays_too_often(
    scenario: Scenario, outcomes: dict[tuple[str, bool], Outcome]
) -> None:
    found = outcomes[scenario.name, True]
    assert found.paid > TASKS, found.says
    assert_reached(scenario, found)


def assert_reached(scenario: Scenario, found: Outcome) -> None:
    """See that what was to go wrong went wrong."""
    if scenario.kill:
        assert found.kills == DYING_STARTS
        assert found.starts > DYING_STARTS
    if scenario.rpc or scenario.chaos:
        assert found.faults > 0
