"""Permit2, its x402 spenders, Multicall3: what the SDK signs is taken once, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from support.evm import WALLET_WAYS, Deployed, Evm, contract_wallet, other_forms, vrs
from support.x402_channels import (
    DEPLOYER,
    FAR,
    KEY_OF,
    MINTED,
    OWNER,
    PAYER,
    RECEIVER,
    STRANGER,
    ZERO,
    Scene,
)
from x402.mechanisms.evm import constants as sdk
from x402.mechanisms.evm.batch_settlement.constants import BATCH_PERMIT2_WITNESS_TYPES
from x402.mechanisms.evm.batch_settlement.encoding import (
    build_eip2612_permit_data,
    build_permit2_collector_data,
)

from agentkit.keys.messages import keccak, word
from agentkit.keys.permit2_messages import UptoPermit
from agentkit.keys.signer import KeySigner
from agentkit.payments.contracts import CANONICAL
from agentkit.payments.upto.contract import is_settle_call

UNITS = 1000
COLLECTOR = CANONICAL["Permit2DepositCollector"]
EXACT, UPTO = CANONICAL["ExactPermit2Proxy"], CANONICAL["UptoPermit2Proxy"]
PLAIN_TYPES = {
    "PermitTransferFrom": sdk.PERMIT2_WITNESS_TYPES["PermitWitnessTransferFrom"][:4],
    "TokenPermissions": sdk.PERMIT2_WITNESS_TYPES["TokenPermissions"],
}


@dataclass(frozen=True)
class Desk:
    """A token that a payer has approved Permit2 for, and what the payer signs."""

    evm: Evm
    token: Deployed
    owner: str = PAYER.address
    units: int = UNITS
    nonce: int = 5
    deadline: int = FAR

    @classmethod
    def new(cls) -> Desk:
        evm = Evm()
        token = Deployed.new(evm, "TestUSD", DEPLOYER)
        token.do(DEPLOYER, "mint", PAYER.address, MINTED)
        token.do(PAYER, "approve", CANONICAL["Permit2"], 2**256 - 1)
        return cls(evm, token)

    @property
    def permit(self) -> tuple[Any, ...]:
        return (self.token.address, self.units), self.nonce, self.deadline

    def at(self, name: str) -> Deployed:
        return Deployed.canonical(self.evm, name)

    def sign(
        self, spender: str, types: Any, witness: Any = None, signer: KeySigner = PAYER
    ) -> bytes:
        """What the SDK signs: its types, in the domain of Permit2, which has no version."""
        (token, units), nonce, deadline = self.permit
        message = {
            "permitted": {"token": token, "amount": units},
            "spender": spender,
            "nonce": nonce,
            "deadline": deadline,
        }
        if witness:
            message["witness"] = witness
        domain = {
            "name": "Permit2",
            "chainId": self.evm.chain_id,
            "verifyingContract": sdk.PERMIT2_ADDRESS,
        }
        said = encode_typed_data(domain_data=domain, message_types=types, message_data=message)
        signed = Account.from_key(KEY_OF[signer.address]).sign_message(said)
        return bytes(signed.signature)

    def balance(self, who: str) -> int:
        return int(self.token.do(STRANGER, "balanceOf", who))

    def approve_by_signature(self, value: int, number: int = 0) -> tuple[int, int, bytes, bytes]:
        """An EIP-2612 permit for Permit2: deadline and v, r, s."""
        domain = {
            "name": "USD Coin",
            "version": "1",
            "chainId": self.evm.chain_id,
            "verifyingContract": self.token.address,
        }
        message = {
            "owner": PAYER.address,
            "spender": sdk.PERMIT2_ADDRESS,
            "value": value,
            "nonce": number,
            "deadline": FAR,
        }
        types = sdk.EIP2612_PERMIT_TYPES
        said = encode_typed_data(domain_data=domain, message_types=types, message_data=message)
        signed = Account.from_key(KEY_OF[PAYER.address]).sign_message(said)
        return FAR, *vrs(bytes(signed.signature))


@pytest.fixture
def desk() -> Desk:
    return Desk.new()


# -- Permit2 -------------------------------------------------------------------------------------


def draw(desk: Desk, signature: bytes, units: int = UNITS, who: KeySigner = STRANGER) -> str:
    call = (desk.permit, (RECEIVER.address, units), desk.owner, signature)
    return desk.at("Permit2").refusal(who, "permitTransferFrom", *call)


def test_the_named_spender_draws_once_and_no_more_than_was_signed(desk: Desk) -> None:
    signature = desk.sign(STRANGER.address, PLAIN_TYPES)
    assert draw(desk, signature, UNITS + 1) == "InvalidAmount"
    assert draw(desk, signature, who=RECEIVER) == "InvalidSigner"
    assert draw(replace(desk, units=UNITS + 1), signature) == "InvalidSigner"
    assert draw(replace(desk, nonce=6), signature) == "InvalidSigner"
    assert draw(replace(desk, deadline=FAR - 1), signature) == "InvalidSigner"
    assert draw(replace(desk, owner=RECEIVER.address), signature) == "InvalidSigner"
    assert draw(desk, signature, UNITS - 1) == ""
    assert draw(desk, signature, 1) == "InvalidNonce"
    assert desk.balance(RECEIVER.address) == UNITS - 1


def test_a_permit_of_permit2_has_one_form(desk: Desk) -> None:
    right = desk.sign(STRANGER.address, PLAIN_TYPES)
    for v, r, s in other_forms(right):
        assert draw(desk, r + s + bytes([v])) == "InvalidSigner"
    for form in (b"", right[:64], right + b"\0"):
        assert draw(desk, form) == "InvalidSignatureLength"
    assert draw(desk, right) == ""


@pytest.mark.parametrize(("off", "reason"), [(-1, ""), (0, ""), (1, "SignatureExpired")])
def test_a_permit_ends_to_the_second(desk: Desk, off: int, reason: str) -> None:
    desk = replace(desk, deadline=desk.evm.now + 60)
    signature = desk.sign(STRANGER.address, PLAIN_TYPES)
    desk.evm.now += 60 + off
    assert draw(desk, signature) == reason


@pytest.mark.parametrize("nonce", [0, 1, 255, 256, 2**255 + 7, 2**256 - 1])
def test_nonces_are_in_no_order_and_each_is_good_once(desk: Desk, nonce: int) -> None:
    desk = replace(desk, nonce=nonce)
    permit2 = desk.at("Permit2")
    signature = desk.sign(STRANGER.address, PLAIN_TYPES)
    assert draw(desk, signature) == ""
    assert permit2.do(STRANGER, "nonceBitmap", PAYER.address, nonce >> 8) == 1 << (nonce & 255)
    assert draw(desk, signature) == "InvalidNonce"
    other = replace(desk, nonce=nonce ^ 1)
    permit2.do(PAYER, "invalidateUnorderedNonces", other.nonce >> 8, 1 << (other.nonce & 255))
    assert permit2.said("UnorderedNonceInvalidation")[0]["owner"] == PAYER.address.lower()
    assert draw(other, other.sign(STRANGER.address, PLAIN_TYPES)) == "InvalidNonce"


@pytest.mark.parametrize("way", range(len(WALLET_WAYS)))
def test_permit2_asks_contract_wallets(desk: Desk, way: int) -> None:
    wallet = contract_wallet(desk.evm, OWNER)
    desk.token.do(PAYER, "transfer", wallet.address, UNITS)
    approve = desk.token.data("approve", CANONICAL["Permit2"], UNITS)
    wallet.do(OWNER, "execute", desk.token.address, approve)
    wallet.do(OWNER, "behave", way)
    desk = replace(desk, owner=wallet.address)
    signature = desk.sign(STRANGER.address, PLAIN_TYPES, signer=OWNER)
    assert draw(desk, signature) == ("InvalidContractSignature" if way else "")


def test_no_allowance_no_transfer(desk: Desk) -> None:
    desk.token.do(PAYER, "approve", CANONICAL["Permit2"], UNITS - 1)
    signature = desk.sign(STRANGER.address, PLAIN_TYPES)
    assert draw(desk, signature) == "allowance is too low"
    assert draw(desk, signature, UNITS - 1) == ""  # what failed used no nonce


def test_the_domain_is_the_one_that_the_sdk_signs_in(desk: Desk) -> None:
    kind = keccak(b"EIP712Domain(string name,uint256 chainId,address verifyingContract)")
    where = bytes(12) + bytes.fromhex(CANONICAL["Permit2"][2:])
    domain = keccak(kind + keccak(b"Permit2") + word(desk.evm.chain_id) + where)
    assert desk.at("Permit2").do(STRANGER, "DOMAIN_SEPARATOR") == domain


# -- its spenders --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sale:
    """A payment through one of the proxies; `asked` is what `upto` is to move."""

    desk: Desk
    asked: int | None = None
    to: str = RECEIVER.address
    valid_after: int = 0
    facilitator: str = STRANGER.address
    owner: str = PAYER.address

    @property
    def is_upto(self) -> bool:
        return self.asked is not None

    @property
    def proxy(self) -> Deployed:
        return self.desk.at("UptoPermit2Proxy" if self.is_upto else "ExactPermit2Proxy")

    @property
    def witness(self) -> dict[str, Any]:
        named = {"to": self.to}
        if self.is_upto:
            named["facilitator"] = self.facilitator
        return {**named, "validAfter": self.valid_after}

    def signature(self, signer: KeySigner = PAYER) -> bytes:
        types = sdk.UPTO_PERMIT2_WITNESS_TYPES if self.is_upto else sdk.PERMIT2_WITNESS_TYPES
        return self.desk.sign(self.proxy.address, types, self.witness, signer)

    def settle(self, signature: bytes, *permit: Any, who: KeySigner = STRANGER) -> str:
        name = "settleWithPermit" if permit else "settle"
        asked = (self.asked,) if self.is_upto else ()
        witness = tuple(self.witness.values())
        call = (*permit, self.desk.permit, *asked, self.owner, witness, signature)
        return self.proxy.refusal(who, name, *call)


@pytest.fixture(params=["exact", "upto"])
def sale(desk: Desk, request: pytest.FixtureRequest) -> Sale:
    return Sale(desk, asked=400 if request.param == "upto" else None)


def test_what_the_sdk_signs_is_settled_once(sale: Sale) -> None:
    right = sale.signature()
    moved = 400 if sale.is_upto else UNITS
    assert sale.settle(right) == ""
    assert sale.proxy.said("Settled") == [{}]
    assert sale.desk.balance(RECEIVER.address) == moved
    assert sale.settle(right) == "InvalidNonce"
    assert sale.desk.balance(PAYER.address) == MINTED - moved


def test_nothing_that_was_signed_can_be_changed(sale: Sale) -> None:
    right = sale.signature()
    assert replace(sale, to=STRANGER.address).settle(right) == "InvalidSigner"
    assert replace(sale, valid_after=1).settle(right) == "InvalidSigner"
    assert replace(sale, owner=STRANGER.address).settle(right) == "InvalidSigner"
    more = replace(sale, desk=replace(sale.desk, units=UNITS + 1))
    assert more.settle(right) == "InvalidSigner"
    assert sale.settle(sale.signature(STRANGER)) == "InvalidSigner"
    assert replace(sale, to=ZERO).settle(right) == "InvalidDestination"
    assert replace(sale, owner=ZERO).settle(right) == "InvalidOwner"
    assert sale.desk.balance(PAYER.address) == MINTED
    # The proxy is the spender: nobody draws past it.
    call = (sale.desk.permit, (STRANGER.address, UNITS), PAYER.address, right)
    direct = sale.desk.at("Permit2").refusal(STRANGER, "permitTransferFrom", *call)
    assert direct == "InvalidSigner"
    assert sale.settle(right) == ""


@pytest.mark.parametrize(("off", "reason"), [(-1, "PaymentTooEarly"), (0, ""), (1, "")])
def test_a_payment_is_not_made_early(sale: Sale, off: int, reason: str) -> None:
    sale = replace(sale, valid_after=sale.desk.evm.now + 60)
    right = sale.signature()
    sale.desk.evm.now += 60 + off
    assert sale.settle(right) == reason


def test_an_exact_payment_is_brought_by_anybody_and_is_whole(desk: Desk) -> None:
    sale = Sale(desk)
    assert sale.settle(sale.signature(), who=PAYER) == ""
    assert desk.balance(RECEIVER.address) == UNITS


@pytest.mark.parametrize(
    ("asked", "reason"), [(0, ""), (1, ""), (UNITS, ""), (UNITS + 1, "AmountExceedsPermitted")]
)
def test_upto_moves_what_was_used_and_no_more(desk: Desk, asked: int, reason: str) -> None:
    sale = Sale(desk, asked=asked)
    assert sale.settle(sale.signature()) == reason
    assert desk.balance(RECEIVER.address) == (0 if reason else asked)


def test_upto_is_settled_by_the_named_facilitator_alone(desk: Desk) -> None:
    sale = Sale(desk, asked=400)
    right = sale.signature()
    for who in (PAYER, RECEIVER, OWNER):
        assert sale.settle(right, who=who) == "UnauthorizedFacilitator"
        claimed = replace(sale, facilitator=who.address)
        assert claimed.settle(right, who=who) == "InvalidSigner"
    assert sale.settle(right) == ""


def test_a_sale_is_approved_and_settled_in_one(sale: Sale) -> None:
    desk = sale.desk
    desk.token.do(PAYER, "approve", CANONICAL["Permit2"], 0)
    right = sale.signature()
    assert sale.settle(right) == "allowance is too low"
    deadline, v, r, s = desk.approve_by_signature(UNITS)
    short = (UNITS - 1, deadline, r, s, v)
    assert sale.settle(right, short) == "Permit2612AmountMismatch"
    permit = (UNITS, deadline, r, s, v)
    assert sale.settle(right, permit) == ""
    assert sale.proxy.said("SettledWithPermit") == [{}]
    assert desk.balance(RECEIVER.address) == (400 if sale.is_upto else UNITS)


@pytest.mark.parametrize("brings_permit", [False, True])
def test_a_call_settles_the_one_payment_whose_words_are_in_their_places(
    desk: Desk, brings_permit: bool
) -> None:
    """A payer could choose a nonce that stands elsewhere in the call, such as an amount."""
    sale = Sale(desk, asked=400)
    permit = UptoPermit(
        token=desk.token.address,
        units=UNITS,
        spender=sale.proxy.address,
        nonce=desk.nonce,
        deadline=FAR,
        payee=sale.to,
        facilitator=sale.facilitator,
    )
    name = "settleWithPermit" if brings_permit else "settle"
    first = [(UNITS, FAR, b"\1" * 32, b"\2" * 32, 27)] if brings_permit else []
    witness = tuple(sale.witness.values())
    call = sale.proxy.data(name, *first, desk.permit, 400, desk.owner, witness, b"\3" * 65)
    assert is_settle_call(call, permit, 400, desk.owner)
    assert not is_settle_call(call, permit, 401, desk.owner)
    assert not is_settle_call(call, permit, 400, STRANGER.address)
    assert not is_settle_call(b"\0" * 4 + call[4:], permit, 400, desk.owner)
    for nonce in (400, UNITS, FAR, 65, 0):
        assert not is_settle_call(call, replace(permit, nonce=nonce), 400, desk.owner)


def test_a_permit_that_somebody_else_brought_first_stops_no_sale(sale: Sale) -> None:
    desk = sale.desk
    desk.token.do(PAYER, "approve", CANONICAL["Permit2"], 0)
    deadline, v, r, s = desk.approve_by_signature(UNITS)
    brought = (PAYER.address, CANONICAL["Permit2"], UNITS, deadline, v, r, s)
    desk.token.do(STRANGER, "permit", *brought)
    assert sale.settle(sale.signature(), (UNITS, deadline, r, s, v)) == ""
    assert desk.balance(RECEIVER.address) == (400 if sale.is_upto else UNITS)


def test_the_proxies_say_what_they_sign_for(desk: Desk) -> None:
    for name, types in (
        ("ExactPermit2Proxy", sdk.PERMIT2_WITNESS_TYPES),
        ("UptoPermit2Proxy", sdk.UPTO_PERMIT2_WITNESS_TYPES),
    ):
        proxy = desk.at(name)
        fields = ",".join(f"{one['type']} {one['name']}" for one in types["Witness"])
        assert proxy.do(STRANGER, "PERMIT2") == CANONICAL["Permit2"].lower()
        assert proxy.do(STRANGER, "WITNESS_TYPEHASH") == keccak(f"Witness({fields})".encode())
        rest = f"TokenPermissions(address token,uint256 amount)Witness({fields})"
        assert proxy.do(STRANGER, "WITNESS_TYPE_STRING") == f"Witness witness){rest}"


# -- deposits ------------------------------------------------------------------------------------


def deposit(
    scene: Scene, desk: Desk, permit: bytes = b"", of: Scene | None = None, **how: Any
) -> str:
    """Pay into a channel by Permit2; `of` is the channel that the payer signed for."""
    witness = {"channelId": (of or scene).id}
    signature = desk.sign(COLLECTOR, BATCH_PERMIT2_WITNESS_TYPES, witness, **how)
    data = build_permit2_collector_data(
        str(desk.nonce), str(desk.deadline), "0x" + signature.hex(), permit
    )
    return scene.refusal(STRANGER, "deposit", desk.units, COLLECTOR, data)


@pytest.fixture
def scene(desk: Desk) -> Scene:
    return Scene(desk.evm, desk.token, Deployed.canonical(desk.evm, "BatchSettlement"))


def test_a_channel_is_paid_into_by_permit2(scene: Scene, desk: Desk) -> None:
    assert deposit(scene, desk, signer=STRANGER) == "InvalidSigner"
    assert deposit(scene, desk, of=scene.other(1)) == "InvalidSigner"
    assert deposit(scene, desk) == ""
    assert scene.holdings() == (UNITS, MINTED - UNITS, 0)
    assert deposit(scene, desk) == "InvalidNonce"
    assert deposit(scene, replace(desk, nonce=6)) == ""
    assert scene.state() == (2 * UNITS, 0)


def test_a_deposit_is_approved_and_made_in_one(scene: Scene, desk: Desk) -> None:
    desk.token.do(PAYER, "approve", CANONICAL["Permit2"], 0)
    assert deposit(scene, desk) == "allowance is too low"
    deadline, v, r, s = desk.approve_by_signature(UNITS)
    permit = build_eip2612_permit_data(str(UNITS), str(deadline), v, "0x" + r.hex(), "0x" + s.hex())
    assert deposit(scene, desk, permit) == ""
    assert scene.state() == (UNITS, 0)


def test_a_permit_that_was_brought_first_stops_no_deposit(scene: Scene, desk: Desk) -> None:
    desk.token.do(PAYER, "approve", CANONICAL["Permit2"], 0)
    deadline, v, r, s = desk.approve_by_signature(UNITS)
    brought = (PAYER.address, CANONICAL["Permit2"], UNITS, deadline, v, r, s)
    desk.token.do(STRANGER, "permit", *brought)
    permit = build_eip2612_permit_data(str(UNITS), str(deadline), v, "0x" + r.hex(), "0x" + s.hex())
    assert deposit(scene, desk, permit) == ""


def test_a_permit_for_one_spender_serves_no_other(desk: Desk, scene: Scene) -> None:
    """A payment by `exact` cannot be turned into a deposit, nor a deposit into a payment."""
    sale = Sale(desk)
    paid = sale.signature()
    data = build_permit2_collector_data(str(desk.nonce), str(desk.deadline), "0x" + paid.hex())
    refused = scene.refusal(STRANGER, "deposit", UNITS, COLLECTOR, data)
    assert refused == "InvalidSigner"
    witness = {"channelId": scene.id}
    deposited = desk.sign(COLLECTOR, BATCH_PERMIT2_WITNESS_TYPES, witness)
    assert sale.settle(deposited) == "InvalidSigner"


# -- Multicall3 ----------------------------------------------------------------------------------


def test_many_reads_are_answered_in_one_call(scene: Scene, desk: Desk) -> None:
    assert deposit(scene, desk) == ""
    multicall = desk.at("Multicall3")
    channels, token = scene.channels, desk.token
    reads = [
        (channels.address, channels.data("channels", scene.id)),
        (token.address, token.data("balanceOf", RECEIVER.address)),
        (token.address, b"\1\2\3\4"),
    ]
    answers = multicall.do(STRANGER, "tryAggregate", False, reads)
    assert [ok for ok, _ in answers] == [True, True, False]
    assert [said for _, said in answers][:2] == [word(UNITS) + word(0), word(0)]
    assert b"no such function" in answers[2][1]
    failed = multicall.refusal(STRANGER, "tryAggregate", True, reads)
    assert failed == "Multicall3: call failed"
    lenient = [(to, True, data) for to, data in reads]
    assert multicall.do(STRANGER, "aggregate3", lenient) == answers
    strict = [(to, False, data) for to, data in reads]
    assert multicall.refusal(STRANGER, "aggregate3", strict) == "Multicall3: call failed"
    assert len(multicall.do(STRANGER, "tryAggregate", True, reads[:1] * 64)) == 64
