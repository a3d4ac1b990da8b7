"""The agent's memory: its knowledge in the journal, and the journal's backup on Arweave.

journal -> seal (signed bytes in the outbox) -> accepted by a gateway -> mined -> stable
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass

from agentkit.errors import AgentKitError, StateError, StateForked, StoreUnavailable
from agentkit.journal.journal import Journal
from agentkit.journal.transaction import JournalTransaction
from agentkit.market.plan import Fee
from agentkit.memory.anchoring import Anchoring
from agentkit.memory.arweave.base64url import name_of
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.backup_status import BackupStatus, read_backup_status
from agentkit.memory.knowledge.knowledge import Knowledge
from agentkit.memory.restore.forks import check_alone
from agentkit.memory.sealer import Sealer
from agentkit.memory.sealing.backlog import is_due, seal_all
from agentkit.memory.sealing.shred import describe_sealing
from agentkit.memory.uploads.confirmation import Confirmer, Waits
from agentkit.memory.uploads.outbox import Outbox
from agentkit.memory.uploads.upload_paths import Direct, UploadPath
from agentkit.memory.uploads.uploader import Uploader

log = logging.getLogger("agentkit")

ALONE_SECONDS = 10.0
"""How long gateways are asked whether another machine uses the same wallet."""


@dataclass(frozen=True, slots=True)
class MemoryPace:
    """How often the memory works in the background, in seconds.

    `look`: between two checks of what is due.  `confirm`: between two questions to gateways about
    earlier uploads.  `close`: how long `close` may take for the last upload.
    """

    look: float = 5.0
    confirm: float = 60.0
    close: float = 20.0


class Memory(Knowledge):
    """The agent's memory over its journal; without gateways it is local only.

    `path` is how items reach Arweave, by default one by one through the gateways themselves.
    `test` says that the wallet holds test money only: then two state files may be started from
    one key.  `anchoring` records a hash over all sealed steps on a chain.
    """

    def __init__(
        self,
        journal: Journal,
        signer: Sealer,
        gateways: Gateways | None,
        path: UploadPath | None = None,
        *,
        pace: MemoryPace | None = None,
        patience: Waits | None = None,
        test: bool = False,
        anchoring: Anchoring | None = None,
    ) -> None:
        super().__init__(journal)
        self._signer = signer
        self._gateways = gateways
        self._pace = pace or MemoryPace()
        self._test = test
        self._anchoring = anchoring

        self._background: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._closing = False
        self._has_sealed = False
        self._last_warning = ""
        self._last_confirmed = time.monotonic()

        self._fork_checked = False
        self._fork_allowed = False
        self._fork: StateForked | None = None

        self._uploader: Uploader | None = None
        if gateways is not None:
            outbox = Outbox(journal)
            self._path = path or Direct(outbox, gateways)
            self._uploader = Uploader(journal, outbox, self._path)
            self._confirmer = Confirmer(outbox, self._path, gateways, patience or Waits())

    @property
    def sealed_with(self) -> str:
        """Which keys open what is sealed from now on, in a sentence."""
        return describe_sealing(self._signer)

    @property
    def address(self) -> str:
        """The address under which gateways list this wallet's items."""
        return name_of(self._signer.public_key)

    def wake(self) -> None:
        """Seal soon, without waiting until enough has gathered: a run has ended."""
        self._woken.set()

    def start(self) -> None:
        """Start to seal and upload in the background, whenever that is due."""
        if self._uploader is not None:
            self._background = asyncio.create_task(self._work_in_background())

    async def close(self) -> None:
        """Stop the background work, seal what this process wrote, upload it, and disconnect.

        An upload that fails or takes too long is only logged: the signed bytes stay in the outbox
        and the next process sends them.  A process that sealed nothing uploads nothing.
        """
        self._closing = True
        self.wake()
        if self._background:
            await self._background
        if self._uploader is None or self._gateways is None:
            return

        try:
            async with asyncio.timeout(self._pace.close):
                if self._journal.wrote:
                    await self._seal(anchor=True)
                if self._has_sealed:
                    await self._send()
        except (StateError, TimeoutError):  # the reason is on disk, for `agentkit status`
            log.warning("%s", (await self.backup_status()).sentences()[0])
        await self._path.close()
        await self._gateways.close()

    # -- the sealed log --------------------------------------------------------------------------

    async def checkpoint(self, *, stable: bool = False) -> BackupStatus:
        """Seal and upload everything now; with `stable`, wait until no reorg can undo it.

        Raises StoreUnavailable when no gateway takes it, or when its head cannot be anchored.  The
        signed bytes then stay in the outbox and are sent later.
        """
        if self._uploader is None:
            return await self.backup_status()
        await self._seal()
        await self._send()
        while stable and (await self.confirm()).pending:
            await asyncio.sleep(self._pace.look)
            await self._send()
        return await self.backup_status()

    async def fee(self) -> Fee | None:
        """Return what uploads cost, None for a memory that is local only."""
        return await self._path.fee() if self._uploader is not None else None

    async def check_alone(self) -> None:
        """Check, before this process first pays, that no other machine uses the wallet's state.

        Raises StateForked if one does.  If no gateway answers, that is only logged: a purchase
        must not depend on gateways.  With anchoring, the anchor is advanced first, and
        StoreUnavailable is raised if that fails.
        """
        known_alone = self._fork_checked and self._fork is None
        if self._gateways is not None and not known_alone:
            await self._check_for_fork(self._gateways)
            if not self._fork_checked:
                log.warning("no gateway can tell whether another machine uses this wallet")
        if self._anchoring is not None and not self._anchoring.is_ours:
            await self._advance_anchor(self._anchoring)

    async def find_others(self) -> bool:
        """Check whether another machine uses the wallet's state, without writing anything.

        Returns whether a gateway could tell.  Raises StateForked.
        """
        if self._gateways is None:
            return False
        await self._check_for_fork(self._gateways)
        if self._anchoring is not None:
            await self._anchoring.check()
        return self._fork_checked

    async def backup_status(self) -> BackupStatus:
        """Return how much of the journal is on Arweave."""
        return await self._journal.commit(read_backup_status)

    async def confirm(self) -> BackupStatus:
        """Ask gateways how deep the uploaded segments lie, and record it; raises StateError."""
        if self._uploader is not None:
            await self._confirmer.look()
        return await self.backup_status()

    # -- forks -----------------------------------------------------------------------------------

    async def _advance_anchor(self, anchoring: Anchoring) -> None:
        """Move the anchor to a head of this process, so that a second machine finds it moved."""
        async with anchoring.lock:
            if anchoring.is_ours:
                return  # another task was first
            await self._send()  # what an earlier process left, the head that it chose included
            await self._seal(anchor=True, anyway=True)
            await self._send()

    async def _check_for_fork(self, gateways: Gateways) -> None:
        """Raise StateForked if another machine has continued this state, and ever after."""
        if self._fork_allowed:
            return
        if self._fork is None:
            await self._ask_for_fork(gateways)
        if self._fork is not None:
            raise self._fork

    async def _ask_for_fork(self, gateways: Gateways) -> None:
        """Ask gateways for segments of another machine, and remember what they say."""
        try:
            async with asyncio.timeout(ALONE_SECONDS):
                await check_alone(self._signer, gateways, self._journal)
        except StateForked as fork:
            # `after` is 0: both machines started from nothing with one key, as tests do.
            if self._test and not fork.after:
                log.warning("%s; test money only, so both go on", fork)
                self._fork_checked = True
                self._fork_allowed = True
                return
            log.error("%s; %s", fork, fork.hint)  # noqa: TRY400  # no traceback for people
            self._fork = fork
        except (StoreUnavailable, TimeoutError):
            return  # unknown; an upload that follows raises its own error
        else:
            self._fork_checked = True

    # -- inside ----------------------------------------------------------------------------------

    async def _seal(self, *, anchor: bool = False, anyway: bool = False) -> None:
        """Seal every event that is in no segment yet.

        With anchoring, a head over all streams is chosen too: when its interval has passed, or at
        once with `anchor`; with `anyway` even if nothing has happened since the last one.
        """
        anchoring = self._anchoring
        if anchoring is not None:
            await anchoring.prepare()

        def work(tx: JournalTransaction) -> int:
            # The head is an event itself, so it is chosen before everything is sealed.
            if anchoring is not None:
                anchoring.choose(tx, immediately=anchor, even_if_idle=anyway)
            return seal_all(tx, self._signer)

        segments = await self._journal.commit(work)
        if segments:
            if not self._has_sealed:
                log.info(self.sealed_with)
            self._has_sealed = True

    async def _send(self) -> None:
        """Upload the outbox, unless another machine has continued the wallet's state."""
        if self._uploader is None or self._gateways is None:
            return
        await self._check_for_fork(self._gateways)
        if self._anchoring is not None:
            await self._anchoring.check()

        await self._uploader.send()

        # Only now: an anchored head whose segments no gateway has could not be restored.
        if self._anchoring is not None:
            await self._anchoring.finish()

    async def _work_in_background(self) -> None:
        """Seal, send, anchor and confirm whenever one of them is due, until the memory closes."""
        steps = (
            self._seal_if_due,
            self._send_if_due,
            self._anchor_if_due,
            self._confirm_if_due,
        )
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.look):
                    await self._woken.wait()
            if self._closing:
                return
            for step in steps:
                try:
                    await step()
                except StateError:  # the uploader has logged it; the next round tries again
                    continue
                except AgentKitError as error:  # most likely the signer's
                    self._warn_once(error)

    def _warn_once(self, error: AgentKitError) -> None:
        """Log why the journal cannot be sealed, once for each reason."""
        if str(error) != self._last_warning:
            self._last_warning = str(error)
            log.warning("the journal cannot be sealed: %s", error)

    async def _seal_if_due(self) -> None:
        if not self._journal.wrote:
            return
        if self._woken.is_set() or await self._journal.commit(is_due):
            self._woken.clear()
            await self._seal()

    async def _send_if_due(self) -> None:
        if self._uploader is not None and await self._uploader.is_due():
            await self._send()

    async def _anchor_if_due(self) -> None:
        if self._anchoring is not None and await self._anchoring.is_due():
            await self._seal(anchor=True)
            await self._send()

    async def _confirm_if_due(self) -> None:
        if time.monotonic() - self._last_confirmed > self._pace.confirm:
            self._last_confirmed = time.monotonic()
            await self._confirmer.look()
