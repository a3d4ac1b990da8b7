"""What a node has earned, from its books, and as Prometheus reads it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentkit.journal import events as e
from agentkit.journal.journal import Journal
from agentkit.market.seams import Event
from agentkit.money import Asset, Money
from agentkit.serve.earnings import NodeFigures, RailEarnings, read_figures
from agentkit.serve.metrics import Metrics, text_of

WALLET = "0x" + "11" * 20
USDC = Asset.named("USDC").bind("eip155:1", "erc20:0x" + "22" * 20)
OTHER = Asset.named("USDC").bind("eip155:2", "erc20:0x" + "22" * 20)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = await Journal.open(tmp_path, WALLET)
    yield opened
    await opened.close()


async def book(journal: Journal, *events: Event) -> None:
    def store(tx: object) -> None:
        for event in events:
            tx.append(e.NODE, event)  # type: ignore[attr-defined]

    await journal.commit(store)


async def figures(journal: Journal) -> NodeFigures:
    return await journal.commit(lambda tx: read_figures(tx, USDC))


def units(number: int, asset: Asset = USDC) -> Money:
    return Money(number, asset)


def mirrored(channel: str, **changes: int) -> e.ChannelMirrored:
    amounts = {
        "balance": 1000,
        "total_claimed": 0,
        "withdrawing": 0,
        "withdraw_requested_at": 0,
        "refund_nonce": 0,
    }
    config: dict[str, str | int] = {"payer": WALLET, "withdrawDelay": 900}
    return e.ChannelMirrored(channel=channel, config=config, **(amounts | changes))


def charged(channel: str, total: int) -> e.RequestCharged:
    return e.RequestCharged(
        channel=channel,
        ceiling=total,
        signature="0x",
        charge=units(total),
        total=total,
        request="r",
    )


async def test_channels_count_what_was_charged_and_what_a_withdrawal_may_take_back(
    journal: Journal,
) -> None:
    await book(journal, mirrored("a"), charged("a", 300), mirrored("a", total_claimed=100))
    await book(journal, mirrored("b"), charged("b", 50))
    late = mirrored("b", withdrawing=1000, withdraw_requested_at=5000)
    soon = mirrored("c", withdrawing=1000, withdraw_requested_at=4000)
    await book(journal, late, mirrored("c"), charged("c", 7), soon)
    (rail,) = (await figures(journal)).rails
    assert rail == RailEarnings(
        rail="batch-settlement", earned=357, claimed=100, at_risk=57, until=4900
    )


async def test_vouchers_escrow_and_single_requests_count_each_once(journal: Journal) -> None:
    voucher = e.VoucherTaken(
        channel="v",
        payer=WALLET,
        token="0x",
        close_delay=1,
        salt="",
        deposited=units(500),
        cumulative=units(40),
        tasks=1,
        root="00",
        signature="",
    )
    newer = voucher.model_copy(update={"cumulative": units(90)})
    settled = voucher.model_copy(update={"channel": "w", "cumulative": units(5)})
    await book(journal, voucher, newer, e.CloseSeen(channel="v"), settled)
    await book(journal, e.ChannelSettled(channel="w", claimed=units(5)))
    escrow = e.EscrowEarned(attempt="1", job={}, pay=units(30), result="", accept="")
    await book(journal, escrow, e.EscrowSubmitted(attempt="1", due=7000))
    for payment, amount in (("p", units(11)), ("q", units(22)), ("elsewhere", units(9, OTHER))):
        await book(journal, e.RequestPaid(payment=payment, scheme="exact", amount=amount))
    shown = await figures(journal)
    assert {rail.rail: rail for rail in shown.rails} == {
        "channel": RailEarnings(rail="channel", earned=95, claimed=5, at_risk=90),
        "escrow": RailEarnings(rail="escrow", earned=30, at_risk=30, until=7000),
        "exact": RailEarnings(rail="exact", earned=33, claimed=33),
    }
    assert shown.total == RailEarnings(rail="all", earned=158, claimed=38, at_risk=120, until=7000)
    await book(journal, e.EscrowSettled(attempt="1", paid=units(30)))
    assert (await figures(journal)).total.at_risk == 90


async def test_jobs_are_counted_by_their_state(journal: Journal) -> None:
    for attempt in ("1", "2", "3"):
        taken = e.JobTaken(attempt=attempt, task="", payer=WALLET, channel="none", at_most=units(1))
        await book(journal, taken)
    await book(journal, e.JobStarted(attempt="2"), e.JobStarted(attempt="3"))
    await book(journal, e.JobEnded(attempt="3", state="done"))
    jobs = (await figures(journal)).jobs
    assert jobs == {"queued": 1, "running": 1, "done": 1, "failed": 0, "cancelled": 0}


SAMPLE = re.compile(r'[a-z_]+\{[a-z]+="([^"\\\n]|\\.)*"(,[a-z]+="([^"\\\n]|\\.)*")*\} \d+')


def test_the_text_has_the_form_that_prometheus_reads() -> None:
    rails = [
        RailEarnings(rail="exact", earned=5, claimed=5),
        RailEarnings(rail='a "b"\n\\', earned=9, claimed=1, at_risk=2, until=77),
    ]
    text = text_of(NodeFigures(USDC, rails, {"done": 3}))
    lines = text.splitlines()
    assert text.endswith("\n")
    samples = [line for line in lines if not line.startswith("#")]
    assert all(SAMPLE.fullmatch(line) for line in samples)
    assert 'agentkit_earned_units_total{rail="exact",currency="USDC"} 5' in samples
    assert 'agentkit_jobs{state="done"} 3' in samples
    odd = r'agentkit_at_risk_until_seconds{rail="a \"b\"\n\\",currency="USDC"} 77'
    assert [line for line in samples if "until" in line] == [odd]
    names = {line.partition("{")[0] for line in samples}
    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == names


async def test_many_questions_read_the_books_once(journal: Journal) -> None:
    kept, fresh = Metrics(journal, USDC, lasts=3600), Metrics(journal, USDC, lasts=0)
    assert not (await kept.figures()).rails
    await book(journal, e.RequestPaid(payment="p", scheme="exact", amount=units(4)))
    assert not (await kept.figures()).rails
    assert (await fresh.figures()).total.earned == 4
