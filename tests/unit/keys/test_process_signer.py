"""A key in a process of its own: the same signatures, and nothing but the named operations."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from support.signer_messages import CALL, DOMAIN, MESSAGES

from agentkit.keys.messages import UnsignedTransaction
from agentkit.keys.signer import KeySigner


class Seen:
    """Every local of every frame that signing went through, as tools that print them would."""

    def __init__(self, *secrets: str) -> None:
        self.secrets, self.frames, self.shown = secrets, 0, set[str]()

    def __call__(self, frame: Any, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != __file__:
            self.frames += 1
            said = ""
            with suppress(AttributeError):  # an object that is not made yet
                said = f"{frame.f_locals!r} {argument!r}".lower()
            if any(secret in said for secret in self.secrets):
                self.shown.add(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return self


def test_the_key_shows_in_no_frame_and_no_repr(here: tuple[Path, KeySigner]) -> None:
    signer = here[1]
    secret = signer._key.secret
    seen = Seen(secret.hex(), str(int.from_bytes(secret)), repr(secret)[2:-1].lower())
    sys.settrace(seen)
    try:
        for verb, message in MESSAGES.items():
            getattr(signer, verb)(DOMAIN, message)
        signer.sign_tx(CALL)
        with suppress(ValueError):
            signer.sign_tx(UnsignedTransaction(1, 1, "nobody", b"", 1, 1, 1))
    finally:
        sys.settrace(None)
    assert seen.frames > 50
    assert not seen.shown
    assert not any(known in f"{signer!r} {vars(signer)!r}" for known in seen.secrets)
