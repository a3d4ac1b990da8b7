"""How a result is verified before it is paid, as frozen data."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from agentkit.graph.callables import CallableSpec
from agentkit.graph.schemas import fault_of


class _Check(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class SchemaCheck(_Check):
    """The result must fit a JSON schema (draft 2020-12)."""

    check: Literal["schema"]
    schema_: dict[str, JsonValue] = Field(alias="schema")

    @model_validator(mode="after")
    def _is_schema(self) -> Self:
        fault = fault_of(self.schema_)
        if fault:
            raise ValueError(f"this is not a JSON schema: {fault}")
        return self


class CallableCheck(_Check):
    """A function on the agent's own machine must accept the result."""

    check: Literal["callable"]
    fn: CallableSpec


class Redundant(_Check):
    """The result is bought `of` times, and `k` of them must agree."""

    check: Literal["redundant"]
    k: int = Field(ge=1)
    of: int = Field(ge=1, le=9)

    @model_validator(mode="after")
    def _can_agree(self) -> Self:
        if self.k > self.of:
            raise ValueError(f"{self.k} of {self.of} results cannot agree")
        return self


class Named(_Check):
    """A verifier that another package brings must accept the result; `name` is its entry point."""

    check: Literal["named"]
    name: str = Field(min_length=1)
    params: dict[str, JsonValue] = {}


VerifySpec = Annotated[
    SchemaCheck | CallableCheck | Redundant | Named, Field(discriminator="check")
]
