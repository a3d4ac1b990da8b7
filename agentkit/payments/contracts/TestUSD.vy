# pragma version 0.4.3
# pragma evm-version cancun
"""
@title A test token with the shape of USDC
@license Apache-2.0
@notice Six decimals, permit (EIP-2612), transfers by signature with random nonces (EIP-3009).
    Only its deployer mints.  For test networks: there is nothing behind it.
"""
from ethereum.ercs import IERC20
from ethereum.ercs import IERC20Detailed

implements: IERC20
implements: IERC20Detailed

event AuthorizationUsed:
    authorizer: indexed(address)
    nonce: indexed(bytes32)

event AuthorizationCanceled:
    authorizer: indexed(address)
    nonce: indexed(bytes32)

HALF_ORDER: constant(uint256) = (
    57896044618658097711785492504343953926418782139537452191302581570759080747168
)
DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
PERMIT_TYPE: constant(bytes32) = keccak256(
    "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
)
TRANSFER_TYPE: constant(bytes32) = keccak256(
    "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
RECEIVE_TYPE: constant(bytes32) = keccak256(
    "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
CANCEL_TYPE: constant(bytes32) = keccak256("CancelAuthorization(address authorizer,bytes32 nonce)")

name: public(constant(String[8])) = "USD Coin"
symbol: public(constant(String[4])) = "USDC"
version: public(constant(String[1])) = "1"
decimals: public(constant(uint8)) = 6
DOMAIN_SEPARATOR: public(immutable(bytes32))
minter: public(immutable(address))

totalSupply: public(uint256)
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
nonces: public(HashMap[address, uint256])
authorizationState: public(HashMap[address, HashMap[bytes32, bool]])


@deploy
def __init__():
    minter = msg.sender
    DOMAIN_SEPARATOR = keccak256(
        abi_encode(DOMAIN_TYPE, keccak256(name), keccak256(version), chain.id, self)
    )


@external
def mint(to: address, amount: uint256):
    assert msg.sender == minter, "only the minter mints"
    assert to != empty(address), "no receiver"
    self.totalSupply += amount
    self.balanceOf[to] += amount
    log IERC20.Transfer(sender=empty(address), receiver=to, value=amount)


@external
def transfer(to: address, amount: uint256) -> bool:
    self._move(msg.sender, to, amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    self._approve(msg.sender, spender, amount)
    return True


@external
def transferFrom(owner: address, to: address, amount: uint256) -> bool:
    allowed: uint256 = self.allowance[owner][msg.sender]
    if allowed != max_value(uint256):
        assert allowed >= amount, "allowance is too low"
        self.allowance[owner][msg.sender] = allowed - amount
    self._move(owner, to, amount)
    return True


@external
def permit(
    owner: address, spender: address, amount: uint256, deadline: uint256,
    v: uint8, r: bytes32, s: bytes32
):
    assert block.timestamp <= deadline, "permit is expired"
    nonce: uint256 = self.nonces[owner]
    self.nonces[owner] = nonce + 1
    message: bytes32 = keccak256(abi_encode(PERMIT_TYPE, owner, spender, amount, nonce, deadline))
    self._check_signature(owner, message, v, r, s)
    self._approve(owner, spender, amount)


@external
def transferWithAuthorization(
    payer: address, payee: address, amount: uint256, validAfter: uint256, validBefore: uint256,
    nonce: bytes32, v: uint8, r: bytes32, s: bytes32
):
    message: bytes32 = keccak256(
        abi_encode(TRANSFER_TYPE, payer, payee, amount, validAfter, validBefore, nonce)
    )
    self._check_time(validAfter, validBefore)
    self._check_signature(payer, message, v, r, s)
    self._use(payer, nonce)
    log AuthorizationUsed(authorizer=payer, nonce=nonce)
    self._move(payer, payee, amount)


@external
def receiveWithAuthorization(
    payer: address, payee: address, amount: uint256, validAfter: uint256, validBefore: uint256,
    nonce: bytes32, v: uint8, r: bytes32, s: bytes32
):
    assert msg.sender == payee, "caller must be the payee"
    message: bytes32 = keccak256(
        abi_encode(RECEIVE_TYPE, payer, payee, amount, validAfter, validBefore, nonce)
    )
    self._check_time(validAfter, validBefore)
    self._check_signature(payer, message, v, r, s)
    self._use(payer, nonce)
    log AuthorizationUsed(authorizer=payer, nonce=nonce)
    self._move(payer, payee, amount)


@external
def cancelAuthorization(authorizer: address, nonce: bytes32, v: uint8, r: bytes32, s: bytes32):
    message: bytes32 = keccak256(abi_encode(CANCEL_TYPE, authorizer, nonce))
    self._check_signature(authorizer, message, v, r, s)
    self._use(authorizer, nonce)
    log AuthorizationCanceled(authorizer=authorizer, nonce=nonce)


@internal
def _move(owner: address, to: address, amount: uint256):
    assert to != empty(address), "no receiver"
    assert self.balanceOf[owner] >= amount, "balance is too low"
    self.balanceOf[owner] -= amount
    self.balanceOf[to] += amount
    log IERC20.Transfer(sender=owner, receiver=to, value=amount)


@internal
def _approve(owner: address, spender: address, amount: uint256):
    self.allowance[owner][spender] = amount
    log IERC20.Approval(owner=owner, spender=spender, value=amount)


@internal
def _use(authorizer: address, nonce: bytes32):
    assert not self.authorizationState[authorizer][nonce], "authorization is used or canceled"
    self.authorizationState[authorizer][nonce] = True


@view
@internal
def _check_time(validAfter: uint256, validBefore: uint256):
    assert block.timestamp > validAfter, "authorization is not yet valid"
    assert block.timestamp < validBefore, "authorization is expired"


@view
@internal
def _check_signature(signer: address, message: bytes32, v: uint8, r: bytes32, s: bytes32):
    assert convert(s, uint256) <= HALF_ORDER, "invalid signature"
    digest: bytes32 = keccak256(concat(x"1901", DOMAIN_SEPARATOR, message))
    recovered: address = ecrecover(digest, v, r, s)
    assert recovered != empty(address) and recovered == signer, "invalid signature"
