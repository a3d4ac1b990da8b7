"""A chain for one machine: a block for every transaction, on the disk before it is answered."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from eth.abc import (
    BlockHeaderAPI,
    ReceiptAPI,
    SignedTransactionAPI,
    StateAPI,
    VirtualMachineAPI,
)
from eth.constants import ZERO_ADDRESS
from eth.db.atomic import AtomicDB
from eth.exceptions import CanonicalHeadNotFound, HeaderNotFound
from eth_typing import Address, BlockNumber, Hash32
from eth_utils.exceptions import ValidationError

from agentkit.embedded.chain import canonical, vm
from agentkit.embedded.chain.mempool_rules import (
    InvalidTransaction,
    admit,
    check_waiting,
    decoded,
)
from agentkit.embedded.chain.store import LogEntry, Store, Wanted
from agentkit.embedded.chain.txpool import TxPool
from agentkit.keys.messages import keccak, word

_log = logging.getLogger(__name__)


class Chain:
    """The chain in one file, for one thread at a time.

    Its time is the clock's: a block's timestamp is the clock or its parent's, whichever is later,
    so blocks of one second share it.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        self._evm = vm.EmbeddedEvm(AtomicDB(store))
        self._head = self._evm.get_canonical_head()
        self._ahead = int(store.fact("ahead") or 0)
        self._pool = TxPool(store)
        for sender in self._pool.senders():  # a kill may have come between a block and the next
            self._execute_waiting(sender)

    @classmethod
    def open(
        cls, path: Path, *, rich: Mapping[str, int], clock: Callable[[], float] = time.time
    ) -> Chain:
        """Open the chain in the file `path` at its head, or start one there.

        `rich` (address to wei) is what block 0 gives to whom; only a new chain heeds it.
        A chain that an earlier version began first gets the contracts that it lacks.
        Raises StoreUnavailable when another process has the file.
        """
        store = Store(path)
        try:
            return cls._begin_or_go_on(store, rich, clock)
        except BaseException:
            store.close()
            raise

    @classmethod
    def _begin_or_go_on(
        cls, store: Store, rich: Mapping[str, int], clock: Callable[[], float]
    ) -> Chain:
        try:
            chain = cls(store, clock)
        except CanonicalHeadNotFound:
            with store.block():
                vm.start(AtomicDB(store), rich, canonical.codes())
            return cls(store, clock)
        codes, facts = canonical.missing(chain.state(), chain.fact)
        if codes:
            chain.set_codes(codes, facts)
        return chain

    def close(self) -> None:
        self._store.close()

    # -- the head --------------------------------------------------------------------------------

    @property
    def head(self) -> BlockHeaderAPI:
        return self._head

    @property
    def number(self) -> int:
        return self._head.block_number

    @property
    def hash(self) -> bytes:
        return self._head.hash

    @property
    def timestamp(self) -> int:
        return self._head.timestamp

    # -- writing ---------------------------------------------------------------------------------

    def send(self, raw: bytes) -> bytes:
        """Put a signed transaction into a block of its own and return its hash.

        One whose nonce is not next waits for those before it.  Bytes that a block has already are
        answered with the same hash.  Raises InvalidTransaction.
        """
        digest = keccak(raw)
        if self.find(digest) is not None:
            return digest
        if self._pool.find(digest):
            raise InvalidTransaction("already known")
        transaction = decoded(raw)
        if admit(transaction, self.state()):
            check_waiting(transaction, self.next_header())
            self._pool.check(transaction, len(raw))
            self._pool.add(transaction, raw)
        else:
            self.seal([transaction])
            self._execute_waiting(transaction.sender)
        return digest

    def _execute_waiting(self, sender: Address) -> None:
        """Execute what a sender has waiting, as far as its nonces follow one another.

        What cannot be executed when its turn comes (the money is gone) is dropped, as geth does.
        """
        nonce = self.state().get_nonce(sender)
        for used in self._pool.before(sender, nonce):
            self._pool.drop(used)
        while transaction := self._pool.at(sender, nonce):
            try:
                admit(transaction, self.state())
                self.seal([transaction])
            except InvalidTransaction as error:
                _log.warning("0x%s is dropped: %s", transaction.hash.hex(), error)
                self._pool.drop(transaction)
            nonce = self.state().get_nonce(sender)

    def seal(
        self, transactions: Sequence[SignedTransactionAPI], facts: Mapping[str, str] | None = None
    ) -> None:
        """Add one block of these transactions, and with it `facts` to keep.

        Raises InvalidTransaction if one of them is invalid, and then nothing has changed.
        """
        header = self.next_header()
        with self._store.block():
            for name, value in (facts or {}).items():
                self._store.set_fact(name, value)
            sealed = self._extend(header, transactions)
        self._head = sealed
        for transaction in transactions:
            self._pool.forget(transaction)

    def set_codes(self, codes: Mapping[Address, bytes], facts: Mapping[str, str]) -> None:
        """Put code at addresses by an irregular block, and keep `facts` with it.

        No transaction leads from the state before such a block to the one behind it, so a fact
        says which block it is: whoever executes the chain again has to set the codes there.
        Balances and storage of the addresses stay.  It is all written in one go, or nothing is.
        """
        header = self.next_header()
        machine = self._evm.get_vm(header)
        for place, code in codes.items():
            machine.state.set_code(place, code)
            if machine.state.get_nonce(place) == 0:
                machine.state.set_nonce(place, 1)
        with self._store.block():
            machine.state.persist()
            header = header.copy(state_root=machine.state.state_root)
            sealed = self._persist(machine, header, [], [])
            for name, value in facts.items():
                self._store.set_fact(name, value)
            places = " ".join(sorted("0x" + place.hex() for place in codes))
            self._store.set_fact(f"irregular block {sealed.block_number}", f"code of {places}")
        self._head = sealed

    def advance(self, seconds: int) -> int:
        """Set the chain's clock ahead; returns by how many seconds it now is in all."""
        ahead = self._ahead + seconds
        with self._store.block():
            self._store.set_fact("ahead", str(ahead))
        self._ahead = ahead
        return ahead

    def _extend(
        self, header: BlockHeaderAPI, transactions: Sequence[SignedTransactionAPI]
    ) -> BlockHeaderAPI:
        """Execute transactions as the next block and store it; raises InvalidTransaction."""
        machine = self._evm.get_vm(header)
        try:
            header, receipts, _ = machine.apply_all_transactions(transactions, header)
        except ValidationError as error:
            raise InvalidTransaction(str(error)) from error
        sealed = self._persist(machine, header, transactions, receipts)
        for position, transaction in enumerate(transactions):
            raw = transaction.encode()
            self._store.add_transaction(sealed.block_number, position, transaction.hash, raw)
            self._store.remove_waiting(transaction.hash)
        for entry in _entries(sealed, transactions, receipts):
            self._store.add_log(entry)
        return sealed

    def _persist(
        self,
        machine: VirtualMachineAPI,
        header: BlockHeaderAPI,
        transactions: Sequence[SignedTransactionAPI],
        receipts: Sequence[ReceiptAPI],
    ) -> BlockHeaderAPI:
        """Write a block of what was executed under `header`; returns the header it then has."""
        filled = machine.set_block_transactions_and_withdrawals(
            machine.get_block(), header, transactions, receipts
        )
        block = machine.mine_block(filled).block
        self._evm.chaindb.persist_block(block)
        return block.header

    # -- reading ---------------------------------------------------------------------------------

    def fact(self, name: str) -> str | None:
        """Return what was kept under `name` with some block."""
        return self._store.fact(name)

    def next_header(self) -> BlockHeaderAPI:
        """Return the header that an empty block would have if it were sealed now."""
        return self._evm.create_header_from_parent(
            self._head,
            coinbase=ZERO_ADDRESS,
            gas_limit=self._head.gas_limit,
            mix_hash=keccak(self.hash),
            timestamp=max(int(self._clock()) + self._ahead, self.timestamp),
        )

    def header(self, number: int) -> BlockHeaderAPI | None:
        if number > self.number:
            return None
        return self._evm.get_canonical_block_header_by_number(BlockNumber(number))

    def header_by_hash(self, digest: bytes) -> BlockHeaderAPI | None:
        try:
            return self._evm.get_block_header_by_hash(Hash32(digest))
        except HeaderNotFound:
            return None

    def state(self, header: BlockHeaderAPI | None = None) -> StateAPI:
        """Return the state after the block of `header`; without one, after the newest."""
        return self._evm.get_vm(header or self._head).state

    def find(self, transaction: bytes) -> tuple[int, int] | None:
        """Return in which block a transaction is, and in which position there."""
        return self._store.find(transaction)

    def waiting(self, transaction: bytes) -> SignedTransactionAPI | None:
        """Return the transaction with this hash that waits for an earlier nonce."""
        return self._pool.find(transaction)

    def next_nonce(self, sender: Address) -> int:
        """Return the nonce that a sender's next transaction needs, past those that wait."""
        return self._pool.next_nonce(sender, self.state().get_nonce(sender))

    def raw_transactions(self, number: int) -> list[tuple[bytes, bytes]]:
        """Return hash and raw bytes of the transactions in a block."""
        return self._store.transactions(number)

    def transactions(self, number: int) -> list[SignedTransactionAPI]:
        return [decoded(raw) for _, raw in self._store.transactions(number)]

    def receipts(self, header: BlockHeaderAPI) -> tuple[ReceiptAPI, ...]:
        builder = vm.SameSecondVM.get_receipt_builder()
        return self._evm.chaindb.get_receipts(header, builder)

    def logs(
        self, first: int, last: int, addresses: Wanted = (), topics: Sequence[Wanted] = ()
    ) -> Iterator[LogEntry]:
        """Return the logs of blocks `first` to `last` whose address and topics are wanted."""
        return self._store.logs(first, last, addresses, topics)


def _entries(
    header: BlockHeaderAPI,
    transactions: Sequence[SignedTransactionAPI],
    receipts: Sequence[ReceiptAPI],
) -> Iterator[LogEntry]:
    """Yield the logs of a block, numbered through all of its transactions."""
    position = 0
    for index, (transaction, receipt) in enumerate(zip(transactions, receipts, strict=True)):
        for log in receipt.logs:
            topics = tuple(word(topic) for topic in log.topics)
            place = (header.block_number, position, header.hash, index, transaction.hash)
            yield LogEntry(*place, log.address, topics, log.data)
            position += 1
