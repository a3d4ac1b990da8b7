"""Which of the ways to pay that a 402 names are taken, with several networks in the settings."""

from __future__ import annotations

from typing import Any

import pytest

from agentkit.errors import OfferExpired, ProtocolBroken, Refused
from agentkit.keys.channel_messages import ChannelConfig, ChannelVoucher
from agentkit.keys.signer import KeySigner
from agentkit.market import batch_settlement
from agentkit.market.attempt import Attempt, Payment
from agentkit.market.batch_settlement import Config, SignedVoucher, VoucherPayload
from agentkit.market.chain import Network
from agentkit.market.offer_receipt import EXTENSION
from agentkit.market.x402 import REQUIRED, RESPONSE, SIGNATURE, Challenge, Requirement, Settled
from agentkit.money import Asset, Money
from agentkit.payments.x402.issuer import Issuer, receipt_extension
from agentkit.providers.http import Answer, Http
from agentkit.providers.x402_client import PaidAnswer, PaidRequest, X402Client
from agentkit.testing.fakes import NETWORK

PAYEE = "0x" + "33" * 20


def network_of(chain: int, name: str) -> Network:
    token = "0x" + f"{chain:02x}" * 20
    currency = Asset.named("USDC").bind(f"eip155:{chain}", f"erc20:{token}")
    changes = {"name": name, "chain_id": chain, "token": token, "currency": currency}
    return NETWORK.model_copy(update=changes)


OTHER = network_of(16, "other")
THIRD = network_of(17, "third")
HOME = network_of(18, "home").model_copy(update={"beside": (OTHER,), "counts_beside": True})


def client_of(network: Network) -> X402Client:
    return X402Client("web", network, Http("web", "http://127.0.0.1:1"), lambda answer: None)


def exact(on: Network, units: int, **changes: Any) -> Requirement:
    way = Requirement.on(on, PAYEE, units, timeout=60)
    return way.model_copy(update=changes)


def lanes(network: Network, units: int) -> Requirement:
    return batch_settlement.requirement(
        network, PAYEE, units, authorizer=PAYEE, delay=3600, timeout=60, min_deposit=0
    )


def asking(*ways: Requirement) -> Challenge:
    return Challenge(x402_version=2, accepts=[way.document() for way in ways])


def rails(network: Network, *ways: Requirement) -> list[str]:
    client = client_of(network)
    return [client.rail(way) for way in client.ways(asking(*ways))]


def test_the_cheapest_way_is_taken_on_whatever_network() -> None:
    found = rails(HOME, exact(HOME, 7), lanes(HOME, 6), exact(OTHER, 5), lanes(OTHER, 8))
    assert found == ["x402@eip155:16", "batch-settlement", "x402", "batch-settlement@eip155:16"]


def test_at_one_price_the_home_network_pays_and_over_a_channel() -> None:
    found = rails(HOME, exact(OTHER, 5), lanes(OTHER, 5), exact(HOME, 5), lanes(HOME, 5))
    assert found[:2] == ["batch-settlement", "x402"]


def test_a_price_counts_in_the_currency_of_the_budget() -> None:
    client = client_of(HOME)
    (way,) = client.ways(asking(exact(OTHER, 5)))
    assert client.amount(way) == Money(5, HOME.currency)


@pytest.mark.parametrize(
    "way",
    [
        exact(OTHER, 5, network="eip155:17"),  # the token of one chain on another
        exact(OTHER, 5, asset=HOME.token),
        exact(OTHER, 5, extra={"name": "USD Coin", "version": "9"}),
        exact(THIRD, 5),
        exact(OTHER, 5, network="eip155:16@eip155:18"),
    ],
)
def test_what_is_not_in_the_settings_is_not_paid(way: Requirement) -> None:
    with pytest.raises(Refused, match="it takes no USDC on home by") as refused:
        client_of(HOME).ways(asking(way))
    assert "usd =" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"maxTimeoutSeconds": None}, "cannot be read, at 'maxTimeoutSeconds'"),
        ({"amount": 5}, "cannot be read, at 'amount'"),
        ({"extra": {"name": "USDC", "version": "2"}}, "names the token's domain ('USDC', '2')"),
        ({"asset": "0x" + "99" * 20}, "asks for the token '0x9999"),
        ({"payTo": "0x" + "00" * 20}, "is not a valid address"),
        ({"amount": "0"}, "asks for nothing"),
    ],
)
def test_what_is_wrong_with_a_way_to_pay_is_told(changes: dict[str, Any], told: str) -> None:
    """Its operator can mend it; that it takes no USDC would not help, and is not true."""
    entry = {**exact(HOME, 5).document(), **changes}
    challenge = Challenge(x402_version=2, accepts=[exact(OTHER, 5).document(), entry])
    apart = HOME.model_copy(update={"beside": ()})
    with pytest.raises(Refused) as refused:
        client_of(apart).ways(challenge)
    assert told in str(refused.value)
    assert "takes no USDC" not in str(refused.value)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"x402Version": 1, "accepts": []}', "x402 v1"),
        (b'{"x402Version": 2, "accepts": []}', "in the body of its 402"),
        (b'{"error": {"message": "Insufficient credits"}}', "Insufficient credits"),
        (b"[" * 100_000, "does not say which"),
        (b"", "does not say which"),
    ],
)
def test_a_402_without_the_header_is_told_as_what_it_is(body: bytes, told: str) -> None:
    with pytest.raises(ProtocolBroken) as broken:
        client_of(HOME).challenge(Answer(402, {}, body))
    assert told in str(broken.value)


@pytest.mark.parametrize("way", [exact(OTHER, 5), lanes(OTHER, 5)])
def test_what_the_user_has_not_said_to_be_equal_is_refused_with_the_setting(
    way: Requirement,
) -> None:
    apart = HOME.model_copy(update={"counts_beside": False})
    with pytest.raises(Refused, match=r'on other, and a budget is .* on home: with usd = "usdc"'):
        client_of(apart).ways(asking(way))
    assert rails(apart, way, exact(HOME, 9)) == ["x402"]


def test_a_rail_says_its_network() -> None:
    assert HOME.network_of("x402") is HOME
    assert HOME.network_of("x402@eip155:16") is OTHER
    assert HOME.network_of("x402@eip155:17") is None
    assert HOME.rail_on("x402", HOME.id) == "x402"


# -- what leaves over a channel on another network -----------------------------------------------

PAYER, SELLER = KeySigner(b"\x01" * 32), KeySigner(b"\x02" * 32)
URL = "https://shop.example/chat"
REQUEST = PaidRequest("POST", "/chat", json={})
MOST = 5


class Shop(Http):
    """A seller's end of the line: asks for `way`, and answers whatever it is paid."""

    def __init__(self, way: Requirement) -> None:
        super().__init__("web", "http://127.0.0.1:1")
        self.way = way
        self.paid = 0

    async def send(self, method: str, path: str, **request: Any) -> Answer:
        if SIGNATURE not in (request["headers"] or {}):
            offers = {EXTENSION: Issuer(SELLER, OTHER.id).offers(URL, [self.way])}
            asked = Challenge(x402_version=2, accepts=[self.way.document()], extensions=offers)
            return Answer(402, {REQUIRED.lower(): asked.header()}, b"")
        self.paid += 1
        signed = Issuer(SELLER, OTHER.id).receipt(URL, PAYER.address)
        settled = Settled(
            success=True,
            transaction="",
            network=OTHER.id,
            extensions={EXTENSION: receipt_extension(signed)},
        )
        return Answer(200, {RESPONSE.lower(): settled.header()}, b"{}")


def channel_way(authorizer: str = SELLER.address) -> Requirement:
    return batch_settlement.requirement(
        OTHER, SELLER.address, MOST, authorizer=authorizer, delay=3600, timeout=60, min_deposit=0
    )


def voucher() -> Payment:
    """A first voucher on a channel with the seller, on the network beside home."""
    terms = ChannelConfig(
        payer=PAYER.address,
        payer_authorizer=PAYER.address,
        receiver=SELLER.address,
        receiver_authorizer=SELLER.address,
        token=OTHER.token,
        withdraw_delay=3600,
        salt=b"\x01" * 32,
    )
    channel = terms.id(OTHER.settlement_domain)
    signature = PAYER.sign_channel_voucher(OTHER.settlement_domain, ChannelVoucher(channel, MOST))
    payload = VoucherPayload(
        channel_config=Config.of(terms),
        voucher=SignedVoucher(
            channel_id="0x" + channel.hex(),
            max_claimable_amount=str(MOST),
            signature="0x" + signature.hex(),
        ),
    )
    return Payment(rail="batch-settlement@eip155:16", body={"payload": payload.document()})


def attempt_over(rail: str) -> Attempt:
    return Attempt(
        id="a" * 64,
        purchase="p" * 64,
        n=0,
        run="r1",
        node="n",
        provider="web",
        rail=rail,
        payee=SELLER.address,
        terms="t",
        at_most=Money(MOST, HOME.currency),
        task="t",
    )


async def pay(shop: Shop) -> PaidAnswer:
    payment = voucher()
    client = X402Client("web", HOME, shop, lambda answer: None)
    return await client.pay(REQUEST, attempt_over(payment.rail), payment)


async def test_a_voucher_goes_to_nobody_who_asks_for_another_channel_elsewhere() -> None:
    """Somebody names the payee of another server, and could buy there with the voucher."""
    shop = Shop(channel_way(authorizer="0x" + "44" * 20))
    with pytest.raises(OfferExpired):
        await pay(shop)
    assert not shop.paid, "no payment left"


async def test_what_the_seller_signed_about_a_sale_elsewhere_is_kept() -> None:
    answer = await pay(Shop(channel_way()))
    assert answer.statements.offer["payload"]["network"] == OTHER.id
    assert answer.statements.receipt["payload"]["payer"] == PAYER.address
