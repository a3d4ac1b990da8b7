"""fetch: one address, paid for where it asks for that."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from agentkit.agent import Agent
from agentkit.cli import output
from agentkit.errors import ConfigError
from agentkit.fetching import Fetched, RequestFields, free_answer, graph_of
from agentkit.market.plan import Plan

Header = Annotated[
    list[str] | None, typer.Option("--header", "-H", metavar="NAME: VALUE", help="repeatable")
]


@output.verb
def fetch(
    url: Annotated[str, typer.Argument(help="an address that may ask for a payment by x402")],
    budget: Annotated[str, typer.Option(help='the most it may cost, like "0.05 USDC"')],
    method: Annotated[str | None, typer.Option("--method", "-X", help="GET, POST, ...")] = None,
    data: Annotated[str | None, typer.Option(help="the body: JSON, text, or @FILE")] = None,
    header: Header = None,
    out: Annotated[Path | None, typer.Option(help="write the answer to this file")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask about the cost")] = False,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Fetch an address; where it asks for a payment by x402, show the price and pay.

    Never more than --budget.  A paid request is a run: `agentkit status` lists it, and `agentkit
    resume` goes on with it.
    """
    request = _request(method, data, header or [])
    answer = asyncio.run(_fetch(url, request, config, budget, yes=yes, quiet=quiet))
    if answer is None:
        output.note("nothing was spent", quiet=quiet)
        return
    if out:
        out.write_bytes(answer.body)
    paid = f"paid {answer.paid}, run {answer.run_id}" if answer.paid else "it asks for no payment"
    output.note(f"{answer.status} {answer.media_type or 'no media type'}; {paid}", quiet=quiet)
    body = answer.body.decode(errors="replace")
    shown = {
        "status": answer.status,
        "media_type": answer.media_type,
        "run": answer.run_id,
        "paid": str(answer.paid or ""),
        "body": body,
    }
    if as_json or not out:
        output.result(shown, body, as_json=as_json)


async def _fetch(
    url: str, request: RequestFields, config: Path | None, budget: str, *, yes: bool, quiet: bool
) -> Fetched | None:
    """Return the answer, None where the user does not agree to what it costs."""
    async with Agent.from_config(config) as agent:
        graph = graph_of(url, request)
        answer = await free_answer(agent.network, graph)
        if answer is not None:
            return answer
        plan = await agent.plan(graph, budget=budget)
        if not _agrees(plan, yes=yes, quiet=quiet):
            return None
        return Fetched.of(await agent.run(plan))


def _agrees(plan: Plan, *, yes: bool, quiet: bool) -> bool:
    """Ask about a plan's cost; raises ConfigError where nobody can be asked."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigError(
            f"it can cost {plan.at_most}, and stdin is not a terminal to ask", hint="add --yes"
        )
    offer = plan.nodes[0].offer
    how = f" by {offer.rail} to {offer.payee}" if offer else ""
    return typer.confirm(f"it costs at most {plan.at_most}{how}: pay?", err=True)


def _request(method: str | None, data: str | None, headers: list[str]) -> RequestFields:
    """Return a request as the options describe it; raises ConfigError."""
    body = _body(data)
    named: dict[str, str] = {}
    for line in headers:
        name, colon, value = line.partition(":")
        if not colon:
            raise ConfigError(f"{line[:80]!r} is not a header", hint='write it as "Name: value"')
        named[name.strip()] = value.strip()
    verb: Any = (method or ("GET" if data is None else "POST")).upper()
    return RequestFields(method=verb, body=body, headers=named)


def _body(data: str | None) -> Any:
    """Return what is sent: a JSON object or list as such, any other text as it is."""
    if data is None:
        return None
    text = Path(data[1:]).read_text("utf-8") if data.startswith("@") else data
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict | list) else text
