"""Requests that are paid by x402: what is asked for them, the payment, and what it came to.

An unpaid request is answered with 402, which names price and payee.  That is read twice: for the
offer, and right before the payment is sent, with the request itself.  After a payment was sent, no
other one is made for the same attempt.  A payment is by `exact` (rail `x402`) or charged to a
channel (rail `batch-settlement`), whichever the endpoint takes for less, and by `upto` where it
takes nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from pydantic import ValidationError

from agentkit.errors import OfferExpired, ProtocolBroken, Refused, Unavailable
from agentkit.market import batch_settlement, upto
from agentkit.market.attempt import Attempt, Message, Payment, Result, SellerStatements
from agentkit.market.chain import Network
from agentkit.market.offer_receipt import offer_in, receipt_in
from agentkit.market.rail_names import base_rail
from agentkit.market.x402 import (
    REQUIRED,
    RESPONSE,
    SIGNATURE,
    Challenge,
    Payment402,
    Presented,
    Proof,
    Requirement,
    Settled,
    header_of,
)
from agentkit.money import Money
from agentkit.providers.http import Answer, Http
from agentkit.providers.openai import message_of

RAILS = {
    "exact": "x402",
    batch_settlement.SCHEME: batch_settlement.SCHEME,
    upto.SCHEME: upto.SCHEME,
}
"""The rail by which each scheme is paid; `X402Client.rail` adds the network."""

INSPECT_SECONDS = 20.0
"""Seconds in which an endpoint has to answer an unpaid request."""

ANSWER_SECONDS = 300.0
"""Seconds in which it has to answer a paid one."""


@dataclass(frozen=True, slots=True)
class PaidRequest:
    """A request as it is sent: unpaid at first, then the same with its payment."""

    method: str
    path: str
    json: Any = None
    data: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PaidAnswer(Answer):
    """An answer that was paid for, with what its seller signed about that."""

    statements: SellerStatements = SellerStatements()


class X402Client:
    """Makes paid requests for the provider `name`.

    `check_status` raises the error that an answer other than 402 means, None for success.
    """

    def __init__(
        self, name: str, network: Network, http: Http, check_status: Callable[[Answer], None]
    ) -> None:
        self._name = name
        self._network = network
        self._http = http
        self._check_status = check_status

    # -- before a payment ------------------------------------------------------------------------

    async def ask(self, request: PaidRequest) -> Answer:
        """Send a request without paying; nothing is bought, so no failure leaves an unknown."""
        try:
            return await self._send(request, {}, INSPECT_SECONDS)
        except Unavailable as error:
            error.unknown = False
            raise

    async def inspect(self, request: PaidRequest) -> Challenge:
        """Send a request without paying, and return the 402 that answers it.

        Raises Refused for an endpoint that asks for no payment.
        """
        answer = await self.ask(request)
        try:
            if answer.status != 402:
                self._check_status(answer)
        except Unavailable as error:
            error.unknown = False
            raise
        if answer.status != 402:
            raise Refused("it asks for no payment", provider=self._name)
        return self.challenge(answer)

    def challenge(self, answer: Answer) -> Challenge:
        """Return what a 402 asks for; raises ProtocolBroken."""
        try:
            challenge = header_of(Challenge, answer.headers, REQUIRED.lower())
        except ProtocolBroken as error:
            raise ProtocolBroken(str(error), provider=self._name) from error
        if challenge is None:
            raise ProtocolBroken(_why_no_challenge(answer.body), provider=self._name)
        return challenge

    def ways(self, challenge: Challenge) -> list[Requirement]:
        """Return how this wallet can pay, the cheapest way first; raises Refused if it cannot.

        At the same price over a channel: it is charged what the request really comes to.  By
        `upto` only where nothing else is taken: it needs an approval of Permit2 on the chain.
        """
        found = [way for network in self._network.counted for way in _ways_on(network, challenge)]
        last = upto.payable_on(challenge, self._network)
        if not found and last:
            return [last]
        if not found:
            raise Refused(self._why_none(challenge), provider=self._name)
        return sorted(found, key=lambda way: int(way.amount))

    def amount(self, requirement: Requirement) -> Money:
        """Return the price that a requirement names, as a budget of this wallet counts it."""
        return Money(int(requirement.amount), self._network.currency)

    def rail(self, requirement: Requirement) -> str:
        """Return the rail by which a requirement is paid: that of its scheme, on its network."""
        return self._network.rail_on(RAILS[requirement.scheme], requirement.network)

    # -- a payment -------------------------------------------------------------------------------

    async def pay(self, request: PaidRequest, attempt: Attempt, payment: Payment) -> PaidAnswer:
        """Send a request with its payment, if the endpoint still asks for what it offered.

        A payment that may have been sent before (`again`) is presented even if it does not: the
        endpoint may have taken it, and another payment must not be made.
        """
        check_payment(payment)
        challenge = await self.inspect(request)
        requirement = self._agreed(challenge, attempt, payment)
        if requirement is None and not payment.body.get("again"):
            raise self._terms_changed(unknown=False)
        if requirement is None:
            requirement = self._offered(attempt, payment)
        if not payment.body.get("again") and not _is_channel_of(payment, requirement):
            raise OfferExpired(
                "it asks for a channel on other terms than the one that is open with its payee",
                provider=self._name,
                hint="close that one first with `agentkit wallet close`",
            )
        presented = _presented(challenge, requirement, payment, attempt.id)
        answer = await self._send(request, {SIGNATURE: presented.header()}, ANSWER_SECONDS)
        self._check_paid(answer, attempt, payment)
        statements = self._statements(challenge, requirement, answer, request.path, payment)
        return PaidAnswer(answer.status, answer.headers, answer.body, statements)

    def with_bill(self, result: Result, answer: Answer, payment: Payment) -> Result:
        """Return a result with what the endpoint says it was paid, and what it signed about it."""
        if isinstance(answer, PaidAnswer):
            result = replace(result, statements=answer.statements)
        if _is_channel(payment.rail):
            return self._with_charge(result, answer, payment)
        if payment.rail == upto.SCHEME:
            return self._with_amount(result, answer, payment)
        return self._with_transaction(result, answer, payment)

    # -- messages of the rail --------------------------------------------------------------------

    async def carry(self, message: Message, request: PaidRequest) -> Message:
        """Ask what a channel is charged, or for what it has left, at a request that it pays for.

        Raises Refused.
        """
        challenge = await self.inspect(request)
        network = self._network_of(message.rail)
        requirement = batch_settlement.payable_on(challenge, network)
        if requirement is None:
            raise Refused("it takes no payments over channels any more", provider=self._name)
        payment = Payment(rail=message.rail, body=message.body)
        presented = _presented(challenge, requirement, payment, "")
        answer = await self._send(request, {SIGNATURE: presented.header()}, ANSWER_SECONDS)
        if message.verb == "refund":
            return self._refunded(message, answer)
        return self._stated(message, answer)

    # -- inside ----------------------------------------------------------------------------------

    def _network_of(self, rail: str) -> Network:
        """Return the network that a rail pays on; raises Refused where it is not in the settings.

        What was agreed on is paid there also once `usd` is taken out of the settings.
        """
        network = self._network.network_of(rail)
        if network is None:
            raise Refused(
                f"it is paid by {rail!r}, and that network is not in the settings any more",
                provider=self._name,
            )
        return network

    def _why_none(self, challenge: Challenge) -> str:
        """Return why this wallet cannot pay, and the setting with which it could."""
        home = self._network
        currency = f"{home.currency.symbol} on {home.name}"
        apart = [network.name for network in home.beside if _ways_on(network, challenge)]
        if apart:
            return (
                f"it takes {home.currency.symbol} on {apart[0]}, and a budget is in {currency}:"
                ' with usd = "usdc" in agentkit.toml they count together'
            )
        wrong = challenge.why_not_payable_on(home)
        return wrong or f"it takes no {currency} by 'batch-settlement', 'exact' or 'upto'"

    async def _send(self, request: PaidRequest, headers: dict[str, str], seconds: float) -> Answer:
        """Send a request; a payment never follows a redirect to somebody else."""
        return await self._http.send(
            request.method,
            request.path,
            json=request.json,
            data=request.data,
            headers={**request.headers, **headers},
            seconds=seconds,
            redirects=False,
        )

    def _agreed(
        self, challenge: Challenge, attempt: Attempt, payment: Payment
    ) -> Requirement | None:
        """Return the requirement that an attempt pays, None if it is not asked for any more."""
        network = self._network_of(attempt.rail)
        match base_rail(attempt.rail):
            case batch_settlement.SCHEME:
                requirement = batch_settlement.payable_on(challenge, network)
            case upto.SCHEME:
                requirement = upto.payable_on(challenge, network)
            case _:
                requirement = challenge.payable_on(network)
        if requirement is None:
            return None
        if (requirement.payee, self.amount(requirement)) != (attempt.payee, attempt.at_most):
            return None
        if attempt.rail == upto.SCHEME:
            # The facilitator is signed as well, and no other can settle.
            signed = upto.payload_in(payment.body).permit2_authorization.witness.facilitator
            if requirement.extra[upto.FACILITATOR].lower() != signed.lower():
                return None
        return requirement

    def _offered(self, attempt: Attempt, payment: Payment) -> Requirement:
        """Return the requirement that an attempt pays, as it was offered."""
        units, timeout = attempt.at_most.units, int(ANSWER_SECONDS)
        network = self._network_of(attempt.rail)
        if _is_channel(attempt.rail):
            return batch_settlement.agreed_in(payment.body, network, units, timeout=timeout)
        if attempt.rail == upto.SCHEME:
            settler = upto.payload_in(payment.body).permit2_authorization.witness.facilitator
            return upto.requirement(
                network, attempt.payee, units, facilitator=settler, timeout=timeout
            )
        return Requirement.on(network, attempt.payee, units, timeout=timeout)

    def _terms_changed(self, *, unknown: bool) -> OfferExpired:
        return OfferExpired("it asks for another payment", provider=self._name, unknown=unknown)

    def _check_paid(self, answer: Answer, attempt: Attempt, payment: Payment) -> None:
        """Raise the error that an unsuccessful answer to a paid request means.

        The payment was sent, so after any error it is unknown whether it was taken.
        """
        if answer.status < 300:
            return
        if answer.status != 402:
            self._check_other(answer)
        try:
            challenge = self.challenge(answer)
        except ProtocolBroken as error:
            raise Refused(
                f"not paid, it says: {error}", provider=self._name, unknown=True
            ) from error
        if self._agreed(challenge, attempt, payment) is None:
            raise self._terms_changed(unknown=True)
        reason = challenge.error or "no reason"
        raise Refused(
            f"it asks again for what it was paid ({reason})", provider=self._name, unknown=True
        )

    def _check_other(self, answer: Answer) -> NoReturn:
        """Raise Unavailable or Refused, unknown, for an error other than 402."""
        message = message_of(answer.body) or f"it answers {answer.status}"
        if answer.status == 429 or answer.status >= 500:  # which may pass
            raise Unavailable(message, provider=self._name, unknown=True)
        raise Refused(message, provider=self._name, unknown=True)

    def _statements(
        self,
        challenge: Challenge,
        requirement: Requirement,
        answer: Answer,
        path: str,
        payment: Payment,
    ) -> SellerStatements:
        """Return what the seller signed about this sale, without what proves nothing by itself.

        An answer that was paid for counts whatever its seller signed.
        """
        resource = path.partition("?")[0]
        offer = offer_in(challenge, requirement, resource)
        receipt = None
        with suppress(ProtocolBroken):
            receipt = receipt_in(
                header_of(Settled, answer.headers, RESPONSE.lower()),
                payee=requirement.payee,
                payer=_payer(payment),
                network=requirement.network,
                path=resource,
            )
        return SellerStatements(
            offer=offer.document() if offer else {},
            receipt=receipt.document() if receipt else {},
        )

    def _with_transaction(self, result: Result, answer: Answer, payment: Payment) -> Result:
        """Return a result with the transaction that the endpoint says has paid for it.

        "" where it does not say, or speaks of another payment; the answer was paid all the same.
        """
        transaction = ""
        with suppress(ProtocolBroken):
            settled = header_of(Settled, answer.headers, RESPONSE.lower())
            if settled and settled.tells_of(_proof(payment), self._network_of(payment.rail)):
                transaction = settled.transaction
        evidence = result.evidence.model_copy(update={"reference": transaction})
        return replace(result, evidence=evidence)

    def _with_amount(self, result: Result, answer: Answer, payment: Payment) -> Result:
        """Return a result with what the endpoint says it took, and in which transaction.

        The rail reads from the chain what it really took.
        """
        with suppress(ProtocolBroken):
            settled = header_of(Settled, answer.headers, RESPONSE.lower())
            taken = settled.amount or "" if settled and settled.success else ""
            if settled and re.fullmatch("[0-9]{1,39}", taken):
                price = Money(min(int(taken), result.price.units), result.price.asset)
                evidence = result.evidence.model_copy(update={"reference": settled.transaction})
                return replace(result, price=price, evidence=evidence)
        return result

    def _with_charge(self, result: Result, answer: Answer, payment: Payment) -> Result:
        """Return a result at the price that the endpoint says it charged.

        What it says has to fit the voucher that it was sent.  Where it says nothing, or something
        else, the whole at most counts, which the voucher lets it claim.
        """
        charge = None
        with suppress(ProtocolBroken):
            settled = header_of(Settled, answer.headers, RESPONSE.lower())
            charge = batch_settlement.charge_in(settled, payment.body, result.price.units)
        if charge is None:
            return result
        return replace(result, price=Money(charge, result.price.asset))

    def _stated(self, message: Message, answer: Answer) -> Message:
        """Return what a 402 says of a channel: its state, and our newest voucher."""
        if answer.status != 402:
            raise ProtocolBroken("it does not say what the channel is charged", provider=self._name)
        network = self._network_of(message.rail)
        way = batch_settlement.payable_on(self.challenge(answer), network)
        extra = way.extra if way else {}
        body = {
            "channel": message.body["channel"],
            "attempt": message.body.get("attempt", ""),
            "channelState": extra.get("channelState"),
            "voucherState": extra.get("voucherState"),
        }
        return message.model_copy(update={"verb": "state", "body": body})

    def _refunded(self, message: Message, answer: Answer) -> Message:
        """Return that a channel's rest is on its way back; the chain is asked about it."""
        if answer.status == 402:
            reason = self.challenge(answer).error or "no reason"
            raise Refused(f"it does not give the rest back ({reason})", provider=self._name)
        self._check_status(answer)
        body = {"channel": message.body["channel"]}
        return message.model_copy(update={"verb": "refunded", "body": body})


def _why_no_challenge(body: bytes) -> str:
    """Say what a 402 asks for that does not have the header of x402 v2."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    version = document.get("x402Version") if isinstance(document, dict) else None
    if version == 1:
        return "it asks for a payment by x402 v1, and only v2 is spoken here"
    if version == 2:
        return f"it asks in the body of its 402, and x402 v2 has that in the header {REQUIRED}"
    told = message_of(body)
    return "it asks for a payment and does not say which" + (f": {told}" if told else "")


def takes(message: Message) -> bool:
    """Return whether a rail's message is one that `X402Client.carry` brings to an endpoint."""
    return _is_channel(message.rail) and message.verb in ("state", "refund")


def _is_channel(rail: str) -> bool:
    """Return whether a rail pays over channels, on whatever network."""
    return base_rail(rail) == batch_settlement.SCHEME


def _ways_on(network: Network, challenge: Challenge) -> list[Requirement]:
    """Return how a challenge can be paid on a network; over a channel first."""
    ways = (batch_settlement.payable_on(challenge, network), challenge.payable_on(network))
    return [way for way in ways if way]


def channel_terms(way: Requirement) -> dict[str, str | int]:
    """Return what an offer has to say beside price and payee, so that its rail can pay it."""
    if way.scheme == batch_settlement.SCHEME:
        return batch_settlement.terms_of(way)
    if way.scheme == upto.SCHEME:
        return {upto.FACILITATOR: str(way.extra[upto.FACILITATOR])}
    return {}


def check_payment(payment: Payment) -> None:
    """Raise ProtocolBroken for a payment of a rail that x402 does not know."""
    if _is_channel(payment.rail):
        batch_settlement.payload_in(payment.body)
    elif payment.rail == upto.SCHEME:
        upto.payload_in(payment.body)
    else:
        _proof(payment)


def _is_channel_of(payment: Payment, requirement: Requirement) -> bool:
    """Return whether a payment is over a channel on the terms that are asked for.

    A voucher for somebody else's channel with the same payee is not shown to a server: it could
    buy there with it.
    """
    if not _is_channel(payment.rail):
        return True
    config = batch_settlement.payload_in(payment.body).channel_config
    terms = batch_settlement.terms_of(requirement)
    return (config.receiver_authorizer.lower(), config.withdraw_delay) == (
        str(terms["receiverAuthorizer"]).lower(),
        terms["withdrawDelay"],
    )


def _presented(
    challenge: Challenge, requirement: Requirement, payment: Payment, identifier: str
) -> Payment402:
    """Return a rail's payment as the answer to a challenge; raises ProtocolBroken."""
    if _is_channel(payment.rail):
        payload = batch_settlement.payload_in(payment.body)
        return batch_settlement.ChannelPayment.to(challenge, requirement, payload, identifier)
    if payment.rail == upto.SCHEME:
        permit = upto.payload_in(payment.body)
        return upto.UptoPayment.to(challenge, requirement, permit, identifier)
    return Presented.to(challenge, requirement, _proof(payment), identifier)


def _proof(payment: Payment) -> Proof:
    """Return the proof in a rail's payment; raises ProtocolBroken for another rail's."""
    try:
        return Proof.model_validate_json(json.dumps(payment.body.get("proof")))
    except ValidationError as error:
        raise ProtocolBroken("the rail's payment is not one of x402") from error


def _payer(payment: Payment) -> str:
    """Return the address that a rail's payment comes from; raises ProtocolBroken."""
    if _is_channel(payment.rail):
        return batch_settlement.payload_in(payment.body).channel_config.payer
    if payment.rail == upto.SCHEME:
        return upto.payload_in(payment.body).permit2_authorization.sender
    return _proof(payment).authorization.sender
