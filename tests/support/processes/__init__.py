"""Programs that tests start as processes of their own, mostly to kill them."""

from pathlib import Path

PROGRAMS = Path(__file__).parent
"""The folder of the programs, which are started by path: `[sys.executable, PROGRAMS / name]`."""
