"""A facilitator of our own: payments checked by the x402 SDK, put on the chain by our sender.

GET /supported    POST /verify    POST /settle

The SDK's own signer reserves a nonce before it signs and never gives one back, so after one
failure its next transaction is not mined; ours takes the nonce with the signed bytes.  Settling
is idempotent by authorization and the server's key (`Requirement.with_key`): asked again it is
the same transaction, whatever died between, and nobody else is told that it is theirs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web
from pydantic import ValidationError

from agentkit import strict_json
from agentkit.errors import (
    InsufficientFunds,
    IntentMismatch,
    MissingExtra,
    OverBudget,
    ProtocolBroken,
    SettlementFailed,
    StateError,
    brief,
)
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.signer import Signer
from agentkit.market.chain import ChainClient, Network
from agentkit.market.seams import Transaction
from agentkit.market.x402 import VERSION, Presented, Requirement, Settled, Verified, Wire
from agentkit.net.bodies import bounded_bodies
from agentkit.net.guard import guard
from agentkit.payments import abi
from agentkit.payments.imports import limit_kept
from agentkit.payments.sender import Sender
from agentkit.payments.x402.proof import Due, has_moved

MOST_BODY = 64 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


class Desk:
    """Verifies and settles payments in one currency on one chain; `signer` pays for the gas.

    Raises MissingExtra when it is made without the SDK.
    """

    def __init__(
        self, journal: Journal, chain: ChainClient, signer: Signer, network: Network
    ) -> None:
        self._journal = journal
        self._chain = chain
        self._network = network
        self._signer = signer
        self._sender = Sender(journal, chain, signer, network)
        self._scheme = _scheme(network, signer.address)

    async def recover(self) -> None:
        """Bring settlements that an earlier process left to their end."""
        await self._sender.recover()

    def supported(self) -> dict[str, Any]:
        """Return what this facilitator can settle."""
        kind = {"x402Version": VERSION, "scheme": "exact", "network": self._network.id}
        return {"kinds": [kind], "extensions": [], "signers": {"eip155:*": [self._signer.address]}}

    async def verify(self, presented: Presented, requirement: Requirement) -> Verified:
        """Say whether a payment would settle; raises StoreUnavailable."""
        if not requirement.payable_on(self._network):
            return Verified(is_valid=False, invalid_reason="unsupported_payment_kind")
        return await asyncio.to_thread(self._verify, presented, requirement)

    async def settle(self, presented: Presented, requirement: Requirement) -> Settled:
        """Put a payment on the chain, once; raises StoreUnavailable (the same goes on from here).

        Success is what the token logged, not that a transaction was mined.
        """
        due = Due.of(presented.payload.authorization)
        prefix = f"x402:{presented.payload.authorization.key}:"
        tried = await self._journal.commit(lambda tx: tx.every(r.EvmTransaction, prefix))
        failed = sum(row.final and not row.succeeded for row in tried)
        intent = f"{prefix}{failed}:{requirement.key}"
        if len(tried) == failed:
            verified = await self.verify(presented, requirement)
            if not verified.is_valid:
                return self._told(due, "", verified.invalid_reason or "invalid_payload")

        def still_free(tx: Transaction) -> None:
            if len(tx.every(r.EvmTransaction, prefix)) > failed:
                raise IntentMismatch("the authorization was settled for somebody else")

        try:
            receipt = await self._sender.send(
                intent, self._network.token, _call(presented), check=still_free
            )
        except (SettlementFailed, IntentMismatch) as error:
            log.warning("payment %s did not settle: %s", prefix, error)
            return self._told(due, "", "transaction_failed")
        if not has_moved(receipt, self._network, due):
            return self._told(due, "", "transfer_event_mismatch")
        return self._told(due, receipt.transaction, "")

    # -- inside ----------------------------------------------------------------------------------

    def _verify(self, presented: Presented, requirement: Requirement) -> Verified:
        from x402.schemas import PaymentPayload, PaymentRequirements

        try:
            said = self._scheme.verify(
                PaymentPayload.model_validate(presented.document()),
                PaymentRequirements.model_validate(requirement.document()),
            )
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            # The SDK reads some fields only as it needs them, and raises what their parsers do.
            log.info("a payment cannot be read: %s", brief(error))
            return Verified(is_valid=False, invalid_reason="invalid_payload")
        return Verified(is_valid=said.is_valid, invalid_reason=said.invalid_reason)

    def _told(self, due: Due, transaction: str, reason: str) -> Settled:
        return Settled(
            success=not reason,
            transaction=transaction,
            network=self._network.id,
            payer=due.payer,
            amount=None if reason else str(due.units),
            error_reason=reason or None,
        )


def facilitator_app(desk: Desk) -> web.Application:
    """Return the application of a facilitator, to be served on loopback."""

    async def supported(request: web.Request) -> web.Response:
        return web.json_response(desk.supported())

    async def verify(request: web.Request) -> web.Response:
        return _answer(await desk.verify(*await _read(request)))

    async def settle(request: web.Request) -> web.Response:
        return _answer(await desk.settle(*await _read(request)))

    middlewares = [guard(), bounded_bodies(MOST_BODY), _answer_errors]
    app = web.Application(client_max_size=MOST_BODY, middlewares=middlewares)
    app.add_routes([web.get("/supported", supported), web.post("/verify", verify)])
    app.add_routes([web.post("/settle", settle)])
    return app


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer our errors: the asker's with 400, those that may pass with 503."""
    try:
        return await handler(request)
    except ProtocolBroken as error:
        return web.json_response({"error": str(error)}, status=400)
    except (StateError, InsufficientFunds, OverBudget) as error:
        log.warning("the facilitator cannot settle now: %s", error)
        return web.json_response({"error": "it cannot settle now"}, status=503)


async def _read(request: web.Request) -> tuple[Presented, Requirement]:
    try:
        body = strict_json.loads(await request.read())
        presented = Presented.model_validate(body["paymentPayload"])
        return presented, Requirement.model_validate(body["paymentRequirements"])
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise ProtocolBroken("this is no payment by 'exact' and what it is for") from error


def _answer(value: Wire) -> web.Response:
    return web.json_response(value.document())


def _call(presented: Presented) -> bytes:
    """Return the call that uses an authorization; `v` as the precompile has it."""
    paid = presented.payload.authorization
    signature = bytes.fromhex(presented.payload.signature[2:])
    v = signature[64] + 27 if signature[64] < 2 else signature[64]
    return abi.encode(
        abi.MOVE,
        paid.sender,
        paid.to,
        int(paid.value),
        int(paid.valid_after),
        int(paid.valid_before),
        bytes.fromhex(paid.nonce[2:]),
        v,
        signature[:32],
        signature[32:64],
    )


# -- the SDK -------------------------------------------------------------------------------------


def _scheme(network: Network, address: str) -> Any:
    """Return the SDK's `exact` for EVM, reading the chain and sending nothing."""
    try:
        with limit_kept():
            from x402.mechanisms.evm.exact.facilitator import ExactEvmScheme
    except ImportError as error:
        raise MissingExtra("x402", "x402") from error
    return ExactEvmScheme(cast("Any", _Reader(network, address)))


class _Reader:
    """What the SDK's verification asks of a signer: reads of the chain, in a thread of its own."""

    def __init__(self, network: Network, address: str) -> None:
        with limit_kept():
            from web3 import HTTPProvider, Web3

        self._web3 = Web3(HTTPProvider(network.rpc))
        self._address = address

    def get_addresses(self) -> list[str]:
        return [self._address]

    def get_chain_id(self) -> int:
        return int(self._web3.eth.chain_id)

    def get_code(self, address: str) -> bytes:
        return bytes(self._web3.eth.get_code(self._web3.to_checksum_address(address)))

    def read_contract(self, address: str, abi: Any, function_name: str, *args: Any) -> Any:
        where = self._web3.to_checksum_address(address)
        function = self._web3.eth.contract(address=where, abi=abi).functions[function_name]
        return function(*args).call({"from": self._web3.to_checksum_address(self._address)})
