"""What sealing asks of a wallet's key."""

from __future__ import annotations

from typing import Protocol

from agentkit.keys.messages import ItemMessage


class Sealer(Protocol):
    """What sealing asks of a wallet's key; every `keys.signer.Signer` has it."""

    @property
    def address(self) -> str: ...

    @property
    def public_key(self) -> bytes: ...

    def sign_item(self, item: ItemMessage) -> bytes: ...

    def derive(self, info: str) -> bytes: ...
