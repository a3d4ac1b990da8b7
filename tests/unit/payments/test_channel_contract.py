"""Calls and ids of `batch-settlement` are byte for byte those of the x402 SDK and of web3."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st
from web3 import Web3
from x402.mechanisms.evm.batch_settlement import constants, encoding, utils
from x402.mechanisms.evm.batch_settlement.abi import BATCH_SETTLEMENT_ABI
from x402.mechanisms.evm.batch_settlement.types import ChannelConfig as SdkConfig

from agentkit.errors import ProtocolBroken
from agentkit.keys.channel_messages import (
    ChannelConfig,
    ChannelVoucher,
    ClaimBatch,
    Refund,
)
from agentkit.keys.messages import Domain, checksummed, recover, typed_digest
from agentkit.keys.signer import KeySigner
from agentkit.market import batch_settlement as wire
from agentkit.market.chain import SETTLEMENT
from agentkit.payments.channels import contract

CHAIN = 8453
DOMAIN = Domain("x402 Batch Settlement", "1", CHAIN, SETTLEMENT)
KEY = b"\x11" * 32
SIGNER = KeySigner(KEY)

addresses = st.binary(min_size=20, max_size=20).map(lambda raw: checksummed("0x" + raw.hex()))
units = st.integers(0, 2**128 - 1)
salts = st.binary(min_size=32, max_size=32)
configs = st.builds(
    ChannelConfig,
    payer=addresses,
    payer_authorizer=addresses,
    receiver=addresses,
    receiver_authorizer=addresses,
    token=addresses,
    withdraw_delay=st.integers(wire.MIN_DELAY, wire.MAX_DELAY),
    salt=salts,
)


def sdk_config(config: ChannelConfig) -> SdkConfig:
    return SdkConfig.from_dict(wire.Config.of(config).document())


def encoded(function: str, *args: Any) -> bytes:
    """Return the call data that web3 makes of the SDK's ABI."""
    contract_abi = Web3().eth.contract(abi=BATCH_SETTLEMENT_ABI)
    return bytes.fromhex(contract_abi.encode_abi(function, list(args))[2:])


def struct(config: ChannelConfig) -> dict[str, Any]:
    return wire.Config.of(config).document() | {"salt": config.salt}


def test_the_addresses_are_the_ones_of_the_sdk() -> None:
    assert SETTLEMENT == constants.BATCH_SETTLEMENT_ADDRESS
    assert wire.ERC3009_COLLECTOR == constants.ERC3009_DEPOSIT_COLLECTOR_ADDRESS
    assert wire.PERMIT2_COLLECTOR == constants.PERMIT2_DEPOSIT_COLLECTOR_ADDRESS
    delays = (constants.MIN_WITHDRAW_DELAY, constants.MAX_WITHDRAW_DELAY)
    assert delays == (wire.MIN_DELAY, wire.MAX_DELAY)


@given(configs)
def test_a_channels_id_is_the_one_of_the_sdk(config: ChannelConfig) -> None:
    assert "0x" + config.id(DOMAIN).hex() == utils.compute_channel_id(sdk_config(config), CHAIN)


@given(salts, units, st.integers(0, 2**256 - 1))
def test_what_is_signed_is_what_eth_account_signs(channel: bytes, amount: int, nonce: int) -> None:
    domain = utils.get_batch_settlement_eip712_domain(CHAIN)

    def signed(types: dict[str, Any], message: dict[str, Any]) -> bytes:
        return bytes(Account.sign_typed_data(KEY, domain, types, message).signature)

    voucher = {"channelId": channel, "maxClaimableAmount": amount}
    ours = SIGNER.sign_channel_voucher(DOMAIN, ChannelVoucher(channel, amount))
    assert ours == signed(constants.VOUCHER_TYPES, voucher)

    refund = {"channelId": channel, "nonce": nonce, "amount": amount}
    ours = SIGNER.sign_refund(DOMAIN, Refund(channel, nonce, amount))
    assert ours == signed(constants.REFUND_TYPES, refund)


@given(st.lists(st.tuples(configs, units, units), min_size=1, max_size=3))
def test_a_batch_of_claims_is_signed_and_called_as_the_sdk_does(
    rows: list[tuple[ChannelConfig, int, int]],
) -> None:
    claims = [
        contract.Claim(config, config.id(DOMAIN), ceiling, b"\x07" * 65, total)
        for config, ceiling, total in rows
    ]
    entries = [
        {"channelId": c.channel, "maxClaimableAmount": c.ceiling, "totalClaimed": c.total}
        for c in claims
    ]
    domain = utils.get_batch_settlement_eip712_domain(CHAIN)
    theirs = Account.sign_typed_data(
        KEY, domain, constants.CLAIM_BATCH_TYPES, {"claims": entries}
    ).signature
    signature = SIGNER.sign_claims(DOMAIN, ClaimBatch.of(c.row for c in claims))
    assert signature == bytes(theirs)

    structs = [
        {
            "voucher": {"channel": struct(c.config), "maxClaimableAmount": c.ceiling},
            "signature": c.signature,
            "totalClaimed": c.total,
        }
        for c in claims
    ]
    assert contract.claim_call(claims, signature) == encoded(
        "claimWithSignature", structs, signature
    )


@given(configs, units, st.integers(0, 2**256 - 1))
def test_other_calls_are_the_ones_of_the_sdk(config: ChannelConfig, amount: int, salt: int) -> None:
    channel = config.id(DOMAIN)
    nonce = encoding.build_erc3009_deposit_nonce("0x" + channel.hex(), hex(salt))
    assert "0x" + contract.erc3009_nonce(channel, salt).hex() == nonce
    data = contract.erc3009_data(0, 99, salt, b"\x08" * 65)
    assert data == encoding.build_erc3009_collector_data("0", "99", hex(salt), "08" * 65)
    permit = contract.permit2_data(salt, 99, b"\x08" * 65)
    assert permit == encoding.build_permit2_collector_data(str(salt), "99", "08" * 65)

    deposit = contract.deposit_call(config, amount, wire.ERC3009_COLLECTOR, data)
    assert deposit == encoded("deposit", struct(config), amount, wire.ERC3009_COLLECTOR, data)
    refund = contract.refund_call(config, amount, salt, b"\x09" * 65)
    assert refund == encoded("refundWithSignature", struct(config), amount, salt, b"\x09" * 65)
    settle = contract.settle_call(config.receiver, config.token)
    assert settle == encoded("settle", config.receiver, config.token)
    assert contract.withdraw_call(config, amount) == encoded(
        "initiateWithdraw", struct(config), amount
    )
    assert contract.finish_withdraw_call(config) == encoded("finalizeWithdraw", struct(config))
    assert contract.all_calls([refund, settle]) == encoded("multicall", [refund, settle])
    assert contract.all_calls([settle]) == settle


def test_a_voucher_is_recovered_to_its_signer() -> None:
    voucher = ChannelVoucher(b"\x05" * 32, 7)
    signature = SIGNER.sign_channel_voucher(DOMAIN, voucher)
    assert recover(typed_digest(DOMAIN, voucher), signature) == SIGNER.address


def voucher_document(**changes: Any) -> dict[str, Any]:
    config = ChannelConfig(
        payer="0x" + "01" * 20,
        payer_authorizer="0x" + "01" * 20,
        receiver="0x" + "02" * 20,
        receiver_authorizer="0x" + "03" * 20,
        token="0x" + "04" * 20,
        withdraw_delay=900,
        salt=bytes(32),
    )
    voucher = {"channelId": "0x" + "05" * 32, "maxClaimableAmount": "7", "signature": "0x"}
    document = {
        "type": "voucher",
        "channelConfig": wire.Config.of(config).document(),
        "voucher": voucher,
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = document
        for parent in parents:
            target = target[parent]  # type: ignore[assignment]
        target[last] = value
    return document


def payment_document(**changes: Any) -> dict[str, Any]:
    """A payment in a header's JSON, its payload changed at paths such as `voucher__signature`."""
    return {
        "x402Version": 2,
        "accepted": {
            "scheme": "batch-settlement",
            "network": f"eip155:{CHAIN}",
            "amount": "7",
            "asset": "0x" + "04" * 20,
            "payTo": "0x" + "02" * 20,
            "maxTimeoutSeconds": 60,
            "extra": {"receiverAuthorizer": "0x" + "03" * 20, "withdrawDelay": 900},
        },
        "payload": voucher_document(**changes),
    }


def test_a_payment_is_read_as_the_sdk_writes_it() -> None:
    document = payment_document()
    payment = wire.ChannelPayment.model_validate(document)
    assert payment.document()["payload"] == document["payload"]
    assert isinstance(payment.payload, wire.VoucherPayload)
    assert payment.payload.voucher.ceiling == 7


@pytest.mark.parametrize(
    "changes",
    [
        {"voucher__maxClaimableAmount": str(2**128)},
        {"voucher__maxClaimableAmount": "-1"},
        {"voucher__maxClaimableAmount": "07"},
        {"voucher__maxClaimableAmount": "1e3"},
        {"voucher__maxClaimableAmount": 7},
        {"voucher__channelId": "05" * 32},
        {"voucher__signature": "0x" + "00" * 1025},
        {"voucher__signature": "0x123"},
        {"channelConfig__withdrawDelay": 899},
        {"channelConfig__withdrawDelay": 2_592_001},
        {"channelConfig__withdrawDelay": True},
        {"channelConfig__payer": "0x" + "0g" * 20},
        {"type": "claim"},
    ],
)
def test_a_payment_that_the_contract_would_not_take_is_not_read(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ChannelPayment\npayload"):
        wire.ChannelPayment.model_validate(payment_document(**changes))


def test_a_batch_of_more_rows_than_the_contract_takes_is_not_read() -> None:
    row = {
        "voucher": {
            "channel": voucher_document()["channelConfig"],
            "maxClaimableAmount": "7",
        },
        "signature": "0x" + "00" * 65,
        "totalClaimed": "7",
    }
    assert wire.settle_payload({"type": "claim", "claims": [row] * 100})
    for rows in ([], [row] * 101):
        with pytest.raises(ProtocolBroken):
            wire.settle_payload({"type": "claim", "claims": rows})
