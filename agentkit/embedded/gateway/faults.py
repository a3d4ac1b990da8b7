"""What the gateway does wrong when it is told to: the switches of the test bench.

They are set as one value, in process by `Gateway.set_faults` or by `POST /bench/faults`.  Every
time one of them bites is counted in `Bench.reached`, so that a test can show it was there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import replace
from random import Random
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from agentkit.embedded.gateway.entries import IndexEntry

EVERY = "*"
"""Stands for every id where ids are named."""

Ids = frozenset[str]


class _Switches(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Failure(_Switches):
    """How the next `times` requests to paths that start with `path` go wrong.

    `status` 0 cuts the connection instead of answering.  `done`: what was asked is done before,
    so that only its answer is lost.  `delay` in seconds.
    """

    path: str = "/"
    method: str = ""
    status: int = 503
    times: int = Field(default=1, ge=1)
    done: bool = False
    delay: float = 0.0
    retry_after: str = ""
    text: str = "out of order"


class Faults(_Switches):
    """What goes wrong; nothing by default.  Ids are base64url, `*` is every one.

    The weave: `block_seconds` replaces the rhythm of blocks; of what waits for a block, `drop` and
    the share `drop_rate` are forgotten, `hold` goes on waiting; `price_times` multiplies the fee;
    without `unbundle` bundles stay whole, as on most gateways.

    Its answers: `hide` and the newest `hide_newest` entries are not known; data is `flip`ped in
    one byte, `cut` by its last, or that of another id (`swap`); `without_data` is listed and
    mined, and its data is nowhere; every listed entry has the tags of `forge`.
    """

    block_seconds: float | None = Field(default=None, ge=0)
    drop: Ids = frozenset()
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    hold: Ids = frozenset()
    price_times: int = Field(default=1, ge=1)
    unbundle: bool = True
    hide: Ids = frozenset()
    hide_newest: int = Field(default=0, ge=0)
    flip: Ids = frozenset()
    cut: Ids = frozenset()
    swap: Mapping[str, str] = {}
    without_data: Ids = frozenset()
    forge: Mapping[str, str] = {}
    failures: tuple[Failure, ...] = ()


class Bench:
    """The faults that are switched on, and how often each of them bit."""

    def __init__(self) -> None:
        self.reached: Counter[str] = Counter()
        self.set(Faults())

    def set(self, faults: Faults) -> None:
        """Switch to `faults`; chance starts anew, counts go on."""
        self.faults = faults
        self._left = [failure.times for failure in faults.failures]
        self._chance = Random(0)  # noqa: S311  # the same tests, the same drops

    def failing(self, method: str, path: str) -> Failure | None:
        """Return how this request goes wrong, None when it does not."""
        for place, failure in enumerate(self.faults.failures):
            meant = path.startswith(failure.path) and method.startswith(failure.method)
            if meant and self._left[place]:
                self._left[place] -= 1
                self.reached[f"fail {failure.path}"] += 1
                return failure
        return None

    # -- blocks ----------------------------------------------------------------------------------

    def drops(self, name: str) -> bool:
        """Whether the next block forgets what waits for it."""
        unlucky = self._chance.random() < self.faults.drop_rate
        return self._hit("drop", unlucky or _named(name, self.faults.drop))

    def holds(self, name: str) -> bool:
        """Whether an entry goes on waiting for a block."""
        return self._hit("hold", _named(name, self.faults.hold))

    # -- lies ------------------------------------------------------------------------------------

    def hides(self, name: str) -> bool:
        """Whether an id is said to be unknown."""
        return self._hit("hide", _named(name, self.faults.hide))

    def source(self, name: str) -> str | None:
        """Return the id whose data is served as that of `name`, None for no data at all."""
        if self._hit("without_data", _named(name, self.faults.without_data)):
            return None
        other = self.faults.swap.get(name, name)
        self._hit("swap", other != name)
        return other

    def spoiled(self, name: str, data: bytes) -> bytes:
        """Return the data as it is served."""
        if data and self._hit("flip", _named(name, self.faults.flip)):
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        if data and self._hit("cut", _named(name, self.faults.cut)):
            data = data[:-1]
        return data

    def told(self, entry: IndexEntry) -> IndexEntry:
        """Return an entry as it is listed."""
        forged = self.faults.forge
        if not self._hit("forge", any(name in forged for name, _ in entry.tags)):
            return entry
        return replace(entry, tags=tuple((n, forged.get(n, value)) for n, value in entry.tags))

    def _hit(self, name: str, bites: bool) -> bool:
        if bites:
            self.reached[name] += 1
        return bites


def _named(name: str, names: Set[str]) -> bool:
    return name in names or EVERY in names
