"""A payer over channels whose payments are made by hand, so that each may be wrong in one way."""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from agentkit.keys.channel_messages import ChannelConfig, ChannelVoucher
from agentkit.keys.messages import ReceiveAuthorization
from agentkit.keys.signer import KeySigner
from agentkit.market.batch_settlement import ERC3009_COLLECTOR, Config
from agentkit.market.chain import SETTLEMENT
from agentkit.payments.channels import contract
from support.channel_market import DELAY
from support.x402_market import World

ERROR = "invalid_batch_settlement_evm_"


@dataclass
class Hand:
    """One channel of a wallet with `key`, with a seller."""

    world: World
    seller: str
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    changes: dict[str, Any] = field(default_factory=dict)
    salt: int = 0

    @property
    def signer(self) -> KeySigner:
        return KeySigner(self.key)

    @property
    def config(self) -> ChannelConfig:
        plain = ChannelConfig(
            payer=self.signer.address,
            payer_authorizer=self.signer.address,
            receiver=self.seller,
            receiver_authorizer=self.seller,
            token=self.world.network.token,
            withdraw_delay=DELAY,
            salt=bytes(32),
        )
        return replace(plain, **self.changes)

    @property
    def channel(self) -> bytes:
        return self.config.id(self.world.network.settlement_domain)

    async def fill(self, units: int) -> None:
        """Mint `units` and put them into the channel, past every facilitator."""
        await self.world.mint(self.config.payer, units)
        deposit = self.deposit(units)["authorization"]["erc3009Authorization"]
        data = contract.erc3009_data(
            0, int(deposit["validBefore"]), self.salt, bytes.fromhex(deposit["signature"][2:])
        )
        call = contract.deposit_call(self.config, units, ERC3009_COLLECTOR, data)
        await self.world.send(SETTLEMENT, call)

    def deposit(self, units: int) -> dict[str, Any]:
        """Sign a deposit."""
        self.salt += 1
        until = int(time.time()) + 100_000
        authorization = ReceiveAuthorization(
            payer=self.config.payer,
            payee=ERC3009_COLLECTOR,
            units=units,
            valid_before=until,
            nonce=contract.erc3009_nonce(self.channel, self.salt),
        )
        signature = self.signer.sign_authorization(self.world.network.token_domain, authorization)
        drawing = {
            "validAfter": "0",
            "validBefore": str(until),
            "salt": f"0x{self.salt:064x}",
            "signature": "0x" + signature.hex(),
        }
        return {"amount": str(units), "authorization": {"erc3009Authorization": drawing}}

    def voucher(self, ceiling: int) -> dict[str, str]:
        message = ChannelVoucher(self.channel, ceiling)
        signature = self.signer.sign_channel_voucher(self.world.network.settlement_domain, message)
        return {
            "channelId": "0x" + self.channel.hex(),
            "maxClaimableAmount": str(ceiling),
            "signature": "0x" + signature.hex(),
        }

    def header(
        self, ceiling: int, *, kind: str = "voucher", identifier: str = "", **payload: Any
    ) -> dict[str, str]:
        """Return the header with a payment; `payload` replaces what is in it."""
        network = self.world.network
        accepted = {
            "scheme": "batch-settlement",
            "network": network.id,
            "asset": network.token,
            "amount": "1000",
            "payTo": self.seller,
            "maxTimeoutSeconds": 120,
            "extra": {
                "receiverAuthorizer": self.seller,
                "withdrawDelay": DELAY,
                "name": network.token_name,
                "version": network.token_version,
            },
        }
        document: dict[str, Any] = {
            "x402Version": 2,
            "accepted": accepted,
            "payload": {
                "type": kind,
                "channelConfig": Config.of(self.config).document(),
                "voucher": self.voucher(ceiling),
                **payload,
            },
        }
        if identifier:
            document["extensions"] = {
                "payment-identifier": {"info": {"required": False, "id": identifier}}
            }
        text = json.dumps(document).encode()
        return {"PAYMENT-SIGNATURE": base64.b64encode(text).decode()}


async def post(url: str, headers: dict[str, str], body: Any = None) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as plain:
        return await plain.post(url, json=body or {"ask": 1}, headers=headers)
