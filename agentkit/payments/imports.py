"""Undoes what importing web3 changes in the whole process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limit_kept() -> Iterator[None]:
    """Keep the interpreter's recursion limit while web3 is imported.

    py_ecc, which web3 imports, raises it to 100,000.  Deeply nested JSON then overflows the C
    stack, so that any provider's answer could end the process.
    """
    limit = sys.getrecursionlimit()
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
