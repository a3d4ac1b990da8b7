"""What a verb says: text for people or JSON for programs, and errors with their exit code."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from agentkit.cli.consent import ask_to_trust
from agentkit.display.text import printable
from agentkit.errors import AgentKitError, ConfigError, Untrusted

P = ParamSpec("P")
T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Config = Annotated[
    Path | None, typer.Option("--config", help="Read this file instead of ./agentkit.toml.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")]


_MACHINE_HINT = "check the path, its permissions, free disk space, and whether the port is taken"


def result(data: Any, text: str, *, as_json: bool) -> None:
    """Print what a verb found out: `data` as one line of JSON, or `text`.

    A file or a pipe gets the text as it is; a terminal would act on control characters in it.
    """
    shown = printable(text) if sys.stdout.isatty() else text
    print(json.dumps(data, default=str) if as_json else shown, flush=True)  # noqa: T201


def note(text: str, *, quiet: bool = False) -> None:
    """Tell a person on the side what is going on."""
    if not quiet:
        print(printable(text), file=sys.stderr, flush=True)  # noqa: T201


def verb(function: Callable[P, None]) -> Callable[P, None]:
    """End the process with an error's own exit code after telling its sentence and its hint.

    A person at a terminal is asked whether a folder's settings are trusted, and the verb begins
    again after a yes; verbs read settings before they do anything.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        """Call the verb; end the process with the message, hint and exit code of its error."""
        try:
            try:
                function(*args, **kwargs)
            except Untrusted as request:
                if bool(kwargs.get("as_json")) or not ask_to_trust(request):
                    raise
                function(*args, **kwargs)
        except AgentKitError as error:
            fail(error, as_json=bool(kwargs.get("as_json")))
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            of_the_machine = ConfigError(f"{place}{error.strerror or error}", hint=_MACHINE_HINT)
            fail(of_the_machine, as_json=bool(kwargs.get("as_json")))

    return call


def fail(wrong: AgentKitError, *, as_json: bool) -> None:
    """Print an error and leave with its exit code."""
    if as_json:
        error = {"type": type(wrong).__name__, "message": str(wrong), "hint": wrong.hint}
        result({"error": error, "exit_code": wrong.exit_code}, "", as_json=True)
    else:
        note(f"error: {wrong}" + (f"\nhint: {wrong.hint}" if wrong.hint else ""))
    raise typer.Exit(wrong.exit_code)
