"""Transactions that reach the chain exactly once.

The exact signed bytes are durable before they can leave, with their nonce, in one transaction of
the state file.  So a crash can only lead to sending the same bytes again.  An exception from the
network means unknown, never failed; the receipt at final depth decides.

    signed -- blocks leave it out --> signed again: same nonce, same call, higher fees
    signed -- its nonce is used for good by somebody else --> signed again: next nonce
    any of the signed bytes mined, `finality` blocks deep --> final

The chain mines at most one of the transactions that were signed under one nonce, so replacing one
cannot pay twice.  A receipt that disappears in a reorg is not there at the next look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from agentkit.errors import (
    IntentMismatch,
    ProtocolBroken,
    SettlementFailed,
    StoreUnavailable,
)
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.signer import Signer
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments.signing import Check, IntentSigner, call_digest

PATIENCE = 120.0
"""Seconds to wait for a transaction before it is left to the next process."""

REFUSED_PATIENCE = 20.0
"""Seconds to go on sending a transaction that the node refuses."""

BUMP_SECONDS = 10.0
"""Seconds that a transaction is given before it offers higher fees."""

BUMP_BLOCKS = 3
"""Blocks that have to leave it out as well: while no block is made, higher fees do not help."""

LOOKS_TO_FAIL = 2
"""Looks at the chain that must agree on a failure, because one node may lag behind."""

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 2.0
"""Seconds between two looks at the chain; each pause is half as long again as the one before."""

Finish = Callable[[Transaction, str, ChainReceipt], None]
"""What else is written in the transaction that finds an intent final."""


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
        """Make the sender of one wallet; `gas_limit` is what it may spend on gas ever."""
        self._journal = journal
        self._chain = chain
        self._address = signer.address
        self._network = network
        self._signing = IntentSigner(journal, chain, signer, network, gas_limit)
        self.on_final: dict[str, Finish] = {}

    async def send(
        self,
        intent: str,
        to: str,
        data: bytes,
        *,
        check: Check | None = None,
        most_gas: int | None = None,
    ) -> ChainReceipt:
        """Carry out an intent and return its final receipt.

        `check` may raise in the transaction that would write a new intent down.  A new one that
        takes more than `most_gas` is not sent.

        Raises SettlementFailed (it reverted, or takes too much gas), InsufficientFunds (no gas
        money), OverBudget (gas), IntentMismatch (another call under this intent), StoreUnavailable
        (outcome unknown: the same intent goes on from here).
        """
        row = await self._journal.commit(lambda tx: tx.get(r.EvmTransaction, intent))
        if row is not None and row.cost.asset.network != self._network.coin.network:
            raise IntentMismatch(f"intent {intent!r} is of {row.cost.asset.network} already")
        # Once signed, an intent is never signed for another call: the first bytes may be mined.
        if row is None:
            row = await self._signing.sign(intent, to=to, data=data, check=check, most_gas=most_gas)
        if row.call != call_digest(to, data):
            raise IntentMismatch(f"intent {intent!r} is another call already")
        return await self._follow(row)

    async def recover(self) -> None:
        """Bring every transaction on this network that is not final to its end, oldest nonce first.

        The chain takes nonces in their order, so a later one cannot be mined before.
        """
        rows = await self._journal.commit(lambda tx: tx.every(r.EvmTransaction))
        for row in sorted(rows, key=lambda row: row.nonce):
            if not row.final and row.cost.asset.network == self._network.coin.network:
                # The failure is written down; whoever needs the transaction signs a new one.
                with suppress(SettlementFailed):
                    await self._follow(row)

    # -- following -------------------------------------------------------------------------------

    async def _follow(self, row: r.EvmTransaction) -> ChainReceipt:
        """Send an intent's bytes until a receipt of them is final, and write that down.

        Raises as `send`.
        """
        started = time.monotonic()
        pause = FIRST_PAUSE
        progress = _Progress()
        while True:
            look = await self._look_safely(row, progress)
            # A first failure may come from a node that lags, or lies; a success is taken at once.
            if look.receipt and look.is_final:
                progress.final_looks += 1
                may_fail = progress.final_looks >= LOOKS_TO_FAIL
                if await self._finish(row, look.receipt, may_fail=may_fail):
                    return look.receipt
            if look.is_replaced or look.is_left_out:
                row = await self._sign_again(row, look)
                progress = _Progress()

            # The bytes are stored, so whoever calls `send` or `recover` next goes on from here.
            patience = REFUSED_PATIENCE if look.is_refused else PATIENCE
            if time.monotonic() - started > patience:
                reason = f" ({look.problem})" if look.problem else ""
                raise StoreUnavailable(
                    f"transaction {row.transaction} is not mined yet{reason}",
                    hint="run the same command again: it goes on with the same transaction",
                )
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)

    async def _sign_again(self, row: r.EvmTransaction, look: _Look) -> r.EvmTransaction:
        """Sign an intent's call again; if the chain cannot be asked, the signed bytes stay."""
        with suppress(StoreUnavailable, ProtocolBroken):
            if look.is_replaced:
                return await self._signing.renew(row)
            return await self._signing.replace(row)
        return row

    async def _look_safely(self, row: r.EvmTransaction, progress: _Progress) -> _Look:
        """Look at the chain; if it does not answer, nothing is known until the next look."""
        try:
            return await self._look(row, progress)
        except (StoreUnavailable, ProtocolBroken) as error:
            return _Look(problem=str(error))

    async def _look(self, row: r.EvmTransaction, progress: _Progress) -> _Look:
        """Return how an intent stands on the chain.

        If none of its bytes is mined, the newest are sent once more: a node may have dropped them.
        """
        receipt = await self._receipt(row)
        if receipt:
            return _Look(receipt=receipt, is_final=await self._is_final(receipt))

        if progress.is_sent and await self._is_replaced(row):
            progress.replaced_looks += 1
            return _Look(is_replaced=progress.replaced_looks >= LOOKS_TO_FAIL)
        progress.replaced_looks = 0

        refusal = await self._send_bytes(row)
        progress.is_sent = True
        if not refusal:
            progress.is_accepted = True
        return _Look(
            problem=refusal,
            # A refusal after a node has taken the bytes means little: they may still be mined.
            is_refused=bool(refusal) and not progress.is_accepted,
            is_left_out=await self._is_left_out(progress),
        )

    async def _receipt(self, row: r.EvmTransaction) -> ChainReceipt | None:
        """Return the receipt of whichever of an intent's transactions was mined.

        A node that lies about a nonce can bring about several; then one that succeeded counts.
        """
        reverted = None
        for transaction in row.transactions:
            receipt = await self._chain.receipt(transaction)
            if receipt and receipt.succeeded:
                return receipt
            reverted = reverted or receipt
        return reverted

    async def _send_bytes(self, row: r.EvmTransaction) -> str:
        """Send an intent's newest bytes; returns why the node refuses them, "" when it does not.

        A refusal is not final: the nonce before may be another process's, which is sending it.
        """
        try:
            await self._chain.send(bytes.fromhex(row.raw))
        except SettlementFailed as error:
            return str(error)
        return ""

    async def _is_left_out(self, progress: _Progress) -> bool:
        """Return whether blocks were made for a while and did not include the transaction."""
        if progress.first_block is None:
            progress.first_block = await self._chain.head()
        if time.monotonic() - progress.started < BUMP_SECONDS:
            return False
        return await self._chain.head() - progress.first_block >= BUMP_BLOCKS

    async def _is_replaced(self, row: r.EvmTransaction) -> bool:
        """Return whether the newest nonce is used for good, by a transaction of another intent."""
        depth = self._network.finality
        block = None  # the newest
        if depth > 1:
            block = max(0, await self._chain.head() - depth + 1)
        used_nonces = await self._chain.nonce_at(self._address, block)
        # Only a final block counts: a reorg could free the nonce again, and both calls would be
        # mined.  The receipt is read once more, because our own bytes may have been mined since.
        return used_nonces > row.nonce and await self._receipt(row) is None

    async def _is_final(self, receipt: ChainReceipt) -> bool:
        """Return whether a receipt is `finality` blocks deep."""
        depth = self._network.finality
        return depth <= 1 or await self._chain.head() - receipt.block + 1 >= depth

    async def _finish(
        self, row: r.EvmTransaction, receipt: ChainReceipt, *, may_fail: bool
    ) -> bool:
        """Write an intent's end down, and return whether that was done.

        A failure is believed only with `may_fail`: then it is written and raised as
        SettlementFailed.  Without it, one more look has to agree.
        """
        final = e.TxFinal(
            intent=row.intent,
            transaction=receipt.transaction,
            block=receipt.block,
            succeeded=receipt.succeeded,
            cost=Money(receipt.cost, self._network.coin),
        )
        purpose = row.intent.partition(":")[0]
        book = self.on_final.get(purpose)
        try:
            # What an intent means for the books is written in the transaction that ends it, so a
            # crash cannot leave one without the other.
            if not receipt.succeeded:
                raise SettlementFailed(
                    f"transaction {receipt.transaction} reverted; nothing but its gas was spent"
                )
            await self._journal.commit(lambda tx: _write_final(tx, final, receipt, book))
        except (SettlementFailed, ProtocolBroken):
            if not may_fail:
                return False
            failed = final.model_copy(update={"succeeded": False})
            await self._journal.commit(lambda tx: _write_final(tx, failed, receipt, book=None))
            raise
        return True


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look at the chain shows of an intent.

    `is_replaced`: another transaction has used its nonce for good.  `is_left_out`: blocks are made
    without it.  `is_refused`: no node has ever taken it.  `problem`: why a node refuses it, or why
    the chain could not be asked.
    """

    receipt: ChainReceipt | None = None
    is_final: bool = False
    is_replaced: bool = False
    is_left_out: bool = False
    is_refused: bool = False
    problem: str = ""


class _Progress:
    """What is remembered between looks at the newest bytes of an intent."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.first_block: int | None = None
        self.is_sent = False
        self.is_accepted = False
        self.replaced_looks = 0
        self.final_looks = 0


def _write_final(
    tx: Transaction, final: e.TxFinal, receipt: ChainReceipt, book: Finish | None
) -> None:
    """Write an intent's end once, and in the same transaction what it means for the books."""
    stored = tx.get(r.EvmTransaction, final.intent)
    if stored and stored.final:
        return
    tx.append(e.WALLET, final)
    if final.succeeded and book:
        book(tx, final.intent, receipt)
