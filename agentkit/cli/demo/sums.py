"""Whether the sums hold, read from the chain and the nodes and never from our own books."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from agentkit.embedded import discovery
from agentkit.keys.messages import address_word
from agentkit.market.chain import SETTLEMENT, ChainClient, Network
from agentkit.market.receipt import Receipt, Standing
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.channels import contract


@dataclass(frozen=True)
class Sums:
    """Amounts in units of the currency; wallet balances as the token contract tells them.

    `transfers`: each top-up in the token's log.  `debits`: what the prepaid node took, by answer.
    `promised` and `tasks`: the newest vouchers in the native nodes' books.
    """

    before: int
    after: int
    claimed: int
    transfers: tuple[int, ...]
    debits: Mapping[str, int]
    promised: int
    tasks: int
    receipts: tuple[Receipt, ...]

    def total(self, standing: Standing, rail: str | None = None) -> int:
        """Return the sum of the receipts of one standing, of one rail if it is named."""
        return sum(receipt.amount.units for receipt in self._receipts(standing, rail))

    def _receipts(self, standing: Standing, rail: str | None = None) -> list[Receipt]:
        return [
            receipt
            for receipt in self.receipts
            if receipt.standing == standing and rail in (None, receipt.attempt.rail)
        ]

    @property
    def topped_up(self) -> int:
        return sum(self.transfers)

    @property
    def settled(self) -> int:
        """What moved on the chain."""
        return self.claimed + self.topped_up

    @property
    def debited(self) -> int:
        return sum(self.debits.values())

    @property
    def debited_for_receipts(self) -> int:
        """What the prepaid node took for the very answers that our receipts name."""
        named = {receipt.evidence.reference for receipt in self._receipts("paid", "prepaid")}
        return sum(units for answer, units in self.debits.items() if answer in named)

    @property
    def uncertain_debited(self) -> int:
        """What the prepaid node took for attempts whose outcome we never learnt."""
        return self.debited - self.debited_for_receipts

    @property
    def credit_left(self) -> int:
        return self.topped_up - self.debited

    def paid_twice(self) -> int:
        """Count payments beyond one a purchase: in receipts, and in the nodes' voucher books."""
        paid = self._receipts("paid")
        receipts = len(paid) - len({receipt.attempt.purchase for receipt in paid})
        by_channel = [receipt for receipt in self._receipts("paid", "channel") if receipt.amount]
        vouchers = self.tasks - len({receipt.attempt.purchase for receipt in by_channel})
        return receipts + abs(vouchers)

    def wrong(self) -> list[str]:
        """Return every sum that does not hold, to the unit."""
        channel, prepaid = self.total("paid", "channel"), self.total("paid", "prepaid")
        checks = {
            "wallet before - after = claims + top-ups": self.before - self.after == self.settled,
            "claims = vouchers in the nodes' books": self.claimed == self.promised,
            "claims = receipts paid by channel": self.claimed == channel,
            "debits of the same answers = receipts paid from credit": self.debited_for_receipts
            == prepaid,
            "debits stay within the credit": self.credit_left >= 0,
            "no top-up without a purchase": all(self.transfers),
        }
        return [what for what, holds in checks.items() if not holds]


async def claimed_by_providers(chain: ChainClient, channels: Collection[str]) -> int:
    """Return what was claimed out of channels, by the contract's own log."""
    claims = await chain.logs(SETTLEMENT, [contract.CLAIMED], 0, await chain.head())
    return sum(abi.exactly(2, log.data)[0] for log in claims if log.topics[1].hex() in channels)


async def transfers(
    chain: ChainClient, network: Network, payer: str, payee: str
) -> tuple[int, ...]:
    """Return what a payer transferred to a payee each time, from the token's own log."""
    head = await chain.head()
    topics: list[bytes | None] = [abi.TRANSFER, address_word(payer), address_word(payee)]
    logs = await chain.logs(network.token, topics, 0, head)
    return tuple(abi.number(log.data) for log in logs)


@dataclass(frozen=True)
class Vouchers:
    """A payer's newest vouchers in the native nodes' books: `promised` in units, for `tasks`."""

    channels: frozenset[str]
    promised: int
    tasks: int


def vouchers(found: discovery.NetworkFile, payer: str) -> Vouchers:
    """Return a payer's newest vouchers in the native nodes' books."""
    books = discovery.ask(found, "/vouchers").values()
    mine = [row for rows in books for row in rows if row["payer"].lower() == payer.lower()]
    return Vouchers(
        channels=frozenset(row["channel"] for row in mine),
        promised=sum(row["cumulative"] for row in mine),
        tasks=sum(row["tasks"] for row in mine),
    )


async def credit_books(found: discovery.NetworkFile) -> dict[str, Any]:
    """Return the prepaid node's own books: topped up, debited, at work."""
    books: dict[str, Any] = await asyncio.to_thread(discovery.ask, found, "/credit")
    return books


def money(units: int, network: Network) -> str:
    """Return units of the currency as text."""
    return str(Money(units, network.currency))
