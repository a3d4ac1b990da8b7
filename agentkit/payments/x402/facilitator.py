"""A facilitator of our own: the x402 SDK checks payments, our sender puts them on the chain.

GET /supported    POST /verify    POST /settle

The SDK's own signer reserves a nonce before it signs and never gives one back, so after one
failure its next transaction is not mined.  Ours takes the nonce together with the signed bytes.

Settling is idempotent by authorization and the server's key (`Requirement.with_key`): asked again
it is the same transaction, whatever died between.  A server with another key is told that the
payment did not settle, so that two servers cannot both be shown it.
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
from agentkit.payments.x402.proof import ExpectedTransfer, has_moved

MAX_BODY = 64 * 1024
"""The most bytes of a request that are read."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


class FacilitatorService:
    """Verifies and settles payments in one currency on one chain; `signer` pays for the gas.

    Raises MissingExtra when it is made without the SDK.
    """

    def __init__(
        self, journal: Journal, chain: ChainClient, signer: Signer, network: Network
    ) -> None:
        """Settle with `signer` and remember in `journal` what was sent."""
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
        """Return whether a payment would settle; raises StoreUnavailable."""
        if not requirement.payable_on(self._network):
            return Verified(is_valid=False, invalid_reason="unsupported_payment_kind")
        return await asyncio.to_thread(self._verify_by_sdk, presented, requirement)

    async def settle(self, presented: Presented, requirement: Requirement) -> Settled:
        """Put a payment on the chain, once; raises StoreUnavailable (the same goes on from here).

        Success is what the token logged, not that a transaction was mined.
        """
        transfer = ExpectedTransfer.of(presented.payload.authorization)
        prefix = f"x402:{presented.payload.authorization.key}:"
        earlier = await self._journal.commit(lambda tx: tx.every(r.EvmTransaction, prefix))
        failed = sum(row.final and not row.succeeded for row in earlier)
        # With one under way or settled, `send` goes on with it; verified again, the SDK would
        # call its authorization used.
        if len(earlier) == failed:
            verified = await self.verify(presented, requirement)
            if not verified.is_valid:
                return self._failed(transfer, verified.invalid_reason or "invalid_payload")

        def check_unsettled(tx: Transaction) -> None:
            if len(tx.every(r.EvmTransaction, prefix)) > failed:
                raise IntentMismatch("the authorization was settled for somebody else")

        try:
            receipt = await self._sender.send(
                f"{prefix}{failed}:{requirement.key}",
                self._network.token,
                _transfer_call(presented),
                check=check_unsettled,
            )
        except (SettlementFailed, IntentMismatch) as error:
            log.warning("payment %s did not settle: %s", prefix, error)
            return self._failed(transfer, "transaction_failed")
        if not has_moved(receipt, self._network, transfer):
            return self._failed(transfer, "transfer_event_mismatch")
        return Settled(
            success=True,
            transaction=receipt.transaction,
            network=self._network.id,
            payer=transfer.payer,
            amount=str(transfer.units),
        )

    # -- inside ----------------------------------------------------------------------------------

    def _verify_by_sdk(self, presented: Presented, requirement: Requirement) -> Verified:
        """Have the SDK check a payment; it blocks, because it reads the chain."""
        from x402.schemas import PaymentPayload, PaymentRequirements

        try:
            verified = self._scheme.verify(
                PaymentPayload.model_validate(presented.document()),
                PaymentRequirements.model_validate(requirement.document()),
            )
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            # The SDK parses some fields only as it needs them, and lets the parsers' errors out.
            log.info("a payment cannot be read: %s", brief(error))
            return Verified(is_valid=False, invalid_reason="invalid_payload")
        return Verified(is_valid=verified.is_valid, invalid_reason=verified.invalid_reason)

    def _failed(self, transfer: ExpectedTransfer, reason: str) -> Settled:
        """Return that a payment did not settle; `reason` is an error code of the protocol."""
        return Settled(
            success=False,
            transaction="",
            network=self._network.id,
            payer=transfer.payer,
            error_reason=reason,
        )


def facilitator_app(service: FacilitatorService) -> web.Application:
    """Return the application of a facilitator, to be served on loopback."""

    async def supported(request: web.Request) -> web.Response:
        return web.json_response(service.supported())

    async def verify(request: web.Request) -> web.Response:
        return _answer(await service.verify(*await _read(request)))

    async def settle(request: web.Request) -> web.Response:
        return _answer(await service.settle(*await _read(request)))

    middlewares = [guard(), bounded_bodies(MAX_BODY), _answer_errors]
    app = web.Application(client_max_size=MAX_BODY, middlewares=middlewares)
    app.add_routes([web.get("/supported", supported), web.post("/verify", verify)])
    app.add_routes([web.post("/settle", settle)])
    return app


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn our errors into answers: 400 for a bad request, 503 for what may pass."""
    try:
        return await handler(request)
    except ProtocolBroken as error:
        return web.json_response({"error": str(error)}, status=400)
    except (StateError, InsufficientFunds, OverBudget) as error:
        log.warning("the facilitator cannot settle now: %s", error)
        return web.json_response({"error": "it cannot settle now"}, status=503)


async def _read(request: web.Request) -> tuple[Presented, Requirement]:
    """Return the payment and what it has to pay; raises ProtocolBroken for anything else."""
    try:
        body = strict_json.loads(await request.read())
        presented = Presented.model_validate(body["paymentPayload"])
        return presented, Requirement.model_validate(body["paymentRequirements"])
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise ProtocolBroken("this is not a payment by 'exact' with its requirements") from error


def _answer(value: Wire) -> web.Response:
    return web.json_response(value.document())


def _transfer_call(presented: Presented) -> bytes:
    """Return the token call that uses an authorization (EIP-3009)."""
    authorization = presented.payload.authorization
    v, r_, s = abi.vrs(bytes.fromhex(presented.payload.signature[2:]))
    if v < 2:  # some wallets write 0 or 1 where the ecrecover precompile wants 27 or 28
        v += 27
    return abi.encode(
        abi.MOVE,
        authorization.sender,
        authorization.to,
        int(authorization.value),
        int(authorization.valid_after),
        int(authorization.valid_before),
        bytes.fromhex(authorization.nonce[2:]),
        v,
        r_,
        s,
    )


# -- the SDK -------------------------------------------------------------------------------------


def _scheme(network: Network, address: str) -> Any:
    """Return the SDK's `exact` for EVM, which reads the chain and sends nothing.

    Raises MissingExtra without the SDK.
    """
    try:
        with limit_kept():
            from x402.mechanisms.evm.exact.facilitator import ExactEvmScheme
    except ImportError as error:
        raise MissingExtra("x402", "x402") from error
    return ExactEvmScheme(cast("Any", _ChainReader(network, address)))


class _ChainReader:
    """What the SDK's verification asks of a signer: reads of the chain, which block."""

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
        """Call a contract function as the facilitator and return its answer."""
        contract = self._web3.eth.contract(address=self._web3.to_checksum_address(address), abi=abi)
        function = contract.functions[function_name]
        return function(*args).call({"from": self._web3.to_checksum_address(self._address)})
