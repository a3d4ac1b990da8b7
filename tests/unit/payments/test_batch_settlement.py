"""The channels of x402 `batch-settlement`: the SDK's words, and one rule of the specification at a
time, to the second and to the unit.

That the deployed contract does the same is not shown here: docs/explanation/contracts.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from eth_account.messages import encode_typed_data
from support.evm import Deployed, Evm, contract_wallet, kinds, other_forms
from support.x402_channels import (
    AUTHORIZER,
    COLLECTOR,
    DAY,
    DELAY,
    DEPLOYER,
    MINTED,
    OWNER,
    PAYER,
    RECEIVER,
    SESSION,
    STRANGER,
    ZERO,
    Scene,
)
from x402.mechanisms.evm import constants as sdk
from x402.mechanisms.evm.batch_settlement import constants as sdk_batch
from x402.mechanisms.evm.batch_settlement.abi import BATCH_SETTLEMENT_ABI
from x402.mechanisms.evm.batch_settlement.encoding import (
    build_erc3009_collector_data,
    build_erc3009_deposit_nonce,
)
from x402.mechanisms.evm.batch_settlement.types import ChannelConfig
from x402.mechanisms.evm.batch_settlement.utils import (
    compute_channel_id,
    get_batch_settlement_eip712_domain,
)

from agentkit.embedded.chain.vm import CHAIN_ID
from agentkit.keys.messages import checksummed, keccak, word
from agentkit.payments.contracts import CANONICAL, load

MOST = 2**128 - 1


@pytest.fixture
def scene() -> Scene:
    return Scene.new()


@pytest.fixture
def funded(scene: Scene) -> Scene:
    assert scene.deposit(1000) == ""
    return scene


# -- the SDK's words -----------------------------------------------------------------------------


def test_the_addresses_are_those_of_the_sdk() -> None:
    assert {
        "BatchSettlement": sdk_batch.BATCH_SETTLEMENT_ADDRESS,
        "Erc3009DepositCollector": sdk_batch.ERC3009_DEPOSIT_COLLECTOR_ADDRESS,
        "Permit2DepositCollector": sdk_batch.PERMIT2_DEPOSIT_COLLECTOR_ADDRESS,
        "ExactPermit2Proxy": sdk.X402_EXACT_PERMIT2_PROXY_ADDRESS,
        "UptoPermit2Proxy": sdk.X402_UPTO_PERMIT2_PROXY_ADDRESS,
        "Permit2": sdk.PERMIT2_ADDRESS,
        "Multicall3": sdk.MULTICALL3_ADDRESS,
    } == CANONICAL


def spoken(entry: dict[str, Any]) -> tuple[Any, ...]:
    """What a client and a contract have to agree on about a function or an event."""
    signature = f"{entry['name']}({','.join(kinds(entry['inputs']))})"
    names = [given["name"] for given in entry["inputs"]]
    if entry["type"] == "event":
        return signature, names, [given["indexed"] for given in entry["inputs"]]
    return signature, kinds(entry["outputs"]), entry["stateMutability"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("BatchSettlement", BATCH_SETTLEMENT_ABI),
        ("ExactPermit2Proxy", sdk.X402_EXACT_PERMIT2_PROXY_ABI),
        ("ExactPermit2Proxy", sdk.X402_EXACT_PERMIT2_PROXY_SETTLE_WITH_PERMIT_ABI),
        ("UptoPermit2Proxy", sdk.X402_UPTO_PERMIT2_PROXY_ABI),
        ("UptoPermit2Proxy", sdk.X402_UPTO_PERMIT2_PROXY_SETTLE_WITH_PERMIT_ABI),
        ("Multicall3", sdk.MULTICALL3_TRY_AGGREGATE_ABI),
        ("TestUSD", sdk.TRANSFER_WITH_AUTHORIZATION_VRS_ABI),
        ("TestUSD", sdk.TRANSFER_WITH_AUTHORIZATION_BYTES_ABI),
        ("TestUSD", sdk.AUTHORIZATION_STATE_ABI),
        ("TestUSD", sdk.EIP2612_NONCES_ABI),
        ("TestUSD", sdk.ERC20_ALLOWANCE_ABI),
    ],
)
def test_all_that_the_sdk_calls_is_there(name: str, wanted: list[dict[str, Any]]) -> None:
    ours = [spoken(entry) for entry in load(name).abi if entry["type"] in ("function", "event")]
    for entry in wanted:
        assert spoken(entry) in ours, entry["name"]


def by_sdk(types: Any, message: dict[str, Any]) -> bytes:
    """The digest that the SDK signs."""
    said = encode_typed_data(
        domain_data=get_batch_settlement_eip712_domain(CHAIN_ID),
        message_types=types,
        message_data=message,
    )
    return keccak(b"\x19" + said.version + said.header + said.body)


@pytest.mark.parametrize("authorizer", [SESSION.address, ZERO])
def test_every_digest_is_the_sdks(scene: Scene, authorizer: str) -> None:
    scene = replace(scene, payer_authorizer=authorizer, delay=30 * DAY, salt=keccak(b"salt"))
    config = ChannelConfig(
        payer=scene.payer,
        payer_authorizer=scene.payer_authorizer,
        receiver=scene.receiver,
        receiver_authorizer=scene.receiver_authorizer,
        token=scene.token.address,
        withdraw_delay=scene.delay,
        salt="0x" + scene.salt.hex(),
    )
    ask = lambda *call: scene.channels.do(STRANGER, *call)  # noqa: E731
    asked = ask("getChannelId", scene.config)
    assert "0x" + asked.hex() == compute_channel_id(config, CHAIN_ID) == "0x" + scene.id.hex()
    assert ask("CHANNEL_CONFIG_TYPEHASH") == sdk_batch.CHANNEL_CONFIG_TYPEHASH

    voucher = {"channelId": scene.id, "maxClaimableAmount": MOST}
    assert ask("getVoucherDigest", scene.id, MOST) == by_sdk(sdk_batch.VOUCHER_TYPES, voucher)
    refund = {"channelId": scene.id, "nonce": 2**256 - 1, "amount": MOST}
    digest = ask("getRefundDigest", scene.id, 2**256 - 1, MOST)
    assert digest == by_sdk(sdk_batch.REFUND_TYPES, refund)
    for count in (0, 1, 2, 3):
        rows = [((scene.other(n).config, 10 + n), b"", n) for n in range(count)]
        entries = [
            {"channelId": scene.other(n).id, "maxClaimableAmount": 10 + n, "totalClaimed": n}
            for n in range(count)
        ]
        digest = ask("getClaimBatchDigest", rows)
        assert digest == by_sdk(sdk_batch.CLAIM_BATCH_TYPES, {"claims": entries})


def test_the_collector_reads_what_the_sdk_encodes(scene: Scene) -> None:
    salt = "0x" + word(77).hex()
    nonce = build_erc3009_deposit_nonce("0x" + scene.id.hex(), salt)
    data = scene.authorization(5, 77)
    signature = data[160:225]
    assert data == build_erc3009_collector_data("0", str(2**40), salt, "0x" + signature.hex())
    assert scene.deposit(5, 77) == ""
    used = scene.token.do(STRANGER, "authorizationState", PAYER.address, bytes.fromhex(nonce[2:]))
    assert used is True


# -- paying in -----------------------------------------------------------------------------------


def test_a_first_deposit_opens_a_channel_and_others_add_to_it(scene: Scene) -> None:
    assert scene.deposit(600) == ""
    (created,) = scene.channels.said("ChannelCreated")
    assert created["channelId"] == scene.id
    assert [checksummed(a) for a in created["config"][:5]] == list(scene.config[:5])
    assert created["config"][5:] == scene.config[5:]
    (paid,) = scene.channels.said("Deposited")
    assert (paid["amount"], paid["newBalance"]) == (600, 600)
    assert scene.deposit(400, 2) == ""
    assert scene.channels.said("ChannelCreated") == []
    assert scene.state() == (1000, 0)
    assert scene.holdings() == (1000, MINTED - 1000, 0)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"delay": 899}, "WithdrawDelayOutOfRange"),
        ({"delay": 900}, ""),
        ({"delay": 30 * DAY}, ""),
        ({"delay": 30 * DAY + 1}, "WithdrawDelayOutOfRange"),
        ({"payer": ZERO}, "InvalidChannel"),
        ({"receiver": ZERO}, "InvalidChannel"),
        ({"receiver_authorizer": ZERO}, "InvalidChannel"),
        ({"payer_authorizer": ZERO}, ""),
    ],
)
def test_what_a_channel_must_be_like(scene: Scene, changed: Any, reason: str) -> None:
    assert replace(scene, **changed).deposit(5) == reason


def test_amounts_of_deposits_have_bounds(scene: Scene) -> None:
    scene.token.do(DEPLOYER, "mint", PAYER.address, 2**130)
    assert scene.deposit(0) == "ZeroDeposit"
    assert scene.deposit(MOST) == ""
    assert scene.deposit(1, 2) == "DepositOverflow"
    assert scene.state() == (MOST, 0)


@pytest.mark.parametrize("off", [-1, 0])
def test_an_authorization_ends_to_the_second(scene: Scene, off: int) -> None:
    until = scene.evm.now + 60
    data = scene.authorization(5, 1, until=until)
    scene.evm.now = until + off
    reason = scene.refusal(STRANGER, "deposit", 5, COLLECTOR, data)
    assert reason == ("authorization is expired" if off == 0 else "")


def test_an_authorization_is_good_for_one_deposit_of_one_amount_into_one_channel(
    scene: Scene,
) -> None:
    data = scene.authorization(5, 1)
    elsewhere = scene.other(1)
    assert elsewhere.refusal(STRANGER, "deposit", 5, COLLECTOR, data) == "invalid signature"
    assert scene.refusal(STRANGER, "deposit", 6, COLLECTOR, data) == "invalid signature"
    assert scene.deposit(5, signer=STRANGER) == "invalid signature"
    assert scene.refusal(STRANGER, "deposit", 5, COLLECTOR, data) == ""
    again = scene.refusal(STRANGER, "deposit", 5, COLLECTOR, data)
    assert again == "authorization is used or canceled"
    assert scene.state() == (5, 0)


def test_a_collector_collects_for_the_channels_alone(scene: Scene) -> None:
    for name in ("Erc3009DepositCollector", "Permit2DepositCollector"):
        collector = Deployed.canonical(scene.evm, name)
        call = (PAYER.address, scene.token.address, 5, scene.id, scene.authorization(5, 1))
        assert collector.refusal(STRANGER, "collect", *call) == "NotSettlement"


def test_what_was_not_collected_is_not_credited(scene: Scene) -> None:
    idle = contract_wallet(scene.evm, OWNER)  # takes the call and moves nothing
    assert scene.refusal(STRANGER, "deposit", 5, idle.address, b"") == "DepositCollectionFailed"
    assert scene.refusal(STRANGER, "deposit", 5, ZERO, b"") == "InvalidCollector"
    # What others have paid in does not count for a deposit of nobody.
    assert scene.other(1).deposit(5) == ""
    assert scene.refusal(STRANGER, "deposit", 5, idle.address, b"") == "DepositCollectionFailed"
    assert scene.state() == (0, 0)


@pytest.mark.parametrize("way", ["takes a fee", "answers false", "forgives a used nonce"])
def test_a_token_that_moves_less_is_not_taken(way: str) -> None:
    scene = Scene.new(way=way)
    if way == "forgives a used nonce":
        assert scene.deposit(5) == ""
        # The collector holds nothing of a payment that did not come.
        assert scene.deposit(5) != ""
        assert scene.state() == (5, 0)
    else:
        assert scene.deposit(5) != ""
        assert scene.state() == (0, 0)


# -- claiming ------------------------------------------------------------------------------------


def test_a_claim_books_what_is_new_and_a_settlement_pays_it(funded: Scene) -> None:
    assert funded.claim(300, ceiling=400) == ""
    (said,) = funded.channels.said("Claimed")
    assert (said["amount"], said["newTotalClaimed"]) == (300, 300)
    assert funded.holdings() == (1000, MINTED - 1000, 0)
    assert funded.claim(400) == ""
    assert funded.state() == (1000, 400)
    books = lambda: funded.channels.do(  # noqa: E731
        STRANGER, "receivers", RECEIVER.address, funded.token.address
    )
    assert books() == (400, 0)
    assert funded.settle() == ""
    (said,) = funded.channels.said("Settled")
    assert (said["amount"], said["sender"]) == (400, STRANGER.address.lower())
    assert (books(), funded.holdings()) == ((400, 400), (600, MINTED - 1000, 400))
    assert funded.settle() == ""
    assert funded.channels.said("Settled") == []
    assert funded.holdings() == (600, MINTED - 1000, 400)


@pytest.mark.parametrize(
    ("total", "ceiling", "reason"),
    [
        (301, 300, "ClaimExceedsCeiling"),
        (1000, 1000, ""),
        (1000, MOST, ""),
        (1001, 1001, "ClaimExceedsBalance"),
        (MOST, MOST, "ClaimExceedsBalance"),
    ],
)
def test_a_claim_stays_below_ceiling_and_balance(
    funded: Scene, total: int, ceiling: int, reason: str
) -> None:
    assert funded.claim(total, ceiling) == reason
    assert funded.state() == (1000, 0 if reason else total)


def test_an_old_or_equal_total_changes_nothing(funded: Scene) -> None:
    assert funded.claim(300) == ""
    for total in (300, 299, 0):
        assert funded.claim(total, ceiling=300) == ""
        assert funded.channels.said("Claimed") == []
    assert funded.state() == (1000, 300)


def test_only_the_named_authorizer_signs_vouchers(funded: Scene) -> None:
    for wrong in (PAYER, RECEIVER, AUTHORIZER, STRANGER):
        assert funded.claim(300, signer=wrong) == "InvalidSignature"
    own = replace(funded, payer_authorizer=ZERO)
    assert own.deposit(1000, 2) == ""
    assert own.claim(300, signer=SESSION) == "InvalidSignature"
    assert own.claim(300, signer=PAYER) == ""


def claim_in_form(scene: Scene, signature: bytes) -> str:
    row = ((scene.config, 300), signature, 300)
    return scene.channels.refusal(RECEIVER, "claim", [row])


def test_a_voucher_has_one_form(funded: Scene) -> None:
    right = funded.voucher(300)
    forms = [r + s + bytes([v]) for v, r, s in other_forms(right)]
    for form in (*forms, b"", right[:64], right + b"\0", bytes(65)):
        assert claim_in_form(funded, form) == "InvalidSignature"
    assert claim_in_form(funded, right + bytes(256)) == "no reason"  # longer than is read
    assert claim_in_form(funded, right) == ""


def test_a_voucher_is_for_one_channel_on_one_contract_on_one_chain(funded: Scene) -> None:
    far = Scene.new(Evm(chain_id=1))
    twin = replace(funded, channels=replace(funded.channels, address=COLLECTOR))
    for elsewhere in (funded.other(1), far, twin):
        assert elsewhere.id != funded.id
        assert claim_in_form(funded, elsewhere.voucher(300)) == "InvalidSignature"


def test_the_receiver_side_claims_by_itself_and_nobody_else(funded: Scene) -> None:
    row, later = funded.row(300), funded.row(400)
    for who in (PAYER, SESSION, STRANGER):
        assert funded.channels.refusal(who, "claim", [row]) == "NotAuthorizedToClaim"
    assert funded.channels.refusal(RECEIVER, "claim", []) == "EmptyBatch"
    strangers = replace(funded.other(1), receiver=STRANGER.address)
    strangers = replace(strangers, receiver_authorizer=STRANGER.address)
    mixed = [row, strangers.row(0)]
    assert funded.channels.refusal(RECEIVER, "claim", mixed) == "NotAuthorizedToClaim"
    assert funded.channels.refusal(RECEIVER, "claim", [row]) == ""
    assert funded.channels.refusal(AUTHORIZER, "claim", [later]) == ""


def test_anybody_claims_with_the_authorizers_signature(funded: Scene) -> None:
    other = funded.other(1)
    assert other.deposit(1000) == ""
    scenes = (funded, other)
    rows = [one.row(300 + n) for n, one in enumerate(scenes)]
    pairs = list(zip(scenes, rows, strict=True))
    call = lambda rows, word: funded.channels.refusal(  # noqa: E731
        STRANGER, "claimWithSignature", rows, word
    )
    right = funded.batch(pairs)
    assert call([], funded.batch([])) == "EmptyBatch"
    assert call(rows[:1], right) == "InvalidSignature"
    assert call(rows[::-1], right) == "InvalidSignature"
    assert call([rows[0], other.row(302)], right) == "InvalidSignature"
    for wrong in (PAYER, RECEIVER, SESSION, STRANGER):
        assert call(rows, funded.batch(pairs, wrong)) == "InvalidSignature"
    for v, r, s in other_forms(right):
        assert call(rows, r + s + bytes([v])) == "InvalidSignature"
    theirs = replace(other, receiver_authorizer=STRANGER.address)
    assert theirs.deposit(1000) == ""
    mixed = [(funded, rows[0]), (theirs, theirs.row(300))]
    signed = funded.batch(mixed)
    assert call([row for _, row in mixed], signed) == "NotReceiverAuthorizer"
    assert call(rows, right) == ""
    assert (funded.state(), other.state()) == ((1000, 300), (1000, 301))
    assert call(rows, right) == ""  # again: nothing new
    assert (funded.state(), other.state()) == ((1000, 300), (1000, 301))


def test_a_batch_is_claimed_whole_or_not_at_all(funded: Scene) -> None:
    forged = funded.other(1)
    assert forged.deposit(1000) == ""
    pairs = [(funded, funded.row(300)), (forged, forged.row(300, signer=STRANGER))]
    word = funded.batch(pairs)
    rows = [row for _, row in pairs]
    refusal = funded.channels.refusal(STRANGER, "claimWithSignature", rows, word)
    assert refusal == "InvalidSignature"
    assert funded.state() == (1000, 0)


def test_a_hundred_channels_are_claimed_at_once_and_settled_with_one_transfer(
    scene: Scene,
) -> None:
    scenes = [scene.other(n) for n in range(100)]
    for n, one in enumerate(scenes):
        assert one.deposit(1000, n + 1) == ""
    pairs = [(one, one.row(n + 1)) for n, one in enumerate(scenes)]
    rows, word = [row for _, row in pairs], scene.batch(pairs)
    assert scene.channels.refusal(STRANGER, "claimWithSignature", rows, word) == ""
    assert [said["amount"] for said in scene.channels.said("Claimed")] == list(range(1, 101))
    assert scene.evm.gas < 2_100_000
    assert scene.settle() == ""
    assert len(scene.token.said("Transfer")) == 1
    assert scene.holdings() == (100_000 - 5050, MINTED - 100_000, 5050)
    more = [*rows, rows[0]]
    assert scene.channels.refusal(RECEIVER, "claim", more) == "no reason"  # 101 are not read


def test_channels_of_a_receiver_do_not_touch_one_another(funded: Scene) -> None:
    other = funded.other(1)
    assert other.deposit(70) == ""
    assert funded.claim(1000) == ""
    assert funded.claim(1001) == "ClaimExceedsBalance"
    assert other.state() == (70, 0)
    assert other.claim(70) == ""
    assert funded.settle() == ""
    assert funded.holdings() == (0, MINTED - 1070, 1070)


# -- contract wallets ----------------------------------------------------------------------------


@pytest.fixture
def wallet_payer(scene: Scene) -> tuple[Scene, Deployed]:
    """A payer that is a contract and has deposited 1,000 by its own signature."""
    wallet = contract_wallet(scene.evm, OWNER)
    scene.token.do(DEPLOYER, "mint", wallet.address, MINTED)
    scene = replace(scene, payer=wallet.address, payer_authorizer=ZERO)
    assert scene.deposit(1000, signer=OWNER) == ""
    return scene, wallet


def test_a_contract_wallet_pays(wallet_payer: tuple[Scene, Deployed]) -> None:
    scene, _ = wallet_payer
    assert scene.holdings() == (1000, MINTED - 1000, 0)
    assert scene.claim(300, signer=STRANGER) == "InvalidSignature"
    assert scene.claim(300, signer=OWNER) == ""
    assert (scene.settle(), scene.holdings()) == ("", (700, MINTED - 1000, 300))


@pytest.mark.parametrize("way", [1, 2, 3, 4, 5])
def test_a_contract_wallet_that_withdraws_its_word_is_not_believed(
    wallet_payer: tuple[Scene, Deployed], way: int
) -> None:
    """What was booked before stays booked: a receiver claims before it trusts for more."""
    scene, wallet = wallet_payer
    assert scene.claim(300, signer=OWNER) == ""
    wallet.do(OWNER, "behave", way)
    assert scene.claim(500, signer=OWNER) == "InvalidSignature"
    assert scene.deposit(5, 9, signer=OWNER) == "invalid signature"
    assert scene.state() == (1000, 300)
    assert (scene.settle(), scene.holdings()) == ("", (700, MINTED - 1000, 300))
    wallet.do(OWNER, "behave", 0)
    assert scene.claim(500, signer=OWNER) == ""


def test_a_contract_wallet_withdraws(wallet_payer: tuple[Scene, Deployed]) -> None:
    scene, wallet = wallet_payer
    begin = scene.channels.data("initiateWithdraw", scene.config, 1000)
    finish = scene.channels.data("finalizeWithdraw", scene.config)
    wallet.do(OWNER, "execute", scene.channels.address, begin)
    scene.evm.now += DELAY
    wallet.do(OWNER, "execute", scene.channels.address, finish)
    assert scene.holdings() == (0, MINTED, 0)


def test_a_contract_authorizes_claims_and_refunds(scene: Scene) -> None:
    wallet = contract_wallet(scene.evm, OWNER)
    scene = replace(scene, receiver_authorizer=wallet.address)
    assert scene.deposit(1000) == ""
    rows = [(scene, scene.row(300))]
    by_key, by_owner = scene.batch(rows), scene.batch(rows, OWNER)
    call = ("claimWithSignature", [row for _, row in rows])
    assert scene.channels.refusal(STRANGER, *call, by_key) == "InvalidSignature"
    assert scene.channels.refusal(STRANGER, *call, by_owner + bytes(900)) == ""
    refund = lambda signer: scene.refusal(  # noqa: E731
        STRANGER, "refundWithSignature", 700, 0, scene.refund_word(700, 0, signer)
    )
    assert refund(AUTHORIZER) == "InvalidSignature"
    assert refund(OWNER) == ""
    assert scene.holdings() == (300, MINTED - 300, 0)


def test_a_named_authorizer_is_a_plain_key(scene: Scene) -> None:
    """A contract there could take its word back; only the payer itself may be one."""
    wallet = contract_wallet(scene.evm, OWNER)
    scene = replace(scene, payer_authorizer=wallet.address)
    assert scene.deposit(1000) == ""
    assert scene.claim(300, signer=OWNER) == "InvalidSignature"


# -- refunds -------------------------------------------------------------------------------------


def nonce(scene: Scene) -> int:
    return int(scene.channels.do(STRANGER, "refundNonce", scene.id))


def signed_refund(scene: Scene, amount: int, number: int, signer: Any = AUTHORIZER) -> str:
    word = scene.refund_word(amount, number, signer)
    return scene.refusal(STRANGER, "refundWithSignature", amount, number, word)


@pytest.mark.parametrize(
    ("amount", "given"), [(1, 1), (699, 699), (700, 700), (701, 700), (MOST, 700)]
)
@pytest.mark.parametrize("signed", [False, True])
def test_a_refund_gives_what_is_not_claimed(
    funded: Scene, amount: int, given: int, signed: bool
) -> None:
    assert funded.claim(300) == ""
    if signed:
        assert signed_refund(funded, amount, 0) == ""
    else:
        assert funded.refusal(RECEIVER, "refund", amount) == ""
    (said,) = funded.channels.said("Refunded")
    assert said["amount"] == given
    assert (funded.state(), nonce(funded)) == ((1000 - given, 300), 1)
    assert funded.holdings() == (1000 - given, MINTED - 1000 + given, 0)


def test_a_refund_is_the_receiver_sides(funded: Scene) -> None:
    for who in (PAYER, SESSION, STRANGER):
        assert funded.refusal(who, "refund", 5) == "NotAuthorizedToRefund"
        if who is not AUTHORIZER:
            assert signed_refund(funded, 5, 0, who) == "InvalidSignature"
    assert signed_refund(funded, 5, 0, RECEIVER) == "InvalidSignature"
    assert funded.refusal(AUTHORIZER, "refund", 5) == ""
    assert funded.refusal(RECEIVER, "refund", 0) == "ZeroRefund"
    assert nonce(funded) == 1


def test_a_refunds_nonce_counts_always_and_first(funded: Scene) -> None:
    """Also when nothing is left to give: specification, "Refund and withdrawal"."""
    assert signed_refund(funded, 5, 1) == "InvalidRefundNonce"
    word = funded.refund_word(5, 0)
    assert funded.refusal(STRANGER, "refundWithSignature", 6, 0, word) == "InvalidSignature"
    assert funded.refusal(STRANGER, "refundWithSignature", 5, 0, word) == ""
    again = funded.refusal(STRANGER, "refundWithSignature", 5, 0, word)
    assert again == "InvalidRefundNonce"
    ready = funded.refund_word(5, 1)
    assert funded.refusal(RECEIVER, "refund", 5) == ""  # a direct one uses the signed one up
    late = funded.refusal(STRANGER, "refundWithSignature", 5, 1, ready)
    assert late == "InvalidRefundNonce"
    assert funded.claim(990) == ""
    assert funded.refusal(RECEIVER, "refund", 5) == ""
    assert funded.channels.said("Refunded") == []
    assert (nonce(funded), funded.state()) == (3, (990, 990))


def test_a_refund_is_for_one_channel(funded: Scene) -> None:
    other = funded.other(1)
    assert other.deposit(1000) == ""
    word = other.refund_word(5, 0)
    assert funded.refusal(STRANGER, "refundWithSignature", 5, 0, word) == "InvalidSignature"


def test_an_emptied_channel_is_closed_and_may_be_opened_again(funded: Scene) -> None:
    assert funded.refusal(RECEIVER, "refund", MOST) == ""
    (closed,) = funded.channels.said("ChannelClosed")
    assert closed["channelId"] == funded.id
    assert funded.holdings() == (0, MINTED, 0)
    assert funded.deposit(70, 2) == ""
    assert len(funded.channels.said("ChannelCreated")) == 1
    assert funded.claim(20) == ""
    assert funded.refusal(RECEIVER, "refund", MOST) == ""
    assert funded.channels.said("ChannelClosed") == []  # it has claims
    assert funded.deposit(5, 3) == ""
    assert funded.channels.said("ChannelCreated") == []


# -- withdrawals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_a_withdrawal_takes_its_delay_to_the_second(funded: Scene, off: int) -> None:
    assert funded.refusal(PAYER, "finalizeWithdraw") == "WithdrawalNotPending"
    began = funded.evm.now
    assert funded.refusal(PAYER, "initiateWithdraw", 600) == ""
    (said,) = funded.channels.said("WithdrawInitiated")
    assert (said["amount"], said["finalizeAfter"]) == (600, began + DELAY)
    assert funded.pending() == (600, began)
    assert funded.refusal(PAYER, "initiateWithdraw", 1) == "WithdrawalAlreadyPending"
    funded.evm.now = began + DELAY + off
    reason = "WithdrawDelayNotElapsed" if off < 0 else ""
    assert funded.refusal(PAYER, "finalizeWithdraw") == reason
    if not reason:
        assert [one["amount"] for one in funded.channels.said("WithdrawFinalized")] == [600]
        assert (funded.pending(), funded.state()) == ((0, 0), (400, 0))
        assert funded.holdings() == (400, MINTED - 400, 0)
        assert funded.refusal(PAYER, "finalizeWithdraw") == "WithdrawalNotPending"


@pytest.mark.parametrize(
    ("amount", "reason"), [(0, "NothingToWithdraw"), (700, ""), (701, "NothingToWithdraw")]
)
def test_no_more_is_announced_than_is_unclaimed(funded: Scene, amount: int, reason: str) -> None:
    assert funded.claim(300) == ""
    assert funded.refusal(PAYER, "initiateWithdraw", amount) == reason


def test_a_withdrawal_is_the_payer_sides(funded: Scene) -> None:
    for who in (RECEIVER, AUTHORIZER, STRANGER):
        assert funded.refusal(who, "initiateWithdraw", 5) == "NotPayer"
        assert funded.refusal(who, "finalizeWithdraw") == "NotPayer"
    assert funded.refusal(SESSION, "initiateWithdraw", 5) == ""
    funded.evm.now += DELAY
    assert funded.refusal(SESSION, "finalizeWithdraw") == ""
    assert funded.holdings() == (995, MINTED - 995, 0)  # the payer's, whoever asks


def test_the_receiver_claims_while_a_withdrawal_runs(funded: Scene) -> None:
    assert funded.refusal(PAYER, "initiateWithdraw", 1000) == ""
    funded.evm.now += DELAY
    assert funded.claim(300) == ""  # late, and still before the payer
    assert funded.refusal(PAYER, "finalizeWithdraw") == ""
    assert [one["amount"] for one in funded.channels.said("WithdrawFinalized")] == [700]
    assert funded.claim(301) == "ClaimExceedsBalance"
    assert (funded.settle(), funded.holdings()) == ("", (0, MINTED - 300, 300))


@pytest.mark.parametrize(("refunded", "left"), [(1, 599), (599, 1), (600, 0), (900, 0)])
def test_a_refund_counts_towards_a_withdrawal(funded: Scene, refunded: int, left: int) -> None:
    assert funded.refusal(PAYER, "initiateWithdraw", 600) == ""
    began = funded.evm.now
    assert funded.refusal(RECEIVER, "refund", refunded) == ""
    assert funded.pending() == ((left, began) if left else (0, 0))
    funded.evm.now += DELAY
    reason = "" if left else "WithdrawalNotPending"
    assert funded.refusal(PAYER, "finalizeWithdraw") == reason
    assert funded.state() == (1000 - refunded - left, 0)


def test_a_withdrawal_of_nothing_ends_and_moves_nothing(funded: Scene) -> None:
    assert funded.refusal(PAYER, "initiateWithdraw", 1000) == ""
    assert funded.claim(1000) == ""
    funded.evm.now += DELAY
    assert funded.refusal(PAYER, "finalizeWithdraw") == ""
    assert [one["amount"] for one in funded.channels.said("WithdrawFinalized")] == [0]
    assert funded.refusal(PAYER, "initiateWithdraw", 1) == "NothingToWithdraw"
    assert funded.deposit(5, 2) == ""
    assert funded.refusal(PAYER, "initiateWithdraw", 5) == ""


# -- several at once, and tokens that call back --------------------------------------------------


def test_several_calls_go_together_or_not_at_all(funded: Scene) -> None:
    rows = [(funded, funded.row(300))]
    claim = funded.channels.data("claimWithSignature", [r for _, r in rows], funded.batch(rows))
    refund = lambda number: funded.channels.data(  # noqa: E731
        *("refundWithSignature", funded.config, 700, number, funded.refund_word(700, number))
    )
    reason = funded.channels.refusal(STRANGER, "multicall", [claim, refund(1)])
    assert reason == "InvalidRefundNonce"
    assert funded.state() == (1000, 0)
    state = funded.channels.data("channels", funded.id)
    answers = funded.channels.do(STRANGER, "multicall", [claim, refund(0), state])
    assert tuple(answers) == (b"", b"", word(300) + word(300))
    assert funded.holdings() == (300, MINTED - 300, 0)


def test_whoever_bundles_calls_stays_the_caller(funded: Scene) -> None:
    claim = funded.channels.data("claim", [funded.row(300)])
    reason = funded.channels.refusal(STRANGER, "multicall", [claim])
    assert reason == "NotAuthorizedToClaim"
    assert funded.channels.refusal(RECEIVER, "multicall", [claim]) == ""


@pytest.mark.parametrize("way", ["calls first", "calls last", "returns nothing"])
@pytest.mark.parametrize("step", ["deposit", "settle", "refund", "finalizeWithdraw"])
@pytest.mark.parametrize("attack", ["settle", "refundWithSignature", "multicall", "deposit"])
def test_a_token_that_calls_back_gets_nothing_twice(way: str, step: str, attack: str) -> None:
    scene = Scene.new(way=way)
    token, channels = scene.token, scene.channels
    assert scene.deposit(1000) == ""
    assert scene.claim(300) == ""
    assert scene.refusal(PAYER, "initiateWithdraw", 600) == ""
    scene.evm.now += DELAY
    settle = channels.data("settle", RECEIVER.address, token.address)
    calls = {
        "settle": settle,
        "refundWithSignature": channels.data(
            *("refundWithSignature", scene.config, 50, 0, scene.refund_word(50, 0))
        ),
        "multicall": channels.data("multicall", [settle]),
        "deposit": channels.data("deposit", scene.config, 7, COLLECTOR, scene.authorization(7, 9)),
    }
    token.do(STRANGER, "arm", channels.address, calls[attack])
    if step == "deposit":
        assert scene.deposit(5, 2) == ""
        expected = (1005, MINTED - 1005, 0)
    elif step == "settle":
        assert scene.settle() == ""
        expected = (700, MINTED - 1000, 300)
    elif step == "refund":
        assert scene.refusal(RECEIVER, "refund", 500) == ""
        expected = (500, MINTED - 500, 0)
    else:
        assert scene.refusal(PAYER, "finalizeWithdraw") == ""
        expected = (400, MINTED - 400, 0)
    tries = [said["done"] for said in token.said("Called")]
    assert tries == ([] if way == "returns nothing" else [False])
    assert scene.holdings() == expected
