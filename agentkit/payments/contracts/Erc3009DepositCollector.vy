# pragma version 0.4.3
# pragma evm-version cancun
"""
@title Pays into x402 channels from the payer's ERC-3009 authorization
@license Apache-2.0
@notice For test chains, at 0x4020806089470a89826cB9fB1f4059150b550004.  The payer authorizes this
    contract to receive; the authorization's nonce, keccak256(abi.encode(channelId, salt)), says
    for which channel.
@dev Clean room: written from the scheme's specification and the SDK's encoding of collectorData,
    abi.encode(uint256 validAfter, uint256 validBefore, uint256 salt, bytes signature); not from its
    source.  The error is ours.
"""
from ethereum.ercs import IERC20

interface TakesParts:
    def receiveWithAuthorization(
        payer: address, payee: address, amount: uint256, validAfter: uint256,
        validBefore: uint256, nonce: bytes32, v: uint8, r: bytes32, s: bytes32
    ): nonpayable

interface TakesBytes:
    def receiveWithAuthorization(
        payer: address, payee: address, amount: uint256, validAfter: uint256,
        validBefore: uint256, nonce: bytes32, signature: Bytes[1024]
    ): nonpayable

SETTLEMENT: constant(address) = 0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003


@external
def collect(
    payer: address,
    token: address,
    amount: uint256,
    channelId: bytes32,
    collectorData: Bytes[2048],
):
    # The nonce names the channel, but any contract could show the channel's id as its own.
    if msg.sender != SETTLEMENT:
        raw_revert(method_id("NotSettlement()"))  # ours
    validAfter: uint256 = 0
    validBefore: uint256 = 0
    salt: uint256 = 0
    signature: Bytes[1024] = b""
    validAfter, validBefore, salt, signature = abi_decode(
        collectorData, (uint256, uint256, uint256, Bytes[1024])
    )
    nonce: bytes32 = keccak256(abi_encode(channelId, salt))
    if len(signature) == 65 and not payer.is_contract:  # a form that older tokens take too
        extcall TakesParts(token).receiveWithAuthorization(
            payer, self, amount, validAfter, validBefore, nonce,
            convert(slice(signature, 64, 1), uint8),
            convert(slice(signature, 0, 32), bytes32),
            convert(slice(signature, 32, 32), bytes32),
        )
    else:
        extcall TakesBytes(token).receiveWithAuthorization(
            payer, self, amount, validAfter, validBefore, nonce, signature
        )
    assert extcall IERC20(token).transfer(
        msg.sender, amount, default_return_value=True
    ), "transfer failed"
