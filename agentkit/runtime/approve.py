"""Asking a person before money is spent: no answer is a no."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from inspect import isawaitable
from urllib.parse import urlsplit

from agentkit.display.text import printable
from agentkit.errors import ConfigError
from agentkit.market.value import Value
from agentkit.money import Money
from agentkit.net.proxies import proxy_for

log = logging.getLogger("agentkit")

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
    """Who is asked, for how many seconds of `patience`, and about what.

    That is nodes with `approve=True`, and those that can come to more than `above`.  `by` is how
    the journal says they were asked.
    """

    ask: Ask | None = None
    above: Money | None = None
    by: str = "callback"
    patience: float = PATIENCE

    def concerns(self, amount: Money, *, marked: bool) -> bool:
        """Whether somebody has to agree to a node that can come to `amount`."""
        return marked or (self.above is not None and self._is_dear(amount, self.above))

    def _is_dear(self, amount: Money, above: Money) -> bool:
        return amount.asset != above.asset or amount > above  # what cannot be compared is asked

    async def agreed(self, question: Question) -> bool:
        """Ask, and return whether the answer was yes in time; an error is a no, and logged."""
        if self.ask is None:
            return False
        try:
            async with asyncio.timeout(self.patience):
                answer = self.ask(question)
                return (await answer if isawaitable(answer) else answer) is True
        except TimeoutError:
            return False
        except Exception:  # whatever keeps somebody from saying yes
            log.warning("nobody could be asked: %s", question, exc_info=True)
            return False


def console(above: str | Money | None = None) -> Approval:
    """Ask on the terminal; nobody there is a no."""
    return Approval(_ask_on_console, above=_limit(above), by="console")


def _limit(above: str | Money | None) -> Money | None:
    return None if above is None else Money.parse(above)


async def _ask_on_console(question: Question) -> bool:
    """Print the question and read a line; only yes agrees, and no terminal is a no."""
    if not sys.stdin.isatty():
        return False
    async with _one_at_a_time:
        asked = printable(f"{question} [y/N] ")
        print(asked, end="", file=sys.stderr, flush=True)  # noqa: T201  # that is asking
        answer = await _line()
    return answer.strip().lower() in ("y", "yes")


_one_at_a_time = asyncio.Lock()


def _answer(line: asyncio.Future[str], typed: str) -> None:
    if not line.done():
        line.set_result(typed)


async def _line() -> str:
    """Return the next line typed; a thread that waits for it does not keep the process alive."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str] = loop.create_future()

    def read() -> None:
        typed = sys.stdin.readline()
        with suppress(RuntimeError):  # nobody waits any more, and the loop is closed
            loop.call_soon_threadsafe(_answer, line, typed)

    threading.Thread(target=read, name="agentkit-console", daemon=True).start()
    return await line


def callback(ask: Ask, above: str | Money | None = None) -> Approval:
    """Ask a function, which may be async and gets the question."""
    if not callable(ask):
        raise ConfigError(f"{ask!r} cannot be called", hint="pass ak.approve.callback(function)")
    return Approval(ask, above=_limit(above))


def webhook(url: str, token: str = "", above: str | Money | None = None) -> Approval:
    """Ask by POST of the question as JSON; only `{"approve": true}` with status 200 is a yes.

    `token` goes along as a bearer token.
    """
    parts = urlsplit(url)
    here = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and here)):
        raise ConfigError(
            f"{url!r} is not an address that can be asked safely",
            hint="give an https:// address, or one on this machine",
        )

    async def ask(question: Question) -> bool:
        """POST the question; whatever is not a plain yes, an error included, is a no."""
        import aiohttp

        headers = {"Authorization": f"Bearer {token}"} if token else {}
        body = question.model_dump(mode="json")
        try:
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.post(url, json=body, allow_redirects=False, proxy=proxy_for(url)) as answer,
            ):
                return answer.status == 200 and (await answer.json()).get("approve") is True
        except (aiohttp.ClientError, OSError, ValueError, AttributeError):
            return False

    return Approval(ask, above=_limit(above), by="webhook")
