"""Start `agentkit` where another distribution may have taken its name.

Other distributions ship an import called `agentkit` too.  Installed beside ours, they overwrite
files of it.  This module has a name of its own, so it can still say what happened.
"""

from __future__ import annotations

import sys
from importlib.metadata import distributions

OURS = "deai-agentkit"
INTERRUPTED = 130
"""The exit code of what Ctrl-C ended, as shells have it: 128 and the signal's number."""


def main() -> None:
    """Run the command line, or say which distribution stands in its way and leave with 2."""
    try:
        from agentkit.cli.main import run
    except (ImportError, AttributeError) as error:
        others = other_owners()
        if not others:
            raise
        sys.stderr.write(f"error: {describe_clash(others)} ({error})\nhint: {remedy(others)}\n")
        raise SystemExit(2) from error
    except KeyboardInterrupt:  # Ctrl-C while our modules are read; nothing has begun
        raise SystemExit(INTERRUPTED) from None
    run()


def other_owners() -> list[str]:
    """Return the other installed distributions that have files in the import `agentkit`."""
    owners = set()
    for distribution in distributions():
        name = distribution.metadata["Name"]
        files = distribution.files or ()
        if name and name.lower() != OURS and any(path.parts[0] == "agentkit" for path in files):
            owners.add(f"{name} {distribution.version}")
    return sorted(owners)


def describe_clash(others: list[str]) -> str:
    """Return a sentence about who else owns the import."""
    return f"the import `agentkit` is also that of {', '.join(others)}, which overwrites our files"


def remedy(others: list[str]) -> str:
    """Return what to do about it, beginning with a verb."""
    names = " ".join(owner.split()[0] for owner in others)
    return f"run `pip uninstall {names}`, then `pip install --force-reinstall --no-deps {OURS}`"


if __name__ == "__main__":
    main()
