"""OpenAI-compatible endpoints: one adapter, a profile for each dialect.

A chat endpoint has no key to ask by, so what was sent and not answered cannot be found out
(`finds` is false); a request is never sent twice by itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentkit.artifacts import Text
from agentkit.errors import (
    BadAmount,
    BadOutput,
    ConfigError,
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
from agentkit.market.offer import Offer, Pays, charge, priced
from agentkit.market.seams import ProviderInfo
from agentkit.market.task import Task, TaskSpec
from agentkit.money import Rate
from agentkit.providers.http import Answer, Http

USER_AGENT = "agentkit/0.1"
OFFERS_LAST = 300.0
MODELS_LAST = 15.0
ANSWER_SECONDS = 600.0
BOOKS_SECONDS = 30.0
SECONDS_PER_TOKEN = 0.02
"""A guess of how fast endpoints write, until runs measure it."""


MAX_ANSWER = 4 << 20
"""Bytes of an answer: some hundred thousand tokens, or the longest lists of models there are."""


@dataclass(frozen=True)
class Profile:
    """How one dialect differs from OpenAI's.

    `limit_field`: the name of the limit on answer tokens.  `billing`: where a top-up is claimed,
    under the root.
    """

    adapter: str
    rail: str
    pays: Pays
    limit_field: str = "max_tokens"
    billing: str = ""


GAIA = Profile("gaia", "elsewhere", "billed", "max_completion_tokens")
"""LlamaEdge's dialect: `max_tokens` is ignored, an unknown model is answered by another,
errors are plain text, no price anywhere."""

HYPERBOLIC = Profile("hyperbolic", "prepaid", "with_request", billing="/billing")
"""vLLM and FastAPI errors, a User-Agent is required, prepaid credit."""


@dataclass(frozen=True)
class Account:
    """What the user configured: prices, model names as the endpoint calls them, where to pay."""

    prices: Mapping[str, Rate]
    models: Mapping[str, str]
    payee: str = ""
    key: str = field(default="", repr=False)
    label: str = ""


@dataclass(frozen=True)
class Terms:
    """What an endpoint asks for; `finds` as in `market.offer.Offer`."""

    rates: dict[str, Rate]
    payee: str
    finds: bool = False


class OpenAI:
    """A provider behind an OpenAI-compatible endpoint; `url` ends in `/v1`."""

    def __init__(
        self, name: str, url: str, network: Network, profile: Profile, account: Account
    ) -> None:
        self._name = name
        self._network = network
        self._profile = profile
        self._account = account
        headers = {"User-Agent": USER_AGENT}
        if account.key:
            headers["Authorization"] = f"Bearer {account.key}"
        address = url.removesuffix("/").removesuffix("/v1")
        self._http = Http(name, address, headers, reuse=False, max_bytes=MAX_ANSWER)
        self._answers: dict[str, Result] = {}
        self._listed: tuple[float, Mapping[str, int]] = (0.0, {})

    @property
    def name(self) -> str:
        return self._name

    async def describe(self) -> ProviderInfo:
        return ProviderInfo(
            name=self.name,
            adapter=self._profile.adapter,
            finds=False,
            label=self._account.label,
            url=self._http.url,
            kinds=("infer",),
            models=tuple(sorted(await self._models(fresh=True))),
        )

    async def offers(self, spec: TaskSpec) -> Sequence[Offer]:
        model = self._model(spec)
        served = await self._models()
        if model not in served:
            raise Refused(f"it does not serve {model!r} now", provider=self.name)
        terms = await self._terms(model)
        try:
            price, at_most = priced(self._network.currency, terms.rates, spec.load)
        except BadAmount as error:
            raise Refused(
                str(error),
                provider=self.name,
                hint=f'set providers.{self.name}.price.input = "0.10 USDC per 1M tokens"',
            ) from error
        return [
            Offer(
                provider=self.name,
                node=spec.node.name,
                on=model,
                model=model,
                price=price,
                at_most=at_most,
                eta=0.3 + SECONDS_PER_TOKEN * spec.load.expected.get("output", 0),
                lanes=2,
                expires=time.time() + OFFERS_LAST,
                rail=self._profile.rail,
                pays=self._profile.pays,
                payee=terms.payee,
                rates=terms.rates,
                finds=terms.finds,
                context=served[model],
            )
        ]

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        path, body = self._request(task, offer.model)
        answer = await self._ask(path, body, attempt, payment)
        result = self._result(task, offer, answer)
        self._answers[attempt.id] = self._billed(result, answer, payment)
        return JobStatus(state="done")

    async def find(self, attempt: Attempt) -> JobStatus | None:
        raise ProtocolBroken("a chat endpoint cannot be asked for an attempt", provider=self.name)

    async def status(self, attempt: Attempt) -> JobStatus:
        if attempt.id not in self._answers:
            raise LeaseLost("the answer is not here", provider=self.name)
        return JobStatus(state="done")

    async def result(self, attempt: Attempt) -> Result:
        await self.status(attempt)
        return self._answers.pop(attempt.id)

    async def cancel(self, attempt: Attempt) -> None:
        self._answers.pop(attempt.id, None)

    async def carry(self, message: Message) -> Message:
        if not self._profile.billing or message.verb not in ("topup", "statement"):
            raise Refused(f"it takes no message {message.verb!r}", provider=self.name)
        if message.verb == "statement":
            return message.model_copy(update={"verb": "stated", "body": await self._books()})
        path = f"{self._profile.billing}/topup"
        answer = await self._http.send("POST", path, json=message.body)
        self._check_status(answer)
        return message.model_copy(update={"verb": "credited"})

    async def close(self) -> None:
        await self._http.close()

    # -- what a dialect may do otherwise ----------------------------------------------------------

    async def _terms(self, model: str) -> Terms:
        """Return at which rates the endpoint answers, and whom that pays."""
        return Terms(self._rates(), self._account.payee)

    async def _ask(
        self, path: str, body: dict[str, Any], attempt: Attempt, payment: Payment
    ) -> Answer:
        """Make the request that is paid for, and return its good answer."""
        answer = await self._http.send("POST", path, json=body, seconds=ANSWER_SECONDS)
        self._check_status(answer)
        return answer

    def _billed(self, result: Result, answer: Answer, payment: Payment) -> Result:
        """Return a result with what the endpoint says of its bill."""
        return result

    # -- inside ----------------------------------------------------------------------------------

    async def _books(self) -> dict[str, Any]:
        """Return what the provider says that it was paid in advance, and debited since."""
        answer = await self._http.read(f"{self._profile.billing}/balance", seconds=BOOKS_SECONDS)
        self._check_status(answer)
        try:
            said = json.loads(answer.body)
            return {
                "topped_up": int(said["topped_up"]),
                "debits": {str(one["answer"]): int(one["units"]) for one in said["debits"]},
            }
        except _UNREADABLE as error:
            raise ProtocolBroken("its books cannot be read", provider=self.name) from error

    def _rates(self) -> dict[str, Rate]:
        """Return the configured prices; a price for each request is nothing unless it is set."""
        currency = self._network.currency
        rates = {unit: rate.bind(currency) for unit, rate in self._account.prices.items()}
        free = Rate(currency.zero(), 1, "request")
        return {"request": free, **rates}

    def _model(self, spec: TaskSpec) -> str:
        """Return what the endpoint calls the spec's model, by any of its known names.

        Raises Refused where none of them is configured; it never guesses.
        """
        needed = bought_kind(spec.node).chat_requirements(spec.node)
        if needed is None or not needed.model:
            raise Refused("it only answers prompts, with models of its own", provider=self.name)
        if needed.output != "text":
            raise Refused("it gives plain text only", provider=self.name)
        known = self._account.models
        name = next((name for name in names_of(needed.model) if name in known), None)
        if name is None:
            raise Refused(
                f"no name is known here for the model {needed.model!r}",
                provider=self.name,
                hint=f'set providers.{self.name}.models."{needed.model}" to its name there',
            )
        return known[name]

    async def _models(self, *, fresh: bool = False) -> Mapping[str, int]:
        """Return the models served, and how many tokens each takes, 0 where nobody says."""
        asked, known = self._listed
        if not fresh and time.monotonic() - asked < MODELS_LAST and known:
            return known
        answer = await self._http.read("/v1/models", seconds=10.0)
        self._check_status(answer)
        try:
            listed = {str(item["id"]): _context(item) for item in json.loads(answer.body)["data"]}
        except _UNREADABLE as error:
            raise ProtocolBroken("its list of models cannot be read", provider=self.name) from error
        self._listed = (time.monotonic(), listed)
        return listed

    def _request(self, task: Task, model: str) -> tuple[str, dict[str, Any]]:
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
        try:
            document = json.loads(answer.body)
            choice = document["choices"][0]
            text = choice["message"]["content"] if "message" in choice else choice["text"]
            usage = self._usage(task, document.get("usage") or {})
            model = str(document["model"])
            price = charge(self._network.currency, offer.rates, usage)
            output = Text.of(str(text or "").strip().encode())
        except _UNREADABLE as error:
            raise BadOutput("its answer cannot be read", provider=self.name) from error
        if model != offer.model:
            raise BadOutput(f"it answered with {model!r}, not {offer.model!r}", provider=self.name)
        evidence = Evidence(reference=str(document.get("id") or "")[:100])
        return Result((output,), usage, price, evidence, model)

    def _usage(self, task: Task, counted: Mapping[str, Any]) -> dict[str, int]:
        """Return the endpoint's own counts; one it leaves out is taken at its most."""
        most = task.load.most
        found: dict[str, Any] = {
            "request": 1,
            "input": counted.get("prompt_tokens"),
            "output": counted.get("completion_tokens"),
        }
        known = {unit: int(count) for unit, count in found.items() if count is not None}
        return {unit: known.get(unit, limit) for unit, limit in most.items()}

    def _check_status(self, answer: Answer) -> None:
        """Raise what an unsuccessful answer means; 5xx leaves unknown whether it was done."""
        status, who = answer.status, self.name
        if status < 300:
            return
        said = message_of(answer.body) or f"it answers {status}"
        if self._account.key:
            said = said.replace(self._account.key, "***")
        if status == 429:
            raise RateLimited(said, provider=who, retry_after=answer.retry_after)
        if status in (401, 403):
            raise Refused(said, provider=who, hint=f"check providers.{who}.api_key")
        if status >= 500:
            raise Unavailable(said, provider=who, unknown=status not in (501, 503))
        raise Refused(said, provider=who)


_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading a provider's JSON raises when it is not what it should be."""


def message_of(body: bytes) -> str:
    """Return what an error body says, whichever of the dialects it is in."""
    text = body.decode(errors="replace").strip()
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return "" if text.startswith("<") else text.splitlines()[0][:300] if text else ""
    if not isinstance(document, dict):
        return str(document)[:300]
    error = document.get("error")
    if isinstance(error, dict):
        return str(error.get("message", ""))[:300]
    detail = document.get("detail")
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        place = detail[0].get("loc")
        where = ".".join(map(str, place)) if isinstance(place, list) else "request"
        return f"{where}: {detail[0].get('msg', '')}"[:300]
    return str(error or document.get("message") or detail or "")[:300]


def _context(model: Mapping[str, Any]) -> int:
    """Return how many tokens a listed model takes, 0 where the endpoint does not say.

    `context_length` is what several networks call it, `max_model_len` is vLLM's.
    """
    given = model.get("context_length") or model.get("max_model_len")
    return given if isinstance(given, int) and 0 < given < 2**40 else 0


def check_prices(name: str, account: Account) -> None:
    """Raise ConfigError for prices that no unit of work has."""
    odd = sorted(set(account.prices) - {"input", "output", "request"})
    if odd:
        raise ConfigError(
            f"providers.{name}.price.{odd[0]} is not a price of this adapter",
            hint="set price.input, price.output or price.request",
        )
