"""Payments by x402 `upto`: what a payer signed by Permit2, and what was drawn of it."""

from __future__ import annotations

from typing import ClassVar, Literal

from agentkit.journal.folding import Records, existing, folds
from agentkit.journal.subjects.budget import (
    Reservation,
    account,
    add_to_total,
    subtract_from_total,
)
from agentkit.market.seams import Event, Record
from agentkit.money import Money

# -- events --------------------------------------------------------------------------------------


class UptoPermitSigned(Event):
    """An attempt's payment was signed: `facilitator` may move up to `amount` to `payee`, once.

    Until `deadline`; `block` was the chain's newest then.  `nonce` and `signature` in hex.
    """

    stored_name: ClassVar[str] = "UptoPermitSigned"
    attempt: str
    provider: str
    payee: str
    amount: Money
    facilitator: str
    deadline: int
    block: int
    nonce: str
    signature: str


class UptoPermitEnded(Event):
    """The chain shows that a permit was used for `drawn`, or that it never can be (`expired`).

    `transaction` is the one that drew it, "" where that cannot be told: then `drawn` is the most.
    """

    stored_name: ClassVar[str] = "UptoPermitEnded"
    attempt: str
    outcome: Literal["used", "expired"]
    drawn: Money
    transaction: str = ""


# -- records -------------------------------------------------------------------------------------


class UptoPermitRow(Record):
    """An attempt's payment by `upto`; without an outcome its payee may still get it."""

    stored_name: ClassVar[str] = "UptoPermitRow"
    attempt: str
    provider: str
    payee: str
    amount: Money
    facilitator: str
    deadline: int
    block: int
    nonce: str
    signature: str
    outcome: Literal["", "used", "expired"] = ""
    drawn: Money | None = None
    transaction: str = ""

    @property
    def key(self) -> str:
        return self.attempt


class OutstandingUpto(Record):
    """An attempt whose permit has no outcome yet."""

    stored_name: ClassVar[str] = "OutstandingUpto"
    attempt: str

    @property
    def key(self) -> str:
        return self.attempt


# -- folds ---------------------------------------------------------------------------------------


@folds(UptoPermitSigned)
def _fold_signed(event: UptoPermitSigned, stream: str, at: float, records: Records) -> None:
    records.put(UptoPermitRow(**event.model_dump()))
    records.put(OutstandingUpto(attempt=event.attempt))
    add_to_total(records, "signed", event.amount)


@folds(UptoPermitEnded)
def _fold_ended(event: UptoPermitEnded, stream: str, at: float, records: Records) -> None:
    """End a permit; what counts as spent of it and was not drawn was not spent after all."""
    row = existing(records, UptoPermitRow, event.attempt)
    changes = {
        "outcome": event.outcome,
        "drawn": event.drawn,
        "transaction": event.transaction,
    }
    records.put(row.model_copy(update=changes))
    records.drop(OutstandingUpto, event.attempt)
    subtract_from_total(records, "signed", row.amount)
    _take_back_spending(records, row, event.drawn)


def _take_back_spending(records: Records, row: UptoPermitRow, drawn: Money) -> None:
    """Stop counting as spent what of an attempt's most was never drawn, and never can be.

    The total of the day on which it was spent stays as it is, and so does its run's hold.
    """
    reservation = records.get(Reservation, row.attempt)
    if reservation is None or not reservation.spent or reservation.spent <= drawn:
        return
    excess = reservation.spent - drawn
    records.put(reservation.model_copy(update={"spent": drawn}))
    payee = account(records, rail=reservation.rail, payee=reservation.account, like=excess)
    records.put(payee.model_copy(update={"spent": payee.spent - excess}))
    for scope in ("ever", f"provider:{row.provider}"):
        subtract_from_total(records, scope, excess)
