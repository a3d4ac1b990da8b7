"""The command line: `agentkit VERB`."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from agentkit import __version__
from agentkit.cli import knowledge, output, setup, status, wallet
from agentkit.cli.demo.verb import demo
from agentkit.cli.run import cancel, plan, resume
from agentkit.cli.run import run as run_graph
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
app.command()(setup.init)
app.command()(plan)
app.command()(run_graph)
app.command()(resume)
app.command()(cancel)
app.command()(status.status)
app.command()(status.receipts)
app.add_typer(wallet.wallet, name="wallet")
app.add_typer(knowledge.memory, name="memory")
app.command()(status.providers)
app.add_typer(setup.network, name="network")
app.command()(setup.serve)
app.command()(trust)
app.command()(setup.doctor)


def run() -> None:
    """Run the command line; the entry point of the `agentkit` script."""
    output.survive_any_encoding()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    app()
