"""The adapter for OpenAI-compatible endpoints that are paid by x402.

An unpaid request is answered with 402, which names price and payee.  That is read twice: for the
offer, and right before the payment is sent, with the request itself.  After a payment was sent, no
other one is made for the same attempt.  A payment is by `exact` (rail `x402`) or charged to a
channel (rail `batch-settlement`), whichever the endpoint takes for less.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError

from agentkit.errors import OfferExpired, ProtocolBroken, Refused, Unavailable
from agentkit.market import batch_settlement
from agentkit.market.attempt import Attempt, JobStatus, Message, Payment, Result
from agentkit.market.chain import Network
from agentkit.market.offer import Offer
from agentkit.market.seams import ProviderInfo
from agentkit.market.task import Task
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
from agentkit.money import Money, Rate
from agentkit.providers.http import Answer
from agentkit.providers.openai import (
    ANSWER_SECONDS,
    EndpointSettings,
    OpenAI,
    PaymentTerms,
    Profile,
    message_of,
)

X402: Final = Profile("x402", "x402", "with_request")

RAILS = {"exact": "x402", batch_settlement.SCHEME: batch_settlement.SCHEME}
"""The rail by which each scheme is paid."""

CHAT = "/v1/chat/completions"

MAX_KEPT_ANSWERS = 64
"""Answers that are kept, so that `find` can return them."""

INSPECT_SECONDS = 20.0
"""Seconds in which an endpoint has to answer an unpaid request."""


class X402Endpoint(OpenAI):
    """A provider that asks for a payment with each request.

    The setting `price.request` is the most that a request may cost.
    """

    def __init__(self, name: str, url: str, network: Network, settings: EndpointSettings) -> None:
        super().__init__(name, url, network, X402, settings)
        self._kept: OrderedDict[str, Result] = OrderedDict()

    async def describe(self) -> ProviderInfo:
        """Return what the endpoint says in answer to an unpaid request."""
        info = await super().describe()
        models = sorted(await self._models())
        if not models:
            return info
        challenge = await self._inspect(CHAT, _probe(models[0]))
        is_channel = batch_settlement.payable_on(challenge, self._network) is not None
        return info.model_copy(update={"finds": challenge.identifies or is_channel})

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        """Ask the question, and keep the answer also after it was fetched."""
        if await self.find(attempt):  # the same attempt again is the same answer
            return JobStatus(state="done")
        status = await super().submit(task, offer, attempt, payment)
        self._kept[attempt.id] = self._answers[attempt.id]
        if len(self._kept) > MAX_KEPT_ANSWERS:
            self._kept.popitem(last=False)
        return status

    async def find(self, attempt: Attempt) -> JobStatus | None:
        """Return whether the answer is here.

        Any other answer is found by submitting the attempt again: an endpoint that recognises the
        payment repeats its answer.
        """
        if attempt.id not in self._kept:
            return None
        self._answers[attempt.id] = self._kept[attempt.id]
        return JobStatus(state="done")

    # -- overrides --------------------------------------------------------------------------------

    async def _models(self, *, fresh: bool = False) -> Mapping[str, int]:
        """Return the models that are configured: these endpoints publish no list."""
        return dict.fromkeys(self._settings.models.values(), 0)

    async def _terms(self, model: str) -> PaymentTerms:
        """Return price and payee as the endpoint's 402 names them.

        Raises Refused for a price above the configured limit, and as `_payable_requirement`.
        """
        challenge = await self._inspect(CHAT, _probe(model))
        requirement = self._payable_requirement(challenge)
        is_channel = requirement.scheme == batch_settlement.SCHEME
        amount = self._amount(requirement)
        limit = self._settings.prices.get("request")
        if limit:
            highest = limit.bind(self._network.currency).amount
            if amount > highest:
                raise Refused(
                    f"it asks {amount} for a request, above {highest}", provider=self.name
                )
        free = self._network.currency.zero()
        rates = {
            "input": Rate(free, 1, "input"),
            "output": Rate(free, 1, "output"),
            "request": Rate(amount, 1, "request"),
        }
        return PaymentTerms(
            rates,
            requirement.payee,
            # The books of a channel can always be asked what was charged.
            finds=challenge.identifies or is_channel,
            rail=RAILS[requirement.scheme],
            channel=batch_settlement.terms_of(requirement) if is_channel else {},
        )

    async def _ask(
        self, path: str, body: dict[str, Any], attempt: Attempt, payment: Payment
    ) -> Answer:
        """Send a request with its payment, if the endpoint still asks for what it offered.

        A payment that may have been sent before (`again`) is presented even if it does not: the
        endpoint may have taken it, and another payment must not be made.
        """
        challenge = await self._inspect(path, body)
        requirement = self._agreed_requirement(challenge, attempt)
        if requirement is None and not payment.body.get("again"):
            raise self._terms_changed(unknown=False)
        if requirement is None:
            requirement = self._offered_requirement(attempt, payment)

        presented = _presented(challenge, requirement, payment, attempt.id)
        answer = await self._http.send(
            "POST",
            path,
            json=body,
            headers={SIGNATURE: presented.header()},
            seconds=ANSWER_SECONDS,
        )
        self._check_paid(answer, attempt)
        return answer

    async def carry(self, message: Message) -> Message:
        """Ask what a channel is charged, or for what it has left; raises Refused."""
        if message.rail != batch_settlement.SCHEME or message.verb not in ("state", "refund"):
            return await super().carry(message)
        models = sorted(await self._models())
        probe = _probe(models[0] if models else "")
        challenge = await self._inspect(CHAT, probe)
        requirement = batch_settlement.payable_on(challenge, self._network)
        if requirement is None:
            raise Refused("it takes no payments over channels any more", provider=self.name)
        payment = Payment(rail=message.rail, body=message.body)
        presented = _presented(challenge, requirement, payment, "")
        answer = await self._http.send(
            "POST",
            CHAT,
            json=probe,
            headers={SIGNATURE: presented.header()},
            seconds=ANSWER_SECONDS,
        )
        if message.verb == "refund":
            return self._refunded(message, answer)
        return self._stated(message, answer)

    def _with_bill(self, result: Result, answer: Answer, payment: Payment) -> Result:
        """Return a result with the transaction that the endpoint says has paid for it.

        "" where it does not say, or speaks of another payment; the answer was paid all the same.
        """
        if payment.rail == batch_settlement.SCHEME:
            return self._with_charge(result, answer, payment)
        transaction = ""
        with suppress(ProtocolBroken):
            settled = header_of(Settled, answer.headers, RESPONSE.lower())
            if settled and settled.tells_of(_proof(payment), self._network):
                transaction = settled.transaction
        evidence = result.evidence.model_copy(update={"reference": transaction})
        return replace(result, evidence=evidence)

    # -- channels --------------------------------------------------------------------------------

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
            raise ProtocolBroken("it does not say what the channel is charged", provider=self.name)
        challenge = self._challenge(answer)
        way = batch_settlement.payable_on(challenge, self._network)
        extra = way.extra if way else {}
        body = {
            "channel": message.body["channel"],
            "channelState": extra.get("channelState"),
            "voucherState": extra.get("voucherState"),
        }
        return message.model_copy(update={"verb": "state", "body": body})

    def _refunded(self, message: Message, answer: Answer) -> Message:
        """Return that a channel's rest is on its way back; the chain is asked about it."""
        if answer.status == 402:
            reason = self._challenge(answer).error or "no reason"
            raise Refused(f"it does not give the rest back ({reason})", provider=self.name)
        self._check_status(answer)
        body = {"channel": message.body["channel"]}
        return message.model_copy(update={"verb": "refunded", "body": body})

    # -- inside ----------------------------------------------------------------------------------

    async def _inspect(self, path: str, body: dict[str, Any]) -> Challenge:
        """Send a request without paying, and return the 402 that answers it.

        Nothing is bought by that, so no failure leaves anything unknown.  Raises Refused for an
        endpoint that asks for no payment.
        """
        try:
            answer = await self._http.send("POST", path, json=body, seconds=INSPECT_SECONDS)
            if answer.status != 402:
                self._check_status(answer)
        except Unavailable as error:
            error.unknown = False
            raise
        if answer.status != 402:
            raise Refused("it asks for no payment", provider=self.name)
        return self._challenge(answer)

    def _challenge(self, answer: Answer) -> Challenge:
        """Return what a 402 asks for; raises ProtocolBroken."""
        try:
            challenge = header_of(Challenge, answer.headers, REQUIRED.lower())
        except ProtocolBroken as error:
            raise ProtocolBroken(str(error), provider=self.name) from error
        if challenge is None:
            raise ProtocolBroken("it asks for a payment and does not say which", provider=self.name)
        return challenge

    def _payable_requirement(self, challenge: Challenge) -> Requirement:
        """Return the way in which this wallet can pay.

        Raises Refused without one, and for another payee than the configured one.
        """
        ways = (
            batch_settlement.payable_on(challenge, self._network),
            challenge.payable_on(self._network),
        )
        # At the same price over a channel: it is charged what the request really comes to.
        requirement = min(filter(None, ways), key=lambda way: int(way.amount), default=None)
        if requirement is None:
            raise Refused(
                f"it takes no {self._network.currency.symbol} on {self._network.name} by"
                " 'batch-settlement' or 'exact'",
                provider=self.name,
            )
        configured = self._settings.payee
        if configured and configured.lower() != requirement.payee.lower():
            raise Refused(
                f"it wants {requirement.payee} to be paid, and {configured} is configured",
                provider=self.name,
            )
        return requirement

    def _agreed_requirement(self, challenge: Challenge, attempt: Attempt) -> Requirement | None:
        """Return the requirement that an attempt pays, None if it is not asked for any more."""
        is_channel = attempt.rail == batch_settlement.SCHEME
        payable = batch_settlement.payable_on if is_channel else Challenge.payable_on
        requirement = payable(challenge, self._network)
        if requirement is None:
            return None
        if (requirement.payee, self._amount(requirement)) != (attempt.payee, attempt.at_most):
            return None
        return requirement

    def _offered_requirement(self, attempt: Attempt, payment: Payment) -> Requirement:
        """Return the requirement that an attempt pays, as it was offered."""
        if attempt.rail == batch_settlement.SCHEME:
            return batch_settlement.agreed_in(
                payment.body, self._network, attempt.at_most.units, timeout=int(ANSWER_SECONDS)
            )
        return Requirement.on(
            self._network,
            attempt.payee,
            attempt.at_most.units,
            timeout=int(ANSWER_SECONDS),
        )

    def _amount(self, requirement: Requirement) -> Money:
        return Money(int(requirement.amount), self._network.currency)

    def _terms_changed(self, *, unknown: bool) -> OfferExpired:
        return OfferExpired("it asks for another payment", provider=self.name, unknown=unknown)

    def _check_paid(self, answer: Answer, attempt: Attempt) -> None:
        """Raise the error that an unsuccessful answer to a paid request means.

        The payment was sent, so after any error it is unknown whether it was taken.
        """
        if answer.status < 300:
            return
        if answer.status != 402:
            message = message_of(answer.body) or f"it answers {answer.status}"
            if answer.status == 429 or answer.status >= 500:  # which may pass
                raise Unavailable(message, provider=self.name, unknown=True)
            raise Refused(message, provider=self.name, unknown=True)
        try:
            challenge = self._challenge(answer)
        except ProtocolBroken as error:
            raise Refused(
                f"not paid, it says: {error}", provider=self.name, unknown=True
            ) from error
        if self._agreed_requirement(challenge, attempt) is None:
            raise self._terms_changed(unknown=True)
        reason = challenge.error or "no reason"
        raise Refused(
            f"it asks again for what it was paid ({reason})", provider=self.name, unknown=True
        )


def _probe(model: str) -> dict[str, Any]:
    """Return the smallest request, to be answered with 402."""
    return {"model": model, "messages": [{"role": "user", "content": ""}], "max_tokens": 1}


def _presented(
    challenge: Challenge, requirement: Requirement, payment: Payment, identifier: str
) -> Payment402:
    """Return a rail's payment as the answer to a challenge; raises ProtocolBroken."""
    if payment.rail == batch_settlement.SCHEME:
        payload = batch_settlement.payload_in(payment.body)
        return batch_settlement.ChannelPayment.to(challenge, requirement, payload, identifier)
    return Presented.to(challenge, requirement, _proof(payment), identifier)


def _proof(payment: Payment) -> Proof:
    """Return the proof in a rail's payment; raises ProtocolBroken for another rail's."""
    try:
        return Proof.model_validate_json(json.dumps(payment.body.get("proof")))
    except ValidationError as error:
        raise ProtocolBroken("the rail's payment is not one of x402") from error
