"""Transactions that reach the chain exactly once.

The exact signed bytes are durable before they can leave, with their nonce, in one transaction of
the state file; so a crash can only lead to sending the same bytes again.  An exception from the
network means unknown, never failed; the receipt at final depth decides.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from agentkit.errors import (
    InsufficientFunds,
    IntentMismatch,
    OverBudget,
    ProtocolBroken,
    SettlementFailed,
    StoreUnavailable,
)
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import Transaction as Call
from agentkit.keys.signer import Signer
from agentkit.market.chain import ChainClient, ChainReceipt, Fees, Network
from agentkit.market.seams import Transaction
from agentkit.money import Money

PATIENCE = 120.0
"""Seconds to wait for a transaction before it is left to the next process."""

REFUSED_PATIENCE = 20.0
"""Seconds to go on sending a transaction that the node refuses."""

Finish = Callable[[Transaction, str, ChainReceipt], None]
"""What else is written in the transaction that finds an intent final."""


Check = Callable[[Transaction], None]
"""What must still hold in the transaction that signs; it raises when it does not."""


class Sender:
    """Sends one transaction for each intent, whatever dies in between.

    An intent is a readable name, `purpose:arguments`; the same intent again is the same
    transaction.  `on_final` maps a purpose to what it means for the books.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        gas_limit: Money | None = None,
    ) -> None:
        self._journal, self._chain, self._signer = journal, chain, signer
        self._network, self._gas_limit = network, gas_limit
        self.on_final: dict[str, Finish] = {}

    async def send(
        self, intent: str, to: str, data: bytes, *, check: Check | None = None
    ) -> ChainReceipt:
        """Carry out an intent and return its final receipt.

        `check` may raise in the transaction that would write a new intent down.

        Raises SettlementFailed (it reverted), InsufficientFunds (no gas money), OverBudget (gas),
        IntentMismatch (another call under this intent), StoreUnavailable (outcome unknown: the
        same intent goes on from here).
        """
        known = await self._journal.commit(lambda tx: tx.get(r.Tx, intent))
        if known is None:
            known = await self._sign(intent, to, data, check)
        if known.call != _digest(to, data):
            raise IntentMismatch(f"intent {intent!r} is another call already")
        return await self._follow(known)

    async def recover(self) -> None:
        """Bring every transaction that is not final to its end, oldest nonce first."""
        rows = await self._journal.commit(lambda tx: tx.every(r.Tx))
        for row in sorted(rows, key=lambda row: row.nonce):
            if not row.final:
                with suppress(SettlementFailed):  # it is written down; whoever needs it sends anew
                    await self._follow(row)

    # -- inside ----------------------------------------------------------------------------------

    async def _sign(self, intent: str, to: str, data: bytes, check: Check | None) -> r.Tx:
        """Estimate, then take a nonce and write the signed bytes in one transaction."""
        await asyncio.to_thread(importlib.import_module, "eth_account")
        address = self._signer.address
        gas = await self._chain.estimate(address, to, data) * 5 // 4
        fees = await self._chain.fees()
        pending = await self._chain.nonce(address)
        cost = Money(gas * fees.max_fee, self._network.coin)
        await self._check_gas_money(cost)
        call = _Unsigned(to, data, gas, fees)

        def work(tx: Transaction) -> r.Tx:
            known = tx.get(r.Tx, intent)
            if known is None and check:
                check(tx)
            return known or self._write(tx, intent, pending, cost, call)

        return await self._journal.commit(work)

    async def _check_gas_money(self, cost: Money) -> None:
        balance = Money(await self._chain.balance(self._signer.address), cost.asset)
        if cost > balance:
            raise InsufficientFunds(f"gas can come to {cost}, and the wallet holds {balance}")

    def _write(
        self, tx: Transaction, intent: str, pending: int, cost: Money, call: _Unsigned
    ) -> r.Tx:
        self._check_gas_limit(tx, cost)
        noted = tx.get(r.Nonce, cost.asset.network)
        nonce = max(pending, noted.following if noted else 0)
        transaction, raw = self._signer.sign_tx(
            Call(
                chain_id=self._network.chain_id,
                nonce=nonce,
                to=call.to,
                data=call.data,
                gas=call.gas,
                max_fee=call.fees.max_fee,
                max_tip=call.fees.max_tip,
            )
        )
        signed = e.TxSigned(
            intent=intent,
            call=_digest(call.to, call.data),
            nonce=nonce,
            transaction=transaction,
            raw=raw.hex(),
            cost=cost,
        )
        tx.append(e.WALLET, signed)
        row = tx.get(r.Tx, intent)
        if row is None:
            raise IntentMismatch(f"intent {intent!r} was not written")
        return row

    def _check_gas_limit(self, tx: Transaction, cost: Money) -> None:
        if self._gas_limit is None:
            return
        row = tx.get(r.Total, f"gas|{cost.asset.id}")
        spent = row.amount if row else cost.asset.zero()
        for waiting in tx.every(r.Tx):
            spent += cost.asset.zero() if waiting.final else waiting.cost
        limit = self._gas_limit.bind(cost.asset)
        if spent + cost > limit:
            raise OverBudget("gas", spent + cost, limit)

    async def _follow(self, row: r.Tx) -> ChainReceipt:
        """Send a transaction's bytes until its receipt is final, and write that down."""
        began, pause, refusal, pushed = time.monotonic(), 0.02, "", False
        while True:
            receipt = await self._chain.receipt(row.transaction)
            if receipt and await self._is_final(receipt):
                await self._finish(row, receipt)
                return receipt
            if receipt is None and pushed and await self._is_replaced(row):
                await self._give_up(row, "another transaction of the wallet has its nonce")
            if receipt is None:
                refusal, pushed = await self._push(row), True
            waited = time.monotonic() - began
            if waited > (REFUSED_PATIENCE if refusal else PATIENCE):
                raise StoreUnavailable(
                    f"transaction {row.transaction} is not mined yet"
                    + (f" ({refusal})" if refusal else ""),
                    hint="run the same command again: it goes on with the same transaction",
                )
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 2.0)

    async def _push(self, row: r.Tx) -> str:
        """Send a transaction's bytes and return why the node refuses them, "" when it does not.

        A refusal is no end: another process of this wallet may be sending the nonce before.
        """
        try:
            await self._chain.send(bytes.fromhex(row.raw))
        except SettlementFailed as refused:
            return str(refused)
        return ""

    async def _is_replaced(self, row: r.Tx) -> bool:
        """Whether the row's nonce is used for good, and not by the row's own transaction."""
        depth = self._network.finality
        block = None if depth <= 1 else max(0, await self._chain.head() - depth + 1)
        used = await self._chain.nonce_at(self._signer.address, block)
        return used > row.nonce and await self._chain.receipt(row.transaction) is None

    async def _is_final(self, receipt: ChainReceipt) -> bool:
        depth = self._network.finality
        return depth <= 1 or await self._chain.head() - receipt.block + 1 >= depth

    async def _finish(self, row: r.Tx, receipt: ChainReceipt) -> None:
        purpose = row.intent.partition(":")[0]
        final = e.TxFinal(
            intent=row.intent,
            transaction=receipt.transaction,
            block=receipt.block,
            succeeded=receipt.succeeded,
            cost=Money(receipt.cost, self._network.coin),
        )

        try:
            await self._journal.commit(
                lambda tx: _write_final(tx, final, receipt, self.on_final.get(purpose))
            )
        except (SettlementFailed, ProtocolBroken):
            failed = final.model_copy(update={"succeeded": False})
            await self._journal.commit(lambda tx: _write_final(tx, failed, receipt, None))
            raise
        if not receipt.succeeded:
            raise SettlementFailed(
                f"transaction {receipt.transaction} reverted; nothing but its gas was spent"
            )

    async def _give_up(self, row: r.Tx, why: str) -> None:
        """Write that a transaction will never be mined; raises SettlementFailed."""
        final = e.TxFinal(
            intent=row.intent,
            transaction=row.transaction,
            block=0,
            succeeded=False,
            cost=self._network.coin.zero(),
        )
        await self._journal.commit(lambda tx: _write_final(tx, final, None, None))
        raise SettlementFailed(f"transaction {row.transaction} cannot be mined: {why}")


def _write_final(
    tx: Transaction, final: e.TxFinal, receipt: ChainReceipt | None, book: Finish | None
) -> None:
    """Write an intent's end once, and in the same transaction what it means for the books."""
    known = tx.get(r.Tx, final.intent)
    if known and known.final:
        return
    tx.append(e.WALLET, final)
    if final.succeeded and receipt and book:
        book(tx, final.intent, receipt)


def _digest(to: str, data: bytes) -> str:
    return hashlib.sha256(bytes.fromhex(to.removeprefix("0x")) + data).hexdigest()


@dataclass(frozen=True, slots=True)
class _Unsigned:
    """A call with what it offers for its place in a block."""

    to: str
    data: bytes
    gas: int
    fees: Fees
