# pragma version 0.4.3
# pragma evm-version cancun
"""
@title Channels on which an agent pays a provider for what it delivered
@license Apache-2.0
@notice The payer deposits, signs vouchers with a growing total off chain, and the provider claims
    the newest one whenever it likes.  A channel is its configuration: it travels in every call
    and hashes to the id, so one word is all that is stored.

    none -- fund --> open -- requestClose --> closing -- finishClose, after closeDelay --> closed
    open or closing -- claimAndClose (provider) --> closed
    open or closing -- closeWithRelease (anybody, with the provider's release) --> closed

    An id that was closed is spent for good.  Money leaves only towards the provider (up to what
    the payer's voucher key signed) and the payer (the rest).
@dev Balances and states are written before tokens are called, so a token that calls back finds
    nothing to take twice.  Keys are plain keys: a contract that signs (EIP-1271) could take its
    word back after delivery, and then a voucher would promise nothing.
"""
from ethereum.ercs import IERC20

interface Authorizing:
    def receiveWithAuthorization(
        payer: address, payee: address, amount: uint256, validAfter: uint256,
        validBefore: uint256, nonce: bytes32, v: uint8, r: bytes32, s: bytes32
    ): nonpayable

struct Config:
    payer: address  # deposits, and receives the rest
    voucherKey: address  # its signature moves money; may be the payer
    provider: address
    token: address
    closeDelay: uint40  # seconds the provider has left to claim once the payer wants to close
    salt: bytes32

struct Voucher:
    cumulative: uint128
    tasks: uint64
    receiptsRoot: bytes32

struct Signature:
    v: uint8  # 27 or 28
    r: bytes32
    s: bytes32  # the lower of the two that would do, so that a signature has one form

struct State:
    deposited: uint256
    claimed: uint256
    closesAt: uint256

event Funded:
    id: indexed(bytes32)
    payer: indexed(address)
    provider: indexed(address)
    amount: uint128
    deposited: uint128

event Claimed:
    id: indexed(bytes32)
    amount: uint128
    cumulative: uint128
    tasks: uint64
    receiptsRoot: bytes32

event CloseRequested:
    id: indexed(bytes32)
    closesAt: uint40

event Closed:
    id: indexed(bytes32)
    refunded: uint128

MIN_DELAY: constant(uint40) = 15 * 60
MAX_DELAY: constant(uint40) = 30 * 24 * 60 * 60
CLOSED: constant(uint256) = 2**40 - 1  # as closesAt: a time that never comes
MANY: constant(uint256) = 32  # channels in one call
AMOUNT_BITS: constant(uint256) = 104
MAX_AMOUNT: constant(uint256) = 2**104 - 1  # two amounts and a time fit one word
HALF_ORDER: constant(uint256) = (
    57896044618658097711785492504343953926418782139537452191302581570759080747168
)
DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
VOUCHER_TYPE: constant(bytes32) = keccak256(
    "Voucher(bytes32 channelId,uint128 cumulative,uint64 tasks,bytes32 receiptsRoot)"
)
RELEASE_TYPE: constant(bytes32) = keccak256("Release(bytes32 channelId,uint128 finalClaimed)")

DOMAIN_SEPARATOR: public(immutable(bytes32))
words: HashMap[bytes32, uint256]


@deploy
def __init__():
    DOMAIN_SEPARATOR = keccak256(
        abi_encode(DOMAIN_TYPE, keccak256("AgentChannels"), keccak256("1"), chain.id, self)
    )


# -- reading -------------------------------------------------------------------------------------


@view
@external
def channelId(c: Config) -> bytes32:
    return self._id(c)


@view
@external
def channels(id: bytes32) -> (uint128, uint128):
    """
    @return deposited and claimed so far; both are what was claimed once the channel is closed
    """
    state: State = self._load(id)
    return convert(state.deposited, uint128), convert(state.claimed, uint128)


@view
@external
def closingAt(id: bytes32) -> uint40:
    """
    @return 0 while nobody asked to close, then the time from which anybody may finish the close,
        and 2^40 - 1 once the channel is closed
    """
    return convert(self._load(id).closesAt, uint40)


# -- paying in -----------------------------------------------------------------------------------


@external
def fund(c: Config, amount: uint128):
    """
    @notice Open the channel or add to it, from the payer's balance and allowance
    """
    self._credit_own(c, amount)
    self._pull(c.token, convert(amount, uint256))


@external
def fundMany(cs: DynArray[Config, MANY], amounts: DynArray[uint128, MANY]):
    """
    @notice Like fund for many channels in one token, with one transfer
    """
    assert len(cs) == len(amounts), "BadLengths"
    total: uint256 = 0
    for i: uint256 in range(len(cs), bound=MANY):
        assert cs[i].token == cs[0].token, "Mixed"
        self._credit_own(cs[i], amounts[i])
        total += convert(amounts[i], uint256)
    self._pull(cs[0].token, total)


@external
def fundWithAuthorization(
    c: Config, amount: uint128, validBefore: uint256, v: uint8, r: bytes32, s: bytes32
):
    """
    @notice Like fund, with the payer's EIP-3009 authorization; anybody may bring it
    @dev The authorization's nonce is bound to what was deposited so far: a top-up lands once
    """
    id: bytes32 = self._id(c)
    state: State = self._load(id)
    nonce: bytes32 = keccak256(abi_encode(id, state.deposited))
    self._credit(c, id, state, amount)
    before: uint256 = staticcall IERC20(c.token).balanceOf(self)
    extcall Authorizing(c.token).receiveWithAuthorization(
        c.payer, self, convert(amount, uint256), 0, validBefore, nonce, v, r, s
    )
    self._check_received(c.token, before, convert(amount, uint256))


# -- paying out ----------------------------------------------------------------------------------


@external
def claim(c: Config, voucher: Voucher, v: uint8, r: bytes32, s: bytes32):
    """
    @notice Pay the provider what the voucher adds to earlier claims; anybody may bring it
    """
    amount: uint256 = self._claim(c, voucher, Signature(v=v, r=r, s=s))
    self._pay(c.token, c.provider, amount)


@external
def claimMany(
    cs: DynArray[Config, MANY],
    vouchers: DynArray[Voucher, MANY],
    signatures: DynArray[Signature, MANY],
):
    """
    @notice Like claim for many channels of one provider in one token, with one transfer
    """
    assert len(cs) == len(vouchers) and len(cs) == len(signatures), "BadLengths"
    total: uint256 = 0
    for i: uint256 in range(len(cs), bound=MANY):
        assert cs[i].provider == cs[0].provider and cs[i].token == cs[0].token, "Mixed"
        total += self._claim(cs[i], vouchers[i], signatures[i])
    self._pay(cs[0].token, cs[0].provider, total)


@external
def claimAndClose(c: Config, voucher: Voucher, v: uint8, r: bytes32, s: bytes32):
    """
    @notice The provider's last claim and the payer's refund in one transaction
    """
    assert msg.sender == c.provider, "NotProvider"
    id: bytes32 = self._id(c)
    state: State = self._load(id)
    amount: uint256 = self._redeem(c, id, state, voucher, Signature(v=v, r=r, s=s))
    state.claimed = convert(voucher.cumulative, uint256)
    rest: uint256 = self._close(id, state)
    self._pay(c.token, c.provider, amount)
    self._pay(c.token, c.payer, rest)


@external
def closeWithRelease(c: Config, finalClaimed: uint128, v: uint8, r: bytes32, s: bytes32):
    """
    @notice Give the payer the rest at once; anybody may bring the provider's release
    @param finalClaimed What was claimed so far: a release ends after the claims it knows of
    """
    id: bytes32 = self._id(c)
    state: State = self._load(id)
    assert state.deposited != 0, "NotOpen"
    assert state.claimed == convert(finalClaimed, uint256), "OtherClaims"
    message: bytes32 = keccak256(abi_encode(RELEASE_TYPE, id, finalClaimed))
    assert self._signer(message, Signature(v=v, r=r, s=s)) == c.provider, "BadSignature"
    self._pay(c.token, c.payer, self._close(id, state))


@external
def requestClose(c: Config):
    """
    @notice The payer asks for the rest; the provider may still claim for closeDelay seconds
    """
    assert msg.sender == c.payer, "NotPayer"
    id: bytes32 = self._id(c)
    state: State = self._load(id)
    assert state.closesAt == 0, "Closing"
    assert state.deposited != 0, "NotOpen"
    closesAt: uint256 = block.timestamp + convert(c.closeDelay, uint256)
    self._store(id, state.deposited, state.claimed, closesAt)
    log CloseRequested(id=id, closesAt=convert(closesAt, uint40))


@external
def finishClose(c: Config):
    """
    @notice Give the payer the rest once closeDelay is over; anybody may ask for it
    """
    id: bytes32 = self._id(c)
    state: State = self._load(id)
    assert state.closesAt != 0, "NotClosing"
    assert state.closesAt == CLOSED or block.timestamp >= state.closesAt, "TooEarly"
    self._pay(c.token, c.payer, self._close(id, state))


# -- inside --------------------------------------------------------------------------------------


@view
@internal
def _id(c: Config) -> bytes32:
    return keccak256(abi_encode(chain.id, self, c))


@view
@internal
def _load(id: bytes32) -> State:
    word: uint256 = self.words[id]
    return State(
        deposited=word & MAX_AMOUNT,
        claimed=(word >> AMOUNT_BITS) & MAX_AMOUNT,
        closesAt=word >> (2 * AMOUNT_BITS),
    )


@internal
def _store(id: bytes32, deposited: uint256, claimed: uint256, closesAt: uint256):
    self.words[id] = deposited | (claimed << AMOUNT_BITS) | (closesAt << (2 * AMOUNT_BITS))


@internal
def _credit_own(c: Config, amount: uint128):
    assert msg.sender == c.payer, "NotPayer"
    id: bytes32 = self._id(c)
    self._credit(c, id, self._load(id), amount)


@internal
def _credit(c: Config, id: bytes32, state: State, amount: uint128):
    assert amount != 0, "Zero"
    assert c.closeDelay >= MIN_DELAY and c.closeDelay <= MAX_DELAY, "BadConfig"
    assert c.provider != empty(address) and c.voucherKey != empty(address), "BadConfig"
    assert state.closesAt == 0, "Closing"
    deposited: uint256 = state.deposited + convert(amount, uint256)
    assert deposited <= MAX_AMOUNT, "TooMuch"
    self._store(id, deposited, state.claimed, 0)
    log Funded(
        id=id,
        payer=c.payer,
        provider=c.provider,
        amount=amount,
        deposited=convert(deposited, uint128),
    )


@internal
def _pull(token: address, amount: uint256):
    before: uint256 = staticcall IERC20(token).balanceOf(self)
    assert extcall IERC20(token).transferFrom(
        msg.sender, self, amount, default_return_value=True
    ), "ShortTransfer"
    self._check_received(token, before, amount)


@view
@internal
def _check_received(token: address, before: uint256, amount: uint256):
    # Some tokens take a fee, and some return without having moved anything.
    after: uint256 = staticcall IERC20(token).balanceOf(self)
    assert after == before + amount, "ShortTransfer"


@internal
def _claim(c: Config, voucher: Voucher, signature: Signature) -> uint256:
    id: bytes32 = self._id(c)
    state: State = self._load(id)
    amount: uint256 = self._redeem(c, id, state, voucher, signature)
    self._store(id, state.deposited, convert(voucher.cumulative, uint256), state.closesAt)
    return amount


@internal
def _redeem(
    c: Config, id: bytes32, state: State, voucher: Voucher, signature: Signature
) -> uint256:
    cumulative: uint256 = convert(voucher.cumulative, uint256)
    assert cumulative > state.claimed, "NothingNew"
    # A closed channel's deposit is what was claimed, so nothing passes this line again.
    assert cumulative <= state.deposited, "OverDeposit"
    message: bytes32 = keccak256(abi_encode(VOUCHER_TYPE, id, voucher))
    assert self._signer(message, signature) == c.voucherKey, "BadSignature"
    amount: uint256 = cumulative - state.claimed
    log Claimed(
        id=id,
        amount=convert(amount, uint128),
        cumulative=voucher.cumulative,
        tasks=voucher.tasks,
        receiptsRoot=voucher.receiptsRoot,
    )
    return amount


@view
@internal
def _signer(message: bytes32, signature: Signature) -> address:
    # What cannot be recovered is the zero address, which signs for no funded channel.
    if convert(signature.s, uint256) > HALF_ORDER:
        return empty(address)
    digest: bytes32 = keccak256(concat(x"1901", DOMAIN_SEPARATOR, message))
    return ecrecover(digest, signature.v, signature.r, signature.s)


@internal
def _close(id: bytes32, state: State) -> uint256:
    assert state.closesAt != CLOSED, "Closed"
    rest: uint256 = state.deposited - state.claimed
    self._store(id, state.claimed, state.claimed, CLOSED)
    log Closed(id=id, refunded=convert(rest, uint128))
    return rest


@internal
def _pay(token: address, payee: address, amount: uint256):
    if amount != 0:
        assert extcall IERC20(token).transfer(
            payee, amount, default_return_value=True
        ), "ShortTransfer"
