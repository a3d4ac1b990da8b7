"""Every error agentkit raises.

AgentKitError                    .hint: one line that starts with a verb, names a command or key
├─ ConfigError                   BadAmount (also TypeError, ValueError)  MissingExtra  WrongKey
│                                Untrusted
├─ GraphError (also ValueError)  DuplicateNode  UnknownInput  CyclicGraph  WrongInput
│                                UnknownKind (WrongInput)  UntrustedCode
├─ PlanError                     nothing has been spent: NoOffer  OverBudget  PastDeadline
│                                PlanExpired
├─ ProviderError  .retryable     Unavailable  RateLimited  Refused  OfferExpired  LeaseLost
│                                BadOutput  ProtocolBroken (also AdapterFailed)
├─ PaymentError                  InsufficientFunds  NotAllowed  IntentMismatch  SettlementFailed
│                                PaymentUncertain
├─ StateError                    RunNotFound  JournalDamaged  StoreUnavailable  StateForked
│                                StateCorrupt  NotConfirmed  StateTooNew (JournalDamaged)
├─ RunError                      RunFailed  RunPaused
└─ TimedOut  .stage .seconds     a stage of one try; each is its room's error too: OffersTimedOut
                                 SubmitTimedOut  ExecuteTimedOut (Unavailable)
                                 SettleTimedOut (SettlementFailed)  StoreTimedOut (StoreUnavailable)

The first line of a class docstring is its default message. Raise ours `from` theirs at the
adapter's edge and nowhere else.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

MAX_MESSAGE = 500
"""Characters of another library's message that are passed on: it may quote all of its input."""


def brief(message: object) -> str:
    """Return the first line of another library's message, cut where it is very long."""
    lines = str(message).strip().splitlines() or [""]
    return _cut(lines[0])


def in_one_line(message: str) -> str:
    """Return a provider's message in one line, cut where it is very long.

    A line of its own could pass for ours (`hint: run ...`); megabytes would go into the journal.
    """
    return " ".join(_cut(message).splitlines())


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}..."


class AgentKitError(Exception):
    """Something agentkit could not do."""

    exit_code: int = 1
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").splitlines()[0])
        self.hint = hint or self.default_hint
        if self.hint:
            self.add_note(f"hint: {self.hint}")  # which a traceback shows, and str() does not


# -- configuration -------------------------------------------------------------------------------


class ConfigError(AgentKitError):
    """The configuration cannot be used."""

    exit_code = 2
    default_hint = "run `agentkit doctor` to see every setting and where it came from"


class BadAmount(ConfigError, TypeError, ValueError):
    """This is not an amount of money."""

    default_hint = 'write amounts as text with a symbol, for example budget="0.05 USDC"'


class MissingExtra(ConfigError):
    """An optional part of agentkit is not installed."""

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(
            f"the package {package!r} is not installed",
            hint=f'install it with: pip install "deai-agentkit[{extra}]"',
        )
        self.extra, self.package = extra, package


class WrongKey(ConfigError):
    """This key does not open that."""

    default_hint = "check AGENTKIT_PASSPHRASE and the [wallet] keystore path in agentkit.toml"


class Untrusted(ConfigError):
    """A folder's settings count only once a person trusts them.

    `folder` is its absolute path. `shown` holds each setting that needs consent and its value as
    text, secrets left out; `digests` a digest of each value. `changed` says of each key that
    earlier consent does not cover whether it is `new`, `changed` or `removed`. `shared` says why
    others could change the file, so that consent to it cannot be kept.
    """

    def __init__(
        self,
        message: str = "",
        *,
        hint: str = "",
        folder: Path,
        shown: Mapping[str, str],
        digests: Mapping[str, str],
        changed: Mapping[str, str],
        shared: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.folder = folder
        self.shown = dict(shown)
        self.digests = dict(digests)
        self.changed = dict(changed)
        self.shared = shared


# -- graph ---------------------------------------------------------------------------------------


class GraphError(AgentKitError, ValueError):
    """The job graph is not valid."""

    exit_code = 2


class DuplicateNode(GraphError):
    """Two nodes of the graph have the same name."""

    default_hint = "give every node of a graph a name of its own"


class UnknownInput(GraphError):
    """A node reads something that no node of the graph produces."""

    default_hint = "pass a ref that this graph's own methods returned"


class CyclicGraph(GraphError):
    """The nodes of the graph wait for one another."""

    default_hint = "remove one of the edges that the message names"


class WrongInput(GraphError):
    """A node was given an input of the wrong kind."""


class UnknownKind(WrongInput):
    """No installed package brings this kind of work."""

    default_hint = "install the package that brings it"


class UntrustedCode(GraphError):
    """The graph names code that nobody agreed to run; none of it was loaded.

    `files` says where each file lies and what its sha256 is, `digests` has the sha256 alone.
    """

    def __init__(self, files: Sequence[str], digests: Sequence[str]) -> None:
        self.files, self.digests = tuple(files), tuple(digests)
        flags = " ".join(f"--trust-code {digest}" for digest in self.digests)
        super().__init__(
            f"the graph would run code that you have not agreed to: {'; '.join(self.files)}",
            hint=f"read it, and if it may run, add {flags} (in Python: trust_code=[...])",
        )


# -- plan ----------------------------------------------------------------------------------------


class PlanError(AgentKitError):
    """No plan could be made; nothing was spent."""

    exit_code = 3


class NoOffer(PlanError):
    """No provider can do a node.

    `rejections` holds (offer label, reason) for everything that was looked at.
    """

    default_hint = "run `agentkit providers` to see what each provider offers"

    def __init__(self, node: str, rejections: Sequence[tuple[str, str]] = ()) -> None:
        self.node, self.rejections = node, tuple(rejections)
        why = "; ".join(f"{who}: {reason}" for who, reason in self.rejections[:6])
        super().__init__(f"no provider can do node {node!r}" + (f" ({why})" if why else ""))


class OverBudget(PlanError):
    """A limit on spending would be exceeded.

    `limit` names which one: `budget`, `per_task`, `per_run`, `per_day`, `total` or a provider's.
    `already` is the part of `needed` that was spent or set aside before, where that counts.
    """

    def __init__(
        self,
        limit: str,
        needed: object,
        allowed: object,
        *,
        already: object = None,
        hint: str = "",
    ) -> None:
        self.limit = limit
        self.needed = needed
        self.allowed = allowed
        self.already = already
        before = f" ({already} of it spent or set aside before)" if already else ""
        wait = ", wait for the next day (UTC)" if limit == "per_day" and already else ""
        super().__init__(
            f"it could come to {needed} in all{before}, above the limit {limit} of {allowed}",
            hint=hint or f"raise {limit} to at least {needed}{wait}, or drop nodes from the graph",
        )


class PastDeadline(PlanError):
    """The deadline cannot be met.

    `earliest` is the shortest time, in seconds, in which the graph could finish.
    """

    def __init__(self, earliest: float, allowed: float, path: Sequence[str]) -> None:
        self.earliest = earliest
        self.allowed = allowed
        self.path = tuple(path)
        super().__init__(
            f"the graph needs at least {earliest:.1f} s and the deadline is in {allowed:.1f} s"
            f" (longest path: {' -> '.join(self.path)})",
            hint=f"set deadline to {math.ceil(earliest)} s or more",
        )


class PlanExpired(PlanError):
    """The prices in this plan no longer hold."""

    default_hint = "make it again with `agentkit plan GRAPH --out plan.json`"


# -- providers -----------------------------------------------------------------------------------


class ProviderError(AgentKitError):
    """A provider did not do what was asked.

    `retryable`: the same request may succeed later.  `unknown`: the request may have reached the
    provider, so whether it was done cannot be told from this error alone.  `of_task`: the provider
    says that the task itself is wrong, whoever does it.
    """

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        provider: str = "",
        unknown: bool = False,
        of_task: bool = False,
        hint: str = "",
    ) -> None:
        told = in_one_line(message)
        super().__init__(f"{provider}: {told}" if provider else told, hint=hint)
        self.provider = provider
        self.unknown = unknown
        self.of_task = of_task


class Unavailable(ProviderError):
    """The provider cannot be reached."""

    retryable = True
    default_hint = "run `agentkit providers` to see which providers answer"


class RateLimited(ProviderError):
    """The provider takes no more requests for now.  `retry_after` is in seconds."""

    retryable = True

    def __init__(self, message: str = "", *, provider: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message, provider=provider)
        self.retry_after = retry_after


class Refused(ProviderError):
    """The provider will not do this task."""


class OfferExpired(ProviderError):
    """The offer's price no longer holds."""


class LeaseLost(ProviderError):
    """The provider gave up a task it had accepted."""


class BadOutput(ProviderError):
    """The provider's output failed verification and was not paid."""


class ProtocolBroken(ProviderError):
    """The provider's answer does not follow its protocol."""


class AdapterFailed(ProtocolBroken):
    """The adapter of a provider raised what no adapter may: a bug in that package."""

    default_hint = "report it to the package that brings the adapter, with the traceback"


# -- payments ------------------------------------------------------------------------------------


class PaymentError(AgentKitError):
    """A payment could not be made."""


class InsufficientFunds(PaymentError):
    """The wallet does not hold enough."""

    default_hint = "send funds to the address that `agentkit wallet show` prints"


class NotAllowed(PaymentError):
    """The allowance forbids this payment."""


class IntentMismatch(PaymentError):
    """The same attempt was asked for again with other terms."""


class SettlementFailed(PaymentError):
    """The payment is known not to have settled."""


class PaymentUncertain(PaymentError):
    """The payment was sent and its outcome is not known."""

    exit_code = 5


# -- state ---------------------------------------------------------------------------------------


class StateError(AgentKitError):
    """The stored state cannot be used."""


class RunNotFound(StateError):
    """There is no such run."""

    default_hint = "run `agentkit status` for the runs this wallet knows"


class JournalDamaged(StateError):
    """The journal was changed or torn after it was written.  `path` and `record` say where."""

    default_hint = (
        "run `agentkit memory verify` to see what still agrees with Arweave; then move the file"
        " away and bring its state back with `agentkit memory restore`"
    )

    def __init__(self, path: object, record: str, why: str, *, hint: str = "") -> None:
        self.path, self.record = path, record
        StateError.__init__(self, f"the journal {path} is damaged at {record}: {why}", hint=hint)


class StateTooNew(JournalDamaged):
    """A newer agentkit wrote this file; it was left as it is.

    `path` says where it is, `record` what in it is newer, `why` how that shows.  It is a
    JournalDamaged for callers who only ask whether a file can be used, not because anything in
    it is wrong.
    """

    default_hint = (
        "use the agentkit that wrote it, or install the newest:"
        " `pip install --upgrade deai-agentkit`"
    )

    def __init__(self, path: object, record: str, why: str, *, hint: str = "") -> None:
        self.path = path
        self.record = record
        self.why = why
        written = f"{path} holds {record}, written by a newer version of agentkit"
        StateError.__init__(self, f"{written}: {why}", hint=hint)


class StoreUnavailable(StateError):
    """A store or gateway cannot be reached."""


class StateForked(StateError):
    """Two machines continued the same state.

    `ours` and `theirs` are (state file, head) of both sides of `stream` after its event `after`,
    `payments` what was paid here since, which does not count on the other side.  `home` is the
    wallet's folder here, for the commands of the hint.
    """

    def __init__(
        self,
        message: str = "",
        *,
        stream: str = "",
        after: int = 0,
        ours: tuple[str, str] = ("", ""),
        theirs: tuple[str, str] = ("", ""),
        payments: Sequence[str] = (),
        home: Path | None = None,
    ) -> None:
        paid = f"; paid here since: {', '.join(payments)}" if payments else ""
        super().__init__(f"{message}{paid}", hint=_after_fork(home or Path("HOME/ADDRESS"), ours))
        self.stream, self.after = stream, after
        self.ours, self.theirs = ours, theirs
        self.payments = tuple(payments)


def _after_fork(home: Path, ours: tuple[str, str]) -> str:
    """Return what to do about a fork: the state file alone moves, keys and artifacts stay."""
    folder = shlex.quote(str(home))
    aside = shlex.quote(str(home / f"forked-{ours[1][:8] or 'here'}"))
    return (
        "keep one machine and stop every agent on the other for good. To keep the other one, do"
        " nothing more here. To keep this one, move its state aside and take over what the other"
        f" wrote: `mkdir {aside} && mv {folder}/state.db* {aside}` and then `agentkit memory"
        " restore`; what was paid here since is learned from its payees"
    )


class StateCorrupt(StateError):
    """What a store returned is not what was put there."""


class NotConfirmed(StateError):
    """What was stored is not confirmed yet."""


# -- runs ----------------------------------------------------------------------------------------


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


# -- stages of a try -----------------------------------------------------------------------------


class TimedOut(AgentKitError):
    """A stage of one try took longer than it may.  `seconds` is how long that was."""

    stage: ClassVar[str] = ""
    seconds: float

    def _say(self, seconds: float) -> str:
        self.seconds = seconds
        return f"{self.stage} took longer than {seconds:g} s"


class OffersTimedOut(Unavailable, TimedOut):
    """A provider did not repeat its offer in time."""

    stage = "asking for offers"

    def __init__(self, seconds: float, *, provider: str = "") -> None:
        super().__init__(self._say(seconds), provider=provider)


class SubmitTimedOut(Unavailable, TimedOut):
    """A provider did not take a task in time, or nobody knows whether it did."""

    stage = "handing the task over"

    def __init__(self, seconds: float, *, provider: str = "") -> None:
        super().__init__(self._say(seconds), provider=provider, unknown=True)


class ExecuteTimedOut(Unavailable, TimedOut):
    """A provider, or a function on this machine, did not come to a result in time."""

    stage = "execution"

    def __init__(self, seconds: float, *, provider: str = "") -> None:
        super().__init__(self._say(seconds), provider=provider, unknown=True)


class SettleTimedOut(SettlementFailed, TimedOut):
    """Money could not be put in place in time."""

    stage = "settling"

    def __init__(self, seconds: float) -> None:
        super().__init__(self._say(seconds))


class StoreTimedOut(StoreUnavailable, TimedOut):
    """An artifact could not be stored in time."""

    stage = "storing the result"

    def __init__(self, seconds: float) -> None:
        super().__init__(self._say(seconds))
