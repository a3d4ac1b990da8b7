"""Verbs that are imported when they are called."""

import inspect

import pytest
import typer

from agentkit.cli.main import Verbs


@pytest.mark.parametrize("name", Verbs.verbs)
def test_the_list_of_verbs_says_what_each_verb_says_of_itself(name: str) -> None:
    command = Verbs.verbs[name].load(name)
    assert command.name == name
    assert inspect.cleandoc(command.help).splitlines()[0] == Verbs.verbs[name].help


def test_a_verb_that_there_is_not_is_no_command() -> None:
    group = typer.main.get_group(typer.Typer(cls=Verbs))
    assert group.get_command(None, "nonesuch") is None  # type: ignore[arg-type]
