"""The payer's side of a quote: asks for it, and checks that it is what was asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from agentkit.errors import ProtocolBroken
from agentkit.market.attempt import Attempt, Message
from agentkit.market.chain import Network
from agentkit.market.offer import Offer
from agentkit.payments.escrow.terms import EscrowJob

MAX_WINDOW = timedelta(days=30).total_seconds()
"""Times and windows beyond this are refused, as the contract does."""

MIN_JUDGE_WINDOW = 900
"""Seconds that a payer wants for refusing a result."""

MIN_ARBITER_WINDOW = 86_400
"""Seconds that a payer wants an arbiter to have for deciding."""

MAX_DEFAULT_BPS = 5000
"""What a payee may keep of a disputed price where the arbiter is silent, in 1/10000."""


class QuoteRequests:
    """Asks for quotes as one payer and arbiter, and takes those that answer a request."""

    def __init__(self, payer: str, arbiter: str, network: Network) -> None:
        self._payer = payer
        self._arbiter = arbiter
        self._network = network
        self._requested: dict[str, Attempt] = {}  # by id

    def request(self, offer: Offer, attempt: Attempt) -> Message:
        """Return the message that asks an offer's provider for the quote of an attempt."""
        self._requested[attempt.id] = attempt
        return Message(
            rail="escrow",
            provider=attempt.provider,
            provider_node=attempt.provider_node,
            verb="quote",
            body={
                "attempt": attempt.id,
                "task": attempt.task,
                "payer": self._payer,
                "arbiter": self._arbiter,
                "price": attempt.at_most.units,
                "seconds": offer.eta,
            },
        )

    def read_answer(self, answer: Message) -> tuple[Attempt, EscrowJob]:
        """Return the attempt that was quoted for and its job.

        Raises ProtocolBroken for a quote that was not requested, or differs from the request:
        whatever is returned here may be paid for.
        """
        attempt = self._requested.pop(str(answer.body.get("attempt")), None)
        if attempt is None:
            raise ProtocolBroken("it quotes what nobody asked for", provider=answer.provider)
        job = _read_job(answer.body, attempt)
        problem = self._problem_with(job, attempt)
        if problem:
            raise ProtocolBroken(f"its quote {problem}", provider=attempt.label)
        return attempt, job

    def _problem_with(self, job: EscrowJob, attempt: Attempt) -> str:
        """Return why a quote must not be opened, "" where it may."""
        quote = job.quote
        now = time.time()
        longest_window = max(quote.judge_window, quote.arbiter_window)
        problems = (
            (quote.payer.lower() != self._payer.lower(), "is for another payer"),
            (quote.provider.lower() != attempt.payee.lower(), "pays somebody else"),
            (quote.token.lower() != self._network.token.lower(), "is in another token"),
            (quote.price != attempt.at_most.units, f"is not over {attempt.at_most}"),
            (quote.arbiter.lower() != self._arbiter.lower(), "names another arbiter"),
            (quote.task_id != bytes.fromhex(attempt.id), "is for another attempt"),
            (quote.spec_hash != bytes.fromhex(attempt.task), "is for another task"),
            (
                not now < quote.deliver_by < now + MAX_WINDOW,
                "is to be delivered at an odd time",
            ),
            (longest_window > MAX_WINDOW, "asks for odd windows"),
            (quote.quote_expiry < now, "has expired"),
            (quote.quote_expiry > now + MAX_WINDOW, "lasts too long"),
            (not job.is_signed(self._network), "is not signed by its payee"),
            (quote.judge_window < MIN_JUDGE_WINDOW, "leaves no time to judge"),
            (quote.arbiter_window < MIN_ARBITER_WINDOW, "leaves no time to the arbiter"),
            (quote.default_bps > MAX_DEFAULT_BPS, "keeps more than half without the arbiter"),
        )
        return next((problem for applies, problem in problems if applies), "")


def _read_job(body: Mapping[str, Any], attempt: Attempt) -> EscrowJob:
    """Return the job that a provider quoted; raises ProtocolBroken for anything else."""
    try:
        return EscrowJob.read(body)
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise ProtocolBroken("its quote cannot be read", provider=attempt.label) from error
