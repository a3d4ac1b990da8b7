"""x402: authorizations that a payer signed, and payments that a provider node took."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from agentkit.journal.folding import Records, existing, folds, update
from agentkit.journal.subjects.budget import (
    Reservation,
    account,
    add_to_total,
    subtract_from_total,
)
from agentkit.market.seams import Event, Record
from agentkit.money import Money

# -- events: the payer ---------------------------------------------------------------------------


class AuthorizationSigned(Event):
    """An attempt's payment was signed; from here on its payee may draw it, until `valid_before`.

    It is an EIP-3009 authorization of this wallet over `amount`; `nonce` and `signature` in hex.
    """

    stored_name: ClassVar[str] = "AuthorizationSigned"
    attempt: str
    provider: str
    payee: str
    amount: Money
    valid_before: int
    nonce: str
    signature: str


class AuthorizationEnded(Event):
    """The chain shows that an authorization's payee drew it (`used`), or never can (`expired`)."""

    stored_name: ClassVar[str] = "AuthorizationEnded"
    attempt: str
    outcome: Literal["used", "expired"]


# -- events: the provider node -------------------------------------------------------------------


class PaymentTaken(Event):
    """A payment over x402 came with a request, and is about to be settled.

    `payment` is payer and nonce of its authorization, `identifier` the payer's own name for it,
    `request` the digest of what it pays for, `settlement` this server's key at the facilitator.
    """

    stored_name: ClassVar[str] = "PaymentTaken"
    payment: str
    identifier: str
    request: str
    settlement: str


class PaymentSettled(Event):
    """The chain shows that a payment arrived, in `transaction`."""

    stored_name: ClassVar[str] = "PaymentSettled"
    payment: str
    transaction: str


class PaymentAnswered(Event):
    """A paid request was answered; `digest` names the body, which is a blob of the journal."""

    stored_name: ClassVar[str] = "PaymentAnswered"
    payment: str
    status: int
    media_type: str
    digest: str


class RequestPaid(Event):
    """A request was paid for by a scheme of x402, and `amount` is the node's for good."""

    stored_name: ClassVar[str] = "RequestPaid"
    payment: str
    scheme: str
    amount: Money


class ReceiptIssued(Event):
    """The node signed `receipt`, as x402 `offer-receipt` has it, for what `payment` paid for."""

    stored_name: ClassVar[str] = "ReceiptIssued"
    payment: str
    receipt: dict[str, Any]


# -- records -------------------------------------------------------------------------------------


class Authorization(Record):
    """An attempt's payment over x402; without an outcome its payee may still draw it."""

    stored_name: ClassVar[str] = "Authorization"
    attempt: str
    provider: str
    payee: str
    amount: Money
    valid_before: int
    nonce: str
    signature: str
    outcome: Literal["", "used", "expired"] = ""

    @property
    def key(self) -> str:
        return self.attempt


class Outstanding(Record):
    """An attempt whose authorization has no outcome yet."""

    stored_name: ClassVar[str] = "Outstanding"
    attempt: str

    @property
    def key(self) -> str:
        return self.attempt


class PaidRequest(Record):
    """A request that came with a payment over x402: how far it is, and what was answered."""

    stored_name: ClassVar[str] = "PaidRequest"
    payment: str
    identifier: str
    request: str
    settlement: str
    transaction: str = ""
    status: int = 0
    media_type: str = ""
    digest: str = ""

    @property
    def key(self) -> str:
        return self.payment


class PaymentName(Record):
    """The payment that goes by a payer's own identifier."""

    stored_name: ClassVar[str] = "PaymentName"
    identifier: str
    payment: str

    @property
    def key(self) -> str:
        return self.identifier


class EarnedByScheme(Record):
    """What a node was paid for single requests by a scheme of x402, and for how many."""

    stored_name: ClassVar[str] = "EarnedByScheme"
    scheme: str
    amount: Money
    requests: int = 0

    @property
    def key(self) -> str:
        return f"{self.scheme}|{self.amount.asset.id}"


class IssuedReceipt(Record):
    """The signed receipt for a payment: an answer that is given again has the same one."""

    stored_name: ClassVar[str] = "IssuedReceipt"
    payment: str
    receipt: dict[str, Any]

    @property
    def key(self) -> str:
        return self.payment


# -- folds ---------------------------------------------------------------------------------------


@folds(AuthorizationSigned)
def _fold_authorization_signed(
    event: AuthorizationSigned, stream: str, at: float, records: Records
) -> None:
    records.put(Authorization(**event.model_dump()))
    records.put(Outstanding(attempt=event.attempt))
    add_to_total(records, "signed", event.amount)


@folds(AuthorizationEnded)
def _fold_authorization_ended(
    event: AuthorizationEnded, stream: str, at: float, records: Records
) -> None:
    """End an authorization; one that expired undrawn was not spent after all."""
    authorization = existing(records, Authorization, event.attempt)
    records.put(authorization.model_copy(update={"outcome": event.outcome}))
    records.drop(Outstanding, event.attempt)
    subtract_from_total(records, "signed", authorization.amount)
    if event.outcome == "expired":
        _take_back_spending(records, authorization)


def _take_back_spending(records: Records, expired: Authorization) -> None:
    """Stop counting an attempt's price as spent: its payee never drew it, and never can.

    The total of the day on which it was spent stays as it is, and so does its run's hold.
    """
    reservation = records.get(Reservation, expired.attempt)
    if reservation is None or not reservation.spent:
        return

    spent = reservation.spent
    records.put(reservation.model_copy(update={"spent": spent.asset.zero()}))
    payee = account(records, rail=reservation.rail, payee=reservation.account, like=spent)
    records.put(payee.model_copy(update={"spent": payee.spent - spent}))
    for scope in ("ever", f"provider:{expired.provider}"):
        subtract_from_total(records, scope, spent)


@folds(PaymentTaken)
def _fold_payment_taken(event: PaymentTaken, stream: str, at: float, records: Records) -> None:
    records.put(PaidRequest(**event.model_dump()))
    if event.identifier:
        records.put(PaymentName(identifier=event.identifier, payment=event.payment))


@folds(PaymentSettled)
def _fold_payment_settled(event: PaymentSettled, stream: str, at: float, records: Records) -> None:
    update(records, PaidRequest, event.payment, transaction=event.transaction)


@folds(PaymentAnswered)
def _fold_payment_answered(
    event: PaymentAnswered, stream: str, at: float, records: Records
) -> None:
    update(records, PaidRequest, event.payment, **event.model_dump(exclude={"payment"}))


@folds(RequestPaid)
def _fold_request_paid(event: RequestPaid, stream: str, at: float, records: Records) -> None:
    first = EarnedByScheme(scheme=event.scheme, amount=event.amount.asset.zero())
    before = records.get(EarnedByScheme, first.key) or first
    after = {"amount": before.amount + event.amount, "requests": before.requests + 1}
    records.put(before.model_copy(update=after))


@folds(ReceiptIssued)
def _fold_receipt_issued(event: ReceiptIssued, stream: str, at: float, records: Records) -> None:
    records.put(IssuedReceipt(payment=event.payment, receipt=event.receipt))
