"""Sales by x402 `upto`: what a node did for payers who signed a most, and what came of it.

taken -- charged, with the answer -- settled: the chain shows the transfer
|          `-- expired: nobody can settle it any more
`-- unused: nothing was delivered, so nothing is charged
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from agentkit.journal.folding import Records, existing, folds
from agentkit.market.seams import Event, Record
from agentkit.money import Money

Outcome = Literal["", "settled", "expired", "unused"]
"""How a sale ended, "" while it has not."""

# -- events --------------------------------------------------------------------------------------


class UptoTaken(Event):
    """A payment by `upto` came with a request, and the work is about to begin.

    `payment` is payer and nonce, `identifier` the payer's own name for it, `request` the digest of
    what it pays for, `settlement` this server's key at the facilitator, `payload` what was signed
    as it travels.  It can be settled until `deadline` (unix seconds), from `block` on.
    """

    stored_name: ClassVar[str] = "UptoTaken"
    payment: str
    payer: str
    identifier: str
    request: str
    settlement: str
    at_most: Money
    deadline: int
    block: int
    payload: dict[str, Any]


class UptoCharged(Event):
    """The request of a payment was answered, and came to `charge`; `digest` names the body."""

    stored_name: ClassVar[str] = "UptoCharged"
    payment: str
    charge: Money
    status: int
    media_type: str
    digest: str


class UptoEnded(Event):
    """A payment was settled in `transaction` ("" for a charge of nothing), or never will be."""

    stored_name: ClassVar[str] = "UptoEnded"
    payment: str
    outcome: Literal["settled", "expired", "unused"]
    transaction: str = ""


# -- records -------------------------------------------------------------------------------------


class UptoSale(Record):
    """A payment by `upto`: fields as in its events; without `charge` nothing was answered yet."""

    stored_name: ClassVar[str] = "UptoSale"
    payment: str
    payer: str
    identifier: str
    request: str
    settlement: str
    at_most: Money
    deadline: int
    block: int
    payload: dict[str, Any]
    charge: Money | None = None
    status: int = 0
    media_type: str = ""
    digest: str = ""
    outcome: Outcome = ""
    transaction: str = ""

    @property
    def key(self) -> str:
        return self.payment


class UptoName(Record):
    """The payment that goes by a payer's own identifier."""

    stored_name: ClassVar[str] = "UptoName"
    payer: str
    identifier: str
    payment: str

    @property
    def key(self) -> str:
        return f"{self.payer}|{self.identifier}"


class OpenUpto(Record):
    """What of a payer's money counts as promised here: sales not ended, and what it left unpaid."""

    stored_name: ClassVar[str] = "OpenUpto"
    payer: str
    payment: str
    at_most: Money

    @property
    def key(self) -> str:
        return f"{self.payer}|{self.payment}"


# -- folds ---------------------------------------------------------------------------------------


@folds(UptoTaken)
def _fold_taken(event: UptoTaken, stream: str, at: float, records: Records) -> None:
    records.put(UptoSale(**event.model_dump()))
    records.put(OpenUpto(payer=event.payer, payment=event.payment, at_most=event.at_most))
    if event.identifier:
        name = UptoName(payer=event.payer, identifier=event.identifier, payment=event.payment)
        records.put(name)


@folds(UptoCharged)
def _fold_charged(event: UptoCharged, stream: str, at: float, records: Records) -> None:
    sale = existing(records, UptoSale, event.payment)
    fields = ("charge", "status", "media_type", "digest")
    records.put(sale.model_copy(update={field: getattr(event, field) for field in fields}))


@folds(UptoEnded)
def _fold_ended(event: UptoEnded, stream: str, at: float, records: Records) -> None:
    """End a sale; what was delivered and never paid stays promised, against that payer alone."""
    sale = existing(records, UptoSale, event.payment)
    changes = {"outcome": event.outcome, "transaction": event.transaction}
    records.put(sale.model_copy(update=changes))
    if event.outcome != "expired" or not sale.charge:
        records.drop(OpenUpto, f"{sale.payer}|{sale.payment}")
