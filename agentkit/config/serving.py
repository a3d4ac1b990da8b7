"""The table `[serve]`: how a provider node is run, as `agentkit serve` reads it."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from agentkit.config.secrets import SecretIn, Section
from agentkit.money import Money, Rate

NODE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
"""A node's name; its state lies in a folder of that name."""


class ServeSettings(Section):
    """How a provider node is run; each flag of `agentkit serve` wins over its key here.

    `percent` scales the price list, of which `price` replaces single rates:
    `[serve.price.infer]` with `input = "0.40 USDC per 1M tokens"`.  `window` is how much is
    delivered to a payer before the next voucher is required.  `offers_last` is in seconds.
    `facilitator` settles x402 payments and pays the gas; a chat that is paid in advance costs
    `request_price`.  `host_names` are the names under which a proxy publishes the node.

    `api_keys` open the OpenAI-compatible API for nothing.  `token` opens what is the operator's
    (`/executions`, `/metrics`); with `public_metrics` anybody may read `/metrics`.
    """

    name: str = "node"
    label: str = Field(default="", max_length=200)
    port: int = Field(default=8700, ge=1, le=65_535)
    slots: int = Field(default=1, ge=1, le=64)
    threads: int = Field(default=1, ge=1, le=256)
    nice: int = Field(default=0, ge=0, le=19)
    percent: int = Field(default=100, ge=1, le=1_000_000)
    price: dict[str, dict[str, Rate]] = {}
    window: Money = Money.parse("0.05 USDC")
    offers_last: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    facilitator: str = ""
    request_price: Money = Money.parse("0.001 USDC")
    host_names: tuple[str, ...] = ()
    gpu: str = Field(default="", max_length=200)
    vram: int = Field(default=0, ge=0)
    api_keys: tuple[SecretIn, ...] = ()
    token: SecretIn | None = None
    public_metrics: bool = False

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, given: str) -> str:
        if not NODE_NAME.fullmatch(given):
            raise ValueError(
                f"a node cannot be called {given[:64]!r}; a name has letters, digits, dots, dashes"
                " and underscores"
            )
        return given

    @field_validator("facilitator")
    @classmethod
    def _with_scheme(cls, given: str) -> str:
        if given and not given.startswith(("http://", "https://")):
            raise ValueError(f"{given!r} has no http:// or https://")
        return given

    @property
    def secrets(self) -> dict[str, SecretIn]:
        """Every secret that clients of the node send to it, by its key."""
        named = {f"serve.api_keys.{number}": key for number, key in enumerate(self.api_keys)}
        return named | ({"serve.token": self.token} if self.token else {})
