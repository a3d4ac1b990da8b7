"""After everything a wallet does, its key and its passphrase are nowhere that others look."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from support.secret_forms import found_in, unlocked

from agentkit.errors import WrongKey
from agentkit.keys import keystore


def test_an_error_report_with_every_variable_shows_neither(tmp_path: Path) -> None:
    """What crash reporters send: frames, and what stood in them."""
    file = tmp_path / "keystore.json"
    signer = unlocked(file)

    def report() -> bytes:
        kind, error, trace = sys.exc_info()
        assert kind
        assert error
        whole = traceback.TracebackException(kind, error, trace, capture_locals=True)
        return "".join(whole.format()).encode()

    odd: Any = "no message"
    for failing in (signer.sign_tx, signer.sign_item):
        with pytest.raises(AttributeError):
            try:
                failing(odd)
            except AttributeError:
                assert found_in(report()) == []
                raise
    with pytest.raises(WrongKey):
        try:
            keystore.unlock(file, "wrong", real=True)
        except WrongKey:
            assert b"keystore" in report()
            assert found_in(report()) == []
            raise
