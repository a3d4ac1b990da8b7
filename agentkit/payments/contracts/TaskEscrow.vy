# pragma version 0.4.3
# pragma evm-version cancun
"""
@title Money locked for one task at a time
@license Apache-2.0
@notice The provider signs a quote off chain, the payer locks its price, and the two agree on what
    the work was worth.  A job is its quote: it travels in every call and its EIP-712 hash is the
    job's id, so one word is all that is stored.

    none -- open --> funded -- submit (provider) --> submitted -- dispute (payer) --> disputed
    funded or submitted -- accept --> paid or refunded
    funded    -- refundUndelivered, after deliverBy --> refunded
    submitted -- claimUnjudged, after judgeWindow --> paid in full
    disputed  -- resolve (arbiter) --> paid or refunded
    disputed  -- expireDispute, after arbiterWindow --> paid defaultBps of the price

    What accepting takes: both sides' word for any pay up to the price, the payer's word alone for
    the whole price, the provider's word alone for nothing.  A word is an Accept that was signed,
    or being the caller.  So the payer alone gets nothing back before time does it, and a provider
    that holds no word of the payer's has to submit by deliverBy.

    Every state ends by time alone, at anybody's call, in windows that are bounded at opening: an
    action is in time up to and in its last second, and times out after it.  A submission counts as
    delivered whatever it is: a quote without an arbiter is for providers one trusts.
@dev States are written before tokens are called, so a token that calls back finds nothing to take
    twice.  Keys are plain keys, as in AgentChannels.
"""
from ethereum.ercs import IERC20

interface Authorizing:
    def receiveWithAuthorization(
        payer: address, payee: address, amount: uint256, validAfter: uint256,
        validBefore: uint256, nonce: bytes32, v: uint8, r: bytes32, s: bytes32
    ): nonpayable

struct Quote:
    payer: address
    provider: address
    arbiter: address  # decides disputes; without one, the zero address, there are none
    token: address
    price: uint128  # the most the task costs
    deliverBy: uint40  # unix time
    judgeWindow: uint40  # seconds after a submission in which the payer judges it
    quoteExpiry: uint40  # unix time until which the quote can be opened
    arbiterWindow: uint40  # seconds the arbiter has
    defaultBps: uint16  # the provider's part of the price, in 1/10000, if the arbiter is silent
    taskId: bytes32
    specHash: bytes32

struct Signature:
    v: uint8  # 27 or 28
    r: bytes32
    s: bytes32  # the lower of the two that would do, so that a signature has one form

event Opened:
    jobId: indexed(bytes32)
    payer: indexed(address)
    provider: indexed(address)
    price: uint128
    taskId: bytes32

event Submitted:
    jobId: indexed(bytes32)
    resultHash: bytes32

event Disputed:
    jobId: indexed(bytes32)
    reason: bytes32

event Settled:
    jobId: indexed(bytes32)
    state: uint8
    toProvider: uint128
    toPayer: uint128
    resultHash: bytes32  # what was accepted; empty where nobody said

FUNDED: constant(uint256) = 1
SUBMITTED: constant(uint256) = 2
DISPUTED: constant(uint256) = 3
PAID: constant(uint256) = 4
REFUNDED: constant(uint256) = 5

STATE_BITS: constant(uint256) = 8
STATE_MASK: constant(uint256) = 2**8 - 1
MAX_WINDOW: constant(uint40) = 30 * 24 * 60 * 60
MAX_DELIVERY: constant(uint256) = 365 * 24 * 60 * 60
WHOLE_BPS: constant(uint16) = 10000
MANY: constant(uint256) = 32  # jobs in one call
NONCE_MASK: constant(uint256) = max_value(uint256) - (2**64 - 1)
HALF_ORDER: constant(uint256) = (
    57896044618658097711785492504343953926418782139537452191302581570759080747168
)
DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
QUOTE_TYPE: constant(bytes32) = keccak256(
    "Quote(address payer,address provider,address arbiter,address token,uint128 price,uint40 deliverBy,uint40 judgeWindow,uint40 quoteExpiry,uint40 arbiterWindow,uint16 defaultBps,bytes32 taskId,bytes32 specHash)"
)
ACCEPT_TYPE: constant(bytes32) = keccak256("Accept(bytes32 jobId,uint128 pay,bytes32 resultHash)")

DOMAIN_SEPARATOR: public(immutable(bytes32))
words: HashMap[bytes32, uint256]  # state, and above it the last second before it times out


@deploy
def __init__():
    DOMAIN_SEPARATOR = keccak256(
        abi_encode(DOMAIN_TYPE, keccak256("TaskEscrow"), keccak256("1"), chain.id, self)
    )


# -- reading -------------------------------------------------------------------------------------


@view
@external
def jobIdOf(q: Quote) -> bytes32:
    """
    @return The job's id, which is also what the provider signs
    """
    return self._id(q)


@view
@external
def jobs(id: bytes32) -> (uint8, uint40):
    """
    @return state (0 none, 1 funded, 2 submitted, 3 disputed, 4 paid, 5 refunded), and the last
        second before the state times out
    """
    word: uint256 = self.words[id]
    return convert(word & STATE_MASK, uint8), convert(word >> STATE_BITS, uint40)


# -- opening -------------------------------------------------------------------------------------


@external
def open(q: Quote, v: uint8, r: bytes32, s: bytes32):
    """
    @notice Lock the price of the provider's signed quote, from the payer's balance and allowance
    """
    self._open_own(q, Signature(v=v, r=r, s=s))
    self._pull(q.token, convert(q.price, uint256))


@external
def openMany(qs: DynArray[Quote, MANY], signatures: DynArray[Signature, MANY]):
    """
    @notice Like open for many jobs in one token, with one transfer
    """
    assert len(qs) == len(signatures), "BadLengths"
    total: uint256 = 0
    for i: uint256 in range(len(qs), bound=MANY):
        assert qs[i].token == qs[0].token, "Mixed"
        self._open_own(qs[i], signatures[i])
        total += convert(qs[i].price, uint256)
    self._pull(qs[0].token, total)


@external
def openWithAuthorization(
    q: Quote, signature: Signature, validBefore: uint256, v: uint8, r: bytes32, s: bytes32
):
    """
    @notice Like open, with the payer's EIP-3009 authorization; anybody may bring it
    @param signature The provider's, of the quote
    @dev The authorization's nonce is the job's id with the last 8 bytes zero: it is for this job
        only, and a form that tokens with keyed nonces take too
    """
    id: bytes32 = self._open(q, signature)
    nonce: bytes32 = convert(convert(id, uint256) & NONCE_MASK, bytes32)
    amount: uint256 = convert(q.price, uint256)
    before: uint256 = staticcall IERC20(q.token).balanceOf(self)
    extcall Authorizing(q.token).receiveWithAuthorization(
        q.payer, self, amount, 0, validBefore, nonce, v, r, s
    )
    self._check_received(q.token, before, amount)


# -- delivering and judging ----------------------------------------------------------------------


@external
def submit(q: Quote, resultHash: bytes32):
    """
    @notice The provider has delivered; the payer has judgeWindow seconds to say something
    """
    id: bytes32 = self._id(q)
    assert msg.sender == q.provider, "NotProvider"
    self._check_in_time(id, FUNDED)
    self._store(id, SUBMITTED, block.timestamp + convert(q.judgeWindow, uint256))
    log Submitted(jobId=id, resultHash=resultHash)


@external
def accept(q: Quote, pay: uint128, resultHash: bytes32):
    """
    @notice The caller's word alone: the payer pays the whole price, the provider takes nothing
    """
    assert msg.sender == q.payer or msg.sender == q.provider, "NotParty"
    self._accept(q, self._id(q), pay, resultHash, msg.sender)


@external
def acceptWithSig(
    q: Quote, pay: uint128, resultHash: bytes32, v: uint8, r: bytes32, s: bytes32
):
    """
    @notice The word of whoever signed the Accept, and the caller's; anybody may bring it
    """
    self._accept_signed(q, pay, resultHash, Signature(v=v, r=r, s=s))


@external
def acceptWithBoth(q: Quote, pay: uint128, resultHash: bytes32, payer: Signature, provider: Signature):
    """
    @notice Both words for any pay up to the price; anybody may bring them
    """
    id: bytes32 = self._id(q)
    digest: bytes32 = self._acceptance(id, pay, resultHash)
    assert self._signer(digest, payer) == q.payer, "BadSignature"
    assert self._signer(digest, provider) == q.provider, "BadSignature"
    self._check_open(id)
    self._settle(q, id, pay, resultHash)


@external
def acceptMany(
    qs: DynArray[Quote, MANY],
    pays: DynArray[uint128, MANY],
    resultHashes: DynArray[bytes32, MANY],
    signatures: DynArray[Signature, MANY],
):
    """
    @notice Like acceptWithSig for many jobs
    """
    count: uint256 = len(qs)
    assert count == len(pays) and count == len(resultHashes), "BadLengths"
    assert count == len(signatures), "BadLengths"
    for i: uint256 in range(count, bound=MANY):
        self._accept_signed(qs[i], pays[i], resultHashes[i], signatures[i])


# -- disputes ------------------------------------------------------------------------------------


@external
def dispute(q: Quote, reason: bytes32):
    """
    @notice The payer refuses what was submitted, and the arbiter has arbiterWindow seconds
    """
    id: bytes32 = self._id(q)
    assert msg.sender == q.payer, "NotPayer"
    assert q.arbiter != empty(address), "NoArbiter"
    self._check_in_time(id, SUBMITTED)
    self._store(id, DISPUTED, block.timestamp + convert(q.arbiterWindow, uint256))
    log Disputed(jobId=id, reason=reason)


@external
def resolve(q: Quote, pay: uint128):
    """
    @notice The arbiter divides the price
    """
    id: bytes32 = self._id(q)
    assert msg.sender == q.arbiter, "NotArbiter"
    self._check_in_time(id, DISPUTED)
    self._settle(q, id, pay, empty(bytes32))


# -- silence -------------------------------------------------------------------------------------


@external
def refundUndelivered(q: Quote):
    """
    @notice Nothing was submitted in time: everything goes back
    """
    self._time_out(q, FUNDED, 0)


@external
def claimUnjudged(q: Quote):
    """
    @notice The payer did not judge in time: the provider gets the price
    """
    self._time_out(q, SUBMITTED, q.price)


@external
def expireDispute(q: Quote):
    """
    @notice The arbiter did not decide in time: both get what the quote says
    """
    part: uint256 = convert(q.price, uint256) * convert(q.defaultBps, uint256)
    self._time_out(q, DISPUTED, convert(part // convert(WHOLE_BPS, uint256), uint128))


# -- inside --------------------------------------------------------------------------------------


@view
@internal
def _id(q: Quote) -> bytes32:
    return self._digest(keccak256(abi_encode(QUOTE_TYPE, q)))


@view
@internal
def _digest(message: bytes32) -> bytes32:
    return keccak256(concat(x"1901", DOMAIN_SEPARATOR, message))


@view
@internal
def _signer(digest: bytes32, signature: Signature) -> address:
    # What cannot be recovered is the zero address, which is no job's payer or provider.
    if convert(signature.s, uint256) > HALF_ORDER:
        return empty(address)
    return ecrecover(digest, signature.v, signature.r, signature.s)


@view
@internal
def _acceptance(id: bytes32, pay: uint128, resultHash: bytes32) -> bytes32:
    return self._digest(keccak256(abi_encode(ACCEPT_TYPE, id, pay, resultHash)))


@view
@internal
def _check_open(id: bytes32):
    state: uint256 = self.words[id] & STATE_MASK
    assert state == FUNDED or state == SUBMITTED, "BadState"


@internal
def _store(id: bytes32, state: uint256, due: uint256):
    self.words[id] = state | (due << STATE_BITS)


@view
@internal
def _check_in_time(id: bytes32, state: uint256):
    word: uint256 = self.words[id]
    assert word & STATE_MASK == state, "BadState"
    assert block.timestamp <= word >> STATE_BITS, "TooLate"


@internal
def _time_out(q: Quote, state: uint256, pay: uint128):
    id: bytes32 = self._id(q)
    word: uint256 = self.words[id]
    assert word & STATE_MASK == state, "BadState"
    assert block.timestamp > word >> STATE_BITS, "TooEarly"
    self._settle(q, id, pay, empty(bytes32))


@internal
def _open_own(q: Quote, signature: Signature):
    assert msg.sender == q.payer, "NotPayer"
    self._open(q, signature)


@internal
def _open(q: Quote, signature: Signature) -> bytes32:
    self._check_quote(q)
    id: bytes32 = self._id(q)
    assert self.words[id] == 0, "BadState"
    assert self._signer(id, signature) == q.provider, "BadSignature"
    self._store(id, FUNDED, convert(q.deliverBy, uint256))
    log Opened(jobId=id, payer=q.payer, provider=q.provider, price=q.price, taskId=q.taskId)
    return id


@view
@internal
def _check_quote(q: Quote):
    assert q.price != 0, "Zero"
    assert q.payer != empty(address) and q.provider != empty(address), "BadQuote"
    assert q.payer != q.provider, "BadQuote"
    assert q.arbiter != q.payer and q.arbiter != q.provider, "BadQuote"
    assert q.judgeWindow <= MAX_WINDOW and q.arbiterWindow <= MAX_WINDOW, "BadQuote"
    assert q.defaultBps <= WHOLE_BPS, "BadQuote"
    deliverBy: uint256 = convert(q.deliverBy, uint256)
    assert deliverBy <= block.timestamp + MAX_DELIVERY, "BadQuote"
    assert block.timestamp < deliverBy, "TooLate"
    assert block.timestamp <= convert(q.quoteExpiry, uint256), "TooLate"


@internal
def _accept_signed(q: Quote, pay: uint128, resultHash: bytes32, signature: Signature):
    id: bytes32 = self._id(q)
    signer: address = self._signer(self._acceptance(id, pay, resultHash), signature)
    assert signer == q.payer or signer == q.provider, "BadSignature"
    self._accept(q, id, pay, resultHash, signer)


@internal
def _accept(q: Quote, id: bytes32, pay: uint128, resultHash: bytes32, said: address):
    self._check_open(id)
    byPayer: bool = said == q.payer or msg.sender == q.payer
    byProvider: bool = said == q.provider or msg.sender == q.provider
    if not (byPayer and byProvider):
        assert pay == (q.price if byPayer else 0), "NotAgreed"
    self._settle(q, id, pay, resultHash)


@internal
def _settle(q: Quote, id: bytes32, pay: uint128, resultHash: bytes32):
    assert pay <= q.price, "OverPrice"
    rest: uint128 = q.price - pay
    state: uint256 = PAID if pay != 0 else REFUNDED
    self._store(id, state, 0)
    log Settled(
        jobId=id,
        state=convert(state, uint8),
        toProvider=pay,
        toPayer=rest,
        resultHash=resultHash,
    )
    self._pay(q.token, q.provider, pay)
    self._pay(q.token, q.payer, rest)


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
def _pay(token: address, payee: address, amount: uint128):
    if amount != 0:
        assert extcall IERC20(token).transfer(
            payee, convert(amount, uint256), default_return_value=True
        ), "ShortTransfer"
