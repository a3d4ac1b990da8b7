"""The adapter for OpenAI-compatible endpoints that are paid by x402."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agentkit.errors import Refused
from agentkit.market import batch_settlement
from agentkit.market.attempt import Attempt, JobStatus, Message, Payment, Result
from agentkit.market.chain import Network
from agentkit.market.offer import Offer
from agentkit.market.seams import ProviderInfo
from agentkit.market.task import Task
from agentkit.market.x402 import Challenge, Requirement
from agentkit.money import Rate
from agentkit.providers.http import Answer
from agentkit.providers.openai import EndpointSettings, OpenAI, PaymentTerms, Profile
from agentkit.providers.x402_client import PaidRequest, X402Client, channel_terms, takes

X402: Final = Profile("x402", "x402", "with_request")

MAX_KEPT_ANSWERS = 64
"""Answers that are kept, so that `find` can return them."""


class X402Endpoint(OpenAI):
    """A provider that asks for a payment with each request.

    The setting `price.request` is the most that a request may cost.
    """

    _pays_first = True

    def __init__(self, name: str, url: str, network: Network, settings: EndpointSettings) -> None:
        super().__init__(name, url, network, X402, settings)
        self._kept: OrderedDict[str, Result] = OrderedDict()
        self._client = X402Client(name, network, self._http, self._check_status)

    async def describe(self) -> ProviderInfo:
        """Return what the endpoint says in answer to an unpaid request."""
        info = await super().describe()
        models = sorted(await self._models())
        if not models:
            return info
        challenge = await self._client.inspect(self._probe(models[0]))
        return info.model_copy(update={"finds": self._finds(challenge)})

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
        payment repeats its answer, and one that charges channels says what it charged.
        """
        if attempt.id not in self._kept:
            return None
        self._answers[attempt.id] = self._kept[attempt.id]
        return JobStatus(state="done")

    async def carry(self, message: Message) -> Message:
        """Ask what a channel is charged, or for what it has left; raises Refused."""
        if not takes(message):
            return await super().carry(message)
        models = sorted(await self._models())
        return await self._client.carry(message, self._probe(models[0] if models else ""))

    # -- overrides --------------------------------------------------------------------------------

    async def _models(self, *, fresh: bool = False) -> Mapping[str, int]:
        """Return the models that are configured: these endpoints publish no list."""
        return dict.fromkeys(self._settings.models.values(), 0)

    async def _terms(self, model: str) -> Sequence[PaymentTerms]:
        """Return price and payee as the endpoint's 402 names them, the cheapest way first.

        Raises Refused for a price above the configured limit, and for another payee than the
        configured one.
        """
        challenge = await self._client.inspect(self._probe(model))
        ways = self._client.ways(challenge)
        possible = [way for way in ways if self._is_within(way)] or ways[:1]
        return [self._terms_of(way, finds=challenge.identifies) for way in possible]

    def _is_within(self, requirement: Requirement) -> bool:
        """Return whether a way to pay keeps to what the user has configured."""
        try:
            self._terms_of(requirement, finds=False)
        except Refused:
            return False
        return True

    def _terms_of(self, requirement: Requirement, *, finds: bool) -> PaymentTerms:
        """Return the terms of one way to pay; raises Refused as `_terms`."""
        self._check_payee(requirement)
        amount = self._client.amount(requirement)
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
        is_channel = requirement.scheme == batch_settlement.SCHEME
        return PaymentTerms(
            rates,
            requirement.payee,
            # The books of a channel can always be asked what was charged.
            finds=finds or is_channel,
            rail=self._client.rail(requirement),
            channel=channel_terms(requirement),
        )

    async def _ask(
        self, path: str, body: dict[str, Any], attempt: Attempt, payment: Payment
    ) -> Answer:
        return await self._client.pay(PaidRequest("POST", path, json=body), attempt, payment)

    def _with_bill(self, result: Result, answer: Answer, payment: Payment) -> Result:
        return self._client.with_bill(result, answer, payment)

    # -- inside ----------------------------------------------------------------------------------

    def _probe(self, model: str) -> PaidRequest:
        """Return the smallest request, to be answered with 402."""
        body = {"model": model, "messages": [{"role": "user", "content": ""}], "max_tokens": 1}
        return PaidRequest("POST", f"{self._base}/chat/completions", json=body)

    def _finds(self, challenge: Challenge) -> bool:
        """Return whether the endpoint can be asked later: by identifier, or its channels' books."""
        counted = self._network.counted
        is_channel = any(batch_settlement.payable_on(challenge, network) for network in counted)
        return challenge.identifies or is_channel

    def _check_payee(self, requirement: Requirement) -> None:
        """Raise Refused for another payee than the configured one."""
        configured = self._settings.payee
        if configured and configured.lower() != requirement.payee.lower():
            raise Refused(
                f"it wants {requirement.payee} to be paid, and {configured} is configured",
                provider=self.name,
            )
