"""The adapter for OpenAI-compatible endpoints, with a profile for each dialect.

A chat endpoint has no idempotency key, so nobody can find out what became of a request that was
not answered (`finds` is false).  Therefore this adapter never sends a request twice.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import floor
from typing import Any

from agentkit.artifacts import Text
from agentkit.errors import (
    BadAmount,
    BadOutput,
    LeaseLost,
    ProtocolBroken,
    RateLimited,
    Refused,
    Unavailable,
)
from agentkit.kinds.registry import bought_kind
from agentkit.market.attempt import Attempt, Evidence, JobStatus, Message, Payment, Result
from agentkit.market.chain import Network
from agentkit.market.models import names_of
from agentkit.market.offer import Offer, charge, priced
from agentkit.market.seams import ProviderInfo
from agentkit.market.task import Task, TaskSpec
from agentkit.money import Money, Rate
from agentkit.providers.http import Answer, Http
from agentkit.providers.openai.error_bodies import message_of
from agentkit.providers.openai.profile import Profile
from agentkit.providers.openai.reading import UNREADABLE
from agentkit.providers.openai.settings import EndpointSettings
from agentkit.providers.openai.terms import PaymentTerms

USER_AGENT = "agentkit/0.1"

OFFERS_LAST = 300.0
"""Seconds for which an offer can be taken."""

MODELS_LAST = 15.0
"""Seconds for which a list of models that was read counts."""

ANSWER_SECONDS = 600.0
"""Seconds in which an endpoint has to answer a question."""

BALANCE_SECONDS = 10.0
"""Seconds in which an endpoint has to show the balance of an account."""

BALANCE_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between readings of a balance that is to rise; the last one from then on."""

MOST_CENTS = 10**15
"""No balance is above this."""

SECONDS_PER_TOKEN = 0.02
"""A guess of how fast endpoints write, until runs have measured it."""

SETUP_SECONDS = 0.3
"""A guess of how long an endpoint takes before its first token."""

MAX_ANSWER = 4 << 20
"""The most bytes of an answer: some hundred thousand tokens, or a very long list of models."""


class OpenAI:
    """A provider behind an OpenAI-compatible endpoint; see `market.seams.Provider`."""

    def __init__(
        self, name: str, url: str, network: Network, profile: Profile, settings: EndpointSettings
    ) -> None:
        """Make the adapter of the provider `name`; `url` may end in `/v1`."""
        self._name = name
        self._network = network
        self._profile = profile
        self._settings = settings
        headers = {"User-Agent": USER_AGENT}
        if settings.key:
            headers["Authorization"] = f"Bearer {settings.key}"
        address = url.removesuffix("/").removesuffix("/v1")
        # An answer does not name its request, so a late one could be taken for the next.
        self._http = Http(name, address, headers, reuse=False, max_bytes=MAX_ANSWER)
        self._answers: dict[str, Result] = {}  # by attempt, until they are fetched
        self._models_served: Mapping[str, int] = {}
        self._models_read_at = 0.0

    @property
    def name(self) -> str:
        return self._name

    async def describe(self) -> ProviderInfo:
        """Return the models that the endpoint serves now."""
        return ProviderInfo(
            name=self.name,
            adapter=self._profile.adapter,
            finds=False,
            label=self._settings.label,
            url=self._http.url,
            kinds=("infer",),
            models=tuple(sorted(await self._models(fresh=True))),
        )

    async def offers(self, spec: TaskSpec) -> Sequence[Offer]:
        """Return an offer for each way to pay, for the model that is configured and served now.

        Raises Refused.
        """
        model = self._model(spec)
        served = await self._models()
        if model not in served:
            raise Refused(f"it does not serve {model!r} now", provider=self.name)
        context = served[model]
        return [
            self._offer(spec, model, terms, context=context) for terms in await self._terms(model)
        ]

    def _offer(self, spec: TaskSpec, model: str, terms: PaymentTerms, *, context: int) -> Offer:
        """Return the offer to answer a spec on these terms."""
        price, at_most = self._priced(terms, spec)
        return Offer(
            provider=self.name,
            node=spec.node.name,
            on=model,
            model=model,
            price=price,
            at_most=at_most,
            eta=SETUP_SECONDS + SECONDS_PER_TOKEN * spec.load.expected.get("output", 0),
            lanes=2,
            expires=time.time() + OFFERS_LAST,
            rail=terms.rail or self._profile.rail,
            pays=self._profile.pays,
            payee=terms.payee,
            channel=dict(terms.channel),
            rates=terms.rates,
            finds=terms.finds,
            context=context,
        )

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        """Ask the question and keep the answer, which `result` returns.

        An endpoint answers at once, so there is no job to wait for.
        """
        path, body = self._request(task, offer.model)
        answer = await self._ask(path, body, attempt, payment)
        result = self._result(task, offer, answer)
        self._answers[attempt.id] = self._with_bill(result, answer, payment)
        return JobStatus(state="done")

    async def find(self, attempt: Attempt) -> JobStatus | None:
        """Raise ProtocolBroken: a chat endpoint does not know attempts."""
        raise ProtocolBroken("a chat endpoint cannot be asked for an attempt", provider=self.name)

    async def status(self, attempt: Attempt) -> JobStatus:
        """Return that an answer is here; raises LeaseLost for one that was lost or fetched."""
        if attempt.id not in self._answers:
            raise LeaseLost("the answer is not here", provider=self.name)
        return JobStatus(state="done")

    async def result(self, attempt: Attempt) -> Result:
        """Return the answer to an attempt, once; raises LeaseLost."""
        await self.status(attempt)
        return self._answers.pop(attempt.id)

    async def cancel(self, attempt: Attempt) -> None:
        """Drop the answer to an attempt; the endpoint cannot be told."""
        self._answers.pop(attempt.id, None)

    async def carry(self, message: Message) -> Message:
        """Bind the address that tops our credit up, or read its balance; raises Refused."""
        if self._profile.binding and message.verb == "bind":
            await self._bind(str(message.body.get("address", "")))
            return message.model_copy(update={"verb": "bound"})
        if self._profile.balance and message.verb == "balance":
            cents = await self._risen_balance(message.body)
            return message.model_copy(update={"body": {**message.body, "cents": cents}})
        raise Refused(f"it takes no message {message.verb!r}", provider=self.name)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    # -- what a dialect may override --------------------------------------------------------------

    async def _terms(self, model: str) -> Sequence[PaymentTerms]:
        """Return at which rates the endpoint answers, and who is paid, for each way to pay."""
        return [PaymentTerms(self._rates(), self._settings.payee)]

    async def _ask(
        self, path: str, body: dict[str, Any], attempt: Attempt, payment: Payment
    ) -> Answer:
        """Send the request that is paid for, and return its answer if that is a success."""
        answer = await self._http.send("POST", path, json=body, seconds=ANSWER_SECONDS)
        self._check_status(answer)
        return answer

    def _with_bill(self, result: Result, answer: Answer, payment: Payment) -> Result:
        """Return a result with what the endpoint says about its bill; here, nothing."""
        return result

    # -- inside ----------------------------------------------------------------------------------

    async def _bind(self, address: str) -> None:
        """Have the account credited for what `address` transfers; the same again changes nothing.

        Raises Refused where it says that it did not.
        """
        answer = await self._http.send("POST", self._profile.binding, json={"address": address})
        self._check_status(answer)
        try:
            is_bound = json.loads(answer.body).get("success", True)
        except UNREADABLE as error:
            raise ProtocolBroken("its answer cannot be read", provider=self.name) from error
        if not is_bound:
            raise Refused(f"it does not take transfers from {address}", provider=self.name)

    async def _risen_balance(self, body: Mapping[str, Any]) -> int:
        """Return the balance in cents, read until it is above `above` or `seconds` have passed."""
        until = time.monotonic() + float(body.get("seconds", 0))
        pauses = [*BALANCE_PAUSES]
        while True:
            cents = await self._balance()
            pause = pauses.pop(0) if len(pauses) > 1 else pauses[0]
            if cents > body.get("above", cents - 1) or time.monotonic() + pause > until:
                return cents
            await asyncio.sleep(pause)

    async def _balance(self) -> int:
        """Return the credit that is left in whole cents; raises ProtocolBroken for anything else.

        Some answers have it as a number, some as text.
        """
        answer = await self._http.read(self._profile.balance, seconds=BALANCE_SECONDS)
        self._check_status(answer)
        try:
            shown = json.loads(answer.body)["credits"]
            if isinstance(shown, bool) or not isinstance(shown, int | float | str):
                raise TypeError(type(shown).__name__)  # all of it is unreadable
            cents = floor(Decimal(str(shown)))
        except UNREADABLE as error:
            raise ProtocolBroken("its balance cannot be read", provider=self.name) from error
        if abs(cents) > MOST_CENTS:
            raise ProtocolBroken("its balance cannot be right", provider=self.name)
        return cents

    def _rates(self) -> dict[str, Rate]:
        """Return the configured prices; a request itself costs nothing unless that is set."""
        currency = self._network.currency
        rates = {unit: rate.bind(currency) for unit, rate in self._settings.prices.items()}
        free = Rate(currency.zero(), 1, "request")
        return {"request": free, **rates}

    def _model(self, spec: TaskSpec) -> str:
        """Return the endpoint's name of a spec's model, configured under any name of the model.

        Raises Refused where none is configured, and for what a chat cannot do: guessing would buy
        another model.
        """
        required = bought_kind(spec.node).chat_requirements(spec.node)
        if required is None or not required.model:
            raise Refused("it only answers prompts, with models of its own", provider=self.name)
        if required.output != "text":
            raise Refused("it gives plain text only", provider=self.name)
        for name in names_of(required.model):
            if name in self._settings.models:
                return self._settings.models[name]
        raise Refused(
            f"no name is known here for the model {required.model!r}",
            provider=self.name,
            hint=f'set providers.{self.name}.models."{required.model}" to its name there',
        )

    async def _models(self, *, fresh: bool = False) -> Mapping[str, int]:
        """Return the models served, each with the most tokens it takes (0: not said).

        The list is read again after MODELS_LAST seconds, and with `fresh`.
        """
        age = time.monotonic() - self._models_read_at
        if self._models_served and age < MODELS_LAST and not fresh:
            return self._models_served
        answer = await self._http.read("/v1/models", seconds=10.0)
        self._check_status(answer)
        try:
            models = {str(item["id"]): _context(item) for item in json.loads(answer.body)["data"]}
        except UNREADABLE as error:
            raise ProtocolBroken("its list of models cannot be read", provider=self.name) from error
        self._models_served = models
        self._models_read_at = time.monotonic()
        return models

    def _priced(self, terms: PaymentTerms, spec: TaskSpec) -> tuple[Money, Money]:
        """Return (price, at most) of one purchase; raises Refused when a price is missing."""
        try:
            return priced(self._network.currency, terms.rates, spec.load)
        except BadAmount as error:
            raise Refused(
                str(error),
                provider=self.name,
                hint=f'set providers.{self.name}.price.input = "0.10 USDC per 1M tokens"',
            ) from error

    def _request(self, task: Task, model: str) -> tuple[str, dict[str, Any]]:
        """Return (path, body) of the request that asks a task's question."""
        params = task.params
        body: dict[str, Any] = {
            "model": model,
            self._profile.limit_field: params["max_tokens"],
            "temperature": params["temperature"],
            "stream": False,
        }
        if params["stop"]:
            body["stop"] = params["stop"]
        if params["style"] == "complete":
            return "/v1/completions", {**body, "prompt": params["prompt"]}
        messages = [{"role": "user", "content": params["prompt"]}]
        return "/v1/chat/completions", {**body, "messages": messages}

    def _result(self, task: Task, offer: Offer, answer: Answer) -> Result:
        """Return the result in an answer, at the offer's rates.

        Raises BadOutput for one that cannot be read, or is of another model.
        """
        try:
            document = json.loads(answer.body)
            choice = document["choices"][0]
            text = choice["message"]["content"] if "message" in choice else choice["text"]
            usage = self._usage(task, document.get("usage") or {})
            model = str(document["model"])
            price = charge(self._network.currency, offer.rates, usage)
            output = Text.of(str(text or "").strip().encode())
        except UNREADABLE as error:
            raise BadOutput("its answer cannot be read", provider=self.name) from error
        # Some endpoints answer for an unknown model with another one.
        if model != offer.model:
            raise BadOutput(f"it answered with {model!r}, not {offer.model!r}", provider=self.name)
        return Result(
            outputs=(output,),
            usage=usage,
            price=price,
            evidence=Evidence(reference=str(document.get("id") or "")[:100]),
            model=model,
        )

    def _usage(self, task: Task, reported: Mapping[str, Any]) -> dict[str, int]:
        """Return what the endpoint counted, by unit; a count that it leaves out is the most."""
        counts: dict[str, Any] = {
            "request": 1,
            "input": reported.get("prompt_tokens"),
            "output": reported.get("completion_tokens"),
        }
        counted = {unit: int(count) for unit, count in counts.items() if count is not None}
        return {unit: counted.get(unit, most) for unit, most in task.load.most.items()}

    def _check_status(self, answer: Answer) -> None:
        """Raise the error that an unsuccessful answer means.

        After most 5xx it is unknown whether the request was done.  501 and 503 say that it was
        not (RFC 9110, 15.6).
        """
        status = answer.status
        if status < 300:
            return
        message = message_of(answer.body) or f"it answers {status}"
        if self._settings.key:  # an endpoint may quote it
            message = message.replace(self._settings.key, "***")
        if status == 429:
            raise RateLimited(message, provider=self.name, retry_after=answer.retry_after)
        if status in (401, 403):
            hint = f"check providers.{self.name}.api_key"
            raise Refused(message, provider=self.name, hint=hint)
        if status >= 500:
            raise Unavailable(message, provider=self.name, unknown=status not in (501, 503))
        raise Refused(message, provider=self.name)


def _context(model: Mapping[str, Any]) -> int:
    """Return how many tokens a listed model takes, 0 where the endpoint does not say.

    Several networks call it `context_length`; vLLM calls it `max_model_len`.
    """
    tokens = model.get("context_length") or model.get("max_model_len")
    return tokens if isinstance(tokens, int) and 0 < tokens < 2**40 else 0
