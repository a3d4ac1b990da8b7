"""After everything a wallet does, its key and its passphrase are nowhere that others look."""

from __future__ import annotations

import io
import logging
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
from support.chain_clock import PAYER, SHOP, Clock, clocked
from support.delivery_channels import answer, payee_of
from support.secret_forms import found_in, unlocked

from agentkit.artifacts import Text
from agentkit.journal import events as e
from agentkit.journal.journal import Journal
from agentkit.keys.messages import UnsignedTransaction as Call
from agentkit.keys.signer import KeySigner
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt, Result, purchase_id
from agentkit.market.chain import Network
from agentkit.market.offer import Offer
from agentkit.market.seams import Wanted
from agentkit.memory.sealing.segments import Segment, seal
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.budget import Budget
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels.rail import ChannelRail
from agentkit.payments.prepaid import PrepaidRail
from agentkit.payments.sender import Sender
from agentkit.payments.x402.rail import X402Rail


async def endow(folder: Path, network: Network, address: str) -> None:
    """Give a wallet coins and tokens."""
    line, journal = Web3Chain(network), await Journal.open(folder, PAYER.address)
    fees = {"max_fee": 10**10, "max_tip": 10**9}
    coins = Call(network.chain_id, 0, address, b"", 21_000, **fees, value=10**18)
    await line.send(PAYER.sign_tx(coins)[1])
    data = abi.encode("transfer(address,uint256)", address, 30_000)
    await Sender(journal, line, PAYER, network).send("endow:1", network.token, data)
    await line.close()
    await journal.close()


async def pay_in_every_way(journal: Journal, network: Network, signer: KeySigner) -> None:
    """Top up a channel and credit, promise, authorize."""
    line = Web3Chain(network)
    sender = Sender(journal, line, signer, network)
    budget = Budget(Allowance())
    rails: list[Any] = [
        ChannelRail(journal, line, signer, network, sender),
        PrepaidRail(journal, line, signer, network, sender),
        X402Rail(journal, line, signer, network),
    ]
    units = Money(1000, network.currency)
    shop = await Journal.open(journal.home.parent / "shop", SHOP.address)
    payee = payee_of(shop, line, SHOP, network, units)
    for rail in rails:
        offer = Offer(
            provider=rail.name,
            node="n",
            on="x",
            price=units,
            at_most=units,
            eta=1,
            expires=time.time() + 600,
            rail=rail.name,
            pays=rail.pays,
            payee=SHOP.address,
            rates={},
        )
        purchase = purchase_id("r1", rail.name)
        attempt = Attempt.at(purchase, 0, offer, run="r1", item=None, task="cd" * 32, at_most=units)
        await journal.commit(lambda tx, of=attempt: budget.hold(tx, "r1", of.at_most, None))
        wanted = Wanted(attempt, lambda tx, of=attempt: budget.reserve(tx, of))
        for cents in (0, 1):  # a provider of credit binds and reads, then sees the transfer
            for message in await rail.fund(offer, units, wanted):
                if message.verb == "deposit":
                    await answer(rail, payee.book, message)
                    continue
                verb = "bound" if message.verb == "bind" else message.verb
                body = {**message.body, "cents": cents}
                await rail.finish(message.model_copy(update={"verb": verb, "body": body}))

        def pay(tx: Any, rail: Any = rail, attempt: Attempt = attempt) -> None:
            budget.reserve(tx, attempt)
            rail.reserve(tx, attempt)
            result = Result((Text.of(b"x"),), {}, attempt.at_most)
            receipt, _ = rail.settle(tx, attempt, result)
            budget.spend(tx, attempt, receipt.amount, receipt.standing)

        await journal.commit(pay)
    await shop.close()
    await line.close()


async def test_neither_key_nor_passphrase_is_left_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State file and its log, every log line, segments for Arweave, reprs and pickles."""
    lines = io.StringIO()
    everything = logging.StreamHandler(lines)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)  # not by attribute: loggers remember what they may say
    root.addHandler(everything)
    file = tmp_path / "keystore.json"
    signer = unlocked(file)
    home = tmp_path / "home"
    try:
        async with clocked(tmp_path, Clock(monkeypatch), minted=100_000) as network:
            await endow(tmp_path / "payer", network, signer.address)
            journal = await Journal.open(home, signer.address)
            await pay_in_every_way(journal, network, signer)
            rows = await journal.rows(e.WALLET)
            assert len(rows) > 10, "nothing was done that could tell"
            segment = Segment(e.WALLET, tuple(rows), bytes(32), rows[-1].hash, {})
            item = seal(signer, segment)
            await journal.close()
    finally:
        root.removeHandler(everything)
        root.setLevel(level)
    assert lines.getvalue(), "nothing was logged"
    seen = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(name.startswith("state.db") for name in seen)
    seen |= {"log": lines.getvalue().encode(), "segment": item.raw}
    seen |= {"repr": f"{signer!r} {signer!s} {vars(signer)!r}".encode()}
    assert {name: found_in(data) for name, data in seen.items() if found_in(data)} == {}
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(signer)
