"""What `AgentChannels` does and refuses, one rule at a time, to the second and to the unit.

The rules that need a node as well are in the conformance suite of the chains.
"""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from support.evm import Deployed, Evm, Reverted, odd_token, other_forms, vrs

from agentkit.keys.messages import ReceiveAuthorization, Release, Voucher, keccak, word
from agentkit.keys.signer import KeySigner

DEPLOYER, PAYER, PROVIDER, STRANGER, SESSION = (KeySigner(bytes(31) + bytes([n])) for n in b"12345")
MINTED = 2**106
MOST = 2**104 - 1
DELAY = 3600
DAY = 86400
ROOT = keccak(b"root")


@dataclass(frozen=True)
class Scene:
    """A payer with tokens, and one of its channels with a provider."""

    evm: Evm
    token: Deployed
    channels: Deployed
    salt: bytes = bytes(32)
    delay: int = DELAY
    provider: str = PROVIDER.address

    @classmethod
    def new(cls, evm: Evm | None = None, way: str = "") -> "Scene":
        evm = evm or Evm()
        token = odd_token(evm, way, DEPLOYER) if way else Deployed.new(evm, "TestUSD", DEPLOYER)
        channels = Deployed.new(evm, "AgentChannels", DEPLOYER)
        token.do(DEPLOYER, "mint", PAYER.address, MINTED)
        if not way:
            token.do(PAYER, "approve", channels.address, 2**256 - 1)
        return cls(evm, token, channels)

    @property
    def config(self) -> tuple[Any, ...]:
        return (
            *(PAYER.address, SESSION.address, self.provider),
            *(self.token.address, self.delay, self.salt),
        )

    @property
    def id(self) -> bytes:
        return bytes(self.channels.do(STRANGER, "channelId", self.config))

    def do(self, who: KeySigner, name: str, *arguments: Any) -> None:
        self.channels.do(who, name, self.config, *arguments)

    def refusal(self, who: KeySigner, name: str, *arguments: Any) -> str:
        return self.channels.refusal(who, name, self.config, *arguments)

    def refused(self, reason: str, who: KeySigner, name: str, *arguments: Any) -> None:
        """See it refused for this reason; what reverts has changed nothing."""
        assert self.refusal(who, name, *arguments) == reason

    def books(self) -> tuple[Any, ...]:
        """What contract, payer and provider hold, and what the contract says of the channel."""
        state = self.channels.do(STRANGER, "channels", self.id)
        return (*self.holdings(), state, self.channels.do(STRANGER, "closingAt", self.id))

    def holdings(self) -> tuple[int, ...]:
        held = (self.channels.address, PAYER.address, self.provider)
        return tuple(self.token.do(STRANGER, "balanceOf", one) for one in held)

    def signed(self, cumulative: int, signer: KeySigner = SESSION, **changed: Any) -> bytes:
        voucher = replace(Voucher(self.id, cumulative, 3, ROOT), **changed)
        return signer.sign_voucher(self.channels.domain("AgentChannels"), voucher)

    def voucher(self, cumulative: int, signer: KeySigner = SESSION, **changed: Any) -> Any:
        return ((cumulative, 3, ROOT), *vrs(self.signed(cumulative, signer, **changed)))

    def release(self, claimed: int, signer: KeySigner = PROVIDER, channel: bytes = b"") -> Any:
        release = Release(channel or self.id, claimed)
        return claimed, *vrs(signer.sign_release(self.channels.domain("AgentChannels"), release))

    def top_up(self, units: int, until: int = 0) -> Any:
        """The arguments of a signed top-up."""
        deposited, _ = self.channels.do(STRANGER, "channels", self.id)
        nonce = keccak(self.id + word(deposited))
        until = until or self.evm.now + 60
        given = ReceiveAuthorization(PAYER.address, self.channels.address, units, until, nonce)
        domain = self.token.domain("USD Coin")
        return units, until, *vrs(PAYER.sign_authorization(domain, given))


@pytest.fixture
def scene() -> Scene:
    return Scene.new()


@pytest.fixture
def funded(scene: Scene) -> Scene:
    scene.do(PAYER, "fund", 1000)
    return scene


# -- paying in -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "reason"),
    [(0, "Zero"), (1, ""), (MOST, ""), (2**104, "TooMuch"), (2**128 - 1, "TooMuch")],
)
def test_amounts_have_bounds(scene: Scene, amount: int, reason: str) -> None:
    assert scene.refusal(PAYER, "fund", amount) == reason
    other = replace(scene, salt=ROOT)
    assert other.refusal(STRANGER, "fundWithAuthorization", *other.top_up(amount)) == reason


def test_a_deposit_is_full_to_the_unit(scene: Scene) -> None:
    scene.do(PAYER, "fund", MOST - 1)
    scene.refused("TooMuch", PAYER, "fund", 2)
    scene.do(PAYER, "fund", 1)
    scene.refused("TooMuch", PAYER, "fund", 1)
    scene.do(PROVIDER, "claimAndClose", *scene.voucher(MOST))
    assert scene.holdings() == (0, MINTED - MOST, MOST)


@pytest.mark.parametrize(
    ("delay", "reason"),
    [(899, "BadConfig"), (900, ""), (30 * DAY, ""), (30 * DAY + 1, "BadConfig")],
)
def test_the_close_delay_has_bounds(scene: Scene, delay: int, reason: str) -> None:
    one, other, third = (replace(scene, delay=delay, salt=word(n)) for n in range(3))
    assert one.refusal(PAYER, "fund", 5) == reason
    assert other.refusal(STRANGER, "fundWithAuthorization", *other.top_up(5)) == reason
    assert scene.channels.refusal(PAYER, "fundMany", [third.config], [5]) == reason


def test_many_channels_are_funded_with_one_transfer(scene: Scene) -> None:
    scenes = [replace(scene, salt=word(n)) for n in range(32)]
    configs = [one.config for one in scenes]
    scene.channels.do(PAYER, "fundMany", configs, list(range(1, 33)))
    assert [s["amount"] for s in scene.channels.said("Funded")] == list(range(1, 33))
    assert scene.token.said("Transfer") == [
        {"sender": PAYER.address.lower(), "receiver": scene.channels.address.lower(), "value": 528}
    ]
    assert [one.books()[3] for one in scenes] == [(n, 0) for n in range(1, 33)]
    assert scene.holdings()[:2] == (528, MINTED - 528)
    scene.channels.do(PAYER, "fundMany", configs[:1] * 2, [5, 6])
    assert scenes[0].books()[3] == (12, 0)


def test_many_are_funded_together_or_not_at_all(scene: Scene) -> None:
    other = replace(scene, salt=ROOT)
    elsewhere = replace(other, token=scene.channels)
    good = scene.config

    def refusal(who: KeySigner, configs: list[Any], amounts: list[int]) -> str:
        return scene.channels.refusal(who, "fundMany", configs, amounts)

    assert refusal(STRANGER, [good], [1]) == "NotPayer"
    assert refusal(PAYER, [good, other.config], [1]) == "BadLengths"
    assert refusal(PAYER, [good, other.config], [1, 0]) == "Zero"
    assert refusal(PAYER, [good, elsewhere.config], [1, 1]) == "Mixed"
    assert refusal(PAYER, [good, replace(other, delay=1).config], [1, 1]) == "BadConfig"
    assert refusal(PAYER, [good, other.config], [1, MINTED]) == "TooMuch"
    assert refusal(PAYER, [good] * 3, [MOST // 2] * 3) == "TooMuch"
    assert refusal(PAYER, [], []) == "no reason"
    assert refusal(PAYER, [good] * 33, [1] * 33) == "no reason"
    scene.token.do(PAYER, "transfer", STRANGER.address, MINTED - 9)
    assert refusal(PAYER, [good, other.config], [5, 5]) == "balance is too low"
    assert scene.books() == (0, 9, 0, (0, 0), 0)


@pytest.mark.parametrize(("seconds", "reason"), [(59, ""), (60, "authorization is expired")])
def test_a_top_up_is_valid_until_it_is_not(scene: Scene, seconds: int, reason: str) -> None:
    signed = scene.top_up(5, until=scene.evm.now + 60)
    scene.evm.now += seconds
    assert scene.refusal(STRANGER, "fundWithAuthorization", *signed) == reason


# -- paying out ----------------------------------------------------------------------------------


def test_a_cumulative_only_grows(funded: Scene) -> None:
    funded.do(STRANGER, "claim", *funded.voucher(300))
    for name, who in (("claim", STRANGER), ("claimAndClose", PROVIDER)):
        funded.refused("NothingNew", who, name, *funded.voucher(0))
        funded.refused("NothingNew", who, name, *funded.voucher(299))
        funded.refused("NothingNew", who, name, *funded.voucher(300))
        funded.refused("OverDeposit", who, name, *funded.voucher(1001))
        funded.refused("OverDeposit", who, name, *funded.voucher(2**104))
        funded.refused("OverDeposit", who, name, *funded.voucher(2**128 - 1))
    funded.do(STRANGER, "claim", *funded.voucher(301))
    assert funded.holdings() == (699, MINTED - 1000, 301)


@pytest.mark.parametrize("name", ["claim", "claimAndClose", "closeWithRelease"])
def test_a_signature_has_one_form_and_one_signer(funded: Scene, name: str) -> None:
    domain, right = funded.channels.domain("AgentChannels"), SESSION
    sign: Any = lambda who: funded.signed(300, who)  # noqa: E731
    first: Any = (300, 3, ROOT)
    if name == "closeWithRelease":
        first, right = 0, PROVIDER
        sign = lambda who: who.sign_release(domain, Release(funded.id, 0))  # noqa: E731
    for form in other_forms(sign(right)):
        funded.refused("BadSignature", PROVIDER, name, first, *form)
    for wrong in {PAYER, SESSION, PROVIDER, STRANGER} - {right}:
        funded.refused("BadSignature", PROVIDER, name, first, *vrs(sign(wrong)))
    funded.do(PROVIDER, name, first, *vrs(sign(right)))


@pytest.mark.parametrize("name", ["claim", "claimAndClose"])
def test_a_voucher_is_for_one_channel_on_one_contract_on_one_chain(
    funded: Scene, name: str
) -> None:
    other = replace(funded, salt=ROOT)
    other.do(PAYER, "fund", 1000)
    funded.refused("BadSignature", PROVIDER, name, *other.voucher(300))
    twin = replace(funded, channels=Deployed.new(funded.evm, "AgentChannels", DEPLOYER))
    far = Scene.new(Evm(chain_id=1))
    assert far.channels.address == funded.channels.address
    for elsewhere in (twin, far):
        assert elsewhere.id != funded.id
        funded.refused("BadSignature", PROVIDER, name, *elsewhere.voucher(300))
        funded.refused("BadSignature", PROVIDER, name, *elsewhere.voucher(300, channel=funded.id))
    funded.do(PROVIDER, name, *funded.voucher(300))


def test_what_is_signed_as_one_thing_is_not_another(funded: Scene) -> None:
    _, *release = funded.release(0, signer=SESSION)
    funded.refused("BadSignature", PROVIDER, "claim", (1, 0, bytes(32)), *release)
    voucher = vrs(funded.signed(0, PROVIDER))
    funded.refused("BadSignature", PROVIDER, "closeWithRelease", 0, *voucher)


def test_many_channels_are_claimed_with_one_transfer(scene: Scene) -> None:
    scenes = [replace(scene, salt=word(n)) for n in range(32)]
    configs = [one.config for one in scenes]
    scene.channels.do(PAYER, "fundMany", configs, [100] * 32)

    def claim(*picks: tuple[Scene, int]) -> str:
        vouchers = [one.voucher(units) for one, units in picks]
        columns = [v[0] for v in vouchers], [v[1:] for v in vouchers]
        return scene.channels.refusal(STRANGER, "claimMany", [s.config for s, _ in picks], *columns)

    assert claim(*((one, 1 + n) for n, one in enumerate(scenes))) == ""
    assert len(scene.token.said("Transfer")) == 1
    assert [one.books()[3] for one in scenes] == [(100, n) for n in range(1, 33)]
    assert scene.holdings() == (3200 - 528, MINTED - 3200, 528)
    assert claim((scenes[0], 50), (scenes[0], 60)) == ""
    assert claim((scenes[0], 70), (scenes[0], 70)) == "NothingNew"
    assert claim((scenes[0], 70), (scenes[1], 101)) == "OverDeposit"
    assert claim() == "no reason"
    stranger = replace(scene, provider=STRANGER.address)
    stranger.do(PAYER, "fund", 5)
    assert claim((scenes[0], 70), (stranger, 5)) == "Mixed"
    assert claim((stranger, 5), (scenes[0], 70)) == "Mixed"
    one = scenes[0].voucher(70)
    for vouchers, signatures in (([], [one[1:]]), ([one[0]], []), ([one[0]] * 2, [one[1:]])):
        arguments = (configs[:1], vouchers, signatures)
        assert scene.channels.refusal(STRANGER, "claimMany", *arguments) == "BadLengths"
    forged = ([one[0]] * 2, [one[1:], scenes[0].voucher(70, signer=STRANGER)[1:]])
    assert scene.channels.refusal(STRANGER, "claimMany", configs[:2], *forged) == "BadSignature"
    assert scenes[0].books()[3] == (100, 60)


# -- closing -------------------------------------------------------------------------------------


def spent(scene: Scene) -> None:
    """See that nothing can be done with a closed channel, now or later."""
    for _ in range(2):
        claimed = scene.books()[3][1]
        scene.refused("Closing", PAYER, "fund", 5)
        scene.refused("Closing", STRANGER, "fundWithAuthorization", *scene.top_up(5))
        for units in (claimed + 1, 1000):
            scene.refused("OverDeposit", PROVIDER, "claim", *scene.voucher(units))
            scene.refused("OverDeposit", PROVIDER, "claimAndClose", *scene.voucher(units))
        reason = "Closed" if claimed else "NotOpen"
        scene.refused(reason, STRANGER, "closeWithRelease", *scene.release(claimed))
        scene.refused("Closing", PAYER, "requestClose")
        scene.refused("Closed", STRANGER, "finishClose")
        scene.evm.now += 31 * DAY


@pytest.mark.parametrize("claimed", [0, 300, 999])
@pytest.mark.parametrize("closing", [False, True])
def test_a_release_gives_the_rest_back_at_once(funded: Scene, claimed: int, closing: bool) -> None:
    if claimed:
        funded.do(STRANGER, "claim", *funded.voucher(claimed))
    if closing:
        funded.do(PAYER, "requestClose")
    for other in {0, claimed - 1, claimed + 1, 1000, 2**104, 2**128 - 1} - {claimed, -1}:
        funded.refused("OtherClaims", STRANGER, "closeWithRelease", *funded.release(other))
    funded.do(STRANGER, "closeWithRelease", *funded.release(claimed))
    assert funded.channels.said("Closed") == [{"id": funded.id, "refunded": 1000 - claimed}]
    assert funded.holdings() == (0, MINTED - claimed, claimed)
    spent(funded)


def test_a_release_is_for_one_channel_on_one_contract_on_one_chain(funded: Scene) -> None:
    other = replace(funded, salt=ROOT)
    other.do(PAYER, "fund", 1000)
    twin = replace(funded, channels=Deployed.new(funded.evm, "AgentChannels", DEPLOYER))
    for elsewhere in (other, twin, Scene.new(Evm(chain_id=1))):
        wrong = elsewhere.release(0)
        funded.refused("BadSignature", STRANGER, "closeWithRelease", *wrong)
    for elsewhere in (twin, Scene.new(Evm(chain_id=1))):
        wrong = elsewhere.release(0, channel=funded.id)
        funded.refused("BadSignature", STRANGER, "closeWithRelease", *wrong)


def test_a_channel_that_never_was_is_not_closed(scene: Scene) -> None:
    scene.refused("NotOpen", STRANGER, "closeWithRelease", *scene.release(0))
    scene.refused("NotOpen", PAYER, "requestClose")
    scene.refused("NotClosing", STRANGER, "finishClose")
    scene.do(PAYER, "fund", 1000)


@pytest.mark.parametrize(("off", "reason"), [(-1, "TooEarly"), (0, ""), (1, "")])
def test_a_close_is_finished_to_the_second(funded: Scene, off: int, reason: str) -> None:
    for who in (PROVIDER, STRANGER, SESSION):
        funded.refused("NotPayer", who, "requestClose")
    funded.do(PAYER, "requestClose")
    funded.evm.now += DELAY + off
    assert funded.refusal(STRANGER, "finishClose") == reason
    if not reason:
        assert funded.holdings() == (0, MINTED, 0)
        spent(funded)


def test_a_provider_claims_until_the_close_is_finished(funded: Scene) -> None:
    funded.do(PAYER, "requestClose")
    funded.evm.now += DELAY
    funded.do(STRANGER, "claim", *funded.voucher(300))
    funded.do(STRANGER, "finishClose")
    assert funded.holdings() == (0, MINTED - 300, 300)
    spent(funded)


def test_only_the_provider_claims_and_closes(funded: Scene) -> None:
    for who in (PAYER, STRANGER, SESSION):
        funded.refused("NotProvider", who, "claimAndClose", *funded.voucher(300))


# -- tokens that are odd -------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["answers false", "takes a fee"])
def test_what_does_not_arrive_in_full_is_refused(way: str) -> None:
    scene = Scene.new(way=way)
    scene.refused("ShortTransfer", PAYER, "fund", 1000)
    scene.refused("ShortTransfer", STRANGER, "fundWithAuthorization", *scene.top_up(1000))
    many = ([scene.config], [1000])
    assert scene.channels.refusal(PAYER, "fundMany", *many) == "ShortTransfer"
    assert scene.books() == (0, MINTED, 0, (0, 0), 0)


def test_a_token_that_returns_nothing_is_a_token() -> None:
    scene = Scene.new(way="returns nothing")
    scene.do(PAYER, "fund", 1000)
    scene.do(STRANGER, "claim", *scene.voucher(300))
    scene.do(STRANGER, "closeWithRelease", *scene.release(300))
    assert scene.holdings() == (0, MINTED - 300, 300)


def test_a_used_nonce_that_is_forgiven_is_no_deposit() -> None:
    scene = Scene.new(way="forgives a used nonce")
    scene.do(STRANGER, "fundWithAuthorization", *scene.top_up(1000))
    assert scene.books()[:4] == (1000, MINTED - 1000, 0, (1000, 0))
    nonce = keccak(scene.id + word(1000))
    use = (PAYER.address, STRANGER.address, 1, 0, 0, nonce, 27, bytes(32), bytes(32))
    scene.token.do(STRANGER, "receiveWithAuthorization", *use)
    scene.refused("ShortTransfer", STRANGER, "fundWithAuthorization", *scene.top_up(500))


@pytest.mark.parametrize("way", ["calls first", "calls last"])
def test_a_token_that_calls_back_finds_nothing_to_take_twice(way: str) -> None:
    scene = Scene.new(way=way)
    scene.do(PAYER, "fund", 1000)
    for name, arguments in (
        ("claim", scene.voucher(300)),
        ("claimAndClose", scene.voucher(400)),
    ):
        again = scene.channels.data("claim", scene.config, *arguments)
        scene.token.do(STRANGER, "arm", scene.channels.address, again)
        scene.do(PROVIDER, name, *arguments)
        assert scene.token.said("Called") == [{"done": False}]
    assert scene.holdings() == (0, MINTED - 400, 400)
    other = replace(scene, salt=ROOT)
    other.do(PAYER, "fund", 1000)
    again = other.channels.data("closeWithRelease", other.config, *other.release(0))
    scene.token.do(STRANGER, "arm", scene.channels.address, again)
    other.do(PROVIDER, "closeWithRelease", *other.release(0))
    assert scene.token.said("Called") == [{"done": False}]
    assert other.holdings() == (0, MINTED - 400, 400)


@pytest.mark.parametrize("way", ["calls first", "calls last"])
def test_money_that_is_not_there_yet_cannot_be_claimed(way: str) -> None:
    """The payer and the provider collude: the claim comes while the deposit is on its way."""
    scene = Scene.new(way=way)
    scene.do(PAYER, "fund", 1000)  # others' money
    other = replace(scene, salt=ROOT)
    steal = other.channels.data("claim", other.config, *other.voucher(500))
    scene.token.do(STRANGER, "arm", scene.channels.address, steal)
    with pytest.raises(Reverted, match="ShortTransfer"):
        other.do(PAYER, "fund", 500)
    assert other.books() == (1000, MINTED - 1000, 0, (0, 0), 0)


# -- gas -----------------------------------------------------------------------------------------


def test_a_claim_costs_less_than_in_the_first_sketch(funded: Scene) -> None:
    funded.token.do(DEPLOYER, "mint", PROVIDER.address, 1)
    for cumulative in (300, 600):
        funded.do(PROVIDER, "claim", *funded.voucher(cumulative))
        assert funded.evm.gas <= 58_000
