"""Builds the upload path to Arweave that the settings choose."""

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


def upload_kind(settings: MemorySettings, *, real: bool) -> str:
    """Return which upload path is used: by default Turbo on a real network, else "embedded"."""
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
    """Return the upload path that the settings choose.

    `owner` is the wallet's address, `payer` pays for uploads over x402.  Raises ConfigError, also
    where a limit on spending is missing, and WrongKey for a bad AR wallet.
    """
    outbox = Outbox(journal)
    match upload_kind(settings, real=real):
        case "l1":
            return await _open_layer1(settings, outbox, gateways, real=real)
        case "turbo":
            return _open_turbo(settings, outbox, gateways, owner=owner, payer=payer)
        case _:
            return Direct(outbox, gateways)


async def _open_layer1(
    settings: MemorySettings, outbox: Outbox, gateways: Gateways, *, real: bool
) -> Layer1:
    """Return the path through layer-1 transactions, which an AR wallet pays for."""
    limits = _limits(settings, AR)
    if real and limits.total is None:
        raise _missing("total", "uploads in AR have no limit", '"0.05 AR"')
    if settings.jwk is None:
        raise _missing("jwk", "there is no AR wallet to upload with", '"~/wallet.json"')
    wallet = await asyncio.to_thread(JwkWallet.load, settings.jwk.expanduser())
    return Layer1(outbox, gateways, wallet=wallet, limits=limits, rest=settings.interval)


def _open_turbo(
    settings: MemorySettings,
    outbox: Outbox,
    gateways: Gateways,
    *,
    owner: str,
    payer: UploadPayer | None,
) -> Turbo:
    """Return the path through Turbo, paid by its credits or in USDC over x402."""
    client = TurboClient(settings.turbo)
    if settings.pay == "credits":
        return Turbo(outbox, gateways, client, owner=owner)
    limits = _limits(settings, Asset.named("USDC"))
    if limits.per_upload is None:
        raise _missing("per_upload", "uploads over x402 have no limit", '"0.01 USDC"')
    return Turbo(
        outbox,
        gateways,
        client,
        owner=owner,
        payer=payer,
        per_upload=limits.per_upload,
    )


def _limits(settings: MemorySettings, asset: Asset) -> UploadLimits:
    """Return the limits on uploads; raises ConfigError for one in another asset."""
    for name in ("per_upload", "total"):
        limit: Money | None = getattr(settings, name)
        if limit is not None and limit.asset != asset:
            raise ConfigError(
                f"memory.{name} is {limit}, and these uploads are paid in {asset.symbol}",
                hint=f"write memory.{name} in {asset.symbol}",
            )
    return UploadLimits(per_upload=settings.per_upload, total=settings.total)


def _missing(key: str, problem: str, example: str) -> ConfigError:
    return ConfigError(problem, hint=f"set memory.{key} = {example}")
