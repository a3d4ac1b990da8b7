"""The payer's stored jobs: which of them hold money, and how their ends are booked."""

from __future__ import annotations

from agentkit.errors import SettlementFailed
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.market.chain import ChainReceipt, Network
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments.escrow.terms import EscrowJob, settled_in
from agentkit.payments.intents import opening_intent


def book_open(tx: Transaction, attempt: str, job: str) -> None:
    """Write down, once, that a quoted job is open; `job` is its id in hex."""
    escrow = tx.get(r.Escrow, attempt)
    if escrow and escrow.id == job and escrow.state == "quoted":
        tx.append(e.WALLET, e.EscrowOpened(attempt=attempt, amount=escrow.price))


def book_settlement(
    tx: Transaction, escrow: r.Escrow, receipt: ChainReceipt, network: Network
) -> None:
    """Write down, once, what the contract paid and refunded for a job.

    Raises SettlementFailed when the receipt does not show that the job was settled.
    """
    job_id = EscrowJob.read(escrow.job).id(network)
    settlement = settled_in(receipt, network, job_id)
    if settlement is None:
        raise SettlementFailed(f"transaction {receipt.transaction} settled nothing")

    current = tx.get(r.Escrow, escrow.attempt)
    if current is None or current.state == "closed":
        return
    to_provider, to_payer = settlement
    paid = Money(to_provider, network.currency)
    refunded = Money(to_payer, network.currency)
    closed = e.EscrowClosed(attempt=escrow.attempt, paid=paid, refunded=refunded)
    tx.append(e.WALLET, closed)
    _end_reservation(tx, escrow, paid)


def _end_reservation(tx: Transaction, escrow: r.Escrow, paid: Money) -> None:
    """Count what the payee got without our acceptance as spent; free the reservation otherwise.

    A payment that we accepted was counted then, so its reservation is not open any more.
    """
    reservation = tx.get(r.Reservation, escrow.attempt)
    if reservation is None or reservation.standing != "open":
        return
    if not paid:
        tx.append(e.WALLET, e.Unreserved(attempt=escrow.attempt))
        return
    spent = e.Spent(
        attempt=escrow.attempt,
        provider=escrow.provider,
        amount=paid,
        standing="uncertain",
    )
    tx.append(e.WALLET, spent)


def holding_money(tx: Transaction) -> list[r.Escrow]:
    """Return the jobs that hold money of ours."""
    return [escrow for escrow in tx.every(r.Escrow) if escrow.state in ("open", "accepted")]


def opening_unknown(tx: Transaction) -> list[r.Escrow]:
    """Return the quoted jobs whose opening was signed, so that they may be open on the chain."""
    quoted = [escrow for escrow in tx.every(r.Escrow) if escrow.state == "quoted"]
    return [escrow for escrow in quoted if tx.get(r.EvmTransaction, opening_intent(escrow))]


def is_abandoned(tx: Transaction, escrow: r.Escrow) -> bool:
    """Return whether money is reserved for a job that was never opened, and no run needs it."""
    reservation = tx.get(r.Reservation, escrow.attempt)
    if escrow.state != "quoted" or reservation is None or reservation.standing != "open":
        return False
    opening = tx.get(r.EvmTransaction, opening_intent(escrow))
    may_be_open = opening is not None and not (opening.final and not opening.succeeded)
    return not may_be_open and not may_be_accepted(tx, escrow)


def may_be_accepted(tx: Transaction, escrow: r.Escrow) -> bool:
    """Return whether the run of a job's attempt may still take its result."""
    reservation = tx.get(r.Reservation, escrow.attempt)
    run = tx.get(r.Run, reservation.run) if reservation else None
    return run is not None and run.state in ("running", "paused")
