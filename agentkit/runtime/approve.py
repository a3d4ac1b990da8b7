"""Asking a person before money is spent: no answer is a no."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable

from agentkit.errors import ConfigError
from agentkit.market.value import Value
from agentkit.money import Money

PATIENCE = 300.0
"""Seconds for which an answer is waited for."""


class Question(Value):
    """What somebody is asked: whether `node` of `run` may cost up to `amount`."""

    run: str
    graph: str
    node: str
    kind: str
    provider: str
    amount: Money

    def __str__(self) -> str:
        return (
            f"run {self.run}: may {self.kind} node {self.node!r} of {self.graph!r}"
            f" cost up to {self.amount} at {self.provider}?"
        )


Ask = Callable[[Question], bool | Awaitable[bool]]
"""Answers a question; anything else than True is a no."""


@dataclass(frozen=True)
class Approval:
    """Who is asked, and about what: nodes with `approve=True`, and those that can come to more.

    than `above`.  `by` is how the journal says they were asked.
    """

    ask: Ask | None = None
    above: Money | None = None
    by: str = "callback"
    patience: float = PATIENCE

    def concerns(self, amount: Money, *, marked: bool) -> bool:
        """Whether somebody has to agree to a node that can come to `amount`."""
        return marked or (self.above is not None and amount.units > self.above.units)

    async def agreed(self, question: Question) -> bool:
        """Ask, and return whether the answer was yes in time."""
        if self.ask is None:
            return False
        try:
            async with asyncio.timeout(self.patience):
                answer = self.ask(question)
                return (await answer if isawaitable(answer) else answer) is True
        except TimeoutError:
            return False


def console(above: str | Money | None = None) -> Approval:
    """Ask on the terminal; nobody there is a no."""
    return Approval(_ask_on_console, above=_limit(above), by="console")


def _limit(above: str | Money | None) -> Money | None:
    return None if above is None else Money.parse(above)


async def _ask_on_console(question: Question) -> bool:
    if not sys.stdin.isatty():
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201  # that is asking
    answer = await asyncio.to_thread(sys.stdin.readline)
    return answer.strip().lower() in ("y", "yes")


def callback(ask: Ask, above: str | Money | None = None) -> Approval:
    """Ask a function, which may be async and gets the question."""
    if not callable(ask):
        raise ConfigError(f"{ask!r} cannot be called", hint="pass ak.approve.callback(function)")
    return Approval(ask, above=_limit(above))


def webhook(url: str, token: str = "", above: str | Money | None = None) -> Approval:
    """Ask by POST of the question as JSON; only `{"approve": true}` with status 200 is a yes.

    `token` goes along as a bearer token.
    """
    if not url.startswith(("https://", "http://127.0.0.1", "http://localhost", "http://[::1]")):
        raise ConfigError(
            f"{url!r} is no address that can be asked safely",
            hint="give an https:// address, or one on this machine",
        )

    async def ask(question: Question) -> bool:
        import aiohttp

        headers = {"Authorization": f"Bearer {token}"} if token else {}
        body = question.model_dump(mode="json")
        try:
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.post(url, json=body, allow_redirects=False) as answer,
            ):
                return answer.status == 200 and (await answer.json()).get("approve") is True
        except (aiohttp.ClientError, OSError, ValueError, AttributeError):
            return False

    return Approval(ask, above=_limit(above), by="webhook")
