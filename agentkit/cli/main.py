"""The command line: `agentkit VERB`."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from agentkit import __version__
from agentkit.cli import knows, look, places, say, wallet, work
from agentkit.cli.demo.verb import demo
from agentkit.cli.trust import trust

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Plan, price, run and pay job graphs on decentralised AI.",
)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)  # noqa: T201
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and end.")
    ] = False,
) -> None:
    """Plan, price, run and pay job graphs on decentralised AI."""


app.command()(demo)
app.command()(places.init)
app.command()(work.plan)
app.command()(work.run)
app.command()(work.resume)
app.command()(work.cancel)
app.command()(look.status)
app.command()(look.receipts)
app.add_typer(wallet.wallet, name="wallet")
app.add_typer(knows.memory, name="memory")
app.command()(look.providers)
app.add_typer(places.network, name="network")
app.command()(places.serve)
app.command()(trust)
app.command()(places.doctor)


def run() -> None:
    """Run the command line; the entry point of the `agentkit` script."""
    say.survive_any_encoding()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    app()
