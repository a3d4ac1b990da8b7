"""trust: a person's consent to the settings that lie in a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from agentkit.cli import output
from agentkit.cli.consent import request_text
from agentkit.config import LOCAL_FILE, Settings
from agentkit.config import trust as records
from agentkit.display.text import printable
from agentkit.errors import ConfigError, Untrusted

Folder = Annotated[
    Path | None, typer.Argument(help="the folder whose agentkit.toml you trust", show_default=False)
]


@output.verb
def trust(
    folder: Folder = None,
    show: Annotated[bool, typer.Option("--list", help="list the trusted folders")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="trust the folder no more")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: output.AsJson = False,
    quiet: output.Quiet = False,
) -> None:
    """Let the settings in a folder's agentkit.toml count that can send secrets or move money.

    The folder is remembered with these settings as they are now. When one of them changes, you are
    asked again; other settings and comments may change freely.
    """
    if show:
        _list(as_json=as_json)
        return
    if folder is None:
        raise ConfigError("no folder is named", hint="write `agentkit trust .`, or --list")
    folder = _folder_of(folder)
    if forget:
        _forget(folder, as_json=as_json)
    else:
        _trust(folder, yes=yes, as_json=as_json)


def _folder_of(named: Path) -> Path:
    """Return the folder that is meant, absolute; its settings file means the folder too."""
    if named.name == LOCAL_FILE.name and named.is_file():
        named = named.parent
    return named.expanduser().resolve()


def _list(*, as_json: bool) -> None:
    trusted = records.read_records()
    data = {str(folder): sorted(digests) for folder, digests in trusted.items()}
    lines = [f"{folder}: {', '.join(keys)}" for folder, keys in data.items()]
    output.result(data, "\n".join(lines) or "no folder is trusted", as_json=as_json)


def _forget(folder: Path, *, as_json: bool) -> None:
    known = records.forget(folder)
    text = f"{folder} is trusted no more" if known else f"{folder} was not trusted"
    output.result(
        {"folder": str(folder), "trusted": False, "was_trusted": known}, text, as_json=as_json
    )


def _trust(folder: Path, *, yes: bool, as_json: bool) -> None:
    """Show which settings of a folder need consent, ask, and record a yes."""
    request = Settings.consent_request(folder)
    if request is None:
        data = {"folder": str(folder), "trusted": True, "settings": {}, "changed": {}}
        output.result(data, f"nothing in {folder / LOCAL_FILE} needs consent", as_json=as_json)
        return
    if request.shared:
        raise request  # consent to what others can change is not kept
    if not (yes or as_json) and not _confirmed(request):
        output.note("nothing was recorded")
        raise typer.Exit(1)
    records.grant(request)
    data = {
        "folder": str(folder),
        "trusted": True,
        "settings": request.shown,
        "changed": request.changed,
    }
    text = f"{request_text(request)}\n\ntrusted: {folder}"
    output.result(data, text, as_json=as_json)


def _confirmed(request: Untrusted) -> bool:
    """Return a person's answer; without a terminal, typing the command was the answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    typer.echo(printable(request_text(request)) + "\n", err=True)
    return typer.confirm(printable(f"trust these settings of {request.folder}?"), err=True)
