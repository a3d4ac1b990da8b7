"""Effects of tools on record: what was begun, what came of it, and who is at it now.

The journal knows of an effect before its tool runs and after it ended.  In between, a lease that
the kernel frees with its process tells a tool that still runs from one that died.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from agentkit import strict_json
from agentkit.artifacts import Json
from agentkit.errors import AgentKitError, WrongInput, brief
from agentkit.journal import blobs
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.blobs import INLINE_BYTES
from agentkit.journal.journal import Journal
from agentkit.journal.lease import EffectLease
from agentkit.journal.produced import Produced
from agentkit.journal.subjects.effects import check_same_arguments
from agentkit.journal.transaction import JournalTransaction
from agentkit.strict_json import BadJson

MOST_RESULT = INLINE_BYTES
"""The most bytes of a tool's result, as JSON, that are stored to be returned again."""


class Intent(NamedTuple):
    """What one call wants to happen once: the tool's name, and digests of key and arguments.

    Keys and arguments are what people and models wrote, so the journal holds their digests alone.
    """

    effect: str
    tool: str
    arguments: str

    @classmethod
    def of(cls, tool: str, key: tuple[str, ...], arguments: Any) -> Intent:
        """Return the intent of a call by the parts of its key; raises WrongInput."""
        try:
            effect = _digest([tool, *key])
            return cls(effect=effect, tool=tool, arguments=_digest([effect, arguments]))
        except BadJson as error:
            raise WrongInput(
                f"the arguments of the tool {tool!r} cannot be compared with later ones: {error}",
                hint="call it with plain JSON",
            ) from error


def _digest(value: Any) -> str:
    return hashlib.sha256(strict_json.dumps(value)).hexdigest()


class Ended(NamedTuple):
    """How an effect ended: `done` with a result, or `failed` with an error.

    `result` is plain JSON; `is_stored` is false for a result that could not be stored.  `error` is
    the name of the class of what the tool raised.
    """

    outcome: Literal["done", "failed"]
    result: Any = None
    is_stored: bool = True
    error: str = ""
    message: str = ""


class Effects:
    """The effects on record in one journal; usable from any event loop of the process."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def lease(self, intent: Intent) -> EffectLease:
        """Return the lease on an effect, not taken yet; `begin` and `end` need it."""
        return EffectLease(self._journal.home / "leases", intent.effect)

    async def look_up(self, intent: Intent) -> Ended | r.Effect | None:
        """Return how an effect ended, its record if that is unknown, None if it never began.

        Raises IntentMismatch if it began with other arguments, StoreUnavailable if its result was
        not restored with its record.
        """
        return await self._journal.commit(lambda tx: _look_up(tx, intent))

    async def begin(self, intent: Intent) -> None:
        """Record that a tool is about to run, durably; raises IntentMismatch.

        A call that is cancelled meanwhile does not run its tool, so that is recorded too.
        """
        event = e.EffectBegun(effect=intent.effect, tool=intent.tool, arguments=intent.arguments)
        try:
            await self._journal.commit(lambda tx: tx.append(e.WALLET, event))
        except asyncio.CancelledError:
            with suppress(AgentKitError):  # if the beginning could not be written either
                await self.forget(intent)
            raise

    async def end(self, intent: Intent, ended: Ended) -> None:
        """Record how an effect ended, durably."""
        result = None
        if ended.outcome == "done" and ended.is_stored:
            result = Json.of(strict_json.dumps(ended.result))

        def work(tx: JournalTransaction) -> None:
            event = e.EffectEnded(
                effect=intent.effect,
                outcome=ended.outcome,
                result=blobs.keep(tx, [result])[0] if result else None,
                error=ended.error,
                message=brief(ended.message),
            )
            tx.append(e.WALLET, event)

        await self._journal.commit(work)

    async def forget(self, intent: Intent) -> None:
        """Record that an effect did not happen, durably: the tool may run again."""
        event = e.EffectEnded(effect=intent.effect, outcome="not_happened")
        await self._journal.commit(lambda tx: tx.append(e.WALLET, event))


def check_result(plain: Any) -> None:
    """Raise WrongInput if a result is not JSON, or is too large to be stored."""
    try:
        size = len(strict_json.dumps(plain))
    except BadJson as error:
        raise WrongInput(f"it is not JSON: {error}") from error
    if size > MOST_RESULT:
        raise WrongInput(f"it has {size} bytes as JSON, more than {MOST_RESULT}")


def _look_up(tx: JournalTransaction, intent: Intent) -> Ended | r.Effect | None:
    effect = tx.get(r.Effect, intent.effect)
    if effect is None:
        return None
    check_same_arguments(effect, intent.arguments)
    if effect.outcome == "begun":
        return effect
    if effect.outcome == "failed":
        return Ended("failed", error=effect.error, message=effect.message)
    if effect.result is None:
        return Ended("done", is_stored=False)
    return Ended("done", result=_read(tx, effect.result))


def _read(tx: JournalTransaction, result: Produced) -> Any:
    """Return a stored result; raises StoreUnavailable if its bytes are not here."""
    return strict_json.loads(blobs.fetch(tx, result).read())
