# pragma version 0.4.3
# pragma evm-version cancun
"""
@title A token for tests that does one thing tokens should not do
@dev Anybody mints, and nothing is asked of signatures and allowances.
"""

NO: constant(uint256) = 1  # answers false and moves nothing
FEE: constant(uint256) = 2  # keeps one unit of every transfer
MUTE: constant(uint256) = 3  # moves and returns nothing
LAX: constant(uint256) = 4  # does nothing when an authorization is used again, and does not mind
CALLS_FIRST: constant(uint256) = 5  # calls somebody before it moves
CALLS_LAST: constant(uint256) = 6  # calls somebody after it moved

event Called:
    done: bool

way: immutable(uint256)
balanceOf: public(HashMap[address, uint256])
used: HashMap[bytes32, bool]
armed: bool
whom: address
what: Bytes[4096]


@deploy
def __init__(_way: uint256):
    way = _way


@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount


@external
def arm(whom: address, what: Bytes[4096]):
    """
    @notice Call `whom` with `what` at the next transfer
    """
    self.armed = True
    self.whom = whom
    self.what = what


@external
@raw_return
def transfer(to: address, amount: uint256) -> Bytes[32]:
    return self._move(msg.sender, to, amount)


@external
@raw_return
def transferFrom(owner: address, to: address, amount: uint256) -> Bytes[32]:
    return self._move(owner, to, amount)


@external
def receiveWithAuthorization(
    payer: address, payee: address, amount: uint256, validAfter: uint256, validBefore: uint256,
    nonce: bytes32, v: uint8, r: bytes32, s: bytes32
):
    if way == LAX and self.used[nonce]:
        return
    assert not self.used[nonce], "used"
    self.used[nonce] = True
    self._move(payer, payee, amount)


@internal
def _move(owner: address, to: address, amount: uint256) -> Bytes[32]:
    if way == NO:
        return abi_encode(False)
    if way == CALLS_FIRST:
        self._call()
    self.balanceOf[owner] -= amount
    self.balanceOf[to] += amount - (1 if way == FEE else 0)
    if way == CALLS_LAST:
        self._call()
    return b"" if way == MUTE else abi_encode(True)


@internal
def _call():
    if self.armed:
        self.armed = False
        done: bool = raw_call(self.whom, self.what, revert_on_failure=False)
        log Called(done=done)
