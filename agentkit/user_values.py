"""Values that users write in Python: a slip in one is an error of ours, with a hint."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ValidationError

from agentkit.errors import AgentKitError, ConfigError

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _RaisesOurErrors(ModelMetaclass):
    """Turns pydantic's error into ours where a program makes a value itself.

    Values that are read as part of a document are not made by a call, so whoever reads the
    document still gets pydantic's error, and says where in the document it is.
    """

    if not TYPE_CHECKING:  # editors go on seeing the fields as keywords

        def __call__(cls, *arguments: Any, **fields: Any) -> Any:  # noqa: N805  # of a metaclass
            try:
                return super().__call__(*arguments, **fields)
            except ValidationError as error:
                raise _as_ours(cls, error) from error


class UserValue(BaseModel, metaclass=_RaisesOurErrors):
    """A pydantic model that users make; `error_class` is what a slip in one raises."""

    error_class: ClassVar[type[AgentKitError]] = ConfigError


def _as_ours(cls: Any, error: ValidationError) -> AgentKitError:
    """Return pydantic's error as one of ours, which names the value and its class."""
    first = error.errors(include_url=False)[0]
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known = ", ".join(cls.model_fields)
        return cls.error_class(  # type: ignore[no-any-return]  # a class that cls names
            f"{cls.__name__} has no {name!r}", hint=f"write one of: {known}"
        )
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, AgentKitError):
        return type(cause)(f"{name} of {cls.__name__}: {cause}", hint=cause.hint)
    return cls.error_class(  # type: ignore[no-any-return]
        f"{name} of {cls.__name__}: {first['msg']}", hint=f"mend {name!r}"
    )


def check_keywords(call: str, given: Iterable[str], *functions: Callable[..., Any]) -> None:
    """Refuse a keyword that none of `functions` takes; `call` passes its keywords on to them.

    Raises ConfigError, whose hint lists the keywords that there are.
    """
    known = [
        parameter.name
        for function in functions
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for keyword in given:
        if keyword not in known:
            raise ConfigError(
                f"{call} takes no {keyword!r}", hint=f"write one of: {', '.join(known)}"
            )
