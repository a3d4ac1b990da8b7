"""Effects: calls of tools that change the world, each of which has to happen once.

`EffectBegun` is durable before a tool runs and `EffectEnded` after it.  An effect that only began
may have happened or not: its process died in between.  One that did not happen has no record.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from agentkit.errors import IntentMismatch
from agentkit.journal.folding import Records, existing, folds
from agentkit.journal.produced import Produced
from agentkit.market.seams import Event, Record

# -- events --------------------------------------------------------------------------------------


class EffectBegun(Event):
    """A tool is about to run; from here on its effect may have happened.

    `effect` is the digest of what makes this effect the same one, `arguments` that of the
    arguments.  The same event is written again when somebody decides to run the tool once more.
    """

    stored_name: ClassVar[str] = "EffectBegun"
    effect: str
    tool: str
    arguments: str


class EffectEnded(Event):
    """A tool returned (`done`) or raised; `not_happened` forgets the effect, `failed` keeps it.

    Without a `result`, an effect that is done returned something that could not be stored.
    `error` is the class of what a failed tool raised, `message` its text.
    """

    stored_name: ClassVar[str] = "EffectEnded"
    effect: str
    outcome: Literal["done", "failed", "not_happened"]
    result: Produced | None = None
    error: str = ""
    message: str = ""


# -- records -------------------------------------------------------------------------------------


class Effect(Record):
    """An effect that began `at` some time, and how it ended."""

    stored_name: ClassVar[str] = "Effect"
    effect: str
    tool: str
    arguments: str
    at: float
    outcome: Literal["begun", "done", "failed"] = "begun"
    result: Produced | None = None
    error: str = ""
    message: str = ""

    @property
    def key(self) -> str:
        return self.effect


# -- folds ---------------------------------------------------------------------------------------


@folds(EffectBegun)
def _fold_effect_begun(event: EffectBegun, stream: str, at: float, records: Records) -> None:
    earlier = records.get(Effect, event.effect)
    if earlier is not None:
        check_same_arguments(earlier, event.arguments)
        _check_open(earlier)
    records.put(Effect(**event.model_dump(), at=at))


@folds(EffectEnded)
def _fold_effect_ended(event: EffectEnded, stream: str, at: float, records: Records) -> None:
    effect = existing(records, Effect, event.effect)
    _check_open(effect)
    if event.outcome == "not_happened":
        records.drop(Effect, event.effect)
        return
    ending = {
        "outcome": event.outcome,
        "result": event.result,
        "error": event.error,
        "message": event.message,
    }
    records.put(effect.model_copy(update=ending))


def check_same_arguments(effect: Effect, arguments: str) -> None:
    """Raise IntentMismatch if an effect was begun with other arguments than these."""
    if effect.arguments != arguments:
        raise IntentMismatch(
            f"the tool {effect.tool!r} was called before under this key with other arguments",
            hint="give each call an id or a key= of its own; nothing was run",
        )


def _check_open(effect: Effect) -> None:
    """Raise IntentMismatch if it is on record how an effect ended."""
    if effect.outcome != "begun":
        raise IntentMismatch(
            f"an effect of the tool {effect.tool!r} is on record as {effect.outcome}"
        )
