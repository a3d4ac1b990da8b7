"""The x402 SDK as a facilitator uses it: it checks payments and reads the chain, it sends nothing.

The SDK's own signer reserves a nonce before it signs and never gives one back, so after one
failure its next transaction is not mined.  Ours takes the nonce together with the signed bytes
(`payments.sender`).
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from agentkit.errors import MissingExtra, brief
from agentkit.market.chain import Network
from agentkit.market.x402 import Requirement, Verified
from agentkit.payments.imports import importing_web3

log = logging.getLogger(__name__)


class SdkScheme(Protocol):
    """A scheme of the SDK's facilitator."""

    def verify(self, payload: Any, requirements: Any) -> Any:
        """Return whether a payment would settle; it blocks."""


class LateScheme:
    """A scheme of the SDK that is loaded when it is first used: that takes a second.

    Raises MissingExtra when it is made without the SDK.
    """

    def __init__(self, load: Callable[[], SdkScheme]) -> None:
        if importlib.util.find_spec("x402") is None:
            raise MissingExtra("x402", "x402")
        self._load = load
        self._loaded: SdkScheme | None = None

    def verify(self, payload: Any, requirements: Any) -> Any:
        """Return whether a payment would settle; it blocks."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded.verify(payload, requirements)


def exact_scheme(network: Network, address: str) -> SdkScheme:
    """Return the SDK's `exact` for EVM; raises MissingExtra without the SDK."""
    try:
        with importing_web3():
            from x402.mechanisms.evm.exact.facilitator import ExactEvmScheme
    except ImportError as error:
        raise MissingExtra("x402", "x402") from error
    return cast("SdkScheme", ExactEvmScheme(cast("Any", _ChainReader(network, address))))


def channel_scheme(network: Network, address: str) -> SdkScheme:
    """Return the SDK's `batch-settlement` for EVM; raises MissingExtra without the SDK."""
    try:
        with importing_web3():
            from x402.mechanisms.evm.batch_settlement.facilitator import (
                BatchSettlementEvmFacilitator,
            )
    except ImportError as error:
        raise MissingExtra("x402", "x402") from error
    reader = cast("Any", _ChainReader(network, address))
    return cast("SdkScheme", BatchSettlementEvmFacilitator(reader))


def upto_scheme(network: Network, address: str) -> SdkScheme:
    """Return the SDK's `upto` for EVM; raises MissingExtra without the SDK."""
    try:
        with importing_web3():
            from x402.mechanisms.evm.upto.facilitator import UptoEvmScheme
    except ImportError as error:
        raise MissingExtra("x402", "x402") from error
    return cast("SdkScheme", UptoEvmScheme(cast("Any", _ChainReader(network, address))))


async def verified_by(
    scheme: SdkScheme, payment: Mapping[str, Any], requirement: Requirement
) -> Verified:
    """Return what the SDK says of a payment; in a thread, because it reads the chain."""
    return await asyncio.to_thread(_verify, scheme, payment, requirement)


def _verify(scheme: SdkScheme, payment: Mapping[str, Any], requirement: Requirement) -> Verified:
    with importing_web3():
        from x402.schemas import PaymentPayload, PaymentRequirements

    try:
        verified = scheme.verify(
            PaymentPayload.model_validate(payment),
            PaymentRequirements.model_validate(requirement.document()),
        )
    except (ValueError, TypeError, LookupError, OverflowError, AssertionError) as error:
        # The SDK parses some fields only as it needs them, and lets the parsers' errors out.
        log.info("a payment cannot be read: %s", brief(error))
        return Verified(is_valid=False, invalid_reason="invalid_payload")
    return Verified(
        is_valid=verified.is_valid,
        invalid_reason=verified.invalid_reason,
        extra=verified.extra,
    )


class _ChainReader:
    """What the SDK's verification asks of a signer: reads of the chain, which block."""

    def __init__(self, network: Network, address: str) -> None:
        with importing_web3():
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
