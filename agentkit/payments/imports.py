"""Imports web3, and what imports it, so that the rest of the process does not feel it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ALONE = threading.RLock()


@contextmanager
def importing_web3() -> Iterator[None]:
    """Import it in one thread at a time, and keep the interpreter's recursion limit.

    Two threads that import parts of web3 in different orders wait for each other; Python then
    hands one of them a module that is not complete, and its import fails.

    py_ecc, which web3 imports, raises the limit to 100,000.  Deeply nested JSON then overflows the
    C stack, so that any provider's answer could end the process.
    """
    with _ALONE:
        limit = sys.getrecursionlimit()
        try:
            yield
        finally:
            sys.setrecursionlimit(limit)
