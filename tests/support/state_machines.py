"""State machines of contracts are run until everything they name has happened."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

MOST_SEEDS = 9


def go_every_way(machine: Any, ways: set[str]) -> None:
    """Run `machine` from several seeds, until its `done` holds all `ways`.

    Which cases a seed stands for depends on the modules that are loaded, so that a rare way may
    need one more.
    """
    often = settings(
        max_examples=14,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    for number in range(MOST_SEEDS):
        run_state_machine_as_test(seed(number)(type("Seeded", (machine,), {})), settings=often)
        if number and ways <= machine.done:
            return
    raise AssertionError(f"never reached: {sorted(ways - machine.done)}")
