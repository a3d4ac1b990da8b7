"""These tests too reach nothing outside of their process: the guard of the unit tier is on."""

import Crypto.PublicKey.RSA  # noqa: F401  # runs ldconfig while it is imported, and only then
from support.no_io_guard import pytest_runtest_call, pytest_runtest_setup

__all__ = ["pytest_runtest_call", "pytest_runtest_setup"]
