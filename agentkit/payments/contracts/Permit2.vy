# pragma version 0.4.3
# pragma evm-version cancun
"""
@title What x402 needs of Permit2: one transfer, authorized by a signature with a nonce of its own
@license Apache-2.0
@notice For test chains, at 0x000000000022D473030F116dDEE9F6B43aC78BA3.  The owner approves this
    contract once, then signs who may draw which amount until when.  Batches and the lasting
    allowances of the real contract are left out.
@dev Clean room: written from the public documentation of SignatureTransfer and its ABI, not from
    its source.  Errors and the event are those of the published ABI.  The real contract takes
    64-byte signatures (EIP-2098) and high s as well; this one takes neither.
    No constructor and no immutables, so the domain separator is computed at every call.
"""
from ethereum.ercs import IERC20

import signatures

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

event UnorderedNonceInvalidation:
    owner: indexed(address)
    word: uint256
    mask: uint256

DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,uint256 chainId,address verifyingContract)"
)
NAME: constant(bytes32) = keccak256("Permit2")
PERMISSIONS_TYPE: constant(bytes32) = keccak256("TokenPermissions(address token,uint256 amount)")
PERMIT_TYPE: constant(bytes32) = keccak256(
    "PermitTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline)TokenPermissions(address token,uint256 amount)"
)
WITNESS_TYPE_START: constant(String[102]) = "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,"

nonceBitmap: public(HashMap[address, HashMap[uint256, uint256]])


@view
@external
def DOMAIN_SEPARATOR() -> bytes32:
    return self._domain()


@nonreentrant
@external
def permitTransferFrom(
    permit: PermitTransferFrom,
    transferDetails: SignatureTransferDetails,
    owner: address,
    signature: Bytes[1024],
):
    message: bytes32 = keccak256(
        abi_encode(
            PERMIT_TYPE,
            self._permissions(permit.permitted),
            msg.sender,
            permit.nonce,
            permit.deadline,
        )
    )
    self._transfer(permit, transferDetails, owner, message, signature)


@nonreentrant
@external
def permitWitnessTransferFrom(
    permit: PermitTransferFrom,
    transferDetails: SignatureTransferDetails,
    owner: address,
    witness: bytes32,
    witnessTypeString: String[512],
    signature: Bytes[1024],
):
    """
    @notice Like permitTransferFrom, with the hash of one more struct that the owner signed
    @param witnessTypeString The rest of the type: "Witness witness)...TokenPermissions(...)..."
    """
    message: bytes32 = keccak256(
        abi_encode(
            keccak256(concat(WITNESS_TYPE_START, witnessTypeString)),
            self._permissions(permit.permitted),
            msg.sender,
            permit.nonce,
            permit.deadline,
            witness,
        )
    )
    self._transfer(permit, transferDetails, owner, message, signature)


@external
def invalidateUnorderedNonces(wordPos: uint256, mask: uint256):
    """
    @notice Use up nonces of the caller: those of the set bits of `mask` in a word of the bitmap
    """
    self.nonceBitmap[msg.sender][wordPos] |= mask
    log UnorderedNonceInvalidation(owner=msg.sender, word=wordPos, mask=mask)


@internal
def _transfer(
    permit: PermitTransferFrom,
    details: SignatureTransferDetails,
    owner: address,
    message: bytes32,
    signature: Bytes[1024],
):
    if block.timestamp > permit.deadline:
        raw_revert(abi_encode(permit.deadline, method_id=method_id("SignatureExpired(uint256)")))
    if details.requestedAmount > permit.permitted.amount:
        raw_revert(
            abi_encode(permit.permitted.amount, method_id=method_id("InvalidAmount(uint256)"))
        )
    self._use_nonce(owner, permit.nonce)
    digest: bytes32 = keccak256(concat(x"1901", self._domain(), message))
    if not signatures._is_signed(owner, digest, signature):
        if owner.is_contract:
            raw_revert(method_id("InvalidContractSignature()"))
        if len(signature) != 65:
            raw_revert(method_id("InvalidSignatureLength()"))
        raw_revert(method_id("InvalidSigner()"))
    assert extcall IERC20(permit.permitted.token).transferFrom(
        owner, details.to, details.requestedAmount, default_return_value=True
    ), "TRANSFER_FROM_FAILED"


@internal
def _use_nonce(owner: address, nonce: uint256):
    word: uint256 = self.nonceBitmap[owner][nonce >> 8]
    bit: uint256 = 1 << (nonce & 255)
    if word & bit != 0:
        raw_revert(method_id("InvalidNonce()"))
    self.nonceBitmap[owner][nonce >> 8] = word | bit


@pure
@internal
def _permissions(permitted: TokenPermissions) -> bytes32:
    return keccak256(abi_encode(PERMISSIONS_TYPE, permitted))


@view
@internal
def _domain() -> bytes32:
    return keccak256(abi_encode(DOMAIN_TYPE, NAME, chain.id, self))
