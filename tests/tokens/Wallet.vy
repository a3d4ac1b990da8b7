# pragma version 0.4.3
# pragma evm-version cancun
"""
@title A contract wallet for tests: signs by its owner's key (EIP-1271), until it thinks otherwise
@dev Anybody may have it do anything.  A call that it does not know it takes and ignores.
"""

HONEST: constant(uint256) = 0
REFUSES: constant(uint256) = 1  # answers another value
REVERTS: constant(uint256) = 2
SHORT: constant(uint256) = 3  # answers the four bytes without their padding
DIRTY: constant(uint256) = 4  # answers the four bytes with something behind them
SILENT: constant(uint256) = 5  # answers nothing

owner: immutable(address)
way: public(uint256)


@deploy
def __init__(_owner: address):
    owner = _owner


@external
def behave(way: uint256):
    self.way = way


@external
def execute(to: address, data: Bytes[4096]):
    raw_call(to, data)


@view
@external
@raw_return
def isValidSignature(digest: bytes32, signature: Bytes[1024]) -> Bytes[32]:
    assert self.way != REVERTS, "no word"
    signer: address = empty(address)
    if len(signature) >= 65:
        signer = ecrecover(
            digest,
            convert(slice(signature, 64, 1), uint256),
            convert(slice(signature, 0, 32), uint256),
            convert(slice(signature, 32, 32), uint256),
        )
    if signer != owner or self.way == REFUSES:
        return abi_encode(0xffffffff)
    if self.way == SHORT:
        return x"1626ba7e"
    if self.way == DIRTY:
        return x"1626ba7e00000000000000000000000000000000000000000000000000000001"
    if self.way == SILENT:
        return b""
    return abi_encode(0x1626ba7e)


@external
def __default__():
    pass
