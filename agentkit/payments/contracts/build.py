"""Compile the contracts: `python -m agentkit.payments.contracts.build [--check]`.

Only developers need this: the compiled form is part of the package, so users need no compiler.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import vyper

HERE = Path(__file__).parent
NAMES = ("AgentChannels", "HeadAnchor", "TaskEscrow", "TestUSD")


def compiled(name: str) -> str:
    """Return the JSON text to store beside `name`.vy; the same source gives the same text."""
    source = (HERE / f"{name}.vy").read_text("utf-8")
    output = vyper.compile_code(source, output_formats=["abi", "bytecode", "bytecode_runtime"])
    built = {
        "name": name,
        "compiler": f"vyper {vyper.__version__}",
        "source_sha256": hashlib.sha256(source.encode()).hexdigest(),
        "abi": output["abi"],
        "bytecode": output["bytecode"],
        "runtime": output["bytecode_runtime"],
    }
    return json.dumps(built, indent=1, sort_keys=True) + "\n"


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
