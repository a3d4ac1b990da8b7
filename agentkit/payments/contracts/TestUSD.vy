# pragma version 0.4.3
# pragma evm-version cancun
"""
@title A test token with the shape of USDC
@license Apache-2.0
@notice Six decimals, permit (EIP-2612), transfers by signature with random nonces (EIP-3009), of
    plain keys and of contracts (EIP-1271), as v, r, s or as bytes, like USDC 2.2.
    Only its deployer mints.  For test networks: there is nothing behind it.
@dev Embedded chains get later versions of this code at the token's place: the variables and the
    immutables below keep their order and types, and new ones go after them.
"""
from ethereum.ercs import IERC20
from ethereum.ercs import IERC20Detailed

import signatures

implements: IERC20
implements: IERC20Detailed

struct Authorization:
    payer: address
    payee: address
    amount: uint256
    validAfter: uint256
    validBefore: uint256
    nonce: bytes32

event AuthorizationUsed:
    authorizer: indexed(address)
    nonce: indexed(bytes32)

event AuthorizationCanceled:
    authorizer: indexed(address)
    nonce: indexed(bytes32)

SIGNATURE_BYTES: constant(uint256) = 1024
SIGNATURE_WORDS: constant(uint256) = 30  # as an array these are encoded in SIGNATURE_BYTES
ARGUMENTS: constant(uint256) = 4  # where they begin in a call, after the function's selector
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
    self._check_signature(owner, message, self._packed(v, r, s))
    self._approve(owner, spender, amount)


@external
def transferWithAuthorization(
    payer: address, payee: address, amount: uint256, validAfter: uint256, validBefore: uint256,
    nonce: bytes32, v: uint8, r: bytes32, s: bytes32
):
    signature: Bytes[65] = self._packed(v, r, s)
    given: Authorization = Authorization(
        payer=payer, payee=payee, amount=amount, validAfter=validAfter, validBefore=validBefore,
        nonce=nonce
    )
    self._draw(TRANSFER_TYPE, given, signature)


@external
def receiveWithAuthorization(
    payer: address, payee: address, amount: uint256, validAfter: uint256, validBefore: uint256,
    nonce: bytes32, v: uint8, r: bytes32, s: bytes32
):
    signature: Bytes[65] = self._packed(v, r, s)
    given: Authorization = Authorization(
        payer=payer, payee=payee, amount=amount, validAfter=validAfter, validBefore=validBefore,
        nonce=nonce
    )
    self._draw(RECEIVE_TYPE, given, signature)


@external
def cancelAuthorization(authorizer: address, nonce: bytes32, v: uint8, r: bytes32, s: bytes32):
    message: bytes32 = keccak256(abi_encode(CANCEL_TYPE, authorizer, nonce))
    self._check_signature(authorizer, message, self._packed(v, r, s))
    self._use(authorizer, nonce)
    log AuthorizationCanceled(authorizer=authorizer, nonce=nonce)


@external
def __default__():
    """
    @notice The forms of the two transfers that take the signature as bytes
    @dev Vyper knows no two functions of one name, so these two are recognised here.
    """
    called: Bytes[4] = slice(msg.data, 0, 4)
    kind: bytes32 = TRANSFER_TYPE
    if called == method_id(
        "receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)",
        output_type=Bytes[4],
    ):
        kind = RECEIVE_TYPE
    else:
        assert called == method_id(
            "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)",
            output_type=Bytes[4],
        ), "no such function"
    given: Authorization = abi_decode(slice(msg.data, ARGUMENTS, 6 * 32), Authorization)
    self._draw(kind, given, self._signature_argument())


@view
@internal
def _signature_argument() -> Bytes[SIGNATURE_BYTES]:
    """
    @notice The seventh argument of the call: bytes, at the offset that stands in its place
    @dev Only pieces of a constant length can be cut out of a call, so it is read by words.
    """
    offset: uint256 = convert(slice(msg.data, ARGUMENTS + 6 * 32, 32), uint256)
    length: uint256 = convert(slice(msg.data, ARGUMENTS + offset, 32), uint256)
    assert length <= 32 * SIGNATURE_WORDS, "signature is too long"
    words: DynArray[bytes32, SIGNATURE_WORDS] = []
    for i: uint256 in range((length + 31) // 32, bound=SIGNATURE_WORDS):
        words.append(convert(slice(msg.data, ARGUMENTS + offset + 32 * (i + 1), 32), bytes32))
    return slice(abi_encode(words), 64, length)


@internal
def _draw(kind: bytes32, given: Authorization, signature: Bytes[SIGNATURE_BYTES]):
    assert kind != RECEIVE_TYPE or msg.sender == given.payee, "caller must be the payee"
    assert block.timestamp > given.validAfter, "authorization is not yet valid"
    assert block.timestamp < given.validBefore, "authorization is expired"
    self._check_signature(given.payer, keccak256(abi_encode(kind, given)), signature)
    self._use(given.payer, given.nonce)
    log AuthorizationUsed(authorizer=given.payer, nonce=given.nonce)
    self._move(given.payer, given.payee, given.amount)


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
def _check_signature(signer: address, message: bytes32, signature: Bytes[SIGNATURE_BYTES]):
    digest: bytes32 = keccak256(concat(x"1901", DOMAIN_SEPARATOR, message))
    assert signatures._is_signed(signer, digest, signature), "invalid signature"


@pure
@internal
def _packed(v: uint8, r: bytes32, s: bytes32) -> Bytes[65]:
    return concat(r, s, convert(v, bytes1))
