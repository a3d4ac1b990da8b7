"""Asking a person whether a folder's settings are trusted."""

from __future__ import annotations

import sys

import typer

from agentkit.config import trust
from agentkit.display.text import columns, printable
from agentkit.errors import Untrusted


def ask_to_trust(request: Untrusted) -> bool:
    """Show what a folder's settings want and record a person's yes; False without one.

    Nobody is asked where no person can read the question and answer it.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    typer.echo(printable(f"{request}\n\n{request_text(request)}\n"), err=True)
    if not typer.confirm(printable(f"trust these settings of {request.folder}?"), err=True):
        return False
    trust.grant(request)
    return True


def request_text(request: Untrusted) -> str:
    """Return what a person consents to, one setting a line: new or changed, key, value."""
    rows = [(request.changed.get(key, ""), key, value) for key, value in request.shown.items()]
    rows += [
        (change, key, "") for key, change in request.changed.items() if key not in request.shown
    ]
    return columns(rows)
