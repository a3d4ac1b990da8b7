"""Journals in folders of their own, for tools that are used without an agent."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from agentkit.errors import ConfigError, WrongKey
from agentkit.journal.journal import Journal

OWNER = "effects"
"""Stands where the state file of an agent has its wallet."""


class EffectJournals:
    """The open journals of this process, by folder; each is opened at its first use."""

    def __init__(self) -> None:
        self._journals: dict[Path, Journal] = {}

    async def open(self, home: Path) -> Journal:
        """Return the journal in a folder; raises ConfigError if the folder is an agent's."""
        folder = await asyncio.to_thread(home.resolve)
        if folder in self._journals:
            return self._journals[folder]
        try:
            opened = await Journal.open(folder, OWNER)
        except WrongKey as error:
            raise ConfigError(
                f"the state file in {folder} is an agent's",
                hint="pass agent= to keep effects in an agent's journal, or another folder",
            ) from error
        journal = self._journals.setdefault(folder, opened)
        if journal is not opened:  # another thread opened it meanwhile
            await opened.close()
        return journal

    async def close(self) -> None:
        """Close all of them; what was committed is durable without it."""
        while self._journals:
            _, journal = self._journals.popitem()
            await journal.close()

    def forget(self) -> None:
        """Forget the journals of a parent process, whose writer threads a child has not."""
        self._journals = {}


JOURNALS = EffectJournals()
os.register_at_fork(after_in_child=JOURNALS.forget)
