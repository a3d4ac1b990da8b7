"""The verifiers a node can name: a schema, a function, or what another package brings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any

from agentkit.artifacts import Artifact, Json, Table, Text
from agentkit.errors import AgentKitError, ConfigError
from agentkit.graph import nodes
from agentkit.graph.callables import guarding
from agentkit.graph.checks import CallableCheck, Named, Redundant, SchemaCheck, VerifySpec
from agentkit.json_schemas import is_small
from agentkit.kinds.artifact_checks import schema_mismatch
from agentkit.market.attempt import Evidence, Result
from agentkit.market.seams import Verdict, Verifier
from agentkit.market.task import Task

PASS = Verdict(outcome="pass")


@dataclass(frozen=True)
class SchemaVerifier:
    """Passes what fits a JSON schema (draft 2020-12)."""

    schema: dict[str, Any]

    def accepts(self, evidence: Evidence) -> bool:
        return True

    async def verify(self, task: Task, result: Result, evidence: Evidence) -> Verdict:
        output = result.outputs[0]
        if is_small(output.size, self.schema):
            wrong = schema_mismatch(output, self.schema)
        else:
            wrong = await asyncio.to_thread(schema_mismatch, output, self.schema)
        return Verdict(outcome="fail", reason=wrong) if wrong else PASS


@dataclass(frozen=True)
class FunctionVerifier:
    """Passes what a function of the user's, given the output, returns True for."""

    function: Callable[..., Any]

    def accepts(self, evidence: Evidence) -> bool:
        return True

    async def verify(self, task: Task, result: Result, evidence: Evidence) -> Verdict:
        """Call the user's function; neither True nor False is a function that has to be mended."""
        name = getattr(self.function, "__name__", "the function")
        try:
            with guarding():
                if iscoroutinefunction(self.function):
                    answer = await self.function(*result.outputs)
                else:
                    answer = await asyncio.to_thread(self.function, *result.outputs)
        except Exception as error:  # noqa: BLE001  # users' functions may raise anything
            return Verdict(outcome="unsure", reason=f"{name} raised {error!r}", mend=True)
        if not isinstance(answer, bool):
            why = f"{name} returned {answer!r}, neither True nor False"
            return Verdict(outcome="unsure", reason=why, mend=True)
        return PASS if answer else Verdict(outcome="fail", reason=f"{name} returned False")


def verifiers_of(
    checks: Iterable[tuple[VerifySpec, Callable[..., Any] | None]],
) -> tuple[Verifier, ...]:
    """Return the verifiers of a node's checks; redundancy is none, it compares several results.

    Raises ConfigError for a verifier of another package that is not installed or cannot be made.
    """
    return tuple(
        _verifier(check, function) for check, function in checks if not isinstance(check, Redundant)
    )


def _verifier(check: VerifySpec, function: Callable[..., Any] | None) -> Verifier:
    """Return the verifier of one check."""
    match check:
        case SchemaCheck():
            return SchemaVerifier(check.schema_)
        case CallableCheck() if function:
            return FunctionVerifier(function)
        case Named() if function:
            return _made(check, function)
        case _:
            raise TypeError(f"{check} has no verifier")


def _made(check: Named, factory: Callable[..., Any]) -> Verifier:
    """Make another package's verifier; what that raises says that it cannot be used so."""
    try:
        with guarding():
            verifier: Verifier = factory(**check.params)
    except AgentKitError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the verifier {check.name!r} cannot be made: {type(error).__name__}: {error}",
            hint="give ak.verify.named(...) the parameters that its package asks for",
        ) from error
    return verifier


async def judge(verifiers: Iterable[Verifier], task: Task, result: Result) -> Verdict:
    """Return the first verdict that is no pass, else a pass."""
    for verifier in verifiers:
        try:
            with guarding():
                if not verifier.accepts(result.evidence):
                    why = "its verifier cannot tell from such evidence"
                    return Verdict(outcome="unsure", reason=why)
                verdict = await verifier.verify(task, result, result.evidence)
        except Exception as error:  # noqa: BLE001  # another package's verifier
            why = f"{type(verifier).__name__} raised {error!r}"
            return Verdict(outcome="unsure", reason=why)
        if verdict.outcome != "pass":
            return verdict
    return PASS


def canonical(output: Artifact) -> bytes:
    """Return what two outputs are compared by: the value, not how it was written down."""
    try:
        if isinstance(output, Json):
            return nodes.canonical(output.value)
        if isinstance(output, Table):
            return nodes.canonical(output.rows())
        if isinstance(output, Text):
            return " ".join(output.text.split()).encode()
    except (ValueError, RecursionError):
        pass  # what cannot be read agrees with its own bytes alone
    return output.digest.encode()
