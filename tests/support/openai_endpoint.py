"""The endpoint of an OpenAI-compatible provider: its key, its model and what that costs."""

from __future__ import annotations

from agentkit.money import Rate

KEY = "sk-never-to-be-shown"
SERVED = "theirs/model-1"
PRICES = {
    "input": Rate.parse("10 USDC per 1M tokens"),
    "output": Rate.parse("20 USDC per 1M tokens"),
}
