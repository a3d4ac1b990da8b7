"""Gas of tasks that are paid over one channel, and what payer and seller need of the chain's coin.

    python benchmarks/paying/channel_gas.py --json

Payer and seller are our own, with keys that own no coin; our facilitator puts one deposit, one
claim and one payout on anvil for so many tasks, and its transactions are summed up from their
receipts.  No refund.  Contract and receiver hold the token before, and the receiver was paid over a
channel before, as in business.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.chain_processes import Node, anvil
from support.delivery_channels import answer
from support.x402_market import SETTLER, World, facilitator, world_on

from agentkit.artifacts import Text
from agentkit.journal.journal import Journal
from agentkit.keys.signer import KeySigner
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt, Message, Result, purchase_id
from agentkit.market.offer import Offer
from agentkit.market.seams import Transaction, Wanted
from agentkit.money import Money, Rate
from agentkit.payments.balance import token_balance
from agentkit.payments.budget import Budget
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels.book import VoucherBook
from agentkit.payments.channels.claiming import Claiming, ClaimPolicy
from agentkit.payments.channels.mirror import ChannelMirror
from agentkit.payments.channels.rail import ChannelRail
from agentkit.payments.channels.terms import CLOSE_DELAY
from agentkit.payments.sender import Sender
from agentkit.payments.x402.remote import Facilitator

PRICE = 1000
RUN = "bench"
FAR = 2.0**40


class Seller:
    """A payee without gas: its book, and who claims for it."""

    def __init__(
        self, journal: Journal, chain: Web3Chain, signer: KeySigner, world: World, settling: Any
    ) -> None:
        network = world.network
        mirror = ChannelMirror(journal, chain, delay=CLOSE_DELAY)
        window = Money(10**9, network.currency)
        self.signer = signer
        self.book = VoucherBook(journal, signer, network, settling, window=window, mirror=mirror)
        self.claiming = Claiming(
            journal,
            chain,
            network,
            settling,
            signer,
            payee=signer.address,
            delay=CLOSE_DELAY,
            policy=ClaimPolicy(),
            mirror=mirror,
        )


@asynccontextmanager
async def seller_on(world: World, folder: Path, url: str) -> AsyncIterator[Seller]:
    """A seller with a new key, which settles at a facilitator's address."""
    signer = KeySigner(secrets.token_bytes(32))
    async with AsyncExitStack() as stack:
        journal = await Journal.open(folder / "seller", signer.address)
        stack.push_async_callback(journal.close)
        chain = Web3Chain(world.network)
        stack.push_async_callback(chain.close)
        settling = Facilitator(url)
        stack.push_async_callback(settling.close)
        yield Seller(journal, chain, signer, world, settling)


async def pay(world: World, folder: Path, seller: Seller, tasks: int) -> str:
    """Open a channel with a new key, pay so many tasks over it, and return the payer's address."""
    signer = KeySigner(secrets.token_bytes(32))
    network, payee = world.network, seller.signer.address
    need = Money(tasks * PRICE, network.currency)
    await world.mint(signer.address, need.units)
    offer = offer_of(network.currency, payee)
    async with AsyncExitStack() as stack:
        journal = await Journal.open(folder / signer.address, signer.address)
        stack.push_async_callback(journal.close)
        chain = Web3Chain(network)
        stack.push_async_callback(chain.close)
        sender = Sender(journal, chain, signer, network)
        rail = ChannelRail(journal, chain, signer, network, sender)
        ledger = Budget(Allowance())
        await journal.commit(lambda tx: ledger.hold(tx, RUN, need, None))
        wanted = Wanted(attempt_of(offer, 0), lambda tx: None)
        for message in await rail.fund(offer, need, wanted):
            await answer(rail, seller.book, message)
        for number in range(tasks):
            await answer(rail, seller.book, await promised(journal, rail, offer, number))
        assert await token_balance(chain, network, signer.address) == 0
    return signer.address


async def promised(journal: Journal, rail: ChannelRail, offer: Offer, number: int) -> Message:
    """Return the message with the voucher for one more task."""
    attempt = attempt_of(offer, number)
    result = Result((Text.of(b"done"),), {"request": 1}, offer.price)

    def settle(tx: Transaction) -> Message:
        rail.reserve(tx, attempt)
        _, (message,) = rail.settle(tx, attempt, result)
        return message

    return await journal.commit(settle)


def offer_of(currency: Any, payee: str) -> Offer:
    price = Money(PRICE, currency)
    return Offer(
        provider="far",
        node="task",
        on="far",
        price=price,
        at_most=price,
        eta=0.1,
        expires=FAR,
        rail="channel",
        pays="on_delivery",
        payee=payee,
        rates={"request": Rate(price, 1, "request")},
    )


def attempt_of(offer: Offer, number: int) -> Attempt:
    purchase = purchase_id(RUN, "task", number)
    return Attempt.at(
        purchase, 0, offer, run=RUN, item=number, task=purchase, at_most=offer.at_most
    )


def gas_since(node: Node, block: int) -> int:
    """Return the gas of all that the facilitator sent in the blocks after one."""
    total, head = 0, int(str(node.rpc("eth_blockNumber")), 16)
    for number in range(block + 1, head + 1):
        found: Any = node.rpc("eth_getBlockByNumber", hex(number), True)
        for sent in found["transactions"]:
            if sent["from"].lower() == SETTLER.address.lower():
                receipt: Any = node.rpc("eth_getTransactionReceipt", sent["hash"])
                total += int(receipt["gasUsed"], 16)
    return total


async def measure(counts: Sequence[int]) -> dict[str, Any]:
    """Return the gas of a task where so many share a channel, and what the two sides' coins are."""
    per_task: dict[str, float] = {}
    coins = {"payer": 0, "seller": 0}
    with anvil() as node, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with (
            world_on(node) as world,
            facilitator(world, folder) as url,
            seller_on(world, folder, url) as seller,
        ):
            payee, chain = seller.signer.address, world.eyes
            await pay(world, folder, seller, 1)
            await seller.claiming.claim_all()  # a receiver's first claim costs more
            paid = 1
            for count in counts:
                block = await chain.head()
                payer = await pay(world, folder, seller, count)
                minted = gas_since(node, block)
                await seller.claiming.claim_all()
                paid += count
                assert await token_balance(chain, world.network, payee) == paid * PRICE
                assert gas_since(node, block) > minted > 0, "a deposit, and then a claim"
                per_task[str(count)] = round(gas_since(node, block) / count, 1)
                coins["payer"] += await chain.balance(payer)
            coins["seller"] = await chain.balance(payee)
    return {"channel_gas_per_task": per_task, "coins_held": coins}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=(10, 1000))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.counts))
    if options.json:
        print(json.dumps(figures))
        return
    for count, gas in figures["channel_gas_per_task"].items():
        print(f"{count:>5} tasks  {gas:>10,} gas a task")
    print(f"coins held: {figures['coins_held']}")


if __name__ == "__main__":
    main()
