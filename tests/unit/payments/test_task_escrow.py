"""What `TaskEscrow` does and refuses, one rule at a time, to the second and to the unit."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from support.evm import Deployed, Evm, Reverted, odd_token, other_forms, vrs

from agentkit.keys.messages import Accept, Quote, ReceiveAuthorization, keccak, typed_digest, word
from agentkit.keys.signer import KeySigner

DEPLOYER, PAYER, PROVIDER, STRANGER, ARBITER = (KeySigner(bytes(31) + bytes([n])) for n in b"12345")
NOBODY = "0x" + "00" * 20
NONE, FUNDED, SUBMITTED, DISPUTED, PAID, REFUNDED = range(6)
MINTED = 2**130
PRICE = 1000
DAY = 86400
RESULT = keccak(b"result")
OUTCOMES = (("refundUndelivered", ()), ("claimUnjudged", ()), ("expireDispute", ()))


@dataclass(frozen=True)
class Scene:
    """A payer with tokens, and a quote for one of its tasks."""

    evm: Evm
    token: Deployed
    escrow: Deployed
    quote: Quote

    @classmethod
    def new(cls, evm: Evm | None = None, way: str = "") -> "Scene":
        evm = evm or Evm()
        token = odd_token(evm, way, DEPLOYER) if way else Deployed.new(evm, "TestUSD", DEPLOYER)
        escrow = Deployed.new(evm, "TaskEscrow", DEPLOYER)
        token.do(DEPLOYER, "mint", PAYER.address, MINTED)
        if not way:
            token.do(PAYER, "approve", escrow.address, 2**256 - 1)
        parties = (PAYER.address, PROVIDER.address, ARBITER.address, token.address)
        times = (evm.now + 100, 50, evm.now + 30, 70)
        return cls(evm, token, escrow, Quote(*parties, PRICE, *times, 2500, word(1), word(2)))

    def like(self, **changed: Any) -> "Scene":
        """Another job here, with a quote that differs in this."""
        return replace(self, quote=replace(self.quote, **changed))

    @property
    def raw(self) -> tuple[Any, ...]:
        return tuple(getattr(self.quote, name) for name in Quote.__slots__)

    @property
    def id(self) -> bytes:
        return typed_digest(self.escrow.domain("TaskEscrow"), self.quote)

    @property
    def state(self) -> tuple[int, int]:
        """The job's state, and the last second before it times out."""
        return tuple(self.escrow.do(STRANGER, "jobs", self.id))  # type: ignore[return-value]

    def holdings(self) -> tuple[int, ...]:
        held = (self.escrow.address, PAYER.address, PROVIDER.address)
        return tuple(self.token.do(STRANGER, "balanceOf", one) for one in held)

    def do(self, who: KeySigner, name: str, *arguments: Any) -> None:
        self.escrow.do(who, name, self.raw, *arguments)

    def refusal(self, who: KeySigner, name: str, *arguments: Any) -> str:
        return self.escrow.refusal(who, name, self.raw, *arguments)

    def refused(self, reason: str, who: KeySigner, name: str, *arguments: Any) -> None:
        """See it refused for this reason; what reverts has changed nothing."""
        assert self.refusal(who, name, *arguments) == reason

    def signed(self, signer: KeySigner = PROVIDER) -> tuple[int, bytes, bytes]:
        """The signature of the quote."""
        return vrs(signer.sign_quote(self.escrow.domain("TaskEscrow"), self.quote))

    def word(self, pay: int, signer: KeySigner = PAYER, job: bytes = b"") -> Any:
        """The arguments of a signed acceptance."""
        accept = Accept(job or self.id, pay, RESULT)
        signature = signer.sign_accept(self.escrow.domain("TaskEscrow"), accept)
        return pay, RESULT, *vrs(signature)

    def authorized(self, until: int = 0, signer: KeySigner = PAYER, **changed: Any) -> Any:
        """The arguments of an opening that the payer signed and anybody brings."""
        until = until or self.evm.now + 60
        nonce = self.id[:24] + bytes(8)
        payee, units = self.escrow.address, self.quote.price
        given = replace(
            ReceiveAuthorization(self.quote.payer, payee, units, until, nonce), **changed
        )
        signature = signer.sign_authorization(self.token.domain("USD Coin"), given)
        return self.signed(), given.valid_before, *vrs(signature)

    def open(self) -> "Scene":
        self.do(PAYER, "open", *self.signed())
        return self

    def submit(self) -> "Scene":
        self.do(PROVIDER, "submit", RESULT)
        return self

    def dispute(self) -> "Scene":
        self.do(PAYER, "dispute", word(9))
        return self

    def over(self, state: int, pay: int) -> None:
        """See how it ended, and that nothing happens any more."""
        rest = self.quote.price - pay
        (said,) = self.escrow.said("Settled")
        assert (said["jobId"], said["state"]) == (self.id, state)
        assert (said["toProvider"], said["toPayer"]) == (pay, rest)
        assert self.state == (state, 0)
        assert self.holdings() == (0, MINTED - pay, pay)
        for _ in range(2):
            self.refused("BadState", PROVIDER, "submit", RESULT)
            self.refused("BadState", PAYER, "accept", PRICE, RESULT)
            self.refused("BadState", PROVIDER, "accept", 0, RESULT)
            self.refused("BadState", PROVIDER, "acceptWithSig", *self.word(PRICE))
            self.refused("BadState", PAYER, "dispute", RESULT)
            self.refused("BadState", ARBITER, "resolve", PRICE)
            for name, arguments in OUTCOMES:
                self.refused("BadState", STRANGER, name, *arguments)
            again = "BadState" if self.evm.now <= self.quote.quote_expiry else "TooLate"
            self.refused(again, PAYER, "open", *self.signed())
            self.refused(again, STRANGER, "openWithAuthorization", *self.authorized())
            self.evm.now += 400 * DAY


@pytest.fixture
def scene() -> Scene:
    return Scene.new()


# -- opening -------------------------------------------------------------------------------------


def test_a_job_is_its_quote(scene: Scene) -> None:
    assert scene.escrow.do(STRANGER, "jobIdOf", scene.raw) == scene.id
    domain = scene.escrow.domain("TaskEscrow")
    assert scene.escrow.do(STRANGER, "DOMAIN_SEPARATOR") == domain.separator
    scene.open()
    said = {"jobId": scene.id, "payer": PAYER.address.lower(), "provider": PROVIDER.address.lower()}
    assert scene.escrow.said("Opened") == [{**said, "price": PRICE, "taskId": word(1)}]
    assert scene.state == (FUNDED, scene.quote.deliver_by)
    assert scene.holdings() == (PRICE, MINTED - PRICE, 0)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"price": 0}, "Zero"),
        ({"price": 1}, ""),
        ({"price": 2**104}, ""),
        ({"price": 2**128 - 1}, ""),
        ({"payer": NOBODY}, "BadQuote"),
        ({"provider": NOBODY}, "BadQuote"),
        ({"provider": PAYER.address}, "BadQuote"),
        ({"arbiter": PAYER.address}, "BadQuote"),
        ({"arbiter": PROVIDER.address}, "BadQuote"),
        ({"arbiter": NOBODY}, ""),
        ({"judge_window": 0}, ""),
        ({"judge_window": 30 * DAY}, ""),
        ({"judge_window": 30 * DAY + 1}, "BadQuote"),
        ({"judge_window": 2**40 - 1}, "BadQuote"),
        ({"arbiter_window": 0}, ""),
        ({"arbiter_window": 30 * DAY}, ""),
        ({"arbiter_window": 30 * DAY + 1}, "BadQuote"),
        ({"arbiter_window": 2**40 - 1}, "BadQuote"),
        ({"default_bps": 0}, ""),
        ({"default_bps": 10000}, ""),
        ({"default_bps": 10001}, "BadQuote"),
        ({"default_bps": 2**16 - 1}, "BadQuote"),
        ({"deliver_by": -1}, "TooLate"),
        ({"deliver_by": 0}, "TooLate"),
        ({"deliver_by": 1}, ""),
        ({"deliver_by": 365 * DAY}, ""),
        ({"deliver_by": 365 * DAY + 1}, "BadQuote"),
        ({"quote_expiry": -1}, "TooLate"),
        ({"quote_expiry": 0}, ""),
        ({"quote_expiry": 1}, ""),
    ],
)
def test_an_opening_has_bounds(scene: Scene, changed: dict[str, Any], reason: str) -> None:
    for name in {"deliver_by", "quote_expiry"} & set(changed):
        changed = {name: scene.evm.now + changed[name]}
    own, brought, many = (scene.like(task_id=word(n), **changed) for n in range(3))
    if "payer" not in changed:
        assert own.refusal(PAYER, "open", *own.signed()) == reason
        list_of_one = ([many.raw], [many.signed()])
        assert scene.escrow.refusal(PAYER, "openMany", *list_of_one) == reason
    arguments = brought.authorized()
    assert brought.refusal(STRANGER, "openWithAuthorization", *arguments) == reason


def test_only_the_payer_opens_and_only_with_the_providers_signature(scene: Scene) -> None:
    for who in (PROVIDER, ARBITER, STRANGER):
        scene.refused("NotPayer", who, "open", *scene.signed())
        scene.refused(
            "BadSignature", PAYER, "open", *scene.signed(who if who != PROVIDER else PAYER)
        )
    domain = scene.escrow.domain("TaskEscrow")
    for form in other_forms(PROVIDER.sign_quote(domain, scene.quote)):
        scene.refused("BadSignature", PAYER, "open", *form)
        authorized = (form, *scene.authorized()[1:])
        scene.refused("BadSignature", STRANGER, "openWithAuthorization", *authorized)
        assert scene.escrow.refusal(PAYER, "openMany", [scene.raw], [form]) == "BadSignature"
    scene.open()
    scene.refused("BadState", PAYER, "open", *scene.signed())


@pytest.mark.parametrize(
    "changed",
    [
        {"price": PRICE - 1},
        {"arbiter": NOBODY},
        {"deliver_by": 10**10},
        {"judge_window": 0},
        {"quote_expiry": 10**10},
        {"arbiter_window": 0},
        {"default_bps": 0},
        {"task_id": word(7)},
        {"spec_hash": word(7)},
    ],
)
def test_what_was_quoted_cannot_be_changed(scene: Scene, changed: dict[str, Any]) -> None:
    changed = {n: scene.evm.now + 90 if v == 10**10 else v for n, v in changed.items()}
    scene.like(**changed).refused("BadSignature", PAYER, "open", *scene.signed())


def test_a_quote_is_for_one_contract_on_one_chain(scene: Scene) -> None:
    twin = replace(scene, escrow=Deployed.new(scene.evm, "TaskEscrow", DEPLOYER))
    far = Scene.new(Evm(chain_id=1))
    assert (far.quote, far.escrow.address) == (scene.quote, scene.escrow.address)
    for elsewhere in (twin, far):
        assert elsewhere.id != scene.id
        scene.refused("BadSignature", PAYER, "open", *elsewhere.signed())
    scene.open()
    for elsewhere in (twin, far):
        for job in (elsewhere.id, scene.id):
            signed = elsewhere.word(PRICE, job=job)
            scene.refused("BadSignature", PROVIDER, "acceptWithSig", *signed)


def test_many_jobs_are_opened_and_accepted_with_few_transfers(scene: Scene) -> None:
    jobs = [scene.like(task_id=word(n), price=100 + n) for n in range(32)]
    total = sum(job.quote.price for job in jobs)
    raws, signatures = [job.raw for job in jobs], [job.signed() for job in jobs]
    scene.escrow.do(PAYER, "openMany", raws, signatures)
    assert [s["jobId"] for s in scene.escrow.said("Opened")] == [job.id for job in jobs]
    (transfer,) = scene.token.said("Transfer")
    assert transfer["value"] == total
    assert scene.holdings() == (total, MINTED - total, 0)
    words = [job.word(50 + n) for n, job in enumerate(jobs)]
    columns = ([w[0] for w in words], [w[1] for w in words], [w[2:] for w in words])
    assert scene.escrow.refusal(STRANGER, "acceptMany", raws, *columns) == "NotAgreed"
    scene.escrow.do(PROVIDER, "acceptMany", raws, *columns)
    assert [s["toProvider"] for s in scene.escrow.said("Settled")] == [50 + n for n in range(32)]
    paid = sum(w[0] for w in words)
    assert scene.holdings() == (0, MINTED - paid, paid)
    assert scene.escrow.refusal(PROVIDER, "acceptMany", raws[:1], *(c[:1] for c in columns)) == (
        "BadState"
    )


def test_many_are_opened_together_or_not_at_all(scene: Scene) -> None:
    other = scene.like(task_id=word(5))
    elsewhere = other.like(token=scene.escrow.address)

    def refusal(who: KeySigner, *jobs: Scene) -> str:
        columns = ([job.raw for job in jobs], [job.signed() for job in jobs])
        return scene.escrow.refusal(who, "openMany", *columns)

    assert refusal(STRANGER, scene) == "NotPayer"
    assert refusal(PAYER, scene, scene) == "BadState"
    assert refusal(PAYER, scene, elsewhere) == "Mixed"
    assert refusal(PAYER, scene, other.like(price=0)) == "Zero"
    assert refusal(PAYER, scene, other.like(payer=STRANGER.address)) == "NotPayer"
    assert refusal(PAYER) == "no reason"
    assert refusal(PAYER, *[scene] * 33) == "no reason"
    most = [scene.like(task_id=word(n), price=2**128 - 1) for n in range(5)]
    assert refusal(PAYER, *most) == "balance is too low"
    lacking = ([scene.raw, other.raw], [scene.signed()])
    assert scene.escrow.refusal(PAYER, "openMany", *lacking) == "BadLengths"
    assert scene.state == other.state == (NONE, 0)
    assert scene.holdings() == (0, MINTED, 0)
    scene.open()
    pays, results, signatures = ([PRICE], [RESULT], [scene.word(PRICE)[2:]])
    for short in (([], results, signatures), (pays, [], signatures), (pays, results, [])):
        assert scene.escrow.refusal(PAYER, "acceptMany", [scene.raw], *short) == "BadLengths"


def test_anybody_brings_a_signed_opening_and_it_opens_one_job_once(scene: Scene) -> None:
    opening = "openWithAuthorization"
    scene.refused("invalid signature", STRANGER, opening, *scene.authorized(signer=STRANGER))
    other = scene.like(task_id=word(5))
    stolen = (other.signed(), *scene.authorized()[1:])
    other.refused("invalid signature", STRANGER, opening, *stolen)
    twin = replace(scene, escrow=Deployed.new(scene.evm, "TaskEscrow", DEPLOYER))
    scene.refused("invalid signature", STRANGER, opening, *scene.authorized(units=PRICE + 1))
    elsewhere = scene.authorized(payee=twin.escrow.address)
    scene.refused("invalid signature", STRANGER, opening, *elsewhere)
    scene.do(STRANGER, opening, *scene.authorized())
    assert scene.state == (FUNDED, scene.quote.deliver_by)
    assert scene.holdings() == (PRICE, MINTED - PRICE, 0)
    scene.refused("BadState", STRANGER, opening, *scene.authorized())
    scene.refused("BadState", PAYER, "open", *scene.signed())


@pytest.mark.parametrize(("seconds", "reason"), [(9, ""), (10, "authorization is expired")])
def test_an_authorization_is_valid_until_it_is_not(scene: Scene, seconds: int, reason: str) -> None:
    arguments = scene.authorized(until=scene.evm.now + 10)
    scene.evm.now += seconds
    assert scene.refusal(STRANGER, "openWithAuthorization", *arguments) == reason


# -- agreeing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("submitted", [False, True])
@pytest.mark.parametrize("pay", [0, 1, PRICE - 1, PRICE])
def test_who_has_to_agree(submitted: bool, pay: int) -> None:
    """Both to anything, the payer alone to the price, the provider alone to nothing."""

    def job() -> Scene:
        opened = Scene.new().open()
        return opened.submit() if submitted else opened

    by_payer = "" if pay == PRICE else "NotAgreed"
    by_provider = "" if pay == 0 else "NotAgreed"
    ways: list[tuple[KeySigner, str, Any, str]] = [
        (PAYER, "accept", None, by_payer),
        (PROVIDER, "accept", None, by_provider),
        (STRANGER, "accept", None, "NotParty"),
        (ARBITER, "accept", None, "NotParty"),
        (PAYER, "acceptWithSig", PAYER, by_payer),
        (STRANGER, "acceptWithSig", PAYER, by_payer),
        (PROVIDER, "acceptWithSig", PAYER, ""),
        (PAYER, "acceptWithSig", PROVIDER, ""),
        (PROVIDER, "acceptWithSig", PROVIDER, by_provider),
        (STRANGER, "acceptWithSig", PROVIDER, by_provider),
        (PAYER, "acceptWithSig", STRANGER, "BadSignature"),
        (PROVIDER, "acceptWithSig", ARBITER, "BadSignature"),
    ]
    for who, name, signer, reason in ways:
        scene = job()
        arguments = scene.word(pay, signer) if signer else (pay, RESULT)
        if reason:
            scene.refused(reason, who, name, *arguments)
        else:
            scene.do(who, name, *arguments)
            assert scene.escrow.said("Settled")[0]["resultHash"] == RESULT
            scene.over(PAID if pay else REFUNDED, pay)


@pytest.mark.parametrize("submitted", [False, True])
@pytest.mark.parametrize("pay", [0, 1, PRICE - 1, PRICE])
def test_anybody_brings_what_both_have_signed(submitted: bool, pay: int) -> None:
    scene = Scene.new().open()
    if submitted:
        scene.submit()
    by_payer, by_provider = scene.word(pay), scene.word(pay, PROVIDER)
    both = (*by_payer[:2], by_payer[2:], by_provider[2:])
    for wrong in (
        (*by_payer[:2], by_payer[2:], by_payer[2:]),
        (*by_payer[:2], by_provider[2:], by_provider[2:]),
        (*by_payer[:2], by_provider[2:], by_payer[2:]),
        (*by_payer[:2], by_payer[2:], scene.word(pay, STRANGER)[2:]),
        (pay + 1, RESULT, by_payer[2:], by_provider[2:]),
        (pay, word(1), by_payer[2:], by_provider[2:]),
    ):
        scene.refused("BadSignature", STRANGER, "acceptWithBoth", *wrong)
    scene.do(STRANGER, "acceptWithBoth", *both)
    assert scene.escrow.said("Settled")[0]["resultHash"] == RESULT
    scene.refused("BadState", STRANGER, "acceptWithBoth", *both)
    scene.over(PAID if pay else REFUNDED, pay)


@pytest.mark.parametrize("pay", [PRICE + 1, 2**104, 2**128 - 1])
def test_nobody_agrees_to_more_than_the_price(scene: Scene, pay: int) -> None:
    scene.open()
    scene.refused("OverPrice", PROVIDER, "acceptWithSig", *scene.word(pay))
    scene.refused("OverPrice", PAYER, "acceptWithSig", *scene.word(pay, PROVIDER))
    scene.refused("NotAgreed", PAYER, "accept", pay, RESULT)
    by_payer, by_provider = scene.word(pay), scene.word(pay, PROVIDER)
    both = (pay, RESULT, by_payer[2:], by_provider[2:])
    scene.refused("OverPrice", STRANGER, "acceptWithBoth", *both)
    scene.submit().dispute()
    scene.refused("BadState", STRANGER, "acceptWithBoth", *both)
    scene.refused("OverPrice", ARBITER, "resolve", pay)


def test_an_acceptance_has_one_form_and_one_job(scene: Scene) -> None:
    scene.open()
    other = scene.like(task_id=word(5)).open()
    accept = Accept(scene.id, 900, RESULT)
    signature = PAYER.sign_accept(scene.escrow.domain("TaskEscrow"), accept)
    for form in other_forms(signature):
        scene.refused("BadSignature", PROVIDER, "acceptWithSig", 900, RESULT, *form)
    scene.refused("BadSignature", PROVIDER, "acceptWithSig", *other.word(900))
    scene.refused("BadSignature", PROVIDER, "acceptWithSig", 901, RESULT, *vrs(signature))
    scene.refused("BadSignature", PROVIDER, "acceptWithSig", 900, word(1), *vrs(signature))
    scene.do(PROVIDER, "acceptWithSig", 900, RESULT, *vrs(signature))
    assert other.state == (FUNDED, other.quote.deliver_by)
    assert scene.holdings() == (PRICE, MINTED - PRICE - 900, 900)


def test_a_job_that_never_was_moves_nothing(scene: Scene) -> None:
    scene.refused("BadState", PROVIDER, "submit", RESULT)
    scene.refused("BadState", PAYER, "accept", PRICE, RESULT)
    scene.refused("BadState", PROVIDER, "acceptWithSig", *scene.word(PRICE))
    scene.refused("BadState", PAYER, "dispute", RESULT)
    scene.refused("BadState", ARBITER, "resolve", PRICE)
    for name, arguments in OUTCOMES:
        scene.refused("BadState", STRANGER, name, *arguments)


# -- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_a_delivery_is_due_to_the_second(scene: Scene, off: int) -> None:
    scene.open()
    scene.evm.now = scene.quote.deliver_by + off
    for who in (PAYER, STRANGER, ARBITER):
        scene.refused("NotProvider", who, "submit", RESULT)
    if off > 0:
        scene.refused("TooLate", PROVIDER, "submit", RESULT)
        scene.do(STRANGER, "refundUndelivered")
        scene.over(REFUNDED, 0)
    else:
        scene.refused("TooEarly", STRANGER, "refundUndelivered")
        scene.submit()
        assert scene.escrow.said("Submitted") == [{"jobId": scene.id, "resultHash": RESULT}]
        assert scene.state == (SUBMITTED, scene.evm.now + 50)
        scene.evm.now += 10
        scene.refused("BadState", STRANGER, "refundUndelivered")


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_a_judgement_is_due_to_the_second(scene: Scene, off: int) -> None:
    scene.open().submit()
    scene.evm.now += 50 + off
    for who in (PROVIDER, STRANGER, ARBITER):
        scene.refused("NotPayer", who, "dispute", RESULT)
    if off > 0:
        scene.refused("TooLate", PAYER, "dispute", RESULT)
        scene.do(STRANGER, "claimUnjudged")
        scene.over(PAID, PRICE)
    else:
        scene.refused("TooEarly", STRANGER, "claimUnjudged")
        scene.do(PAYER, "dispute", word(9))
        assert scene.escrow.said("Disputed") == [{"jobId": scene.id, "reason": word(9)}]
        assert scene.state == (DISPUTED, scene.evm.now + 70)


@pytest.mark.parametrize("off", [-1, 0, 1])
@pytest.mark.parametrize("pay", [0, 1, 600, PRICE])
def test_a_dispute_is_decided_to_the_second(scene: Scene, off: int, pay: int) -> None:
    scene.open().submit().dispute()
    scene.evm.now += 70 + off
    for who in (PAYER, PROVIDER, STRANGER):
        scene.refused("NotArbiter", who, "resolve", pay)
    if off > 0:
        scene.refused("TooLate", ARBITER, "resolve", pay)
        scene.do(STRANGER, "expireDispute")
        scene.over(PAID, 250)
    else:
        scene.refused("TooEarly", STRANGER, "expireDispute")
        scene.do(ARBITER, "resolve", pay)
        scene.over(PAID if pay else REFUNDED, pay)


def test_a_dispute_is_the_arbiters_alone(scene: Scene) -> None:
    scene.open().submit().dispute()
    scene.refused("BadState", PAYER, "accept", PRICE, RESULT)
    scene.refused("BadState", PROVIDER, "acceptWithSig", *scene.word(900))
    scene.refused("BadState", PROVIDER, "accept", 0, RESULT)
    scene.refused("BadState", PAYER, "dispute", RESULT)
    scene.evm.now += 71
    scene.refused("BadState", STRANGER, "claimUnjudged")


def test_without_an_arbiter_there_is_no_dispute(scene: Scene) -> None:
    alone = scene.like(arbiter=NOBODY).open().submit()
    alone.refused("NoArbiter", PAYER, "dispute", RESULT)
    alone.evm.now += 51
    alone.do(STRANGER, "claimUnjudged")
    assert (alone.state, alone.holdings()) == ((PAID, 0), (0, MINTED - PRICE, PRICE))


@pytest.mark.parametrize(
    ("price", "bps", "pay"),
    [(1000, 0, 0), (1, 9999, 0), (1000, 10000, 1000), (3, 5000, 1), (2**128 - 1, 9999, None)],
)
def test_a_silent_arbiter_leaves_what_was_agreed(
    scene: Scene, price: int, bps: int, pay: int | None
) -> None:
    job = scene.like(price=price, default_bps=bps).open().submit().dispute()
    job.evm.now += 71
    job.do(STRANGER, "expireDispute")
    pay = price * bps // 10000 if pay is None else pay
    assert job.holdings() == (0, MINTED - pay, pay)
    assert job.state == (PAID if pay else REFUNDED, 0)


def test_the_longest_windows_end(scene: Scene) -> None:
    longest = {"deliver_by": scene.evm.now + 365 * DAY}
    longest |= {"judge_window": 30 * DAY, "arbiter_window": 30 * DAY}
    job = scene.like(**longest).open()
    job.evm.now += 365 * DAY
    job.submit()
    job.evm.now += 30 * DAY
    job.dispute()
    job.evm.now += 30 * DAY + 1
    job.do(STRANGER, "expireDispute")
    job.over(PAID, 250)


def test_an_acceptance_counts_late_unless_the_money_went_back(scene: Scene) -> None:
    scene.open()
    other = scene.like(task_id=word(5)).open()
    scene.evm.now += 101
    scene.do(PROVIDER, "acceptWithSig", *scene.word(PRICE))
    other.do(STRANGER, "refundUndelivered")
    other.refused("BadState", PROVIDER, "acceptWithSig", *other.word(PRICE))


# -- tokens that are odd -------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["answers false", "takes a fee"])
def test_what_does_not_arrive_in_full_is_refused(way: str) -> None:
    scene = Scene.new(way=way)
    scene.refused("ShortTransfer", PAYER, "open", *scene.signed())
    scene.refused("ShortTransfer", STRANGER, "openWithAuthorization", *scene.authorized())
    many = ([scene.raw], [scene.signed()])
    assert scene.escrow.refusal(PAYER, "openMany", *many) == "ShortTransfer"
    assert scene.holdings() == (0, MINTED, 0)


def test_a_token_that_returns_nothing_is_a_token() -> None:
    scene = Scene.new(way="returns nothing").open()
    scene.do(PROVIDER, "acceptWithSig", *scene.word(900))
    assert scene.holdings() == (0, MINTED - 900, 900)


def test_a_used_nonce_that_is_forgiven_opens_nothing() -> None:
    scene = Scene.new(way="forgives a used nonce")
    nonce = scene.id[:24] + bytes(8)
    use = (PAYER.address, STRANGER.address, 1, 0, 0, nonce, 27, bytes(32), bytes(32))
    scene.token.do(STRANGER, "receiveWithAuthorization", *use)
    scene.refused("ShortTransfer", STRANGER, "openWithAuthorization", *scene.authorized())


@pytest.mark.parametrize("way", ["calls first", "calls last"])
@pytest.mark.parametrize("pay", [0, 600, PRICE])
def test_a_token_that_calls_back_finds_nothing_to_take_twice(way: str, pay: int) -> None:
    scene = Scene.new(way=way)
    scene.like(task_id=word(5)).open()  # others' money
    agreed, judged = (scene.like(task_id=word(n)).open() for n in (6, 7))
    judged.submit().dispute()
    ends: tuple[Any, ...] = (
        (agreed, PROVIDER, "acceptWithSig", agreed.word(pay), agreed.word(PRICE)),
        (judged, ARBITER, "resolve", (pay,), judged.word(PRICE)),
    )
    for job, who, name, arguments, signed in ends:
        again = job.escrow.data("acceptWithSig", job.raw, *signed)
        job.token.do(STRANGER, "arm", job.escrow.address, again)
        job.do(who, name, *arguments)
        assert job.token.said("Called") == [{"done": False}]
    assert scene.holdings() == (PRICE, MINTED - PRICE - 2 * pay, 2 * pay)


@pytest.mark.parametrize("way", ["calls first", "calls last"])
def test_money_that_is_not_there_yet_cannot_be_paid_out(way: str) -> None:
    """The payer and the provider collude: the acceptance comes while the price is on its way."""
    scene = Scene.new(way=way).open()  # others' money
    job = scene.like(task_id=word(5))
    steal = job.escrow.data("acceptWithSig", job.raw, *job.word(PRICE))
    scene.token.do(STRANGER, "arm", scene.escrow.address, steal)
    with pytest.raises(Reverted, match="ShortTransfer"):
        job.open()
    with pytest.raises(Reverted, match="ShortTransfer"):
        job.do(STRANGER, "openWithAuthorization", *job.authorized())
    assert (job.state, job.holdings()) == ((NONE, 0), (PRICE, MINTED - PRICE, 0))


# -- gas -----------------------------------------------------------------------------------------


def test_a_job_costs_what_was_promised(scene: Scene) -> None:
    scene.token.do(DEPLOYER, "mint", PROVIDER.address, 1)
    scene.open()
    gas = scene.evm.gas
    scene.do(PROVIDER, "acceptWithSig", *scene.word(900))
    assert gas + scene.evm.gas <= 170_000
    jobs = [scene.like(task_id=word(10 + n)) for n in range(10)]
    scene.escrow.do(PAYER, "openMany", [job.raw for job in jobs], [job.signed() for job in jobs])
    gas = scene.evm.gas
    words = [job.word(900) for job in jobs]
    columns = ([w[0] for w in words], [w[1] for w in words], [w[2:] for w in words])
    scene.escrow.do(PROVIDER, "acceptMany", [job.raw for job in jobs], *columns)
    assert gas + scene.evm.gas <= 10 * 75_000
