"""The contracts that payments use on the chain: Vyper sources beside their compiled form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class Contract:
    """A compiled contract: its ABI, and what a transaction carries to deploy it."""

    name: str
    abi: Sequence[dict[str, Any]]
    bytecode: bytes


def load(name: str) -> Contract:
    """Return a compiled contract, by the name of its source, from the files of this package."""
    compiled = json.loads(files(__name__).joinpath(f"{name}.json").read_text("utf-8"))
    bytecode = bytes.fromhex(compiled["bytecode"].removeprefix("0x"))
    return Contract(name, abi=tuple(compiled["abi"]), bytecode=bytecode)
