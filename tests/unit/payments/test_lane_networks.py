"""Lanes on several networks in one journal: each is told by its channel, and has its account."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import BadAmount, OverBudget, ProtocolBroken
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.channel_messages import ChannelConfig
from agentkit.keys.signer import KeySigner
from agentkit.market.attempt import Message
from agentkit.market.batch_settlement import Config
from agentkit.market.chain import Network
from agentkit.money import Asset, Money
from agentkit.payments import abi
from agentkit.payments.balance import own_amount
from agentkit.payments.budget import Exposure
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels.lane_ends import LaneEnds
from agentkit.payments.channels.lane_networks import lanes_on
from agentkit.payments.channels.lanes import LaneRail
from agentkit.payments.sender import Sender
from agentkit.testing.fakes import NETWORK

WALLET = KeySigner(b"\x07" * 32)
PAYEE = "0x" + "33" * 20


def network_of(chain: int) -> Network:
    currency = Asset.named("USDC").bind(f"eip155:{chain}", f"erc20:{NETWORK.token}")
    return NETWORK.model_copy(update={"chain_id": chain, "currency": currency})


HOME, OTHER = network_of(10), network_of(1)
ELSEWHERE = "batch-settlement@eip155:1"


def opened(network: Network) -> e.LaneOpened:
    """A lane: the terms are the same everywhere, its id is of one chain."""
    terms = ChannelConfig(
        payer=WALLET.address,
        payer_authorizer=WALLET.address,
        receiver=PAYEE,
        receiver_authorizer=PAYEE,
        token=network.token,
        withdraw_delay=3600,
        salt=b"\x01" * 32,
    )
    return e.LaneOpened(
        channel=terms.id(network.settlement_domain).hex(),
        provider="web",
        provider_node="",
        payee=PAYEE,
        lane=0,
        config=Config.of(terms).document(),
    )


def deposited(lane: e.LaneOpened, network: Network, units: int) -> e.DepositSigned:
    amount = Money(units, network.currency)
    return e.DepositSigned(
        channel=lane.channel, amount=amount, salt="0x1", valid_before=1, signature="0x"
    )


async def journal_with(folder: Path, *events: e.Event) -> Journal:
    journal = await Journal.open(folder, WALLET.address)
    for event in events:
        await journal.commit(lambda tx, event=event: tx.append(e.WALLET, event))  # type: ignore[misc]
    return journal


async def test_a_lane_is_on_the_network_that_its_id_was_made_for(tmp_path: Path) -> None:
    """Whatever name its rail had: another network may have been the home one."""
    here, there = opened(HOME), opened(OTHER)
    journal = await journal_with(tmp_path, here, there)
    for network, lane in ((HOME, here), (OTHER, there)):
        (found,) = await journal.commit(lambda tx, at=network: lanes_on(tx, at, PAYEE))  # type: ignore[misc]
        assert found.channel == lane.channel
    await journal.close()


async def test_one_payee_has_an_account_on_each_network_and_one_exposure(tmp_path: Path) -> None:
    here, there = opened(HOME), opened(OTHER)
    amount = Money(4, HOME.currency)
    held = e.Held(run="run", amount=Money(9, HOME.currency))
    reserved = [
        e.Reserved(attempt=rail, run="run", rail=rail, account=PAYEE, amount=amount, provider="web")
        for rail in ("batch-settlement", ELSEWHERE)
    ]
    spent = e.Spent(
        attempt=ELSEWHERE, provider="web", amount=Money(3, HOME.currency), standing="paid"
    )
    journal = await journal_with(
        tmp_path,
        *(here, there, deposited(here, HOME, 5), deposited(there, OTHER, 7)),
        *(held, *reserved, spent),
    )
    accounts = await journal.commit(lambda tx: tx.every(r.Account))
    assert {account.key: (account.reserved.units, account.spent.units) for account in accounts} == {
        f"batch-settlement|{PAYEE}": (4, 0),
        f"{ELSEWHERE}|{PAYEE}": (0, 3),
    }
    totals = await journal.commit(lambda tx: tx.every(r.Total))
    sums = {(total.scope, total.amount) for total in totals}
    assert ("ever", Money(3, HOME.currency)) in sums, "a budget counts in one currency"
    signed = {amount for scope, amount in sums if scope == "signed"}
    assert signed == {Money(5, HOME.currency), Money(7, OTHER.currency)}, "a wallet does not"
    limit = Exposure(Money(13, HOME.currency))
    assert await journal.commit(lambda tx: limit.within(tx, PAYEE, 1, 1)) == 1
    with pytest.raises(OverBudget):
        await journal.commit(lambda tx: limit.within(tx, PAYEE, 2, 2))
    await journal.close()


async def test_the_end_of_a_lane_is_read_on_its_own_chain_alone(tmp_path: Path) -> None:
    """The other chain would show nothing there, which means that all was given back."""
    here = opened(HOME)
    journal = await journal_with(tmp_path, here, deposited(here, HOME, 5))
    chain = Web3Chain(OTHER)
    ends = LaneEnds(journal, chain, OTHER, Sender(journal, chain, WALLET, OTHER))
    with pytest.raises(ProtocolBroken, match="does not have"):
        await ends.book_end(here.channel)
    assert await ends.withdraw(here.channel) == ""
    (lane,) = await journal.commit(lambda tx: tx.every(r.Lane))
    assert lane.open
    await journal.close()


def test_only_a_rail_elsewhere_takes_one_currency_for_the_other() -> None:
    amount = Money(5, HOME.currency)
    assert own_amount("x402@eip155:1", amount, OTHER) == Money(5, OTHER.currency)
    assert own_amount("x402", amount, HOME) == amount
    with pytest.raises(BadAmount):
        own_amount("x402", amount, OTHER)


# -- what a server says when it is too late -------------------------------------------------------


class Nothing:
    """A chain on which no channel holds anything."""

    async def call(self, to: str, data: bytes) -> bytes:
        return bytes(32 if data.startswith(abi.selector("refundNonce(bytes32)")) else 64)


@pytest.mark.parametrize(("asked", "known"), [("a" * 64, False), ("b" * 64, True)])
async def test_a_state_from_before_an_attempt_says_nothing_about_it(
    tmp_path: Path, asked: str, known: bool
) -> None:
    """Two processes asked about a lane: one of them buys over it by now, and was not charged 0."""
    lane, attempt = opened(HOME), "b" * 64
    promised = e.LanePromised(
        channel=lane.channel,
        attempt=attempt,
        at_most=Money(5, HOME.currency),
        ceiling=5,
        signature="0x",
    )
    journal = await journal_with(tmp_path, lane, promised)
    chain: Any = Nothing()
    rail = LaneRail(journal, chain, WALLET, HOME, Sender(journal, chain, WALLET, HOME))
    body = {"channel": lane.channel, "attempt": asked, "channelState": None}
    await rail.finish(Message(rail=rail.name, provider="web", verb="state", body=body))
    (row,) = await journal.commit(lambda tx: tx.every(r.Lane))
    assert (row.stated >= 0) is known
    await journal.close()
