"""The contracts that payments use on the chain: Vyper sources beside their compiled form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

CANONICAL = {
    "BatchSettlement": "0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003",
    "Erc3009DepositCollector": "0x4020806089470a89826cB9fB1f4059150b550004",
    "Permit2DepositCollector": "0x4020425FAf3B746C082C2f942b4E5159887B0005",
    "ExactPermit2Proxy": "0x402085c248EeA27D92E8b30b2C58ed07f9E20001",
    "UptoPermit2Proxy": "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002",
    "Permit2": "0x000000000022D473030F116dDEE9F6B43aC78BA3",
    "Multicall3": "0xcA11bde05977b3631167028862bE2a173976CA11",
}
"""Where contracts lie on every chain.  On real chains there is the code of others; ours stands in
for it on test chains, see docs/explanation/contracts.md."""


@dataclass(frozen=True, slots=True)
class Contract:
    """A compiled contract: its ABI, what a transaction carries to deploy it, what then lies there.

    `runtime` is without the values of immutables, which the chain keeps behind it.
    """

    name: str
    abi: Sequence[dict[str, Any]]
    bytecode: bytes
    runtime: bytes


def load(name: str) -> Contract:
    """Return a compiled contract, by the name of its source, from the files of this package."""
    compiled = json.loads(files(__name__).joinpath(f"{name}.json").read_text("utf-8"))
    bytecode, runtime = (
        bytes.fromhex(compiled[key].removeprefix("0x")) for key in ("bytecode", "runtime")
    )
    return Contract(name, abi=tuple(compiled["abi"]), bytecode=bytecode, runtime=runtime)
