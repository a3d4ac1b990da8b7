"""The unit tier: no test here opens a socket or starts a process, and one that does fails."""

import Crypto.PublicKey.RSA  # noqa: F401  # runs ldconfig while it is imported, and only then
from support.no_io_guard import pytest_runtest_call, pytest_runtest_setup

__all__ = ["pytest_runtest_call", "pytest_runtest_setup"]
