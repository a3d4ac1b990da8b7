"""A voucher that a payee shows after a restore: what it paid is not promised again."""

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from agentkit.artifacts import Text
from agentkit.errors import ProtocolBroken
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.signer import KeySigner
from agentkit.market.attempt import Attempt, Message, Result
from agentkit.market.batch_settlement import SCHEME
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments.channels.rail import (
    MAX_DELIVERIES,
    MAX_MISSING_DELIVERIES,
    ChannelRail,
)
from agentkit.payments.sender import Sender
from agentkit.testing.fakes import NETWORK, USDC

SIGNER = KeySigner(b"\x11" * 32)
CHANNEL = "aa" * 32
PRICES = {"aa" * 32: 60, "bb" * 32: 40, "cc" * 32: 25}
A, B, C = PRICES


def opened() -> list[Any]:
    terms: dict[str, Any] = {
        "payee": "0xP",
        "token": "t",
        "close_delay": 1,
        "salt": "00",
        "payer": SIGNER.address,
    }
    terms["scheme"] = SCHEME
    where = {"channel": CHANNEL, "provider": "p", "provider_node": "n"}
    thousand = Money(1000, USDC)
    return [
        e.ChannelOpened(**where, **terms),  # type: ignore[arg-type]
        e.ChannelFunded(channel=CHANNEL, amount=thousand, deposited=thousand),
    ]


@pytest.mark.parametrize("paid", [(B,), (A, C), (A, B, C), ()])
async def test_in_whatever_order_old_attempts_settle_their_sum_is_promised(
    tmp_path: Path, paid: tuple[str, ...]
) -> None:
    for number, order in enumerate(permutations(PRICES)):
        journal = await Journal.open(tmp_path / str(number), SIGNER.address)
        chain: Any = None
        rail = ChannelRail(journal, chain, SIGNER, NETWORK, Sender(journal, chain, SIGNER, NETWORK))
        found = e.VoucherFound(
            root="00" * 32,
            channel=CHANNEL,
            cumulative=Money(sum(PRICES[name] for name in paid), USDC),
            tasks=len(paid),
            signature="aa",
            delivered=Money(sum(PRICES.values()), USDC),
            attempts=tuple(PRICES),
        )
        for event in (*opened(), found):
            await journal.commit(lambda tx, event=event: tx.append(e.WALLET, event))
        for name in order:

            def settle(tx: Transaction, name: str = name) -> None:
                channel = tx.get(r.Channel, CHANNEL)
                assert channel
                attempt = Attempt.model_construct(id=name)
                output = Text.of(name.encode())
                rail._pay(tx, channel, attempt, Result((output,), {}, Money(PRICES[name], USDC)))

            await journal.commit(settle)
        channel = await journal.commit(lambda tx: tx.get(r.Channel, CHANNEL))
        assert channel
        assert channel.cumulative == sum(PRICES.values())
        assert (channel.unexplained, channel.owed, channel.old) == (0, 0, ())
        await journal.check()
        await journal.close()


def best(attempts: list[str]) -> Message:
    """Return what a payee answers that was promised nothing and has made these deliveries."""
    body = {"channel": CHANNEL, "cumulative": 0, "tasks": 0, "voucher": "", "delivered": 0}
    return Message(
        rail="channel",
        provider="p",
        provider_node="n",
        verb="best",
        body={**body, "attempts": attempts},
    )


@pytest.mark.parametrize(
    ("attempts", "why"),
    [
        ([f"{n:064x}" for n in range(MAX_DELIVERIES + 1)], "cannot be read"),
        ([f"{n:064x}" for n in range(MAX_MISSING_DELIVERIES + 1)], "does not know"),
        (["a" * 1_000_000], "cannot be read"),
    ],
    ids=["too many", "too many unknown", "too long"],
)
async def test_a_payee_cannot_fill_the_books_with_deliveries(
    tmp_path: Path, attempts: list[str], why: str
) -> None:
    """What it lists is stored, read with every voucher, sealed, and paid for on Arweave."""
    journal = await Journal.open(tmp_path, SIGNER.address)
    chain: Any = None
    rail = ChannelRail(journal, chain, SIGNER, NETWORK, Sender(journal, chain, SIGNER, NETWORK))
    for event in opened():
        await journal.commit(lambda tx, event=event: tx.append(e.WALLET, event))
    before = await journal.commit(lambda tx: tx.get(r.Channel, CHANNEL))
    with pytest.raises(ProtocolBroken, match=why):
        await rail.finish(best(attempts))
    assert await journal.commit(lambda tx: tx.get(r.Channel, CHANNEL)) == before

    await rail.finish(best(attempts[:MAX_MISSING_DELIVERIES] if len(attempts) > 1 else []))
    after = await journal.commit(lambda tx: tx.get(r.Channel, CHANNEL))
    assert after
    assert len(after.old) == (MAX_MISSING_DELIVERIES if len(attempts) > 1 else 0)
    await journal.close()


async def test_a_top_up_that_lands_while_a_channel_closes_is_not_free_money(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path, SIGNER.address)
    late = e.ChannelFunded(channel=CHANNEL, amount=Money(50, USDC), deposited=Money(1050, USDC))
    closed = e.ChannelClosed(channel=CHANNEL, claimed=Money(0, USDC), refunded=Money(1050, USDC))
    for event in (*opened(), e.ChannelClosing(channel=CHANNEL), late, closed):
        await journal.commit(lambda tx, event=event: tx.append(e.WALLET, event))
    account = await journal.commit(lambda tx: tx.get(r.Account, "channel|0xP"))
    assert account
    assert account.free == 0
    await journal.close()


async def test_a_deposit_that_was_read_from_the_chain_first_is_counted_once(tmp_path: Path) -> None:
    """Its own transaction is found final later, and tells the same."""
    journal = await Journal.open(tmp_path, SIGNER.address)
    grown = e.ChannelFunded(channel=CHANNEL, amount=Money(50, USDC), deposited=Money(1050, USDC))
    for event in (*opened(), grown, grown):
        await journal.commit(lambda tx, event=event: tx.append(e.WALLET, event))
    account = await journal.commit(lambda tx: tx.get(r.Account, "channel|0xP"))
    assert account
    assert account.funded == Money(1050, USDC)
    await journal.close()
