"""The adapter for any address on the web that asks for a payment by x402.

It answers nodes of the kind `request` alone.  Each address is a provider node of its own, whose
name is the address without its query.
"""

from __future__ import annotations

import base64
import json
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from agentkit import strict_json
from agentkit.artifacts import Json
from agentkit.errors import LeaseLost, ProtocolBroken, Refused, Unavailable
from agentkit.kinds.kind import WebRequest
from agentkit.kinds.registry import bought_kind
from agentkit.market import batch_settlement
from agentkit.market.attempt import Attempt, JobStatus, Message, Payment, Result
from agentkit.market.chain import Network
from agentkit.market.offer import Offer
from agentkit.market.seams import ProviderInfo
from agentkit.market.task import Task, TaskSpec
from agentkit.market.x402 import Challenge, Requirement
from agentkit.money import Rate
from agentkit.net.public import is_public
from agentkit.providers.http import Answer, Http
from agentkit.providers.openai import message_of
from agentkit.providers.x402_client import PaidRequest, X402Client, channel_terms, takes

NAME = "web"
"""The name of this provider, unless the user has one of that name."""

MAX_ANSWER = 4 * 1024 * 1024
"""The most bytes of an answer that are kept."""

MAX_KEPT_ANSWERS = 64
"""Answers that are kept, so that `find` can return them."""

MAX_HOSTS = 64
"""Hosts to which connections are held."""

OFFERS_LAST = 300.0
"""Seconds for which an offer is valid."""

USER_AGENT = "agentkit"


class Web:
    """Buys answers of any address; see `market.seams.Provider`.

    Hosts of this machine's own network are refused, except on a test network.
    """

    def __init__(self, name: str, network: Network) -> None:
        self._name = name
        self._network = network
        self._https: OrderedDict[str, Http] = OrderedDict()
        self._answers: OrderedDict[str, Result] = OrderedDict()

    @property
    def name(self) -> str:
        return self._name

    async def describe(self) -> ProviderInfo:
        """Return that any address may be asked."""
        return ProviderInfo(name=self.name, adapter="web", finds=True, kinds=("request",))

    async def offers(self, spec: TaskSpec) -> Sequence[Offer]:
        """Return an offer for each way to pay for a request, none for other work."""
        wanted = bought_kind(spec.node).web_request(spec.node)
        if wanted is None:
            return []
        client, request = await self._client(wanted)
        challenge = await client.inspect(request)
        return [
            self._offer(spec.node.name, wanted, way, challenge=challenge, client=client)
            for way in client.ways(challenge)
        ]

    async def look(self, wanted: WebRequest) -> Answer:
        """Send a request without paying, and return the answer, whatever it is."""
        client, request = await self._client(wanted)
        return await client.ask(request)

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        """Send a paid request and keep its answer, which `result` returns."""
        if await self.find(attempt):  # the same attempt again is the same answer
            return JobStatus(state="done")
        client, request = await self._client(WebRequest(**task.params))
        answer = await client.pay(request, attempt, payment)
        result = Result(
            outputs=(Json.dump(answer_document(answer)),),
            usage={"request": 1},
            price=offer.at_most,
        )
        self._answers[attempt.id] = client.with_bill(result, answer, payment)
        if len(self._answers) > MAX_KEPT_ANSWERS:
            self._answers.popitem(last=False)
        return JobStatus(state="done")

    async def find(self, attempt: Attempt) -> JobStatus | None:
        """Return whether the answer is here; any other is found by submitting it again."""
        return JobStatus(state="done") if attempt.id in self._answers else None

    async def status(self, attempt: Attempt) -> JobStatus:
        """Return that an answer is here; raises LeaseLost for one that was lost."""
        if attempt.id not in self._answers:
            raise LeaseLost("the answer is not here", provider=self.name)
        return JobStatus(state="done")

    async def result(self, attempt: Attempt) -> Result:
        """Return the answer to an attempt; raises LeaseLost."""
        await self.status(attempt)
        return self._answers[attempt.id]

    async def cancel(self, attempt: Attempt) -> None:
        """Drop the answer to an attempt; the address cannot be told."""
        self._answers.pop(attempt.id, None)

    async def carry(self, message: Message) -> Message:
        """Ask what a channel is charged, or for what it has left; raises Refused."""
        if not takes(message):
            raise Refused(f"it takes no message {message.verb!r}", provider=self.name)
        method, _, url = message.provider_node.partition(" ")
        try:
            return await self._carry(message, "GET", url)
        except (Refused, ProtocolBroken):
            if method == "GET":
                raise
        # A seller may answer only the method that it sells, and that without a body.
        return await self._carry(message, method, url)

    async def _carry(self, message: Message, method: str, url: str) -> Message:
        client, request = await self._client(WebRequest(url, method))
        return await client.carry(message, request)

    async def close(self) -> None:
        """Close the connections."""
        while self._https:
            await self._https.popitem()[1].close()

    # -- inside ----------------------------------------------------------------------------------

    def _offer(
        self,
        node: str,
        wanted: WebRequest,
        way: Requirement,
        *,
        challenge: Challenge,
        client: X402Client,
    ) -> Offer:
        """Return the offer of one way to pay for a node's request."""
        is_channel = way.scheme == batch_settlement.SCHEME
        amount = client.amount(way)
        return Offer(
            provider=self.name,
            provider_node=f"{wanted.method} {_without_query(wanted.url)}",
            node=node,
            on=urlsplit(wanted.url).netloc,
            price=amount,
            at_most=amount,
            eta=1.0,
            lanes=1,
            expires=time.time() + OFFERS_LAST,
            rail=client.rail(way),
            pays="with_request",
            payee=way.payee,
            channel=channel_terms(way),
            rates={"request": Rate(amount, 1, "request")},
            finds=challenge.identifies or is_channel,
        )

    async def _client(self, wanted: WebRequest) -> tuple[X402Client, PaidRequest]:
        """Return who sends a request, and the request.

        Raises Refused for a host that is not public.
        """
        parts = urlsplit(wanted.url)
        if not self._network.test and not await is_public(parts.hostname or ""):
            raise Refused(
                f"{(parts.hostname or '')[:100]!r} is not a host of the public internet",
                provider=self.name,
            )
        http = await self._http(f"{parts.scheme}://{parts.netloc}")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        client = X402Client(self.name, self._network, http, self._check_status)
        return client, _request(wanted, path)

    async def _http(self, address: str) -> Http:
        """Return the connections to an address; those that were not used for longest are closed."""
        http = self._https.get(address)
        if http is None:
            headers = {"User-Agent": USER_AGENT}
            http = Http(
                self.name,
                address,
                headers,
                max_bytes=MAX_ANSWER,
                public=not self._network.test,
            )
            self._https[address] = http
        self._https.move_to_end(address)
        if len(self._https) > MAX_HOSTS:
            _, oldest = self._https.popitem(last=False)
            await oldest.close()
        return http

    def _check_status(self, answer: Answer) -> None:
        """Raise the error that an answer to an unpaid request means, None for success."""
        if answer.status < 300:
            return
        told = message_of(answer.body) or f"it answers {answer.status}"
        if answer.status == 429 or answer.status >= 500:
            raise Unavailable(told, provider=self.name)
        raise Refused(told, provider=self.name)


def answer_document(answer: Answer) -> dict[str, Any]:
    """Return an answer as JSON: its status, media type, and its body in the form that fits it."""
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    document: dict[str, Any] = {"status": answer.status, "media_type": media_type}
    if media_type == "application/json" or media_type.endswith("+json"):
        try:
            return {**document, "json": strict_json.loads(answer.body)}
        except (ValueError, RecursionError):
            pass  # it is not what it says; then it is text, or bytes
    try:
        return {**document, "text": answer.body.decode()}
    except UnicodeDecodeError:
        return {**document, "base64": base64.b64encode(answer.body).decode()}


def _request(wanted: WebRequest, path: str) -> PaidRequest:
    """Return a request with its body, as JSON unless it is text."""
    headers = dict(wanted.headers)
    if wanted.body is None:
        return PaidRequest(wanted.method, path, headers=headers)
    if isinstance(wanted.body, str):
        return PaidRequest(wanted.method, path, data=wanted.body.encode(), headers=headers)
    data = json.dumps(wanted.body).encode()
    headers = {"Content-Type": "application/json", **headers}
    return PaidRequest(wanted.method, path, data=data, headers=headers)


def _without_query(url: str) -> str:
    return url.partition("?")[0]
