"""The root of all errors, and how other libraries' messages are passed on."""

from __future__ import annotations

from typing import ClassVar

MAX_MESSAGE = 500
"""Characters of another library's message that are passed on: it may quote all of its input."""


def brief(message: object) -> str:
    """Return the first line of another library's message, cut where it is very long."""
    lines = str(message).strip().splitlines() or [""]
    return _cut(lines[0])


def in_one_line(message: str) -> str:
    """Return a provider's message in one line that can be written, cut where it is very long.

    A line of its own could pass for ours (`hint: run ...`); megabytes would go into the journal,
    and half of a surrogate pair, which JSON can bring along, goes into no journal at all.
    """
    return writable(" ".join(_cut(message).splitlines()))


def writable(text: str) -> str:
    """Return a text with what UTF-8 has not, half of a surrogate pair, replaced by `?`."""
    return text.encode(errors="replace").decode()


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}..."


class AgentKitError(Exception):
    """Something agentkit could not do."""

    exit_code: int = 1
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").splitlines()[0])
        self.hint = hint or self.default_hint
        if self.hint:
            self.add_note(f"hint: {self.hint}")  # which a traceback shows, and str() does not
