"""A machine to be killed: notes steps down, seals them and posts them, as fast as it can.

python note_writer.py HOME KEYFILE URL     waits for a line, then prints `a N` for every step that
                                         is acknowledged and `f N` for every one that is flushed
"""

import asyncio
import sys
from functools import partial
from pathlib import Path

from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys import keystore
from agentkit.market.seams import Transaction
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.memory import Memory
from agentkit.memory.sealing import snapshots

FLUSHED_EVERY = 5

snapshots.EVERY_EVENTS = 40  # so that kills meet snapshots, too


def add(note: e.NoteAdded, tx: Transaction) -> None:
    tx.append(e.WALLET, note)


async def main(home: Path, key: Path, url: str) -> None:
    signer = keystore.unlock(key, real=False)
    sys.stdin.readline()
    journal = await Journal.open(home, signer.address)
    memory = Memory(journal, signer, Gateways([url]))
    number = len(await journal.commit(lambda tx: tx.every(r.Note, "t|")))
    print("go", flush=True)
    while True:
        number += 1
        note = e.NoteAdded(topic="t", text=f"step {number}")
        await journal.commit(partial(add, note))
        print("a", number, flush=True)
        if number % FLUSHED_EVERY == 0:
            await memory.checkpoint()
            print("f", number, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
