"""One agent buys on two chains under one budget; it is killed, and its lines to them break."""

from pathlib import Path

import pytest
from support.network_faults import play

pytestmark = [pytest.mark.anvil, pytest.mark.timeout(300)]


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_paid_twice_delivered_unpaid_or_above_the_budget(
    tmp_path: Path, seed: int
) -> None:
    """`python -m support.network_faults` does the same at any size."""
    outcome = await play(tasks=3, faults=20, seed=seed, odds=1.0, folder=tmp_path)
    assert outcome.problems() == []
    assert sum(outcome.faults.values()) == 20
    assert outcome.kills
    assert outcome.starts > 1
