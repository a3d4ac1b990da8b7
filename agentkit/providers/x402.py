"""The adapter for OpenAI-compatible endpoints that are paid by x402.

An unpaid request is answered with 402, which names price and payee.  That is read twice: for the
offer, and right before the payment is sent, with the request itself.  After a payment was sent, no
other one is made for the same attempt.
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
from agentkit.market.attempt import Attempt, JobStatus, Payment, Result
from agentkit.market.chain import Network
from agentkit.market.offer import Offer
from agentkit.market.seams import ProviderInfo
from agentkit.market.task import Task
from agentkit.market.x402 import (
    REQUIRED,
    RESPONSE,
    SIGNATURE,
    Challenge,
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
        return info.model_copy(update={"finds": challenge.identifies})

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        """Ask the question, and keep the answer also after it was fetched."""
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
        return PaymentTerms(rates, requirement.payee, finds=challenge.identifies)

    async def _ask(
        self, path: str, body: dict[str, Any], attempt: Attempt, payment: Payment
    ) -> Answer:
        """Send a request with its payment, if the endpoint still asks for what it offered.

        A payment that may have been sent before (`again`) is presented even if it does not: the
        endpoint may have taken it, and another payment must not be made.
        """
        proof = _proof(payment)
        challenge = await self._inspect(path, body)
        requirement = self._agreed_requirement(challenge, attempt)
        if requirement is None and not payment.body.get("again"):
            raise self._terms_changed(unknown=False)
        if requirement is None:
            requirement = self._offered_requirement(attempt)

        presented = Presented.to(challenge, requirement, proof, attempt.id)
        answer = await self._http.send(
            "POST",
            path,
            json=body,
            headers={SIGNATURE: presented.header()},
            seconds=ANSWER_SECONDS,
        )
        self._check_paid(answer, attempt)
        return answer

    def _with_bill(self, result: Result, answer: Answer, payment: Payment) -> Result:
        """Return a result with the transaction that the endpoint says has paid for it.

        "" where it does not say, or speaks of another payment; the answer was paid all the same.
        """
        transaction = ""
        with suppress(ProtocolBroken):
            settled = header_of(Settled, answer.headers, RESPONSE.lower())
            if settled and settled.tells_of(_proof(payment), self._network):
                transaction = settled.transaction
        evidence = result.evidence.model_copy(update={"reference": transaction})
        return replace(result, evidence=evidence)

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
        requirement = challenge.payable_on(self._network)
        if requirement is None:
            raise Refused(
                f"it takes no {self._network.currency.symbol} on {self._network.name} by 'exact'",
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
        requirement = challenge.payable_on(self._network)
        if requirement is None:
            return None
        if (requirement.payee, self._amount(requirement)) != (attempt.payee, attempt.at_most):
            return None
        return requirement

    def _offered_requirement(self, attempt: Attempt) -> Requirement:
        """Return the requirement that an attempt pays, as it was offered."""
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


def _proof(payment: Payment) -> Proof:
    """Return the proof in a rail's payment; raises ProtocolBroken for another rail's."""
    try:
        return Proof.model_validate_json(json.dumps(payment.body.get("proof")))
    except ValidationError as error:
        raise ProtocolBroken("the rail's payment is not one of x402") from error
