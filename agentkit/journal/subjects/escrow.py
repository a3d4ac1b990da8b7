"""Escrow: an attempt's price locked in a contract, as the payer sees it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from agentkit.journal.folding import Records, existing, folds, update
from agentkit.journal.subjects.budget import account
from agentkit.market.seams import Event, Record
from agentkit.money import Money

# -- events --------------------------------------------------------------------------------------


class EscrowQuoted(Event):
    """A payee offered to do an attempt for money in escrow: its signed quote, whose id is `id`."""

    stored_name: ClassVar[str] = "EscrowQuoted"
    attempt: str
    id: str
    provider: str
    provider_node: str
    payee: str
    price: Money
    job: dict[str, Any]


class EscrowOpened(Event):
    """An attempt's price is locked in the contract."""

    stored_name: ClassVar[str] = "EscrowOpened"
    attempt: str
    amount: Money


class EscrowAccepted(Event):
    """We signed that `amount` of what is locked is the payee's, for this result."""

    stored_name: ClassVar[str] = "EscrowAccepted"
    attempt: str
    amount: Money
    result: str
    signature: str


class EscrowClosed(Event):
    """Nothing is locked any more: what the payee got, and what came back."""

    stored_name: ClassVar[str] = "EscrowClosed"
    attempt: str
    paid: Money
    refunded: Money


# -- records -------------------------------------------------------------------------------------


class Escrow(Record):
    """An attempt's price in escrow, as its payer sees it; `at` is when it was opened.

    `accept` is our signature that `paid` units of it are the payee's, for the result `result`.
    """

    stored_name: ClassVar[str] = "Escrow"
    attempt: str
    id: str
    provider: str
    provider_node: str
    payee: str
    price: Money
    job: dict[str, Any]
    state: Literal["quoted", "open", "accepted", "closed"] = "quoted"
    paid: int = 0
    result: str = ""
    accept: str = ""
    at: float = 0.0

    @property
    def key(self) -> str:
        return self.attempt

    @property
    def label(self) -> str:
        """How people tell this job's provider node from the others."""
        return f"{self.provider}/{self.provider_node}" if self.provider_node else self.provider


# -- folds ---------------------------------------------------------------------------------------


@folds(EscrowQuoted)
def _fold_escrow_quoted(event: EscrowQuoted, stream: str, at: float, records: Records) -> None:
    records.put(Escrow(**event.model_dump()))


@folds(EscrowOpened)
def _fold_escrow_opened(event: EscrowOpened, stream: str, at: float, records: Records) -> None:
    escrow = existing(records, Escrow, event.attempt)
    records.put(escrow.model_copy(update={"state": "open", "at": at}))
    payee = account(records, rail="escrow", payee=escrow.payee, like=event.amount)
    records.put(payee.model_copy(update={"funded": payee.funded + event.amount}))


@folds(EscrowAccepted)
def _fold_escrow_accepted(event: EscrowAccepted, stream: str, at: float, records: Records) -> None:
    """Keep our signature: with it the payee can take the money whenever it likes."""
    update(
        records,
        Escrow,
        event.attempt,
        state="accepted",
        paid=event.amount.units,
        result=event.result,
        accept=event.signature,
    )


@folds(EscrowClosed)
def _fold_escrow_closed(event: EscrowClosed, stream: str, at: float, records: Records) -> None:
    escrow = existing(records, Escrow, event.attempt)
    records.put(escrow.model_copy(update={"state": "closed", "paid": event.paid.units}))
    payee = account(records, rail="escrow", payee=escrow.payee, like=event.refunded)
    records.put(payee.model_copy(update={"funded": payee.funded - event.refunded}))
