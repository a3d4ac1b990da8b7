"""Finds, after a restore, the jobs that this wallet opened and that its journal lacks."""

from __future__ import annotations

from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import address_word
from agentkit.market.attempt import Attempt
from agentkit.market.chain import ChainClient, Network
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.escrow.jobs import book_open
from agentkit.payments.escrow.terms import EscrowJob


class LostEscrows:
    """Looks once for jobs of `payer` that were opened after the last sealed segment."""

    def __init__(self, journal: Journal, chain: ChainClient, network: Network, payer: str) -> None:
        self._journal = journal
        self._chain = chain
        self._network = network
        self._payer = payer
        self._is_done = False

    async def find(self, attempt: Attempt | None = None) -> None:
        """Book every job of ours on the chain that the journal lacks, if it was restored.

        The call that opens a job carries its quote, so the job can be read back from the chain:
        its price is not locked again, and the rest can be reclaimed.  `attempt` is the one that
        is bought now; its provider's name is known even where the journal has no other trace.
        """
        restoration = await self._journal.commit(lambda tx: tx.get(r.Restoration, "newest"))
        if restoration is None or self._is_done:
            return
        topics: list[bytes | None] = [abi.OPENED, None, address_word(self._payer)]
        head = await self._chain.head()
        for log in await self._chain.logs(self._network.escrow, topics, first=0, last=head):
            job = EscrowJob.of_call(await self._chain.data_of(log.transaction))
            # Another contract may have opened it in a call that we cannot read; it is left out.
            if job and job.id(self._network) == log.topics[1]:
                await self._book(job, attempt)
        self._is_done = True

    async def _book(self, job: EscrowJob, attempt: Attempt | None) -> None:
        await self._journal.commit(lambda tx: self._book_in(tx, job, attempt))

    def _book_in(self, tx: Transaction, job: EscrowJob, attempt: Attempt | None) -> None:
        """Write down a job as quoted and open, unless its attempt has a job: each opens one."""
        attempt_id = job.quote.task_id.hex()
        if tx.get(r.Escrow, attempt_id):
            return
        provider, provider_node = self._provider_of(tx, job.quote.provider, attempt)
        quoted = e.EscrowQuoted(
            attempt=attempt_id,
            id=job.id(self._network).hex(),
            provider=provider,
            provider_node=provider_node,
            payee=job.quote.provider,
            price=Money(job.quote.price, self._network.currency),
            job=job.document(),
        )
        tx.append(e.WALLET, quoted)
        book_open(tx, attempt_id, quoted.id)

    def _provider_of(self, tx: Transaction, payee: str, attempt: Attempt | None) -> tuple[str, str]:
        """Return (provider, provider node) behind a payee's address, "" where it is not known."""
        rows: list[r.Escrow | r.Channel | Attempt] = [*tx.every(r.Escrow), *tx.every(r.Channel)]
        if attempt:
            rows.append(attempt)
        for row in rows:
            if row.payee == payee:
                return row.provider, row.provider_node
        return "", ""
