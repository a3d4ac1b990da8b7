"""The part of a wallet's signer that sealing needs."""

from __future__ import annotations

from typing import Protocol

from agentkit.keys.messages import ItemMessage


class Sealer(Protocol):
    """Signs and derives keys from a wallet's key; every `keys.signer.Signer` is one."""

    @property
    def address(self) -> str:
        """The wallet's EVM address."""

    @property
    def public_key(self) -> bytes:
        """The uncompressed public key, 65 bytes."""

    def sign_item(self, item: ItemMessage) -> bytes:
        """Sign an Arweave data item."""

    def derive(self, info: str) -> bytes:
        """Return a secret key for the purpose that `info` names, always the same for one wallet."""
