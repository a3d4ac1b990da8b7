"""Strangers at a facilitator: they do not burn its gas for nothing."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.chain_processes import Node
from support.channel_hand import Hand
from support.channel_market import DELAY
from support.x402_market import SETTLER, World, chain_of, facilitator, world_on

from agentkit.keys.channel_messages import ZERO_ADDRESS, ClaimBatch, Refund
from agentkit.keys.messages import checksummed
from agentkit.keys.signer import KeySigner
from agentkit.market.batch_settlement import (
    PERMIT2_COLLECTOR,
    ChannelPayment,
    ClaimPayload,
    ClaimRow,
    Config,
    DepositPayload,
    FacilitatorOrder,
    RefundOrder,
    SignedVoucher,
)
from agentkit.payments.channels import contract
from agentkit.payments.channels.refunds import requirement_of


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with chain_of("embedded", tmp_path_factory.mktemp("chain")) as running:
        yield running


@pytest.fixture
async def world(node: Node) -> AsyncIterator[World]:
    async with world_on(node) as made:
        yield made


class Stranger:
    """Payer, receiver and authorizer in one: whatever it signs is right."""

    def __init__(self, world: World, settles: str) -> None:
        self.world, self.settles = world, settles
        self.key = secrets.token_bytes(32)
        self.signer = KeySigner(self.key)
        self.hand = Hand(world, self.signer.address, self.key)

    async def order(self, payload: Any) -> dict[str, Any]:
        required = requirement_of(
            self.world.network, self.signer.address, self.signer.address, DELAY
        )
        is_payment = isinstance(payload, DepositPayload)
        form = ChannelPayment if is_payment else FacilitatorOrder
        order = form(x402_version=2, accepted=required, payload=payload)
        body = {
            "x402Version": 2,
            "paymentPayload": order.document(),
            "paymentRequirements": required.document(),
        }
        async with httpx.AsyncClient(timeout=60) as plain:
            return dict((await plain.post(f"{self.settles}/settle", json=body)).json())

    async def refund(self, units: int, nonce: int) -> dict[str, Any]:
        domain = self.world.network.settlement_domain
        signed = self.signer.sign_refund(domain, Refund(self.hand.channel, nonce, units))
        order = RefundOrder(
            channel_config=Config.of(self.hand.config),
            voucher=SignedVoucher.model_validate(self.hand.voucher(0)),
            amount=str(units),
            refund_nonce=str(nonce),
            refund_authorizer_signature="0x" + signed.hex(),
        )
        return await self.order(order)

    async def claim(self, *totals: int) -> dict[str, Any]:
        """Claim these totals on the one channel, in as many rows of one call."""
        claims = [
            contract.Claim(
                config=self.hand.config,
                channel=self.hand.channel,
                ceiling=total,
                signature=bytes.fromhex(self.hand.voucher(total)["signature"][2:]),
                total=total,
            )
            for total in totals
        ]
        rows: list[ClaimRow] = [claim.wire() for claim in claims]
        batch = ClaimBatch.of(claim.row for claim in claims)
        signed = self.signer.sign_claims(self.world.network.settlement_domain, batch)
        return await self.order(
            ClaimPayload(claims=rows, claim_authorizer_signature="0x" + signed.hex())
        )


async def gas_money(world: World) -> int:
    return await world.eyes.balance(SETTLER.address)


@pytest.fixture
async def stranger(world: World, tmp_path: Path) -> AsyncIterator[Stranger]:
    async with facilitator(world, tmp_path, least="0.01 USDC") as url:
        yield Stranger(world, url)


async def test_a_refund_that_gives_nothing_back_is_not_sent(
    world: World, stranger: Stranger
) -> None:
    """The contract takes it all the same, and counts the nonce up: again and again."""
    before = await gas_money(world)
    for nonce in range(2):
        assert not (await stranger.refund(1000, nonce))["success"]
    assert await gas_money(world) == before


async def test_a_channel_is_not_given_back_in_crumbs(world: World, stranger: Stranger) -> None:
    await stranger.hand.fill(30_000)
    before = await gas_money(world)
    assert not (await stranger.refund(1, 0))["success"]
    assert await gas_money(world) == before
    assert (await stranger.refund(25_000, 0))["success"]
    assert (await stranger.refund(5_000, 1))["success"], "all that was left, however little"
    assert await world.balance(stranger.signer.address) == 30_000


async def test_one_claim_in_many_rows_is_no_more_than_it_is(
    world: World, stranger: Stranger
) -> None:
    await stranger.hand.fill(30_000)
    before = await gas_money(world)
    assert not (await stranger.claim(*[1_000] * 50))["success"]
    assert await gas_money(world) == before
    assert (await stranger.claim(20_000))["success"]


BURNING = bytes.fromhex(
    "6000620f000052"  # memory that costs two million gas
    "631626ba7e60e01b60005260206000f3"  # and any signature is its own (EIP-1271)
)
"""A wallet that is a contract, and has whoever checks its signatures pay."""


async def test_a_wallet_that_burns_gas_is_not_paid_for(world: World, stranger: Stranger) -> None:
    """All of it belongs to the stranger: the cent comes back, and the gas would be gone."""
    made = bytes.fromhex(f"60{len(BURNING):02x}80600b6000396000f3") + BURNING
    wallet = checksummed(await world.send("", made))
    stranger.hand.changes = {"payer": wallet, "payer_authorizer": ZERO_ADDRESS}
    before = await gas_money(world)
    await world.mint(wallet, 60_000)
    drawn = DepositPayload.model_validate(
        {
            "channelConfig": Config.of(stranger.hand.config).document(),
            "voucher": stranger.hand.voucher(1),
            "deposit": stranger.hand.deposit(30_000),
        }
    )
    assert not (await stranger.order(drawn))["success"]
    await stranger.hand.fill(30_000)  # paid by itself
    assert not (await stranger.claim(20_000))["success"]
    assert await gas_money(world) == before


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for name, inner in value.items():
        yield (*path, name)
        if isinstance(inner, dict):
            yield from places_in(inner, (*path, name))


def with_value(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    first, *rest = path
    changed = with_value(document[first], tuple(rest), value) if rest else value
    return {**document, first: changed}


@pytest.mark.parametrize("odd", [None, -1, [], "9" * 78])
async def test_an_odd_deposit_is_refused_and_is_no_failure(stranger: Stranger, odd: Any) -> None:
    """What fails fills the log, and is told as if it could be tried again."""
    hand = stranger.hand
    required = requirement_of(
        stranger.world.network, stranger.signer.address, stranger.signer.address, DELAY
    ).document()
    permit = {
        "from": hand.signer.address,
        "permitted": {"token": stranger.world.network.token, "amount": "20000"},
        "spender": PERMIT2_COLLECTOR,
        "nonce": "5",
        "deadline": str(2**40),
        "witness": {"channelId": "0x" + hand.channel.hex()},
        "signature": "0x" + "1b" * 65,
    }
    payload = {
        "type": "deposit",
        "channelConfig": Config.of(hand.config).document(),
        "voucher": hand.voucher(1),
    }
    by_permit2 = {"amount": "20000", "authorization": {"permit2Authorization": permit}}
    async with httpx.AsyncClient(timeout=60) as plain:
        for deposit in (hand.deposit(20_000), by_permit2):
            whole = {**payload, "deposit": deposit}
            for path in places_in(whole):
                payment = {"x402Version": 2, "accepted": required}
                payment["payload"] = with_value(whole, path, odd)
                body = {"paymentPayload": payment, "paymentRequirements": required}
                for verb in ("verify", "settle"):
                    said = await plain.post(f"{stranger.settles}/{verb}", json=body)
                    assert said.status_code in (200, 400), (verb, path)
