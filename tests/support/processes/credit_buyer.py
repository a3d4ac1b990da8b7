"""A wallet that tops up credit, and is killed by SIGKILL at the moment that is named.

Arguments: state folder, provider's address, RPC address, token, channels contract, moment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from agentkit.journal.journal import Journal
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt, Message, purchase_id
from agentkit.market.chain import Network
from agentkit.market.offer import Offer
from agentkit.market.seams import Wanted
from agentkit.money import Asset, Money
from agentkit.payments.budget import Budget
from agentkit.payments.chain import Web3Chain
from agentkit.payments.prepaid import PrepaidRail
from agentkit.payments.sender import Sender
from agentkit.providers.openai import HYPERBOLIC, EndpointSettings, OpenAI
from support.chain_clock import PAYER, SHOP

FOLDER, URL, RPC, TOKEN, CHAIN_ID, MOMENT = sys.argv[1:]
PRICE = 1000


def die_at(moment: str) -> None:
    if moment == MOMENT:
        os.kill(os.getpid(), signal.SIGKILL)


class Line(Web3Chain):
    """A line that ends this process before the bytes leave, or after they are mined."""

    async def send(self, raw: bytes) -> None:
        die_at("signed")
        await super().send(raw)
        die_at("sent")


class Rail(PrepaidRail):
    """A rail that ends this process around the answer that shows the transfer."""

    async def finish(self, answer: Message) -> None:
        is_shown = answer.verb == "balance" and answer.body["cents"] > 0
        if is_shown:
            die_at("seen")
        await super().finish(answer)
        if is_shown:
            die_at("booked")


async def main() -> None:
    here = f"eip155:{CHAIN_ID}"
    network = Network(
        name="test",
        chain_id=int(CHAIN_ID),
        rpc=RPC,
        currency=Asset.named("USDC").bind(here, f"erc20:{TOKEN}"),
        coin=Asset.named("ETH").bind(here, "slip44:60"),
        token=TOKEN,
        token_name="USD Coin",
        token_version="1",
        channels="",
        test=True,
    )
    journal, line = await Journal.open(Path(FOLDER), PAYER.address), Line(network)
    rail = Rail(journal, line, PAYER, network, Sender(journal, line, PAYER, network))
    settings = EndpointSettings({}, {}, payee=SHOP.address, key="account-key")
    adapter = OpenAI("far", URL, network, HYPERBOLIC, settings)
    price, budget = Money(PRICE, network.currency), Budget(Allowance())
    offer = Offer(
        provider="far",
        node="n",
        on="x",
        price=price,
        at_most=price,
        eta=1,
        expires=time.time() + 600,
        rail="prepaid",
        pays="with_request",
        payee=SHOP.address,
        rates={},
    )
    run = "r1"
    attempt = Attempt.at(
        purchase_id(run, "n"), 0, offer, run=run, item=None, task="cd" * 32, at_most=price
    )
    if await journal.commit(lambda tx: budget.left(tx, run)) is None:
        await journal.commit(lambda tx: budget.hold(tx, run, price, None))
    for _ in range(3):
        messages = await rail.fund(offer, price, Wanted(attempt, lambda tx: None))
        if any("above" in message.body for message in messages):
            die_at("mined")
        for message in messages:
            await rail.finish(await adapter.carry(message))
    print("done")
    await adapter.close()
    await line.close()
    await journal.close()


asyncio.run(main())
