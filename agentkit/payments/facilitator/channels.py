"""The scheme `batch-settlement` as a facilitator settles it.

A deposit, a batch of claims, a settlement and a refund are each one transaction, named after what
it does on the chain: a deposit after its authorization, a claim after its rows, a settlement after
what was claimed before, a refund after its nonce.  So asked again it is the same transaction.  What
it did is read from the contract's own logs.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import logging
from collections.abc import Mapping
from typing import Any

from agentkit.errors import IntentMismatch, MissingExtra, ProtocolBroken, SettlementFailed
from agentkit.journal.journal import Journal
from agentkit.keys.messages import address_word, keccak, word
from agentkit.market.batch_settlement import (
    ERC3009_COLLECTOR,
    MAX_ROWS,
    PERMIT2_COLLECTOR,
    SCHEME,
    ClaimPayload,
    ClaimRow,
    DepositPayload,
    RefundOrder,
    SettlePayload,
    payload_in,
    settle_payload,
)
from agentkit.market.chain import SETTLEMENT, ChainClient, ChainReceipt, Network
from agentkit.market.x402 import Requirement, Settled, Verified
from agentkit.money import Money
from agentkit.payments.channels import contract
from agentkit.payments.facilitator.gas import CLAIM_GAS, MOST_GAS
from agentkit.payments.facilitator.sdk import LateScheme, channel_scheme, verified_by
from agentkit.payments.facilitator.tries import Tries
from agentkit.payments.sender import Sender
from agentkit.payments.x402.remote import MOST_CLAIMS

ERROR = "invalid_batch_settlement_evm_"
"""How the scheme's error codes begin."""

log = logging.getLogger(__name__)


class ChannelSettling:
    """Settles payments by `batch-settlement`; see `payments.facilitator.service.Settling`."""

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        sender: Sender,
        network: Network,
        address: str,
        *,
        least: Money | None = None,
    ) -> None:
        """Settle through `sender`, whose address is `address`, what moves at least `least`."""
        self._journal = journal
        self._chain = chain
        self._sender = sender
        self._network = network
        self._least = least.bind(network.currency).units if least else 1
        # Without the SDK a transaction is checked by the estimate of its gas alone.
        has_sdk = importlib.util.find_spec("x402") is not None
        self._sdk = LateScheme(lambda: channel_scheme(network, address)) if has_sdk else None

    @property
    def scheme(self) -> str:
        return SCHEME

    @property
    def extra(self) -> Mapping[str, Any]:
        return {"extra": {MOST_CLAIMS: MAX_ROWS}}

    async def verify(self, payment: Mapping[str, Any], requirement: Requirement) -> Verified:
        """Return whether a deposit, voucher or refund is good, with the channel as it is."""
        if not self._is_ours(requirement):
            return Verified(is_valid=False, invalid_reason=f"{ERROR}network_mismatch")
        if self._sdk is None:
            raise MissingExtra("x402", "x402")
        try:
            payload_in(payment)  # the SDK would read fields only as it needs them
        except ProtocolBroken:
            return Verified(is_valid=False, invalid_reason=f"{ERROR}payload_type")
        return await verified_by(self._sdk, payment, requirement)

    async def settle(self, payment: Mapping[str, Any], requirement: Requirement) -> Settled:
        """Carry a payload out on the chain, once."""
        if not self._is_ours(requirement):
            return self._failed("network_mismatch")
        document = payment.get("payload")
        payload = settle_payload(document if isinstance(document, dict) else {})
        try:
            match payload:
                case DepositPayload():
                    return await self._deposit(payload, payment, requirement)
                case ClaimPayload():
                    return await self._claim(payload)
                case SettlePayload():
                    return await self._settle(payload)
                case RefundOrder():
                    return await self._refund(payload)
        except SettlementFailed as error:
            log.warning("a %s did not settle: %s", payload.type, error)
            return self._failed(f"{payload.type}_transaction_failed")

    # -- the four payloads -----------------------------------------------------------------------

    async def _deposit(
        self, payload: DepositPayload, payment: Mapping[str, Any], requirement: Requirement
    ) -> Settled:
        """Draw a deposit into its channel."""
        config = payload.channel_config.terms()
        channel = config.id(self._network.settlement_domain)
        units = int(payload.deposit.amount)
        if config.token.lower() != self._network.token.lower():
            return self._failed("token_mismatch")
        if units < self._least:
            return self._failed("deposit_below_min_deposit")
        prefix = f"x402-deposit:{_authorization_of(payload).hex()}:"
        tries = await self._tries(prefix)
        if tries.is_new and self._sdk:
            verified = await self.verify(payment, requirement)
            if not verified.is_valid:
                return self._failed(verified.invalid_reason or "deposit_payload")

        collector, data = _collector_data(payload)
        call = contract.deposit_call(config, units, collector, data)
        try:
            receipt = await self._send(f"{prefix}{tries.failed}", call)
        except IntentMismatch:
            return self._failed("deposit_payload")
        deposits = contract.logged(receipt, contract.DEPOSITED, channel)
        if not any(words[0] == units for words in deposits):
            return self._failed("deposit_transaction_failed")
        return await self._settled(receipt, amount=units, payer=config.payer, channel=channel)

    async def _claim(self, payload: ClaimPayload) -> Settled:
        """Claim on up to a hundred channels; nothing moves yet."""
        if payload.claim_authorizer_signature is None:
            return self._failed("authorizer_not_configured")
        claims = [self._claim_of(row) for row in payload.claims]
        if await self._gain(claims) < self._least:
            return self._failed("claim_payload")
        call = contract.claim_call(claims, _bytes(payload.claim_authorizer_signature))
        prefix = f"x402-claim:{hashlib.sha256(call).hexdigest()}:"
        intent = f"{prefix}{(await self._tries(prefix)).failed}"
        return await self._settled(await self._send(intent, call, claims=len(claims)))

    async def _settle(self, payload: SettlePayload) -> Settled:
        """Move to a receiver what was claimed for it."""
        if payload.token.lower() != self._network.token.lower():
            return self._failed("settle_payload")
        claimed, settled = await contract.unsettled_on(self._chain, payload.receiver, payload.token)
        if claimed == settled:
            return Settled(success=True, transaction="", network=self._network.id, amount="0")
        if claimed - settled < self._least:
            return self._failed("settle_payload")
        prefix = f"x402-settle:{payload.receiver.lower()}:{claimed}:"
        call = contract.settle_call(payload.receiver, payload.token)
        receipt = await self._send(f"{prefix}{(await self._tries(prefix)).failed}", call)
        receiver = address_word(payload.receiver)
        moved = contract.logged(receipt, contract.SETTLED, receiver)
        return await self._settled(receipt, amount=sum(words[0] for words in moved))

    async def _refund(self, payload: RefundOrder) -> Settled:
        """Claim what is owed on a channel, and give back what its receiver says."""
        if payload.refund_authorizer_signature is None:
            return self._failed("authorizer_not_configured")
        config = payload.channel_config.terms()
        channel = config.id(self._network.settlement_domain)
        if config.token.lower() != self._network.token.lower():
            return self._failed("token_mismatch")
        calls = []
        claims = [self._claim_of(row) for row in payload.claims]
        if any(claim.channel != channel for claim in claims):
            return self._failed("refund_payload")
        if claims and await self._gain(claims):
            if payload.claim_authorizer_signature is None:
                return self._failed("authorizer_not_configured")
            calls.append(contract.claim_call(claims, _bytes(payload.claim_authorizer_signature)))
        calls.append(
            contract.refund_call(
                config,
                int(payload.amount),
                int(payload.refund_nonce),
                _bytes(payload.refund_authorizer_signature),
            )
        )
        call = contract.all_calls(calls)
        prefix = f"x402-refund:{channel.hex()}:{payload.refund_nonce}:"
        tries = await self._tries(prefix)
        refusal = await self._refusal_of_refund(payload, claims, channel) if tries.is_new else ""
        if refusal:
            return self._failed(refusal)
        try:
            receipt = await self._send(f"{prefix}{tries.failed}", call, claims=len(claims))
        except IntentMismatch:
            return self._failed("refund_payload")
        refunds = contract.logged(receipt, contract.REFUNDED, channel)
        refunded = sum(words[0] for words in refunds)
        return await self._settled(receipt, amount=refunded, payer=config.payer, channel=channel)

    # -- inside ----------------------------------------------------------------------------------

    def _is_ours(self, requirement: Requirement) -> bool:
        """Return whether a requirement is in this facilitator's currency on its chain."""
        return (
            requirement.network == self._network.id
            and requirement.asset.lower() == self._network.token.lower()
        )

    async def _tries(self, prefix: str) -> Tries:
        return await self._journal.commit(lambda tx: Tries.of(tx, prefix))

    async def _send(self, intent: str, call: bytes, *, claims: int = 0) -> ChainReceipt:
        """Have the contract do something, exactly once; raises as `Sender.send`.

        `claims` is how many claims are in the call.
        """
        most_gas = MOST_GAS + claims * CLAIM_GAS
        return await self._sender.send(intent, SETTLEMENT, call, most_gas=most_gas)

    def _claim_of(self, row: ClaimRow) -> contract.Claim:
        """Return a claim from its row; raises ProtocolBroken for one in another currency."""
        config = row.voucher.channel.terms()
        if config.token.lower() != self._network.token.lower():
            raise ProtocolBroken("a claim is in another currency than this facilitator's")
        return contract.Claim(
            config=config,
            channel=config.id(self._network.settlement_domain),
            ceiling=int(row.voucher.max_claimable_amount),
            signature=_bytes(row.signature),
            total=int(row.total_claimed),
        )

    async def _refusal_of_refund(
        self, payload: RefundOrder, claims: list[contract.Claim], channel: bytes
    ) -> str:
        """Return why a refund is not worth its gas, "" if it is.

        The contract takes one that moves nothing, and anybody can sign for channels of their own.
        What empties a channel is sent, however little it is.
        """
        state = await contract.channel_on(self._chain, channel)
        claimed = max([state.total_claimed, *(claim.total for claim in claims)])
        left = max(0, state.balance - claimed)
        moved = min(int(payload.amount), left)
        if not moved:
            return "refund_no_balance"
        return "refund_amount_invalid" if moved < min(self._least, left) else ""

    async def _gain(self, claims: list[contract.Claim]) -> int:
        """Return how many units a batch of claims would add to what is claimed already.

        Several claims on one channel add no more than the highest of them.
        """
        totals: dict[bytes, int] = {}
        for claim in claims:
            totals[claim.channel] = max(claim.total, totals.get(claim.channel, 0))
        states = await asyncio.gather(
            *(contract.channel_on(self._chain, channel) for channel in totals)
        )
        return sum(
            max(0, total - state.total_claimed)
            for total, state in zip(totals.values(), states, strict=True)
        )

    async def _settled(
        self,
        receipt: ChainReceipt,
        *,
        amount: int | None = None,
        payer: str | None = None,
        channel: bytes | None = None,
    ) -> Settled:
        """Return that a payload was carried out, with its channel as it is now."""
        extra = None
        if channel is not None:
            state = await contract.channel_on(self._chain, channel)
            extra = {"channelState": state.wire(channel).document()}
        return Settled(
            success=True,
            transaction=receipt.transaction,
            network=self._network.id,
            payer=payer,
            amount="" if amount is None else str(amount),
            extra=extra,
        )

    def _failed(self, reason: str) -> Settled:
        """Return that a payload did not settle; `reason` ends an error code of the scheme."""
        code = reason if reason.startswith(ERROR) else f"{ERROR}{reason}"
        return Settled(success=False, transaction="", network=self._network.id, error_reason=code)


def _authorization_of(payload: DepositPayload) -> bytes:
    """Return what tells a deposit's authorization from all others; raises ProtocolBroken."""
    drawing = payload.deposit.authorization
    if drawing.permit2_authorization:
        permit = drawing.permit2_authorization
        return keccak(address_word(permit.owner) + word(permit.nonce_number))
    if drawing.erc3009_authorization:
        config = payload.channel_config.terms()
        salt = drawing.erc3009_authorization.salt_number
        return keccak(config.struct_hash() + word(salt))
    raise ProtocolBroken("the deposit has no authorization")


def _collector_data(payload: DepositPayload) -> tuple[str, bytes]:
    """Return which collector draws a deposit, and with what; raises ProtocolBroken."""
    drawing = payload.deposit.authorization
    if drawing.permit2_authorization:
        permit = drawing.permit2_authorization
        data = contract.permit2_data(
            permit.nonce_number, int(permit.deadline), _bytes(permit.signature)
        )
        return PERMIT2_COLLECTOR, data
    if drawing.erc3009_authorization:
        eip3009 = drawing.erc3009_authorization
        data = contract.erc3009_data(
            int(eip3009.valid_after),
            int(eip3009.valid_before),
            eip3009.salt_number,
            _bytes(eip3009.signature),
        )
        return ERC3009_COLLECTOR, data
    raise ProtocolBroken("the deposit has no authorization")


def _bytes(hex_digits: str) -> bytes:
    return bytes.fromhex(hex_digits.removeprefix("0x"))
