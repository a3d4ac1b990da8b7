"""What a slot may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """Bounds of one slot: threads, niceness, and per task seconds and resident memory in MiB."""

    threads: int = 1
    nice: int = 0
    seconds: float = 600.0
    memory_mib: int = 2048
