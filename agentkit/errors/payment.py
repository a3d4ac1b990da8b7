"""What goes wrong with money."""

from __future__ import annotations

from agentkit.errors.base import AgentKitError


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
