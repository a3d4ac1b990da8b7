"""What a provider node does to claim what it earned, one payer at a time."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from agentkit.errors import PaymentError, ProviderError

log = logging.getLogger(__name__)


async def log_failure(claim: Awaitable[object], subject: str) -> None:
    """Wait for a claim; log its failure under `subject`, so that the other claims go on."""
    try:
        await claim
    except (PaymentError, ProviderError) as error:
        log.warning("%s: %s", subject, error)
