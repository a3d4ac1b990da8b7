"""A schedule that goes on across restarts: what was missed is counted, and not made up."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from agentkit.errors import ConfigError
from agentkit.schedule import Schedule, Tick, every

HOUR = timedelta(hours=1)


async def ticked(folder: Path, period: timedelta = HOUR) -> Tick:
    """Return the first tick of a process that starts now."""
    ticks: AsyncIterator[Tick] = Schedule(folder, "main").every(period)
    return await anext(ticks)


def last_tick(folder: Path, ago: float) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "main").write_text(f"{time.time() - ago}")


@pytest.mark.parametrize(("hours", "missed"), [(1.5, 0), (2.5, 1), (10.5, 9)])
async def test_what_a_stopped_process_missed_is_counted(
    tmp_path: Path, hours: float, missed: int
) -> None:
    last_tick(tmp_path, hours * 3600)
    tick = await ticked(tmp_path)
    assert tick.missed == missed
    assert time.time() - tick.at == pytest.approx(1800, abs=5)  # the moment that passed last


async def test_a_restart_within_a_period_waits_for_its_end(tmp_path: Path) -> None:
    """A process that is restarted again and again must not buy at every start."""
    last_tick(tmp_path, 0.0)
    began = time.monotonic()
    tick = await ticked(tmp_path, timedelta(seconds=0.5))
    assert time.monotonic() - began >= 0.4
    assert tick.missed == 0


async def test_a_tick_is_written_before_its_work_begins(tmp_path: Path) -> None:
    tick = await ticked(tmp_path / "new")
    assert float((tmp_path / "new" / "main").read_text()) == tick.at


@pytest.mark.parametrize("text", ["", "soon", "nan", "-1", "1e400", "9" * 200, "\x00"])
async def test_a_file_that_says_nothing_is_a_schedule_that_begins(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "main").write_text(text)
    tick = await ticked(tmp_path)
    assert tick.missed == 0
    assert tick.at == pytest.approx(time.time(), abs=5)


async def test_a_clock_that_went_back_does_not_stop_a_schedule(tmp_path: Path) -> None:
    last_tick(tmp_path, -10 * 3600)
    assert (await ticked(tmp_path)).at == pytest.approx(time.time(), abs=5)


async def test_since_is_for_those_who_keep_it_themselves() -> None:
    tick = await anext(every(HOUR, since=time.time() - 3.5 * 3600))
    assert tick.missed == 2


@pytest.mark.parametrize("name", ["", "../state", "a/b", ".hidden", "x" * 65])
def test_a_name_leads_to_no_other_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is not a name for a schedule"):
        Schedule(tmp_path, name)
