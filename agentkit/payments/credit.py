"""Prepaid credit: transfers that are on their way to it, and what a balance that was read proves.

A provider credits whole cents some time after a transfer, and shows nothing but the balance that
is left, in whole cents.  Its debits lower the same balance at moments that we do not know.
"""

from __future__ import annotations

from agentkit.journal import records as r
from agentkit.market.seams import Transaction
from agentkit.money import Asset


def units_per_cent(currency: Asset) -> int:
    """Return how many base units are a cent, 10,000 of USDC."""
    return int(10 ** max(0, currency.decimals - 2))


def whole_cents(units: int, per_cent: int) -> int:
    """Return the least amount of whole cents that `units` fit in, in units."""
    return -(-units // per_cent) * per_cent


def least_top_up(account: r.Account | None, per_cent: int) -> int:
    """Return the smallest transfer, in units, whose arrival the balance is sure to show.

    Debits may hide a cent of it, and what open attempts may still cost.  An account that is empty
    is not debited meanwhile, so there a cent is enough.
    """
    if account is None or (account.free <= 0 and not account.reserved):
        return per_cent
    return (2 + account.reserved.units // per_cent) * per_cent


def in_transit(tx: Transaction, payee: str = "") -> list[r.CreditTransfer]:
    """Return the transfers that left the wallet, or may have, and that no balance shows yet."""
    transfers = tx.every(r.CreditTransfer, f"{payee}|" if payee else "")
    return [row for row in transfers if row.standing in ("signed", "in transit")]


def is_shown(transfer: r.CreditTransfer, account: r.Account | None, cents: int, unit: int) -> bool:
    """Return whether a balance of `cents` proves that a transfer was credited, all of it.

    `account` are our books with the payee now, `unit` the units of a cent.  Two things must hold:

    - The balance has risen: it is above all that could be there without the transfer, which is the
      balance before, less what was debited since for certain.
    - It has risen by the whole amount, but for what may have been debited since.
    """
    before = transfer.before
    if before is None or transfer.standing != "in transit":
        return False
    spent = account.spent.units if account else 0
    taken = spent - account.uncertain if account else 0
    reserved = account.reserved.units if account else 0

    # Attempts that were open then may have been debited before the balance was read.
    debited_at_least = max(0, taken - before.taken - before.reserved)
    most_without_it = (before.cents + 1) * unit - 1 - debited_at_least
    has_risen = cents * unit > most_without_it

    debited_at_most = spent - before.spent + reserved
    least_with_it = before.cents * unit + transfer.amount.units - debited_at_most
    return has_risen and (cents + 1) * unit > least_with_it
