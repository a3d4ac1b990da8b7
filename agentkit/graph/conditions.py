"""Conditions: whether a node is done at all, told by a value that an earlier node produced."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from agentkit.errors import WrongInput
from agentkit.graph.callables import CallableSpec, guarding, not_here
from agentkit.graph.refs import InputRef

Op = Literal["below", "above", "at_least", "at_most", "equals", "differs", "holds"]

_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "below": operator.lt,
    "above": operator.gt,
    "at_least": operator.ge,
    "at_most": operator.le,
}


def _read(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        if value is None or isinstance(value, str | int | float):
            return read(value)
    except ValidationError:
        pass
    raise ValueError("it must be text, a finite number, true, false or null")


Scalar = Annotated[str | bool | int | float | None, WrapValidator(_read)]


class Condition(BaseModel):
    """What must be true of the JSON value that `ref` produces, or of its `key`.

    `fn`, for `op="holds"` alone, is given the value and returns True or False.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ref: InputRef
    op: Op
    value: Scalar = None
    key: str = ""
    fn: CallableSpec | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.op == "holds") != (self.fn is not None):
            raise ValueError('op = "holds" needs fn, and no other op takes one')
        if self.op == "holds" and self.value is not None:
            raise ValueError('op = "holds" takes no value')
        if self.op in _ORDERS and not (_is_number(self.value) or isinstance(self.value, str)):
            raise ValueError(f'op = "{self.op}" needs a value that is a number or text')
        return self

    def __str__(self) -> str:
        return f"{self.subject} {self.test}"

    @property
    def subject(self) -> str:
        """What the condition is about: a ref, and the key if there is one."""
        return f"{self.ref}.{self.key}" if self.key else str(self.ref)

    @property
    def test(self) -> str:
        """What must be true of it."""
        told = str(self.fn) if self.fn else json.dumps(self.value, ensure_ascii=False)
        return f"{self.op.replace('_', ' ')} {told}"

    def holds_for(self, value: Any, function: Callable[[Any], Any] | None = None) -> bool:
        """Return whether a JSON value meets the condition; raises WrongInput when none can say.

        `function` is what `fn` describes.
        """
        given = self._subject_in(value)
        if self.fn:
            if function is None:
                raise not_here(self.fn)
            return self._told_by(function, given)
        if self.op in ("equals", "differs"):
            return _same(given, self.value) == (self.op == "equals")
        numbers = _is_number(given) and _is_number(self.value)
        if not numbers and not (isinstance(given, str) and isinstance(self.value, str)):
            raise WrongInput(
                f"{self.subject} is {_told(given)}, and whether it is {self.test} cannot be said",
                hint="compare numbers with numbers and text with text",
            )
        return _ORDERS[self.op](given, self.value)

    def _subject_in(self, value: Any) -> Any:
        """Return the part of a value that the condition is about; raises WrongInput."""
        if not self.key:
            return value
        if not isinstance(value, dict):
            raise WrongInput(
                f"{self.ref} is {_told(value)} and has no key {self.key!r}",
                hint="leave out key= to ask about the value itself",
            )
        if self.key not in value:
            known = ", ".join(map(repr, sorted(value)[:8])) or "none"
            raise WrongInput(
                f"{self.ref} has no key {self.key!r}", hint=f"name one of its keys: {known}"
            )
        return value[self.key]

    def _told_by(self, function: Callable[[Any], Any], given: Any) -> bool:
        """Return what the user's function decides; raises WrongInput unless it is True or False."""
        with guarding():
            answer = function(given)
        if not isinstance(answer, bool):
            raise WrongInput(
                f"{self.fn} returned {answer!r} for the condition on {self.subject}",
                hint="return True or False; bool(...) makes one of any value",
            )
        return answer


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value  # noqa: PLR0124  # not NaN


def _same(one: Any, other: Any) -> bool:
    """Compare as JSON does: 1 is 1.0, and true is neither."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _told(value: Any) -> str:
    """Describe a value in an error: plain ones as they are, others by what they are."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    told = json.dumps(value, ensure_ascii=False)
    return told if len(told) <= 60 else f"{told[:60]}..."
