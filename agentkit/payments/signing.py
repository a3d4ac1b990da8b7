"""Signs the transactions of intents, and stores the signed bytes before they can leave.

Nonce, checks and signed bytes are one transaction of the state file.  So two processes of a wallet
never sign two calls with one nonce, and never sign one intent twice by accident.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace as with_changes

from agentkit.errors import InsufficientFunds, IntentMismatch, OverBudget, SettlementFailed
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import UnsignedTransaction
from agentkit.keys.signer import Signer
from agentkit.market.chain import ChainClient, Fees, Network
from agentkit.market.seams import Transaction
from agentkit.money import Money

Check = Callable[[Transaction], None]
"""What must still hold in the transaction that signs; it raises when it does not."""


class IntentSigner:
    """Signs the transactions of one wallet; `gas_limit` is what it may spend on gas ever.

    `sign` and `renew` may raise InsufficientFunds (no gas money) and OverBudget (gas); `replace`
    keeps what is signed instead.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        gas_limit: Money | None,
    ) -> None:
        """Sign with `signer`, and store what is signed in `journal`."""
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network = network
        self._gas_limit = gas_limit

    async def sign(
        self,
        intent: str,
        *,
        to: str,
        data: bytes,
        check: Check | None,
        most_gas: int | None = None,
    ) -> r.EvmTransaction:
        """Sign a new intent's call and return the intent as stored.

        The network is asked first.  Then nonce, check and signed bytes are one transaction of the
        state file, in which another process may turn out to have been quicker.  Raises
        SettlementFailed for a call that takes more than `most_gas`.
        """
        address = self._signer.address
        estimated = await self._chain.estimate(address, to, data)
        if most_gas is not None and estimated > most_gas:
            raise SettlementFailed(f"the call takes {estimated} gas, and {most_gas} are paid for")
        # A quarter more than estimated: the state may change until the call is mined.
        gas = estimated * 5 // 4
        fees = await self._chain.fees()
        pending_nonce = await self._chain.nonce(address)
        call = self._call(to=to, data=data, gas=gas, fees=fees)  # its nonce is set below
        cost = await self._max_cost(call)
        await self._check_gas_money(cost)

        def write_new(tx: Transaction) -> r.EvmTransaction:
            stored = tx.get(r.EvmTransaction, intent)
            if stored:
                return stored  # another process has signed it meanwhile
            if check:
                check(tx)
            nonce = self._next_nonce(tx, pending_nonce)
            return self._write(tx, intent, call=with_changes(call, nonce=nonce), cost=cost)

        return await self._journal.commit(write_new)

    async def replace(self, row: r.EvmTransaction) -> r.EvmTransaction:
        """Sign an intent's call again under the same nonce, for higher fees.

        Nodes take a replacement for 10 % more; 25 % leaves room for their rounding.  Where gas
        money or the limit on gas does not allow it, the signed transaction stays as it is.
        """
        last = UnsignedTransaction.of(bytes.fromhex(row.raw))
        now = await self._chain.fees()
        fees = Fees(
            max_fee=max(last.max_fee * 5 // 4 + 1, now.max_fee),
            max_tip=max(last.max_tip * 5 // 4 + 1, now.max_tip),
        )
        call = self._call(to=last.to, data=last.data, gas=last.gas, fees=fees, nonce=last.nonce)
        try:
            return await self._write_again(row, call, pending_nonce=None)
        except (InsufficientFunds, OverBudget):
            return row

    async def renew(self, row: r.EvmTransaction) -> r.EvmTransaction:
        """Sign an intent's call again under the next nonce, because its own was used up.

        Somebody else has used the nonce, so the bytes signed before can never be mined.
        """
        last = UnsignedTransaction.of(bytes.fromhex(row.raw))
        fees = await self._chain.fees()
        call = self._call(to=last.to, data=last.data, gas=last.gas, fees=fees, nonce=last.nonce)
        pending_nonce = await self._chain.nonce(self._signer.address)
        return await self._write_again(row, call, pending_nonce=pending_nonce)

    async def _write_again(
        self, row: r.EvmTransaction, call: UnsignedTransaction, *, pending_nonce: int | None
    ) -> r.EvmTransaction:
        """Sign and store one more transaction of an intent; returns the intent as stored.

        With `pending_nonce` it takes the next nonce, which is not below it.
        """
        cost = await self._max_cost(call)
        await self._check_gas_money(cost)

        def write(tx: Transaction) -> r.EvmTransaction:
            stored = tx.get(r.EvmTransaction, row.intent)
            if stored and (stored.final or stored.transaction != row.transaction):
                return stored  # another process was quicker
            nonce = call.nonce if pending_nonce is None else self._next_nonce(tx, pending_nonce)
            return self._write(tx, row.intent, call=with_changes(call, nonce=nonce), cost=cost)

        return await self._journal.commit(write)

    def _call(
        self, *, to: str, data: bytes, gas: int, fees: Fees, nonce: int = 0
    ) -> UnsignedTransaction:
        """Return an unsigned transaction on this network."""
        return UnsignedTransaction(
            chain_id=self._network.chain_id,
            nonce=nonce,
            to=to,
            data=data,
            gas=gas,
            max_fee=fees.max_fee,
            max_tip=fees.max_tip,
        )

    async def _max_cost(self, call: UnsignedTransaction) -> Money:
        """Return what a call can cost at most; the price of its data may double before it lands."""
        data_fee = await self._chain.data_fee(call.unsigned()) * 2
        return Money(call.gas * call.max_fee + data_fee, self._network.coin)

    async def _check_gas_money(self, cost: Money) -> None:
        """Raise InsufficientFunds when the wallet holds less coin than a call can cost."""
        balance = Money(await self._chain.balance(self._signer.address), cost.asset)
        if cost > balance:
            raise InsufficientFunds(f"gas can come to {cost}, and the wallet holds {balance}")

    def _next_nonce(self, tx: Transaction, pending: int) -> int:
        """Return the next free nonce.

        The journal may know of signed transactions that the node has not seen, and the node of
        some that another program signed with this key.
        """
        stored = tx.get(r.Nonce, self._network.coin.network)
        return max(pending, stored.following if stored else 0)

    def _write(
        self, tx: Transaction, intent: str, *, call: UnsignedTransaction, cost: Money
    ) -> r.EvmTransaction:
        """Sign a call and store the bytes; only what is stored is ever sent."""
        self._check_gas_limit(tx, intent, cost)
        transaction, raw = self._signer.sign_tx(call)
        signed = e.TxSigned(
            intent=intent,
            call=call_digest(call.to, call.data),
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
        """Raise OverBudget when spent gas and all that is under way would exceed the limit."""
        if self._gas_limit is None:
            return
        total = tx.get(r.Total, f"gas|{cost.asset.id}")
        used = total.amount if total else cost.asset.zero()
        # Transactions under way count with their most; an intent's own is about to be replaced.
        for other in tx.every(r.EvmTransaction):
            is_other = other.intent != intent and other.cost.asset == cost.asset
            if is_other and not other.final:
                used += other.cost
        limit = self._gas_limit.bind(cost.asset)
        if used + cost > limit:
            raise OverBudget("gas", used + cost, limit)


def call_digest(to: str, data: bytes) -> str:
    """Return the digest of a call, by which an intent is compared with what it was before."""
    return hashlib.sha256(bytes.fromhex(to.removeprefix("0x")) + data).hexdigest()
