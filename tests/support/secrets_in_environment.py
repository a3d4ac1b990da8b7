"""An environment that holds secrets, each of one value that a test can look for."""

from __future__ import annotations

import pytest

CANARY = "canary-7b1e"
SECRETS = (
    "AGENTKIT_PASSPHRASE",
    "AGENTKIT_PROVIDERS__HYPERBOLIC__API_KEY",
    "HYPERBOLIC_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "OPENAI_API_KEY",
    "SOMETHING_NOBODY_KNOWS",
)


@pytest.fixture(autouse=True)
def canary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put them there, in the tests of a file that imports this."""
    for name in SECRETS:
        monkeypatch.setenv(name, CANARY)
