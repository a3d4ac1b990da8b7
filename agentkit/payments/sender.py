"""Transactions that reach the chain exactly once.

The exact signed bytes are durable before they can leave, with their nonce, in one transaction of
the state file; so a crash can only lead to sending the same bytes again.  An exception from the
network means unknown, never failed; the receipt at final depth decides.

    signed -- blocks pass it over --> signed again: same nonce, same call, higher fees
    signed -- its nonce is used for good by somebody else --> signed again: next nonce
    any of the signed bytes mined, `finality` blocks deep --> final

At most one of the bytes signed under one nonce can be mined; a receipt that disappears in a reorg
is simply not there at the next look.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

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
from agentkit.keys.messages import UnsignedTransaction as Call
from agentkit.keys.signer import Signer
from agentkit.market.chain import ChainClient, ChainReceipt, Fees, Network
from agentkit.market.seams import Transaction
from agentkit.money import Money

PATIENCE = 120.0
"""Seconds to wait for a transaction before it is left to the next process."""

REFUSED_PATIENCE = 20.0
"""Seconds to go on sending a transaction that the node refuses."""

BUMP_SECONDS = 10.0
"""Seconds that a transaction is given before it offers more for its place in a block."""

BUMP_BLOCKS = 3
"""Blocks that have to pass it over, too: where none comes, more money brings none."""

SURE = 2
"""Looks that must agree before an intent is taken to have failed: one may be a node that lags."""

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
        self._journal = journal
        self._chain = chain
        self._signer = signer
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
        known = await self._journal.commit(lambda tx: tx.get(r.EvmTransaction, intent))
        if known is None:
            known = await self._sign(intent, to, data, check)
        if known.call != _digest(to, data):
            raise IntentMismatch(f"intent {intent!r} is another call already")
        return await self._follow(known)

    async def recover(self) -> None:
        """Bring every transaction that is not final to its end, oldest nonce first."""
        rows = await self._journal.commit(lambda tx: tx.every(r.EvmTransaction))
        for row in sorted(rows, key=lambda row: row.nonce):
            if not row.final:
                with suppress(SettlementFailed):  # it is written down; whoever needs it sends anew
                    await self._follow(row)

    # -- signing ---------------------------------------------------------------------------------

    async def _sign(
        self, intent: str, to: str, data: bytes, check: Check | None
    ) -> r.EvmTransaction:
        """Estimate, then take a nonce and write the signed bytes in one transaction."""
        address = self._signer.address
        gas = await self._chain.estimate(address, to, data) * 5 // 4
        fees = await self._chain.fees()
        pending = await self._chain.nonce(address)
        call = self._call(to, data, gas, fees)
        cost = await self._cost(call)
        await self._check_gas_money(cost)

        def work(tx: Transaction) -> r.EvmTransaction:
            known = tx.get(r.EvmTransaction, intent)
            if known is None and check:
                check(tx)
            nonce = self._free(tx, pending)
            return known or self._write(tx, intent, replace(call, nonce=nonce), cost)

        return await self._journal.commit(work)

    async def _sign_again(self, row: r.EvmTransaction, *, next_nonce: bool) -> r.EvmTransaction:
        """Sign an intent's call once more, for more, and return the intent as it then stands.

        Nodes take a replacement for 10 % more; 25 % leaves room.  Where gas money or the limit
        on gas does not allow it, what is signed has to do.
        """
        last = Call.of(bytes.fromhex(row.raw))
        now = await self._chain.fees()
        more = Fees(
            max(last.max_fee * 5 // 4 + 1, now.max_fee), max(last.max_tip * 5 // 4 + 1, now.max_tip)
        )
        fees = now if next_nonce else more
        call = self._call(last.to, last.data, last.gas, fees, last.nonce)
        pending = await self._chain.nonce(self._signer.address) if next_nonce else 0

        def work(tx: Transaction) -> r.EvmTransaction:
            known = tx.get(r.EvmTransaction, row.intent)
            if known and (known.final or known.transaction != row.transaction):
                return known  # another process was quicker
            nonce = self._free(tx, pending) if next_nonce else last.nonce
            return self._write(tx, row.intent, replace(call, nonce=nonce), cost)

        cost = await self._cost(call)
        try:
            await self._check_gas_money(cost)
            return await self._journal.commit(work)
        except (InsufficientFunds, OverBudget):
            if next_nonce:
                raise
            return row

    def _call(self, to: str, data: bytes, gas: int, fees: Fees, nonce: int = 0) -> Call:
        return Call(
            chain_id=self._network.chain_id,
            nonce=nonce,
            to=to,
            data=data,
            gas=gas,
            max_fee=fees.max_fee,
            max_tip=fees.max_tip,
        )

    async def _cost(self, call: Call) -> Money:
        """Return what a call can cost at most; the price of its data may double before it lands."""
        data_fee = await self._chain.data_fee(call.unsigned()) * 2
        return Money(call.gas * call.max_fee + data_fee, self._network.coin)

    async def _check_gas_money(self, cost: Money) -> None:
        balance = Money(await self._chain.balance(self._signer.address), cost.asset)
        if cost > balance:
            raise InsufficientFunds(f"gas can come to {cost}, and the wallet holds {balance}")

    def _free(self, tx: Transaction, pending: int) -> int:
        """Return the next nonce: the journal knows more than the node."""
        noted = tx.get(r.Nonce, self._network.coin.network)
        return max(pending, noted.following if noted else 0)

    def _write(self, tx: Transaction, intent: str, call: Call, cost: Money) -> r.EvmTransaction:
        """Sign and write down what may leave from here on."""
        self._check_gas_limit(tx, intent, cost)
        transaction, raw = self._signer.sign_tx(call)
        signed = e.TxSigned(
            intent=intent,
            call=_digest(call.to, call.data),
            nonce=call.nonce,
            transaction=transaction,
            raw=raw.hex(),
            cost=cost,
        )
        tx.append(e.WALLET, signed)
        row = tx.get(r.EvmTransaction, intent)
        if row is None:
            raise IntentMismatch(f"intent {intent!r} was not written")
        return row

    def _check_gas_limit(self, tx: Transaction, intent: str, cost: Money) -> None:
        if self._gas_limit is None:
            return
        row = tx.get(r.Total, f"gas|{cost.asset.id}")
        spent = row.amount if row else cost.asset.zero()
        for other in tx.every(r.EvmTransaction):
            waits = not other.final and other.intent != intent
            spent += other.cost if waits else cost.asset.zero()
        limit = self._gas_limit.bind(cost.asset)
        if spent + cost > limit:
            raise OverBudget("gas", spent + cost, limit)

    # -- following -------------------------------------------------------------------------------

    async def _follow(self, row: r.EvmTransaction) -> ChainReceipt:
        """Send an intent's bytes until a receipt of them is final, and write that down."""
        began = time.monotonic()
        pause = 0.02
        watch = _Watch()
        while True:
            try:
                seen = await self._look(row, watch)
            except (StoreUnavailable, ProtocolBroken) as error:  # unknown: the next look will tell
                seen = _Seen(trouble=str(error))
            if seen.receipt and seen.final:
                watch.finals += 1
                if await self._finish(row, seen.receipt, sure=watch.finals >= SURE):
                    return seen.receipt
            if seen.replaced or seen.passed_over:
                row, watch = await self._again(row, seen), _Watch()
            waited = time.monotonic() - began
            if waited > (REFUSED_PATIENCE if seen.refused else PATIENCE):
                raise StoreUnavailable(
                    f"transaction {row.transaction} is not mined yet"
                    + (f" ({seen.trouble})" if seen.trouble else ""),
                    hint="run the same command again: it goes on with the same transaction",
                )
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 2.0)

    async def _again(self, row: r.EvmTransaction, seen: _Seen) -> r.EvmTransaction:
        with suppress(StoreUnavailable, ProtocolBroken):
            return await self._sign_again(row, next_nonce=seen.replaced)
        return row

    async def _look(self, row: r.EvmTransaction, watch: _Watch) -> _Seen:
        """Return how an intent stands, its newest bytes sent once more where nothing is mined."""
        receipt = await self._receipt(row)
        if receipt:
            return _Seen(receipt=receipt, final=await self._is_final(receipt))
        if watch.pushed and await self._is_replaced(row):
            watch.replaced += 1
            return _Seen(replaced=watch.replaced >= SURE)
        watch.replaced = 0
        refusal, watch.pushed = await self._push(row), True
        watch.taken = watch.taken or not refusal
        return _Seen(
            trouble=refusal,
            refused=bool(refusal) and not watch.taken,  # what a node took may still be mined
            passed_over=await self._is_passed_over(watch),
        )

    async def _receipt(self, row: r.EvmTransaction) -> ChainReceipt | None:
        """Return the receipt of whichever of an intent's bytes was mined.

        Of several, which a node that lied about a nonce can bring about, the one that succeeded.
        """
        reverted = None
        for transaction in row.transactions:
            receipt = await self._chain.receipt(transaction)
            if receipt and receipt.succeeded:
                return receipt
            reverted = reverted or receipt
        return reverted

    async def _push(self, row: r.EvmTransaction) -> str:
        """Send a transaction's bytes and return why the node refuses them, "" when it does not.

        A refusal is no end: another process of this wallet may be sending the nonce before.
        """
        try:
            await self._chain.send(bytes.fromhex(row.raw))
        except SettlementFailed as error:
            return str(error)
        return ""

    async def _is_passed_over(self, watch: _Watch) -> bool:
        if watch.head is None:
            watch.head = await self._chain.head()
        if time.monotonic() - watch.began < BUMP_SECONDS:
            return False
        return await self._chain.head() - watch.head >= BUMP_BLOCKS

    async def _is_replaced(self, row: r.EvmTransaction) -> bool:
        """Whether the newest nonce is used for good, and not by any bytes of this intent."""
        depth = self._network.finality
        block = None if depth <= 1 else max(0, await self._chain.head() - depth + 1)
        used = await self._chain.nonce_at(self._signer.address, block)
        return used > row.nonce and await self._receipt(row) is None

    async def _is_final(self, receipt: ChainReceipt) -> bool:
        depth = self._network.finality
        return depth <= 1 or await self._chain.head() - receipt.block + 1 >= depth

    async def _finish(self, row: r.EvmTransaction, receipt: ChainReceipt, *, sure: bool) -> bool:
        """Write an intent's end down; raises SettlementFailed when it is a failure and `sure`."""
        final = e.TxFinal(
            intent=row.intent,
            transaction=receipt.transaction,
            block=receipt.block,
            succeeded=receipt.succeeded,
            cost=Money(receipt.cost, self._network.coin),
        )
        book = self.on_final.get(row.intent.partition(":")[0])
        try:
            if not receipt.succeeded:
                raise SettlementFailed(
                    f"transaction {receipt.transaction} reverted; nothing but its gas was spent"
                )
            await self._journal.commit(lambda tx: _write_final(tx, final, receipt, book))
        except (SettlementFailed, ProtocolBroken):
            if not sure:
                return False
            failed = final.model_copy(update={"succeeded": False})
            await self._journal.commit(lambda tx: _write_final(tx, failed, receipt, None))
            raise
        return True


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look at the chain found of an intent."""

    receipt: ChainReceipt | None = None
    final: bool = False
    replaced: bool = False
    passed_over: bool = False
    refused: bool = False
    trouble: str = ""


class _Watch:
    """What is remembered between looks at the newest bytes of an intent."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.head: int | None = None
        self.pushed = False
        self.taken = False
        self.replaced = 0
        self.finals = 0


def _write_final(
    tx: Transaction, final: e.TxFinal, receipt: ChainReceipt, book: Finish | None
) -> None:
    """Write an intent's end once, and in the same transaction what it means for the books."""
    known = tx.get(r.EvmTransaction, final.intent)
    if known and known.final:
        return
    tx.append(e.WALLET, final)
    if final.succeeded and book:
        book(tx, final.intent, receipt)


def _digest(to: str, data: bytes) -> str:
    return hashlib.sha256(bytes.fromhex(to.removeprefix("0x")) + data).hexdigest()
