# pragma version 0.4.3
# pragma evm-version cancun
"""
@title Payment channels of the x402 scheme `batch-settlement`
@license Apache-2.0
@notice For test chains, at 0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003.  A payer deposits once and
    signs vouchers with a growing ceiling off chain.  The receiver claims what it charged, for many
    channels in one call, and settles all that it claimed with one transfer.

    deposit --> balance -- claim --> totalClaimed -- settle --> the receiver
                balance - totalClaimed -- refund (receiver side), or
                initiateWithdraw, withdrawDelay, finalizeWithdraw (payer side) --> the payer

    A channel is its configuration: it travels in every call, and its EIP-712 hash is the id.  An
    empty channel may be funded again.
@dev Clean room: written from the scheme's specification, the notes for implementers and the ABI of
    the SDK, not from the deployed contract's source; no equality with it is claimed.

    No constructor and no immutables, so that this runtime code can be put at the canonical address
    as it is; the domain separator is therefore computed at every call.

    Events: `Settled` stands in the SDK's ABI, `ChannelCreated` and `ChannelClosed` with their
    arguments in the specification.  OURS: the arguments of the other events, and which arguments
    are indexed in all but `Settled`.
    Errors: in the ABI of the SDK's Hedera variant, or in the notes, are InvalidSignature,
    InvalidChannel, InvalidCollector, ZeroDeposit, DepositOverflow, DepositCollectionFailed,
    WithdrawDelayOutOfRange, EmptyBatch, NotReceiverAuthorizer, NotAuthorizedToClaim,
    NotAuthorizedToRefund, ClaimExceedsCeiling, ClaimExceedsBalance, InvalidRefundNonce and
    ZeroRefund; when each is given is ours.  The others are marked OURS where they are given.
"""
from ethereum.ercs import IERC20

import signatures

interface DepositCollector:
    def collect(
        payer: address,
        token: address,
        amount: uint256,
        channelId: bytes32,
        collectorData: Bytes[2048],
    ): nonpayable

struct ChannelConfig:
    payer: address  # deposits, and receives what is refunded and withdrawn
    payerAuthorizer: address  # plain key that signs vouchers; zero: the payer signs (EIP-1271 too)
    receiver: address
    receiverAuthorizer: address  # signs claims and refunds that anybody brings
    token: address
    withdrawDelay: uint40  # seconds the receiver has left to claim once the payer wants out
    salt: bytes32

struct Voucher:
    channel: ChannelConfig
    maxClaimableAmount: uint128  # cumulative

struct VoucherClaim:
    voucher: Voucher
    signature: Bytes[SIGNATURE_BYTES]
    totalClaimed: uint128  # cumulative

struct Amounts:
    balance: uint256  # deposited, less what was refunded and withdrawn
    totalClaimed: uint256

event ChannelCreated:
    channelId: indexed(bytes32)
    config: ChannelConfig

event ChannelClosed:
    channelId: indexed(bytes32)
    config: ChannelConfig

event Deposited:
    channelId: indexed(bytes32)
    sender: indexed(address)
    amount: uint128
    newBalance: uint128

event Claimed:
    channelId: indexed(bytes32)
    sender: indexed(address)
    amount: uint128
    newTotalClaimed: uint128

event Settled:
    receiver: indexed(address)
    token: indexed(address)
    sender: indexed(address)
    amount: uint128

event Refunded:
    channelId: indexed(bytes32)
    sender: indexed(address)
    amount: uint128

event WithdrawInitiated:
    channelId: indexed(bytes32)
    sender: indexed(address)
    amount: uint128
    finalizeAfter: uint40

event WithdrawFinalized:
    channelId: indexed(bytes32)
    sender: indexed(address)
    amount: uint128

# Vyper reserves memory for the longest input, and its price grows with the square, so that a bound
# costs gas at every claim.  The SDK claims up to 100 channels at once.
# A plain key's signature has 65 bytes, one of a Coinbase Smart Wallet's key 224, one of a Safe 65
# for each owner: 320 holds them.  Beside 96 bytes that costs 8,300 gas a claim; 512 would cost
# 17,000, and 1,024, which a passkey needs, 47,000: its wallet names a payerAuthorizer instead.
ROWS: constant(uint256) = 100
SIGNATURE_BYTES: constant(uint256) = 320
AUTHORIZER_BYTES: constant(uint256) = 1024  # one for all rows, so its length costs next to nothing
CALLS: constant(uint256) = 8
CALL_BYTES: constant(uint256) = 4096  # a claim of six rows, say; a refund brings one

MIN_WITHDRAW_DELAY: constant(uint40) = 15 * 60
MAX_WITHDRAW_DELAY: constant(uint40) = 30 * 24 * 60 * 60
MAX_AMOUNT: constant(uint256) = 2**128 - 1
AMOUNT_BITS: constant(uint256) = 128

DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
NAME: constant(bytes32) = keccak256("x402 Batch Settlement")
VERSION: constant(bytes32) = keccak256("1")
CHANNEL_CONFIG_TYPEHASH: public(constant(bytes32)) = keccak256(
    "ChannelConfig(address payer,address payerAuthorizer,address receiver,address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)"
)
VOUCHER_TYPE: constant(bytes32) = keccak256("Voucher(bytes32 channelId,uint128 maxClaimableAmount)")
REFUND_TYPE: constant(bytes32) = keccak256(
    "Refund(bytes32 channelId,uint256 nonce,uint128 amount)"
)
CLAIM_ENTRY_TYPE: constant(bytes32) = keccak256(
    "ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)"
)
CLAIM_BATCH_TYPE: constant(bytes32) = keccak256(
    "ClaimBatch(ClaimEntry[] claims)ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)"
)

# Two numbers share a word each: the first one in the lower half.
channel_words: HashMap[bytes32, uint256]  # balance, totalClaimed
receiver_words: HashMap[address, HashMap[address, uint256]]  # totalClaimed, totalSettled
pending_words: HashMap[bytes32, uint256]  # amount, initiatedAt; 0 while no withdrawal is pending
refundNonce: public(HashMap[bytes32, uint256])


# -- reading -------------------------------------------------------------------------------------


@view
@external
def channels(channelId: bytes32) -> (uint128, uint128):
    """
    @return balance and totalClaimed
    """
    return self._halves(self.channel_words[channelId])


@view
@external
def receivers(receiver: address, token: address) -> (uint128, uint128):
    """
    @return totalClaimed and totalSettled, over all channels of the receiver in this token
    """
    return self._halves(self.receiver_words[receiver][token])


@view
@external
def pendingWithdrawals(channelId: bytes32) -> (uint128, uint40):
    """
    @return amount and initiatedAt; zeros while no withdrawal is pending
    """
    word: uint256 = self.pending_words[channelId]
    return convert(word & MAX_AMOUNT, uint128), convert(word >> AMOUNT_BITS, uint40)


@view
@external
def getChannelId(config: ChannelConfig) -> bytes32:
    return self._channel_id(self._domain(), config)


@view
@external
def getVoucherDigest(channelId: bytes32, maxClaimableAmount: uint128) -> bytes32:
    return self._voucher_digest(self._domain(), channelId, maxClaimableAmount)


@view
@external
def getRefundDigest(channelId: bytes32, nonce: uint256, amount: uint128) -> bytes32:
    return self._refund_digest(self._domain(), channelId, nonce, amount)


@view
@external
def getClaimBatchDigest(voucherClaims: DynArray[VoucherClaim, ROWS]) -> bytes32:
    domain: bytes32 = self._domain()
    entries: DynArray[bytes32, ROWS] = []
    for row: VoucherClaim in voucherClaims:
        id: bytes32 = self._channel_id(domain, row.voucher.channel)
        entries.append(self._entry(id, row.voucher.maxClaimableAmount, row.totalClaimed))
    return self._batch_digest(domain, entries)


# -- paying in -----------------------------------------------------------------------------------


@nonreentrant
@external
def deposit(
    config: ChannelConfig, amount: uint128, collector: address, collectorData: Bytes[2048]
):
    """
    @notice Open a channel or add to it; anybody may bring what the payer signed for the collector
    @dev The collector is anybody's contract and is trusted with nothing: what counts is that the
        token's balance here has grown by the amount.
    """
    if amount == 0:
        raw_revert(method_id("ZeroDeposit()"))
    if collector == empty(address):
        raw_revert(method_id("InvalidCollector()"))
    if config.withdrawDelay < MIN_WITHDRAW_DELAY or config.withdrawDelay > MAX_WITHDRAW_DELAY:
        raw_revert(method_id("WithdrawDelayOutOfRange()"))
    if empty(address) in [config.payer, config.receiver, config.receiverAuthorizer, config.token]:
        raw_revert(method_id("InvalidChannel()"))
    added: uint256 = convert(amount, uint256)
    id: bytes32 = self._channel_id(self._domain(), config)
    state: Amounts = self._load(id)
    created: bool = state.balance == 0 and state.totalClaimed == 0
    state.balance += added
    if state.balance > MAX_AMOUNT:
        raw_revert(method_id("DepositOverflow()"))
    self._store(id, state)
    before: uint256 = staticcall IERC20(config.token).balanceOf(self)
    extcall DepositCollector(collector).collect(
        config.payer, config.token, added, id, collectorData
    )
    # Some tokens take a fee, and some return without having moved anything.
    after: uint256 = staticcall IERC20(config.token).balanceOf(self)
    if after < before or after - before != added:
        raw_revert(method_id("DepositCollectionFailed()"))
    if created:
        log ChannelCreated(channelId=id, config=config)
    log Deposited(
        channelId=id,
        sender=msg.sender,
        amount=amount,
        newBalance=convert(state.balance, uint128),
    )


# -- claiming ------------------------------------------------------------------------------------


@nonreentrant
@external
def claim(voucherClaims: DynArray[VoucherClaim, ROWS]):
    """
    @notice Book what vouchers are worth, as the receiver or receiverAuthorizer of all of them
    """
    if len(voucherClaims) == 0:
        raw_revert(method_id("EmptyBatch()"))
    domain: bytes32 = self._domain()
    for row: VoucherClaim in voucherClaims:
        if not self._is_receiver_side(row.voucher.channel):
            raw_revert(method_id("NotAuthorizedToClaim()"))
        self._claim(domain, self._channel_id(domain, row.voucher.channel), row)


@nonreentrant
@external
def claimWithSignature(
    voucherClaims: DynArray[VoucherClaim, ROWS], authorizerSignature: Bytes[AUTHORIZER_BYTES]
):
    """
    @notice Like claim, brought by anybody with the signature of the rows' receiverAuthorizer
    """
    if len(voucherClaims) == 0:
        raw_revert(method_id("EmptyBatch()"))
    domain: bytes32 = self._domain()
    authorizer: address = voucherClaims[0].voucher.channel.receiverAuthorizer
    ids: DynArray[bytes32, ROWS] = []
    entries: DynArray[bytes32, ROWS] = []
    for row: VoucherClaim in voucherClaims:
        if row.voucher.channel.receiverAuthorizer != authorizer:
            raw_revert(method_id("NotReceiverAuthorizer()"))
        id: bytes32 = self._channel_id(domain, row.voucher.channel)
        ids.append(id)
        entries.append(self._entry(id, row.voucher.maxClaimableAmount, row.totalClaimed))
    digest: bytes32 = self._batch_digest(domain, entries)
    if not signatures._is_signed(authorizer, digest, authorizerSignature):
        raw_revert(method_id("InvalidSignature()"))
    for i: uint256 in range(len(ids), bound=ROWS):
        self._claim(domain, ids[i], voucherClaims[i])


@nonreentrant
@external
def settle(receiver: address, token: address):
    """
    @notice Pay a receiver all that was claimed for it since the last time; anybody may ask for it
    """
    word: uint256 = self.receiver_words[receiver][token]
    claimed: uint256 = word & MAX_AMOUNT
    amount: uint256 = claimed - (word >> AMOUNT_BITS)
    if amount == 0:
        return
    self.receiver_words[receiver][token] = claimed | (claimed << AMOUNT_BITS)
    self._pay(token, receiver, amount)
    log Settled(
        receiver=receiver, token=token, sender=msg.sender, amount=convert(amount, uint128)
    )


# -- paying out ----------------------------------------------------------------------------------


@nonreentrant
@external
def refund(config: ChannelConfig, amount: uint128):
    """
    @notice Give the payer up to `amount` of what was not claimed, at the receiver side's word
    """
    if not self._is_receiver_side(config):
        raw_revert(method_id("NotAuthorizedToRefund()"))
    self._refund(config, self._channel_id(self._domain(), config), amount)


@nonreentrant
@external
def refundWithSignature(
    config: ChannelConfig,
    amount: uint128,
    nonce: uint256,
    receiverAuthorizerSignature: Bytes[AUTHORIZER_BYTES],
):
    """
    @notice Like refund, brought by anybody with the receiverAuthorizer's signature
    """
    domain: bytes32 = self._domain()
    id: bytes32 = self._channel_id(domain, config)
    if nonce != self.refundNonce[id]:
        raw_revert(method_id("InvalidRefundNonce()"))
    digest: bytes32 = self._refund_digest(domain, id, nonce, amount)
    if not signatures._is_signed(
        config.receiverAuthorizer, digest, receiverAuthorizerSignature
    ):
        raw_revert(method_id("InvalidSignature()"))
    self._refund(config, id, amount)


@nonreentrant
@external
def initiateWithdraw(config: ChannelConfig, amount: uint128):
    """
    @notice The payer side announces a withdrawal; the receiver may still claim for withdrawDelay
    """
    self._check_payer_side(config)
    id: bytes32 = self._channel_id(self._domain(), config)
    if self.pending_words[id] != 0:
        raw_revert(method_id("WithdrawalAlreadyPending()"))  # OURS
    state: Amounts = self._load(id)
    # The specification says that more than is unclaimed reverts; that zero does too is ours.
    if amount == 0 or convert(amount, uint256) > state.balance - state.totalClaimed:
        raw_revert(method_id("NothingToWithdraw()"))  # OURS
    self.pending_words[id] = convert(amount, uint256) | (block.timestamp << AMOUNT_BITS)
    log WithdrawInitiated(
        channelId=id,
        sender=msg.sender,
        amount=amount,
        finalizeAfter=convert(block.timestamp, uint40) + config.withdrawDelay,
    )


@nonreentrant
@external
def finalizeWithdraw(config: ChannelConfig):
    """
    @notice The payer gets what it announced, or what is left unclaimed if that is less
    """
    self._check_payer_side(config)
    id: bytes32 = self._channel_id(self._domain(), config)
    word: uint256 = self.pending_words[id]
    if word == 0:
        raw_revert(method_id("WithdrawalNotPending()"))  # OURS
    if block.timestamp < (word >> AMOUNT_BITS) + convert(config.withdrawDelay, uint256):
        raw_revert(method_id("WithdrawDelayNotElapsed()"))  # OURS
    self.pending_words[id] = 0
    amount: uint256 = self._return(config, id, word & MAX_AMOUNT)
    log WithdrawFinalized(
        channelId=id, sender=msg.sender, amount=convert(amount, uint128)
    )


@external
def multicall(data: DynArray[Bytes[CALL_BYTES], CALLS]) -> DynArray[Bytes[96], CALLS]:
    """
    @notice Several calls of this contract in one transaction, all of them or none
    """
    results: DynArray[Bytes[96], CALLS] = []
    for one: Bytes[CALL_BYTES] in data:
        results.append(raw_call(self, one, max_outsize=96, is_delegate_call=True))
    return results


# -- inside --------------------------------------------------------------------------------------


@internal
def _claim(domain: bytes32, id: bytes32, row: VoucherClaim):
    config: ChannelConfig = row.voucher.channel
    total: uint256 = convert(row.totalClaimed, uint256)
    state: Amounts = self._load(id)
    if row.totalClaimed > row.voucher.maxClaimableAmount:
        raw_revert(method_id("ClaimExceedsCeiling()"))
    if total > state.balance:
        raw_revert(method_id("ClaimExceedsBalance()"))
    if total <= state.totalClaimed:
        return  # nothing new: a refund brings the last claim along whether or not it was booked
    digest: bytes32 = self._voucher_digest(domain, id, row.voucher.maxClaimableAmount)
    if not self._is_payers_word(config, digest, row.signature):
        raw_revert(method_id("InvalidSignature()"))
    added: uint256 = total - state.totalClaimed
    state.totalClaimed = total
    self._store(id, state)
    word: uint256 = self.receiver_words[config.receiver][config.token]
    if (word & MAX_AMOUNT) + added > MAX_AMOUNT:
        raw_revert(method_id("ClaimOverflow()"))  # OURS: only a token that lies has so many units
    self.receiver_words[config.receiver][config.token] = word + added
    log Claimed(
        channelId=id,
        sender=msg.sender,
        amount=convert(added, uint128),
        newTotalClaimed=row.totalClaimed,
    )


@internal
def _refund(config: ChannelConfig, id: bytes32, amount: uint128):
    # The nonce counts before the amount is capped, so that every refund uses a signature up.
    self.refundNonce[id] += 1
    if amount == 0:
        raw_revert(method_id("ZeroRefund()"))
    state: Amounts = self._load(id)
    given: uint256 = min(convert(amount, uint256), state.balance - state.totalClaimed)
    if given == 0:
        return
    word: uint256 = self.pending_words[id]
    if word != 0:
        # What is given back now is no longer withdrawn later.
        self.pending_words[id] = 0 if given >= word & MAX_AMOUNT else word - given
    returned: uint256 = self._return(config, id, given)
    log Refunded(channelId=id, sender=msg.sender, amount=convert(returned, uint128))


@internal
def _return(config: ChannelConfig, id: bytes32, amount: uint256) -> uint256:
    """
    @notice Pay the payer up to `amount` of what is unclaimed, and return how much that was
    """
    state: Amounts = self._load(id)
    given: uint256 = min(amount, state.balance - state.totalClaimed)
    if given == 0:
        return 0
    state.balance -= given
    self._store(id, state)
    self._pay(config.token, config.payer, given)
    if state.balance == 0:  # and so nothing was ever claimed
        log ChannelClosed(channelId=id, config=config)
    return given


@internal
def _pay(token: address, to: address, amount: uint256):
    if not extcall IERC20(token).transfer(to, amount, default_return_value=True):
        raw_revert(method_id("TransferFailed()"))  # OURS


@view
@internal
def _is_payers_word(
    config: ChannelConfig, digest: bytes32, signature: Bytes[SIGNATURE_BYTES]
) -> bool:
    if config.payerAuthorizer != empty(address):
        return signatures._is_signed_by_key(config.payerAuthorizer, digest, signature)
    return signatures._is_signed(config.payer, digest, signature)


@view
@internal
def _is_receiver_side(config: ChannelConfig) -> bool:
    return msg.sender == config.receiver or msg.sender == config.receiverAuthorizer


@view
@internal
def _check_payer_side(config: ChannelConfig):
    if msg.sender != config.payer and msg.sender != config.payerAuthorizer:
        raw_revert(method_id("NotPayer()"))  # OURS


@view
@internal
def _load(id: bytes32) -> Amounts:
    word: uint256 = self.channel_words[id]
    return Amounts(balance=word & MAX_AMOUNT, totalClaimed=word >> AMOUNT_BITS)


@internal
def _store(id: bytes32, state: Amounts):
    self.channel_words[id] = state.balance | (state.totalClaimed << AMOUNT_BITS)


@pure
@internal
def _halves(word: uint256) -> (uint128, uint128):
    return convert(word & MAX_AMOUNT, uint128), convert(word >> AMOUNT_BITS, uint128)


@view
@internal
def _domain() -> bytes32:
    return keccak256(abi_encode(DOMAIN_TYPE, NAME, VERSION, chain.id, self))


@pure
@internal
def _digest(domain: bytes32, message: bytes32) -> bytes32:
    return keccak256(concat(x"1901", domain, message))


@pure
@internal
def _channel_id(domain: bytes32, config: ChannelConfig) -> bytes32:
    return self._digest(domain, keccak256(abi_encode(CHANNEL_CONFIG_TYPEHASH, config)))


@pure
@internal
def _voucher_digest(domain: bytes32, id: bytes32, maxClaimableAmount: uint128) -> bytes32:
    return self._digest(domain, keccak256(abi_encode(VOUCHER_TYPE, id, maxClaimableAmount)))


@pure
@internal
def _refund_digest(domain: bytes32, id: bytes32, nonce: uint256, amount: uint128) -> bytes32:
    return self._digest(domain, keccak256(abi_encode(REFUND_TYPE, id, nonce, amount)))


@pure
@internal
def _entry(id: bytes32, maxClaimableAmount: uint128, totalClaimed: uint128) -> bytes32:
    return keccak256(abi_encode(CLAIM_ENTRY_TYPE, id, maxClaimableAmount, totalClaimed))


@pure
@internal
def _batch_digest(domain: bytes32, entries: DynArray[bytes32, ROWS]) -> bytes32:
    # EIP-712 hashes an array as the concatenation of its members' hashes: the encoding less its
    # two words of offset and length.
    encoded: Bytes[64 + 32 * ROWS] = abi_encode(entries)
    hashed: bytes32 = keccak256(slice(encoded, 64, 32 * len(entries)))
    return self._digest(domain, keccak256(abi_encode(CLAIM_BATCH_TYPE, hashed)))
