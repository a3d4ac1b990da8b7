"""An OpenAI-compatible endpoint that is paid by x402: price, payee and proof come with a 402.

What the endpoint asks for is looked at twice: when it is offered, and right before the payment
leaves, with the request itself.  A payment that has left is never followed by another one.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
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
from agentkit.providers.openai import ANSWER_SECONDS, Account, OpenAI, Profile, Terms, message_of

X402: Final = Profile("x402", "x402", "with_request")

CHAT = "/v1/chat/completions"
ANSWERS_KEPT = 64
"""Answers that are kept for whoever asks for an attempt again."""

INSPECT_SECONDS = 20.0


class X402Endpoint(OpenAI):
    """A provider that asks for a payment with each request; `price.request` is its limit."""

    def __init__(self, name: str, url: str, network: Network, account: Account) -> None:
        super().__init__(name, url, network, X402, account)
        self._kept: OrderedDict[str, Result] = OrderedDict()

    async def describe(self) -> ProviderInfo:
        info = await super().describe()
        models = sorted(await self._models())
        if not models:
            return info
        challenge = await self._inspect(CHAT, _probe(models[0]))
        return info.model_copy(update={"finds": challenge.identifies})

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        status = await super().submit(task, offer, attempt, payment)
        self._kept[attempt.id] = self._answers[attempt.id]
        if len(self._kept) > ANSWERS_KEPT:
            self._kept.popitem(last=False)
        return status

    async def find(self, attempt: Attempt) -> JobStatus | None:
        """Return an answer that is here; any other is found by handing the attempt over again."""
        if attempt.id not in self._kept:
            return None
        self._answers[attempt.id] = self._kept[attempt.id]
        return JobStatus(state="done")

    # -- what this dialect does otherwise ---------------------------------------------------------

    async def _models(self, *, fresh: bool = False) -> Mapping[str, int]:
        """Return the models that are configured: these endpoints publish no list."""
        return dict.fromkeys(self._account.models.values(), 0)

    async def _terms(self, model: str) -> Terms:
        challenge = await self._inspect(CHAT, _probe(model))
        asked = self._asked(challenge)
        amount, limit = self._amount(asked), self._account.prices.get("request")
        if limit and amount > (most := limit.bind(self._network.currency).amount):
            raise Refused(f"it asks {amount} for a request, above {most}", provider=self.name)
        free = self._network.currency.zero()
        rates = {unit: Rate(free, 1, unit) for unit in ("input", "output")}
        rates["request"] = Rate(amount, 1, "request")
        return Terms(rates, asked.payee, challenge.identifies)

    async def _ask(
        self, path: str, body: dict[str, Any], attempt: Attempt, payment: Payment
    ) -> Answer:
        proof = _proof(payment)
        challenge = await self._inspect(path, body)
        accepted = self._agreed(challenge, attempt)
        if accepted is None and not payment.body.get("again"):
            raise self._changed(unknown=False)
        accepted = accepted or self._as_offered(attempt)
        presented = Presented.to(challenge, accepted, proof, attempt.id)
        headers = {SIGNATURE: presented.header()}
        answer = await self._http.send(
            "POST", path, json=body, headers=headers, seconds=ANSWER_SECONDS
        )
        self._check_paid(answer, attempt)
        return answer

    def _billed(self, result: Result, answer: Answer, payment: Payment) -> Result:
        """Return a result with the transaction that is said to have paid for it."""
        try:
            settled = header_of(Settled, answer.headers, RESPONSE.lower())
        except ProtocolBroken:
            settled = None
        told = settled is not None and settled.tells_of(_proof(payment), self._network)
        said = settled.transaction if settled and told else ""
        return replace(result, evidence=result.evidence.model_copy(update={"reference": said}))

    # -- inside ----------------------------------------------------------------------------------

    async def _inspect(self, path: str, body: dict[str, Any]) -> Challenge:
        """Ask without paying, and return what is asked for; nothing is done for that."""
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
        try:
            challenge = header_of(Challenge, answer.headers, REQUIRED.lower())
        except ProtocolBroken as error:
            raise ProtocolBroken(str(error), provider=self.name) from error
        if challenge is None:
            raise ProtocolBroken("it asks for a payment and does not say which", provider=self.name)
        return challenge

    def _asked(self, challenge: Challenge) -> Requirement:
        """Return the way to pay that this wallet has; raises Refused without one."""
        asked = challenge.payable_on(self._network)
        if asked is None:
            raise Refused(
                f"it takes no {self._network.currency.symbol} on {self._network.name} by 'exact'",
                provider=self.name,
            )
        if self._account.payee and self._account.payee.lower() != asked.payee.lower():
            raise Refused(
                f"it wants {asked.payee} to be paid, and {self._account.payee} is configured",
                provider=self.name,
            )
        return asked

    def _agreed(self, challenge: Challenge, attempt: Attempt) -> Requirement | None:
        """Return the way to pay under which the attempt was made, if it is still asked for."""
        asked = challenge.payable_on(self._network)
        if asked is None or (asked.payee, self._amount(asked)) != (attempt.payee, attempt.at_most):
            return None
        return asked

    def _as_offered(self, attempt: Attempt) -> Requirement:
        units, seconds = attempt.at_most.units, int(ANSWER_SECONDS)
        return Requirement.on(self._network, attempt.payee, units, timeout=seconds)

    def _amount(self, asked: Requirement) -> Money:
        return Money(int(asked.amount), self._network.currency)

    def _changed(self, *, unknown: bool) -> OfferExpired:
        return OfferExpired("it asks for another payment", provider=self.name, unknown=unknown)

    def _check_paid(self, answer: Answer, attempt: Attempt) -> None:
        """Raise what an answer to a paid request means.

        The payment has left, so whatever is wrong, whether it was taken is not known.
        """
        if answer.status < 300:
            return
        if answer.status != 402:
            said = message_of(answer.body) or f"it answers {answer.status}"
            later = answer.status == 429 or answer.status >= 500
            raise (Unavailable if later else Refused)(said, provider=self.name, unknown=True)
        try:
            challenge = self._challenge(answer)
        except ProtocolBroken as error:
            raise Refused(
                f"not paid, it says: {error}", provider=self.name, unknown=True
            ) from error
        if self._agreed(challenge, attempt) is None:
            raise self._changed(unknown=True)
        why = f"it asks again for what it was paid ({challenge.error or 'no reason'})"
        raise Refused(why, provider=self.name, unknown=True)


def _probe(model: str) -> dict[str, Any]:
    """Return a request that asks for nothing worth paying for."""
    return {"model": model, "messages": [{"role": "user", "content": ""}], "max_tokens": 1}


def _proof(payment: Payment) -> Proof:
    try:
        return Proof.model_validate_json(json.dumps(payment.body.get("proof")))
    except ValidationError as error:
        raise ProtocolBroken("the rail's payment is none of x402") from error
