"""Balances in winston (10^-12 AR), and what a transaction costs."""

from __future__ import annotations

import sqlite3

from agentkit.embedded.gateway.rejected import Rejected
from agentkit.memory.arweave.merkle import MAX_CHUNK

MOST = 9 * 10**18
"""Largest balance: what fits a column of SQLite, about a seventh of all AR there is."""
_WINSTON_PER_GIB = 858_000_000_000  # the last fixed price of the real network
_HEADER_BYTES = 3_210
_NEW_WALLET_BYTES = 20_000_000


def fee(size: int, *, new_wallet: bool = False) -> int:
    """Return the least reward for `size` bytes of data: whole chunks, a header, a new wallet."""
    chunks = -(-size // MAX_CHUNK)
    billed = chunks * MAX_CHUNK + _HEADER_BYTES + (_NEW_WALLET_BYTES if new_wallet else 0)
    return billed * _WINSTON_PER_GIB // 2**30


class Wallets:
    """The balances of all addresses that ever had one."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def known(self, address: str) -> bool:
        row = self._database.execute("select 1 from wallet where address = ?", (address,))
        return row.fetchone() is not None

    def balance(self, address: str) -> int:
        row = self._database.execute("select balance from wallet where address = ?", (address,))
        return int((row.fetchone() or (0,))[0])

    def add(self, address: str, amount: int) -> int:
        """Change a balance by `amount` and return it; raises Rejected when it cannot be."""
        balance = self.balance(address) + amount
        if not 0 <= balance <= MOST:
            raise Rejected(f"Transaction verification failed: {address} would have {balance}")
        self._database.execute(
            "insert into wallet values (?, ?)"
            " on conflict (address) do update set balance = excluded.balance",
            (address, balance),
        )
        return balance
