"""Verbs that are imported when they are called, so that `agentkit --help` is quick.

Importing all verbs takes most of a second, because some of them need the chain, the planner and the
journal.  Here each is a name, the first line of its help, and where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True)
class Verb:
    """Where a verb is, and the first line of its help.

    `place` is `module:name` of a function, or of a Typer app with verbs of its own.
    """

    place: str
    help: str

    def load(self, name: str) -> Any:
        """Import the verb and return it as a click command called `name`."""
        module, _, attribute = self.place.partition(":")
        verb = getattr(import_module(module), attribute)
        if isinstance(verb, typer.Typer):
            command: Any = typer.main.get_group(verb)
        else:
            app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            app.command(name)(verb)
            command = typer.main.get_command(app)
        command.name = name
        return command


class _LazyCommand(TyperCommand):
    """Stands for a verb in the list of verbs; becomes the verb itself when it is called."""

    def __init__(self, name: str, verb: Verb) -> None:
        super().__init__(name, help=verb.help)
        self._verb = verb

    def make_context(self, *args: Any, **more: Any) -> Any:
        """Return the context of the real command, which click then invokes."""
        assert self.name is not None  # it was given one
        return self._verb.load(self.name).make_context(*args, **more)


class LazyGroup(TyperGroup):
    """A group of verbs that are not imported before one is called; see `VERBS`."""

    verbs: dict[str, Verb] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the verbs, in the order of the table."""
        return list(self.verbs)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return what stands for a verb until it is called, None for one that there is not."""
        verb = self.verbs.get(cmd_name)
        return _LazyCommand(cmd_name, verb) if verb else None
