"""How a run ends that is not done."""

from __future__ import annotations

from collections.abc import Sequence

from agentkit.errors.base import AgentKitError


class RunError(AgentKitError):
    """A run did not finish."""


class RunFailed(RunError):
    """Nodes of the run failed.

    `failures` holds (node, reason) pairs, `run_id` names the run, `uncertain` is true when a
    purchase's outcome is unknown (exit code 5).
    """

    def __init__(
        self,
        run_id: str,
        failures: Sequence[tuple[str, str]],
        *,
        uncertain: bool = False,
        hint: str = "",
    ) -> None:
        self.run_id = run_id
        self.failures = tuple(failures)
        self.uncertain = uncertain
        if uncertain:
            self.exit_code = 5
        what = "; ".join(f"{node}: {reason}" for node, reason in self.failures)
        super().__init__(
            f"run {run_id} failed ({what})" if what else f"run {run_id} was cancelled",
            hint=hint or f"see `agentkit status {run_id}`; mend the graph and run it again",
        )


class RunPaused(RunError):
    """The run stopped where it can be resumed.

    `why` says what it waits for, `command` continues it, `uncertain` is true when a purchase's
    outcome is unknown (exit code 5).  `advice` is what has to be done first, "" for nothing.
    `mend` names the node that a person has to mend: its function raised, or its file cannot be
    read.
    """

    exit_code = 4

    def __init__(
        self,
        run_id: str,
        why: str,
        command: str,
        *,
        uncertain: bool = False,
        hint: str = "",
        mend: str = "",
    ) -> None:
        self.run_id = run_id
        self.why = why
        self.command = command
        self.uncertain = uncertain
        self.mend, self.advice = mend, hint
        if uncertain:
            self.exit_code = 5
        either = f"continue it with `{command}`, or end it with `agentkit cancel {run_id}`"
        super().__init__(f"run {run_id} paused: {why}", hint=hint or either)
