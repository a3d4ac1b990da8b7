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
from urllib.parse import urlsplit

from agentkit.errors import (
    BadAmount,
    BadOutput,
    LeaseLost,
    ProtocolBroken,
    RateLimited,
    Refused,
    Unavailable,
    writable,
)
from agentkit.kinds.registry import bought_kind
from agentkit.market.attempt import Attempt, Evidence, JobStatus, Message, Payment, Result
from agentkit.market.chain import Network
from agentkit.market.models import names_of
from agentkit.market.offer import Offer, charge, priced
from agentkit.market.receipt import MAX_NAME
from agentkit.market.seams import ProviderInfo
from agentkit.market.task import Task, TaskSpec
from agentkit.money import Money, Rate
from agentkit.providers.http import Answer, BodyUnreadable, Http
from agentkit.providers.openai.answer import answer_in, has_text
from agentkit.providers.openai.catalogue import listed_as, models_in
from agentkit.providers.openai.counts import counted_in, taken_at_most
from agentkit.providers.openai.documents import BrokenOff, document_in
from agentkit.providers.openai.error_bodies import (
    error_in,
    is_not_there,
    is_rate_limit,
    message_in_error,
    message_of,
)
from agentkit.providers.openai.names import is_same_model
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

NO_LIST = (400, 404, 405, 500, 501)
"""The statuses of endpoints that have no list of models, or cannot make one."""

NOT_DONE = (501, 503, 529)
"""The statuses of a server's failure that say that the request was not done."""

PASSED_ON = ("tools", "tool_choice", "seed", "top_p")
"""The parameters of a task that are also OpenAI's, and that only some tasks have."""

OVERHEAD_SETTINGS = {"input": "overhead_tokens", "output": "reasoning_tokens"}
"""The setting that allows for more of each unit than was asked for."""

MOST_OVERHEAD = 1_000_000
"""The most tokens of overhead that are proposed: more than that is no prompt but a mistake."""

SHORTEST_KEY_PART = 12
"""So many first characters of a key are not shown either."""

MAX_REASON = 600
"""The most characters of why an answer cannot be used."""

MAX_ANSWER = 4 << 20
"""The most bytes of an answer: some hundred thousand tokens, or a very long list of models."""


class OpenAI:
    """A provider behind an OpenAI-compatible endpoint; see `market.seams.Provider`."""

    _pays_first = False
    """Whether a request carries money, which an endpoint may keep whatever it answers."""

    def __init__(
        self, name: str, url: str, network: Network, profile: Profile, settings: EndpointSettings
    ) -> None:
        """Make the adapter of the provider `name`.

        Its paths are below `url` as that stands, or below `/v1` for a `url` without a path.
        """
        self._name = name
        self._network = network
        self._profile = profile
        self._settings = settings
        headers = {"User-Agent": USER_AGENT}
        if settings.key:
            headers["Authorization"] = f"Bearer {settings.key}"
        address, self._base = _address_and_base(url)
        self._http = Http(name, address, headers, max_bytes=MAX_ANSWER)
        self._answers: dict[str, Result] = {}  # by attempt, until they are fetched
        self._models_served: Mapping[str, int] = {}
        self._models_read_at = 0.0
        self._reading_models: asyncio.Task[Mapping[str, int]] | None = None

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
        listed = listed_as(model, served)
        if not listed:
            raise Refused(f"it does not serve {model!r} now", provider=self.name)
        context = served[listed]
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
            overhead=self._settings.overhead,
        )

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        """Ask the question and keep the answer, which `result` returns.

        An endpoint answers at once, so there is no job to wait for.
        """
        path, body = self._request(task, offer.model)
        try:
            answer = await self._ask(self._base + path, body, attempt, payment)
        except BodyUnreadable as error:
            raise self._bad_output(error.why, billed=None) from error
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
        if self._reading_models is not None:
            self._reading_models.cancel()
        await self._http.close()

    # -- what a dialect may override --------------------------------------------------------------

    async def _terms(self, model: str) -> Sequence[PaymentTerms]:
        """Return at which rates the endpoint answers, and who is paid, for each way to pay."""
        return [PaymentTerms(self._rates(), self._settings.payee)]

    async def _ask(
        self, path: str, body: dict[str, Any], attempt: Attempt, payment: Payment
    ) -> Answer:
        """Send the request that is paid for, and return its answer if that is a success."""
        answer = await self._http.send(
            "POST", path, json=body, seconds=ANSWER_SECONDS, redirects=False
        )
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

        Where there is no list, or none that can be read, those are that the user configured.  The
        list is read again after MODELS_LAST seconds, and with `fresh`; who asks while it is read
        waits for that reading.
        """
        age = time.monotonic() - self._models_read_at
        if self._models_served and age < MODELS_LAST and not fresh:
            return self._models_served
        if self._reading_models is None or self._reading_models.done():
            self._reading_models = asyncio.create_task(self._read_models())
            self._reading_models.add_done_callback(_retrieve)
        # Shielded: one of those who wait may give up, and the others still wait.
        return await asyncio.shield(self._reading_models)

    async def _read_models(self) -> Mapping[str, int]:
        self._models_served = await self._listed_models()
        self._models_read_at = time.monotonic()
        return self._models_served

    async def _listed_models(self) -> Mapping[str, int]:
        """Return the models of the endpoint's own list, or else those that are configured."""
        configured = dict.fromkeys(self._settings.models.values(), 0)
        try:
            answer = await self._http.read(f"{self._base}/models", seconds=10.0)
            if answer.status in NO_LIST:
                return configured
            self._check_status(answer)
            return models_in(json.loads(answer.body))
        except (BodyUnreadable, *UNREADABLE):
            return configured

    def _priced(self, terms: PaymentTerms, spec: TaskSpec) -> tuple[Money, Money]:
        """Return (price, at most) of one purchase; raises Refused when a price is missing."""
        try:
            overhead = self._settings.overhead
            return priced(self._network.currency, terms.rates, spec.load, overhead)
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
        body |= {name: params[name] for name in PASSED_ON if name in params}
        if params["style"] == "complete":
            return "/completions", {**body, "prompt": params["prompt"]}
        messages = params.get("messages") or [{"role": "user", "content": params["prompt"]}]
        return "/chat/completions", {**body, "messages": messages}

    def _result(self, task: Task, offer: Offer, answer: Answer) -> Result:
        """Return the result in an answer, at the offer's rates.

        Raises BadOutput for one that cannot be used, with what it is billed; RateLimited and
        Unavailable where it says that nothing was done.
        """
        billed: Money | None = None
        try:
            document = document_in(answer)
            counted = counted_in(document)
            usage = taken_at_most(counted, offer.most(task.load))
            price = charge(self._network.currency, offer.rates, usage)
            billed = price if counted else None
            self._check_error(document, is_answered=bool(counted) or has_text(document))
            said = answer_in(document, with_tools="tools" in task.params)
            self._check_model(document.get("model"), offer.model)
            self._check_counts(usage, task, offer)
            output = said.artifact()
        except BrokenOff as error:
            raise Unavailable(str(error), provider=self.name, unknown=True) from error
        except _Unusable as error:
            raise self._bad_output(str(error), billed) from error
        except UNREADABLE as error:
            why = f"its answer cannot be used: {error}"
            raise self._bad_output(why, billed) from error
        return Result(
            outputs=(output,),
            usage=usage,
            price=price,
            evidence=Evidence(reference=self._word(document.get("id"))),
            model=self._word(document.get("model")),
            finish_reason=self._word(said.finish_reason),
        )

    def _bad_output(self, why: str, billed: Money | None) -> BadOutput:
        """Return the error of an answer that came; what it quotes may hold our key."""
        return BadOutput(self._without_key(why[:MAX_REASON]), provider=self.name, billed=billed)

    def _check_error(self, document: Mapping[str, Any], *, is_answered: bool) -> None:
        """Raise what an error means that came with a status of success.

        `is_answered`: there is text or a count beside it, so that it may be billed.
        """
        error = error_in(document)
        if error is None:
            return
        message = self._without_key(f"it answers 200 with an error: {message_in_error(error)}")
        if not is_answered and not self._pays_first:
            if is_rate_limit(error):
                raise RateLimited(message, provider=self.name)
            if is_not_there(error):
                raise Unavailable(message, provider=self.name)
        raise _Unusable(message)

    def _check_model(self, given: Any, asked: str) -> None:
        """Raise _Unusable for an answer of another model than the one that was asked for.

        Some endpoints answer for an unknown model with another one.
        """
        accepted = tuple(self._settings.accepted_as(asked))
        answered = "" if given is None else str(given)[:MAX_NAME]
        if answered in accepted or (answered and is_same_model(asked, answered)):
            return
        said = f"it answered with {answered!r}, not {asked!r}"
        if not answered:
            said = f"it does not say which model answered in place of {asked!r}"
        setting = f'providers.{self.name}.accepts."{asked}" = ["{answered}"]'
        raise _Unusable(f"{said}; if that is the same model, set {setting}")

    def _check_counts(self, usage: Mapping[str, int], task: Task, offer: Offer) -> None:
        """Raise _Unusable for a count beyond the most, with the setting that allows for it."""
        allowed = offer.most(task.load)
        for unit, setting in OVERHEAD_SETTINGS.items():
            count, most = usage.get(unit, 0), allowed.get(unit, 0)
            if count > most:
                told = f"it counts {count} of {unit} where there are {most} at most"
                enough = offer.overhead.get(unit, 0) + count - most
                if enough <= MOST_OVERHEAD:
                    told += f"; providers.{self.name}.{setting} = {enough} allows for that"
                raise _Unusable(told)

    def _word(self, given: Any) -> str:
        """Return a word of the endpoint as it is kept: short, writable, and without our key."""
        return self._without_key(writable(str(given or "")[:MAX_NAME]))

    def _without_key(self, text: str) -> str:
        """Return a text without the API key, which an endpoint may quote."""
        key = self._settings.key
        if not key:
            return text
        text = text.replace(key, "***")
        # A message that was cut may end within the key.
        for length in range(len(key) - 1, SHORTEST_KEY_PART - 1, -1):
            text = text.replace(key[:length], "***")
        return text

    def _check_status(self, answer: Answer) -> None:
        """Raise the error that an unsuccessful answer means.

        After most 5xx it is unknown whether the request was done.  501 and 503 say that it was
        not (RFC 9110, 15.6), and so does 529, which several networks use for "overloaded".
        """
        status = answer.status
        if status < 300:
            return
        if status < 400:
            raise self._redirected(answer)
        message = self._without_key(message_of(answer.body) or f"it answers {status}")
        if status == 429:
            raise RateLimited(message, provider=self.name, retry_after=answer.retry_after)
        if status >= 500:
            raise Unavailable(message, provider=self.name, unknown=status not in NOT_DONE)
        raise Refused(message, provider=self.name, hint=self._hint_for(status))

    def _hint_for(self, status: int) -> str:
        """Return what the user can do about a refusal, "" where the status does not say."""
        if status in (401, 403):
            return f"check providers.{self.name}.api_key"
        if status == 402:
            return f"the account at {self.name} is out of credit: add some there"
        if status in (404, 405):
            return (
                f"check providers.{self.name}.url, below which /chat/completions has to be, and the"
                f" model's name in providers.{self.name}.models"
            )
        return ""

    def _redirected(self, answer: Answer) -> Refused:
        """Return the refusal of an answer that points elsewhere: a question is not sent on."""
        target = answer.headers.get("location", "")[:200]
        message = self._without_key(f"it answers {answer.status}, which points to {target!r}")
        hint = f"set providers.{self.name}.url to the address it moved to, if you trust that"
        return Refused(message, provider=self.name, hint=hint)


class _Unusable(Exception):
    """An answer came and cannot be used; the message says why."""


def _retrieve(reading: asyncio.Task[Any]) -> None:
    """Look at a task's error, so that asyncio does not report it where nobody waits any more."""
    if not reading.cancelled():
        reading.exception()


def _address_and_base(url: str) -> tuple[str, str]:
    """Return an address, and the path below it that all requests begin with.

    `/v1` is told apart from the rest: an account's balance stands beside it, not below.
    """
    address = url.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    if address.endswith("/v1"):
        return address.removesuffix("/v1").rstrip("/"), "/v1"
    return address, "" if urlsplit(address).path else "/v1"
