"""How the dialects of OpenAI-compatible endpoints differ."""

from __future__ import annotations

from dataclasses import dataclass

from agentkit.market.offer import Pays


@dataclass(frozen=True)
class Profile:
    """How one dialect differs from OpenAI's.

    `limit_field`: the name of the limit on answer tokens.  `balance`: the path at which the credit
    that is left is read, in cents; `binding`: the path at which the address that tops it up is
    set; "" where there is no credit.
    """

    adapter: str
    rail: str
    pays: Pays
    limit_field: str = "max_tokens"
    balance: str = ""
    binding: str = ""


GAIA = Profile("gaia", "elsewhere", "billed", "max_completion_tokens")
"""LlamaEdge's dialect: it ignores `max_tokens`, answers for an unknown model with another one,
sends errors as plain text, and names no price."""

HYPERBOLIC = Profile(
    "hyperbolic",
    "prepaid",
    "with_request",
    balance="/billing/get_current_balance",
    binding="/settings/crypto-address",
)
"""The dialect of vLLM, with errors of FastAPI; it requires a User-Agent and has prepaid credit.

There is no call for a top-up: what the bound address transfers to its deposit address is credited.
"""
