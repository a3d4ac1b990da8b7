"""The limits of a slot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """A slot's threads and niceness, and the seconds and resident MiB that one task may use."""

    threads: int = 1
    nice: int = 0
    seconds: float = 600.0
    memory_mib: int = 2048
