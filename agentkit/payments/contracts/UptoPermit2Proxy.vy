# pragma version 0.4.3
# pragma evm-version cancun
"""
@title The Permit2 spender of x402 `upto`: a transfer of what was used, up to what was signed
@license Apache-2.0
@notice For test chains, at 0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002.  The payer signs a most, a
    receiver and the facilitator; that facilitator alone settles, once, for that much or less.
@dev Clean room: written from the scheme's specification and the ABI in the x402 SDK, not from the
    deployed contract's source.  Errors and events are those of that ABI; which of several errors
    comes first is ours, and a call that calls back reverts without data.
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

struct Witness:
    to: address
    facilitator: address
    validAfter: uint256

struct EIP2612Permit:
    value: uint256
    deadline: uint256
    r: bytes32
    s: bytes32
    v: uint8

interface SignatureTransfer:
    def permitWitnessTransferFrom(
        permit: PermitTransferFrom,
        transferDetails: SignatureTransferDetails,
        owner: address,
        witness: bytes32,
        witnessTypeString: String[512],
        signature: Bytes[1024],
    ): nonpayable

event Settled:
    pass

event SettledWithPermit:
    pass

PERMIT2: public(constant(address)) = 0x000000000022D473030F116dDEE9F6B43aC78BA3
WITNESS_TYPEHASH: public(constant(bytes32)) = keccak256(
    "Witness(address to,address facilitator,uint256 validAfter)"
)
WITNESS_TYPE_STRING: public(constant(String[128])) = "Witness witness)TokenPermissions(address token,uint256 amount)Witness(address to,address facilitator,uint256 validAfter)"


@nonreentrant
@external
def settle(
    permit: PermitTransferFrom,
    amount: uint256,
    owner: address,
    witness: Witness,
    signature: Bytes[1024],
):
    self._settle(permit, amount, owner, witness, signature)
    log Settled()


@nonreentrant
@external
def settleWithPermit(
    permit2612: EIP2612Permit,
    permit: PermitTransferFrom,
    amount: uint256,
    owner: address,
    witness: Witness,
    signature: Bytes[1024],
):
    """
    @notice Like settle, after the owner's EIP-2612 permit has approved Permit2
    """
    if permit2612.value != permit.permitted.amount:
        raw_revert(method_id("Permit2612AmountMismatch()"))
    self._approve(permit.permitted.token, owner, permit2612)
    self._settle(permit, amount, owner, witness, signature)
    log SettledWithPermit()


@internal
def _settle(
    permit: PermitTransferFrom,
    amount: uint256,
    owner: address,
    witness: Witness,
    signature: Bytes[1024],
):
    if msg.sender != witness.facilitator:
        raw_revert(method_id("UnauthorizedFacilitator()"))
    if amount > permit.permitted.amount:
        raw_revert(method_id("AmountExceedsPermitted()"))
    if witness.to == empty(address):
        raw_revert(method_id("InvalidDestination()"))
    if owner == empty(address):
        raw_revert(method_id("InvalidOwner()"))
    if block.timestamp < witness.validAfter:
        raw_revert(method_id("PaymentTooEarly()"))
    extcall SignatureTransfer(PERMIT2).permitWitnessTransferFrom(
        permit,
        SignatureTransferDetails(to=witness.to, requestedAmount=amount),
        owner,
        keccak256(abi_encode(WITNESS_TYPEHASH, witness)),
        WITNESS_TYPE_STRING,
        signature,
    )


@internal
def _approve(token: address, owner: address, permit: EIP2612Permit):
    # Anybody may have brought the permit before us: then this fails, and the allowance is there.
    done: bool = raw_call(
        token,
        abi_encode(
            owner, PERMIT2, permit.value, permit.deadline, permit.v, permit.r, permit.s,
            method_id=method_id("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"),
        ),
        revert_on_failure=False,
    )
