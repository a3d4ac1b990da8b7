"""Compile the contracts: `python -m agentkit.payments.contracts.build [--check]`.

Only developers need this: the compiled form is part of the package, so users need no compiler.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import vyper
from vyper.compiler.input_bundle import FilesystemInputBundle

HERE = Path(__file__).parent
NAMES = (
    "AgentChannels",
    "BatchSettlement",
    "Erc3009DepositCollector",
    "ExactPermit2Proxy",
    "HeadAnchor",
    "Multicall3",
    "Permit2",
    "Permit2DepositCollector",
    "TaskEscrow",
    "TestUSD",
    "UptoPermit2Proxy",
)

_SELECTOR = r'method_id\(\s*"(\w+)\(([\w,]*)\)"'
"""How a source names a function or an error that Vyper itself cannot declare."""

_ERROR = r'raw_revert\(\s*(?:abi_encode\([^"]*method_id=)?' + _SELECTOR


def compiled(name: str, folder: Path | None = None) -> str:
    """Return the JSON text to store beside `name`.vy; the same source gives the same text.

    `folder` is where the source lies, without one beside this file.
    """
    source = ((folder or HERE) / f"{name}.vy").read_text("utf-8")
    output = vyper.compile_code(
        source,
        output_formats=["abi", "bytecode", "bytecode_runtime"],
        input_bundle=FilesystemInputBundle([HERE]),
    )
    abi = [*output["abi"], *_overloads(source, output["abi"]), *_errors(source)]
    built = {
        "name": name,
        "compiler": f"vyper {vyper.__version__}",
        "source_sha256": hashlib.sha256(source.encode()).hexdigest(),
        "abi": abi,
        "bytecode": output["bytecode"],
        "runtime": output["bytecode_runtime"],
    }
    return json.dumps(built, indent=1, sort_keys=True) + "\n"


def _errors(source: str) -> Iterator[dict[str, Any]]:
    """Yield the ABI entries of the errors that a source gives by `raw_revert`.

    Vyper 0.4 declares no errors, so their names stand in the source as `method_id("Name()")`.
    """
    for name, kinds in sorted(set(re.findall(_ERROR, source))):
        inputs = [{"name": "", "type": kind} for kind in kinds.split(",") if kind]
        yield {"type": "error", "name": name, "inputs": inputs}


def _overloads(source: str, abi: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the ABI entries of second forms that a source answers in `__default__`.

    Vyper has no two functions of one name.  A second form is one of the same name whose last
    arguments v, r, s are one `bytes signature`.
    """
    _, _, default = source.partition("def __default__(")
    for name, kinds in re.findall(_SELECTOR, default):
        (first,) = (entry for entry in abi if entry.get("name") == name)
        inputs = [*first["inputs"][:-3], {"name": "signature", "type": "bytes"}]
        assert kinds == ",".join(given["type"] for given in inputs)
        yield {**first, "inputs": inputs}


def stale() -> list[str]:
    """Return the contracts whose stored form is not what their source compiles to."""
    return [name for name in NAMES if not _contains(HERE / f"{name}.json", compiled(name))]


def build() -> None:
    """Write the compiled form of every contract beside its source."""
    for name in NAMES:
        (HERE / f"{name}.json").write_text(compiled(name), "utf-8")


def _contains(path: Path, text: str) -> bool:
    return path.exists() and path.read_text("utf-8") == text


def main() -> None:
    """Build; with `--check` build nothing, and exit with 1 when something has to be built."""
    parser = argparse.ArgumentParser(description="Compile the contracts.")
    parser.add_argument("--check", action="store_true", help="only say whether all is up to date")
    if not parser.parse_args().check:
        build()
    elif changed := stale():
        names = " and ".join(changed)
        raise SystemExit(f"{names} differ from what is stored; build them again without --check")


if __name__ == "__main__":
    main()
