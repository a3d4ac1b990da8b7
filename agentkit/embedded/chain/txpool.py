"""Transactions whose nonce is not next: they wait here until the gap before them closes.

Clients that send several transactions at once number them themselves, and they arrive in any order.
A node that refused those that come early would leave their nonces unused for ever, and every later
one waiting.  The rules, bounds and words are those of geth's pool.
"""

from __future__ import annotations

from collections.abc import Iterator

from eth.abc import SignedTransactionAPI
from eth_typing import Address

from agentkit.embedded.chain.mempool_rules import InvalidTransaction, decoded
from agentkit.embedded.chain.store import Store

MOST_OF_ONE = 64
"""How many transactions of one sender may wait."""
MOST_IN_ALL = 1024
LARGEST = 128 * 1024
"""Bytes of the longest transaction that may wait."""
BUMP_PERCENT = 10
"""By how much more, in fee and in tip, a transaction has to offer to take the place of another."""


class TxPool:
    """What waits, by sender and nonce.

    It is in the chain's file too, because clients were told the hashes: a restart forgets none.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[Address, dict[int, SignedTransactionAPI]] = {}
        for raw in store.waiting():
            self._add(decoded(raw))

    def senders(self) -> list[Address]:
        return list(self._waiting)

    def find(self, digest: bytes) -> SignedTransactionAPI | None:
        """Return the waiting transaction with this hash."""
        return next((one for one in self._every() if one.hash == digest), None)

    def at(self, sender: Address, nonce: int) -> SignedTransactionAPI | None:
        """Return what a sender has waiting under a nonce."""
        return self._waiting.get(sender, {}).get(nonce)

    def before(self, sender: Address, nonce: int) -> list[SignedTransactionAPI]:
        """Return what a sender has waiting under nonces that are used up."""
        return [one for number, one in self._waiting.get(sender, {}).items() if number < nonce]

    def next_nonce(self, sender: Address, nonce: int) -> int:
        """Return the first nonce from `nonce` on under which a sender has nothing waiting.

        A gap ends the count, as at geth: a client that asks for its next nonce has to be told of
        the gap, or it would never close it.
        """
        while self.at(sender, nonce):
            nonce += 1
        return nonce

    def check(self, transaction: SignedTransactionAPI, size: int) -> None:
        """Raise InvalidTransaction unless there is room for a transaction of `size` bytes."""
        if size > LARGEST:
            raise InvalidTransaction(f"oversized data: transaction size {size}, limit {LARGEST}")
        rival = self.at(transaction.sender, transaction.nonce)
        if rival:
            if not _outbids(transaction, rival):
                raise InvalidTransaction("replacement transaction underpriced")
        elif len(self._waiting.get(transaction.sender, {})) >= MOST_OF_ONE:
            raise InvalidTransaction("account limit exceeded")
        elif sum(map(len, self._waiting.values())) >= MOST_IN_ALL:
            raise InvalidTransaction("txpool is full")

    def add(self, transaction: SignedTransactionAPI, raw: bytes) -> None:
        """Keep a transaction that was checked, in the place of the one it outbids."""
        rival = self.at(transaction.sender, transaction.nonce)
        with self._store.block():
            if rival:
                self._store.remove_waiting(rival.hash)
            self._store.add_waiting(transaction.hash, raw)
        self._add(transaction)

    def drop(self, transaction: SignedTransactionAPI) -> None:
        """Forget a transaction that can never be executed."""
        with self._store.block():
            self._store.remove_waiting(transaction.hash)
        self.forget(transaction)

    def forget(self, transaction: SignedTransactionAPI) -> None:
        """Forget a transaction whose row is gone, since a block has it."""
        own = self._waiting.get(transaction.sender, {})
        kept = own.get(transaction.nonce)
        if kept and kept.hash == transaction.hash:
            del own[transaction.nonce]
            if not own:
                del self._waiting[transaction.sender]

    def _add(self, transaction: SignedTransactionAPI) -> None:
        self._waiting.setdefault(transaction.sender, {})[transaction.nonce] = transaction

    def _every(self) -> Iterator[SignedTransactionAPI]:
        for own in self._waiting.values():
            yield from own.values()


def _outbids(transaction: SignedTransactionAPI, rival: SignedTransactionAPI) -> bool:
    """Return whether a transaction offers `BUMP_PERCENT` more than another, in fee and in tip."""
    offers = (
        (transaction.max_fee_per_gas, rival.max_fee_per_gas),
        (transaction.max_priority_fee_per_gas, rival.max_priority_fee_per_gas),
    )
    return all(100 * new >= (100 + BUMP_PERCENT) * old for new, old in offers)
