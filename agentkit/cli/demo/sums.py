"""Whether the sums hold, read from the chain and the nodes and never from our own books."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from agentkit.embedded import finder
from agentkit.keys.messages import address_word
from agentkit.market.chain import ChainClient, Network
from agentkit.market.receipt import Receipt, Standing
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.providers.openai import USER_AGENT


@dataclass(frozen=True)
class Sums:
    """Amounts in units of the currency; wallet balances as the token contract tells them."""

    before: int
    after: int
    claimed: int
    topped_up: int
    debited: int
    receipts: tuple[Receipt, ...]

    def total(self, standing: Standing, rail: str | None = None) -> int:
        """Return the sum of the receipts of one standing, of one rail if it is named."""
        return sum(
            receipt.amount.units
            for receipt in self.receipts
            if receipt.standing == standing and rail in (None, receipt.attempt.rail)
        )

    @property
    def settled(self) -> int:
        """What moved on the chain."""
        return self.claimed + self.topped_up

    @property
    def uncertain_debited(self) -> int:
        """What the prepaid node debited for attempts whose outcome we never learnt."""
        return self.debited - self.total("paid", "prepaid")

    @property
    def credit_left(self) -> int:
        return self.topped_up - self.debited

    def wrong(self) -> list[str]:
        """Return every sum that does not hold, to the unit."""
        checks = {
            "wallet before - after = claims + top-ups": self.before - self.after == self.settled,
            "claims = receipts paid by channel": self.claimed == self.total("paid", "channel"),
            "debits cover the receipts paid from credit": self.uncertain_debited >= 0,
            "debits stay within the credit": self.credit_left >= 0,
            "receipts = claims + debits of the same attempts": self.total("paid")
            == self.claimed + self.debited - self.uncertain_debited,
        }
        return [what for what, holds in checks.items() if not holds]


async def claimed_by_providers(chain: ChainClient, network: Network, payer: str) -> int:
    """Return what the channel contract paid out of a payer's channels."""
    head = await chain.head()
    topics: list[bytes | None] = [abi.FUNDED, None, address_word(payer)]
    funded = await chain.logs(network.channels, topics, 0, head)
    mine = {log.topics[1] for log in funded}
    claims = await chain.logs(network.channels, [abi.CLAIMED], 0, head)
    return sum(abi.numbers(log.data)[0] for log in claims if log.topics[1] in mine)


async def transferred(chain: ChainClient, network: Network, payer: str, payee: str) -> int:
    """Return what a payer transferred to a payee, from the token's own log."""
    head = await chain.head()
    topics: list[bytes | None] = [abi.TRANSFER, address_word(payer), address_word(payee)]
    logs = await chain.logs(network.token, topics, 0, head)
    return sum(abi.numbers(log.data)[0] for log in logs)


async def credit_books(found: finder.NetworkFile) -> dict[str, Any]:
    """Return the prepaid node's own books: topped up, debited, at work."""
    known = found.providers["hyperbolic"]
    url = known["url"].removesuffix("/v1") + "/billing/balance"
    headers = {"Authorization": f"Bearer {known['api_key']}", "User-Agent": USER_AGENT}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        books: dict[str, Any] = await answer.json()
    return books


def money(units: int, network: Network) -> str:
    """Return units of the currency as text."""
    return str(Money(units, network.currency))


def count_paid_twice(receipts: Sequence[Receipt]) -> int:
    """Return how many purchases have more than one receipt that says paid."""
    paid = [receipt.attempt.purchase for receipt in receipts if receipt.standing == "paid"]
    return len(paid) - len(set(paid))
