"""What is wrong with what is stored, here or on Arweave."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from agentkit.errors.base import AgentKitError


class StateError(AgentKitError):
    """The stored state cannot be used."""


class RunNotFound(StateError):
    """There is no such run."""

    default_hint = "run `agentkit status` for the runs this wallet knows"


class JournalDamaged(StateError):
    """The journal was changed or torn after it was written.  `path` and `record` say where."""

    default_hint = (
        "run `agentkit memory verify` to see what still agrees with Arweave; then move the file"
        " away and bring its state back with `agentkit memory restore`"
    )

    def __init__(self, path: object, record: str, why: str, *, hint: str = "") -> None:
        self.path, self.record = path, record
        StateError.__init__(self, f"the journal {path} is damaged at {record}: {why}", hint=hint)


class StateTooNew(JournalDamaged):
    """A newer agentkit wrote this file; it was left as it is.

    `path` says where it is, `record` what in it is newer, `why` how that shows.  It is a
    JournalDamaged for callers who only ask whether a file can be used, not because anything in
    it is wrong.
    """

    default_hint = (
        "use the agentkit that wrote it, or install the newest:"
        " `pip install --upgrade deai-agentkit`"
    )

    def __init__(self, path: object, record: str, why: str, *, hint: str = "") -> None:
        self.path = path
        self.record = record
        self.why = why
        written = f"{path} holds {record}, written by a newer version of agentkit"
        StateError.__init__(self, f"{written}: {why}", hint=hint)


class StoreUnavailable(StateError):
    """A store or gateway cannot be reached."""


class StateForked(StateError):
    """Two machines continued the same state.

    `ours` and `theirs` are (state file, head) of both sides of `stream` after its event `after`,
    `payments` what was paid here since, which does not count on the other side.  `home` is the
    wallet's folder here, for the commands of the hint.
    """

    def __init__(
        self,
        message: str = "",
        *,
        stream: str = "",
        after: int = 0,
        ours: tuple[str, str] = ("", ""),
        theirs: tuple[str, str] = ("", ""),
        payments: Sequence[str] = (),
        home: Path | None = None,
    ) -> None:
        paid = f"; paid here since: {', '.join(payments)}" if payments else ""
        super().__init__(f"{message}{paid}", hint=_after_fork(home or Path("HOME/ADDRESS"), ours))
        self.stream, self.after = stream, after
        self.ours, self.theirs = ours, theirs
        self.payments = tuple(payments)


def _after_fork(home: Path, ours: tuple[str, str]) -> str:
    """Return what to do about a fork: the state file alone moves, keys and artifacts stay."""
    folder = shlex.quote(str(home))
    aside = shlex.quote(str(home / f"forked-{ours[1][:8] or 'here'}"))
    return (
        "keep one machine and stop every agent on the other for good. To keep the other one, do"
        " nothing more here. To keep this one, move its state aside and take over what the other"
        f" wrote: `mkdir {aside} && mv {folder}/state.db* {aside}` and then `agentkit memory"
        " restore`; what was paid here since is learned from its payees"
    )


class StateCorrupt(StateError):
    """What a store returned is not what was put there."""


class EffectUncertain(StateError):
    """A tool began and nobody knows whether its effect happened.

    `tool` names it.  `running` is true while another call with the same key is still at it, so
    that the outcome may be known later.
    """

    exit_code = 5

    def __init__(self, message: str = "", *, tool: str, running: bool = False, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.tool = tool
        self.running = running


class EffectFailed(StateError):
    """A tool raised before, and its error was kept; it was not run again.

    `error` is the name of the class of what it raised.
    """

    default_hint = "call it with another id or key=, or leave out remember_errors=True"

    def __init__(self, message: str = "", *, error: str = "") -> None:
        super().__init__(message)
        self.error = error


class NotConfirmed(StateError):
    """What was stored is not confirmed yet."""
