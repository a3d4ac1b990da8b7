"""The lease on an effect: one call has it, and its file is deleted without letting two in."""

import fcntl
from pathlib import Path
from typing import Any

import pytest

from agentkit.journal import lease
from agentkit.journal.lease import EffectLease


def test_one_call_has_it_and_its_file_goes_with_it(tmp_path: Path) -> None:
    one, two, other = (EffectLease(tmp_path, effect) for effect in ("aa", "aa", "bb"))
    assert one.try_take()
    assert not two.try_take()
    assert other.try_take()
    two.close()  # it was not taken, so nothing is given back
    assert not two.try_take()
    one.close()
    one.close()
    assert two.try_take()
    for held in (two, other):
        held.close()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_on_a_file_that_was_deleted_meanwhile_is_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the file and locking it, its owner deletes it and a third call comes."""
    owner, late, third = (EffectLease(tmp_path, "aa") for _ in range(3))
    assert owner.try_take()
    flock = fcntl.flock
    reached: list[bool] = []

    def hand_over_first(file: Any, how: int) -> None:
        monkeypatch.setattr(lease.fcntl, "flock", flock)
        owner.close()
        reached.append(third.try_take())
        flock(file, how)

    monkeypatch.setattr(lease.fcntl, "flock", hand_over_first)
    assert not late.try_take()
    assert reached == [True]
    third.close()
    assert late.try_take()
    late.close()
