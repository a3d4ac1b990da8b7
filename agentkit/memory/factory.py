"""The way to Arweave that the settings ask for."""

from __future__ import annotations

import asyncio

from agentkit.config import MemorySettings
from agentkit.errors import ConfigError
from agentkit.journal.journal import Journal
from agentkit.market.uploads import UploadPayer
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.arweave.jwk import JwkWallet
from agentkit.memory.uploads.bundler import AR, Layer1, UploadLimits
from agentkit.memory.uploads.outbox import Outbox
from agentkit.memory.uploads.turbo import Turbo, TurboClient
from agentkit.memory.uploads.upload_paths import Direct, UploadPath
from agentkit.money import Asset, Money


def kind_of(settings: MemorySettings, *, real: bool) -> str:
    """Return which path is used: without a network, items go to the gateway itself."""
    return settings.upload or ("turbo" if real else "embedded")


async def open_path(
    settings: MemorySettings,
    journal: Journal,
    gateways: Gateways,
    *,
    real: bool,
    owner: str,
    payer: UploadPayer | None = None,
) -> UploadPath:
    """Return the path that is set; `payer` pays for uploads over x402.

    On a real network a limit that is missing is a refusal.  Raises ConfigError, WrongKey.
    """
    outbox = Outbox(journal)
    kind = kind_of(settings, real=real)
    if kind == "l1":
        limits = _limits(settings, AR)
        if real and limits.total is None:
            raise _missing("total", "uploads in AR have no limit", '"0.05 AR"')
        if settings.jwk is None:
            raise _missing("jwk", "there is no AR wallet to upload with", '"~/wallet.json"')
        wallet = await asyncio.to_thread(JwkWallet.load, settings.jwk.expanduser())
        return Layer1(outbox, gateways, wallet, limits, settings.interval)
    if kind == "turbo":
        client = TurboClient(settings.turbo)
        if settings.pay == "credits":
            return Turbo(outbox, gateways, client, owner=owner)
        limits = _limits(settings, Asset.named("USDC"))
        if limits.per_upload is None:
            raise _missing("per_upload", "uploads over x402 have no limit", '"0.01 USDC"')
        return Turbo(
            outbox, gateways, client, owner=owner, payer=payer, per_upload=limits.per_upload
        )
    return Direct(outbox, gateways)


def _limits(settings: MemorySettings, asset: Asset) -> UploadLimits:
    """Return the limits on uploads; raises ConfigError for one in another asset."""
    for name in ("per_upload", "total"):
        limit: Money | None = getattr(settings, name)
        if limit is not None and limit.asset != asset:
            raise ConfigError(
                f"memory.{name} is {limit}, and these uploads are paid in {asset.symbol}",
                hint=f"write memory.{name} in {asset.symbol}",
            )
    return UploadLimits(settings.per_upload, settings.total)


def _missing(key: str, what: str, example: str) -> ConfigError:
    return ConfigError(what, hint=f"set memory.{key} = {example}")
