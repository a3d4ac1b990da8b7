"""The command line: `agentkit VERB`."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from agentkit import __version__
from agentkit.cli.lazy import LazyGroup, Verb
from agentkit.cli.streams import survive_any_encoding


class Verbs(LazyGroup):
    """Every verb, in the order in which `agentkit --help` lists them."""

    verbs = {
        "demo": Verb(
            "agentkit.cli.demo.verb:demo",
            "Run the main job on the embedded network: plan, run, pay, crash, resume, restore.",
        ),
        "init": Verb(
            "agentkit.cli.setup:init",
            "Make a wallet, agentkit.toml and a first graph; nothing that is there is overwritten.",
        ),
        "plan": Verb(
            "agentkit.cli.run:plan",
            "Show where every node would run and what it would cost; spends nothing.",
        ),
        "run": Verb("agentkit.cli.run:run", "Run a plan, or plan a graph, ask, and run it."),
        "resume": Verb(
            "agentkit.cli.run:resume", "Go on with a run that was paused, killed or left."
        ),
        "cancel": Verb(
            "agentkit.cli.run:cancel", "End a run for good: stop its work, give its hold back."
        ),
        "status": Verb(
            "agentkit.cli.status:status", "Show all runs, or what one of them has done so far."
        ),
        "fetch": Verb(
            "agentkit.cli.fetch:fetch",
            "Fetch an address; where it asks for a payment by x402, show the price and pay.",
        ),
        "receipts": Verb(
            "agentkit.cli.status:receipts",
            "List what was paid, to whom and for what; or prove it, or check somebody's proof.",
        ),
        "providers": Verb(
            "agentkit.cli.status:providers",
            "List the providers, what they serve, and whether they answer.",
        ),
        "serve": Verb(
            "agentkit.cli.selling:serve",
            "Be a provider: the native pool behind a paid, OpenAI-compatible HTTP endpoint.",
        ),
        "facilitator": Verb(
            "agentkit.cli.selling:facilitator",
            "Settle x402 payments of others on the chain, and pay their gas.",
        ),
        "field": Verb(
            "agentkit.cli.field.verb:field",
            "Try every way of paying and remembering on a network, for cents; write a signed"
            " report.",
        ),
        "trust": Verb(
            "agentkit.cli.trust:trust",
            "Let the settings in a folder's agentkit.toml count that can send secrets or move"
            " money.",
        ),
        "doctor": Verb(
            "agentkit.cli.setup:doctor",
            "Check everything in order and say what to do about what is wrong.",
        ),
        "wallet": Verb("agentkit.cli.wallet:wallet", "The wallet's money."),
        "memory": Verb("agentkit.cli.knowledge:memory", "The sealed log on Arweave."),
        "network": Verb("agentkit.cli.setup:network", "The embedded network on this machine."),
    }


app = typer.Typer(
    cls=Verbs,
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


def run() -> None:
    """Run the command line; the entry point of the `agentkit` script."""
    survive_any_encoding()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    app()
