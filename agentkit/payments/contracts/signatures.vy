# pragma version 0.4.3
# pragma evm-version cancun
"""
@title Signatures of plain keys and of contracts (EIP-1271), for the contracts beside this file
@license Apache-2.0
@dev A plain key's signature has one form: 65 bytes r, s, v with the lower s and v 27 or 28.
    ERC-6492 (wallets that are not deployed yet) is left to whoever deploys the wallet first.
"""

HALF_ORDER: constant(uint256) = (
    57896044618658097711785492504343953926418782139537452191302581570759080747168
)
VALID: constant(bytes32) = (  # what isValidSignature returns, padded to a word
    0x1626ba7e00000000000000000000000000000000000000000000000000000000
)


@view
@internal
def _is_signed(signer: address, digest: bytes32, signature: Bytes[1024]) -> bool:
    """
    @notice Whether `signer` signed: an address with code is asked, any other one is recovered
    @dev A key with delegated code (EIP-7702) has code, and so its code decides, as in USDC.
    """
    if not signer.is_contract:
        return self._is_signed_by_key(signer, digest, signature)
    success: bool = False
    answer: Bytes[32] = b""
    success, answer = raw_call(
        signer,
        abi_encode(digest, signature, method_id=method_id("isValidSignature(bytes32,bytes)")),
        max_outsize=32,
        is_static_call=True,
        revert_on_failure=False,
    )
    return success and len(answer) == 32 and convert(answer, bytes32) == VALID


@pure
@internal
def _is_signed_by_key(signer: address, digest: bytes32, signature: Bytes[1024]) -> bool:
    """
    @notice Whether the plain key of `signer` signed; the zero address signs nothing
    """
    if len(signature) != 65 or signer == empty(address):
        return False
    r: uint256 = convert(slice(signature, 0, 32), uint256)
    s: uint256 = convert(slice(signature, 32, 32), uint256)
    v: uint256 = convert(slice(signature, 64, 1), uint256)
    if s > HALF_ORDER:
        return False
    return ecrecover(digest, v, r, s) == signer  # with another v than 27 and 28 it is zero
