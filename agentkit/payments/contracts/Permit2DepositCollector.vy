# pragma version 0.4.3
# pragma evm-version cancun
"""
@title Pays into x402 channels from the payer's Permit2 signature
@license Apache-2.0
@notice For test chains, at 0x4020425FAf3B746C082C2f942b4E5159887B0005.  The payer signs amount,
    nonce, deadline and the channel as witness; the coins go from the payer to the channels.
@dev Clean room: written from the scheme's specification and the SDK's encoding of collectorData,
    abi.encode(uint256 nonce, uint256 deadline, bytes permit2Sig, bytes eip2612Permit), where the
    last is empty or abi.encode(value, deadline, v, r, s); not from its source.  The error is ours.
"""

struct TokenPermissions:
    token: address
    amount: uint256

struct PermitTransferFrom:
    permitted: TokenPermissions
    nonce: uint256
    deadline: uint256

struct SignatureTransferDetails:
    to: address
    requestedAmount: uint256

interface SignatureTransfer:
    def permitWitnessTransferFrom(
        permit: PermitTransferFrom,
        transferDetails: SignatureTransferDetails,
        owner: address,
        witness: bytes32,
        witnessTypeString: String[512],
        signature: Bytes[1024],
    ): nonpayable

SETTLEMENT: constant(address) = 0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003
PERMIT2: constant(address) = 0x000000000022D473030F116dDEE9F6B43aC78BA3
WITNESS_TYPE: constant(bytes32) = keccak256("DepositWitness(bytes32 channelId)")
WITNESS_TYPE_STRING: constant(String[128]) = "DepositWitness witness)DepositWitness(bytes32 channelId)TokenPermissions(address token,uint256 amount)"


@external
def collect(
    payer: address,
    token: address,
    amount: uint256,
    channelId: bytes32,
    collectorData: Bytes[2048],
):
    # The signature names the channel, but any contract could show the channels' id as its own.
    if msg.sender != SETTLEMENT:
        raw_revert(method_id("NotSettlement()"))  # ours
    nonce: uint256 = 0
    deadline: uint256 = 0
    signature: Bytes[1024] = b""
    permit2612: Bytes[160] = b""
    nonce, deadline, signature, permit2612 = abi_decode(
        collectorData, (uint256, uint256, Bytes[1024], Bytes[160])
    )
    if len(permit2612) != 0:
        self._approve(token, payer, permit2612)
    extcall SignatureTransfer(PERMIT2).permitWitnessTransferFrom(
        PermitTransferFrom(
            permitted=TokenPermissions(token=token, amount=amount), nonce=nonce, deadline=deadline
        ),
        SignatureTransferDetails(to=msg.sender, requestedAmount=amount),
        payer,
        keccak256(abi_encode(WITNESS_TYPE, channelId)),
        WITNESS_TYPE_STRING,
        signature,
    )


@internal
def _approve(token: address, payer: address, permit2612: Bytes[160]):
    value: uint256 = 0
    deadline: uint256 = 0
    v: uint8 = 0
    r: bytes32 = empty(bytes32)
    s: bytes32 = empty(bytes32)
    value, deadline, v, r, s = abi_decode(permit2612, (uint256, uint256, uint8, bytes32, bytes32))
    # Anybody may have brought the permit before us: then this fails, and the allowance is there.
    done: bool = raw_call(
        token,
        abi_encode(
            payer, PERMIT2, value, deadline, v, r, s,
            method_id=method_id("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"),
        ),
        revert_on_failure=False,
    )
