"""What a provider node has earned, by each way of being paid, and how its jobs stand.

All of it is read from the node's own books, so `agentkit serve --status` needs neither the node nor
the chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from agentkit.journal import records as r
from agentkit.market import batch_settlement, upto
from agentkit.market.attempt import JobState
from agentkit.market.seams import Transaction
from agentkit.money import Asset
from agentkit.payments.channels.claiming import Earnings


@dataclass(frozen=True, slots=True)
class RailEarnings:
    """What a node has earned by one way of being paid, in base units.

    `earned` is what payers have signed for or paid.  `claimed` of it is with the node, or nobody
    can take it back.  `at_risk` is earned and not claimed, and its payers may take it back; the
    first of them can do so at `until`, in unix seconds, 0 where the books do not say when.
    """

    rail: str
    earned: int = 0
    claimed: int = 0
    at_risk: int = 0
    until: int = 0


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """The figures of a node: earnings by rail in one currency, and how many jobs are in a state."""

    currency: Asset
    rails: Sequence[RailEarnings]
    jobs: Mapping[str, int]

    @property
    def total(self) -> RailEarnings:
        """The sums over all rails; `until` is the first of their times."""
        return RailEarnings(
            rail="all",
            earned=sum(each.earned for each in self.rails),
            claimed=sum(each.claimed for each in self.rails),
            at_risk=sum(each.at_risk for each in self.rails),
            until=min((each.until for each in self.rails if each.until), default=0),
        )


def read_figures(tx: Transaction, currency: Asset) -> NodeFigures:
    """Return the figures that a node's books show, in the currency that it is paid in."""
    states = Counter(job.state for job in tx.every(r.Job))
    by_request = _by_request(tx, currency)
    rails = [_by_channel(tx), _by_escrow(tx), _by_batch_settlement(tx), _by_upto(tx, by_request)]
    rails += [each for each in by_request if each.rail != upto.SCHEME]
    return NodeFigures(
        currency=currency,
        rails=[each for each in rails if each.earned],
        jobs={state: states[state] for state in get_args(JobState)},
    )


def _by_batch_settlement(tx: Transaction) -> RailEarnings:
    """Return what was charged over channels of x402 `batch-settlement`."""
    sums = Earnings.of(tx.every(r.SoldChannel))
    return RailEarnings(
        rail=batch_settlement.SCHEME,
        earned=sums.charged,
        claimed=sums.claimed,
        at_risk=sums.at_risk,
        until=sums.until,
    )


def _by_channel(tx: Transaction) -> RailEarnings:
    """Return what vouchers promise on channels; at risk are those that their payers close."""
    channels = tx.every(r.BookedChannel)
    closing = [channel for channel in channels if channel.closing and not channel.settled]
    return RailEarnings(
        rail="channel",
        earned=sum(channel.cumulative for channel in channels),
        claimed=sum(channel.cumulative for channel in channels if channel.settled),
        at_risk=sum(channel.cumulative for channel in closing),
    )


def _by_escrow(tx: Transaction) -> RailEarnings:
    """Return what payers accepted of money in escrow; at risk is what they may still judge."""
    rows = tx.every(r.EarnedEscrow)
    judged = [row for row in rows if row.due and not row.settled]
    return RailEarnings(
        rail="escrow",
        earned=sum(_pay(row) for row in rows),
        claimed=sum(_pay(row) for row in rows if row.settled),
        at_risk=sum(_pay(row) for row in judged),
        until=min((row.due for row in judged), default=0),
    )


def _by_request(tx: Transaction, currency: Asset) -> list[RailEarnings]:
    """Return what single requests were paid, by scheme: the money has arrived with each."""
    rows = [row for row in tx.every(r.EarnedByScheme) if row.amount.asset == currency]
    return [
        RailEarnings(rail=row.scheme, earned=row.amount.units, claimed=row.amount.units)
        for row in rows
    ]


def _by_upto(tx: Transaction, by_request: Sequence[RailEarnings]) -> RailEarnings:
    """Return what was settled by `upto`, and what is charged and can still be settled."""
    settled = sum(each.claimed for each in by_request if each.rail == upto.SCHEME)
    sales = (tx.get(r.UptoSale, row.payment) for row in tx.every(r.OpenUpto))
    charged = [sale for sale in sales if sale and sale.charge and not sale.outcome]
    at_risk = sum(sale.charge.units for sale in charged if sale.charge)
    return RailEarnings(
        rail=upto.SCHEME,
        earned=settled + at_risk,
        claimed=settled,
        at_risk=at_risk,
        until=min((sale.deadline for sale in charged), default=0),
    )


def _pay(row: r.EarnedEscrow) -> int:
    return row.pay.units if row.pay else 0
