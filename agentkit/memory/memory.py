"""What the agent remembers: what it knows, in its journal, and the journal sealed on Arweave.

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
from agentkit.memory.backup_status import BackupStatus, look
from agentkit.memory.knowledge.knowledge import Knowledge
from agentkit.memory.restore.forks import check_alone
from agentkit.memory.sealing.backlog import is_due, seal_all
from agentkit.memory.sealing.sealer import Sealer
from agentkit.memory.sealing.shred import told
from agentkit.memory.uploads.confirmation import Confirmer, Waits
from agentkit.memory.uploads.outbox import Outbox
from agentkit.memory.uploads.upload_paths import Direct, UploadPath
from agentkit.memory.uploads.uploader import Uploader

log = logging.getLogger("agentkit")

ALONE_SECONDS = 10.0
"""How long gateways are asked whether another machine goes on with the same state."""


@dataclass(frozen=True, slots=True)
class MemoryPace:
    """Seconds between looks at what is due and at what was accepted, and for the last upload."""

    look: float = 5.0
    confirm: float = 60.0
    close: float = 20.0


class Memory(Knowledge):
    """The agent's memory over its journal; without gateways it is local only.

    `path` is the way to Arweave, by default items posted to the gateways themselves.  With `test`
    money several state files may begin with one key, each from nothing.  `anchoring` keeps a hash
    over what is sealed on a chain.
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
        self._signer, self._gateways = signer, gateways
        self._pace = pace or MemoryPace()
        self._watch: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._closing = self._sealed = False
        self._told = ""
        self._confirmed = time.monotonic()
        self._was_alone = self._shared = False
        self._test = test
        self._anchoring = anchoring
        self._forked: StateForked | None = None
        self._uploader: Uploader | None = None
        if gateways is not None:
            outbox = Outbox(journal)
            self._path = path or Direct(outbox, gateways)
            self._uploader = Uploader(journal, outbox, self._path)
            self._confirmer = Confirmer(outbox, self._path, gateways, patience or Waits())

    @property
    def sealed_with(self) -> str:
        """What opens that which is sealed from now on, in words."""
        return told(self._signer)

    @property
    def address(self) -> str:
        """What gateways index this wallet's items under."""
        return name_of(self._signer.public_key)

    def wake(self) -> None:
        """Have everything sealed soon: something came to an end."""
        self._woken.set()

    def start(self) -> None:
        """Seal in the background whenever enough has gathered, or enough time has passed."""
        if self._uploader is not None:
            self._watch = asyncio.create_task(self._seal_regularly())

    async def close(self) -> None:
        """Seal and upload, as far as gateways let us, and stop.

        Where uploads are gathered, a process that only looked leaves them to those that write.
        """
        self._closing = True
        self.wake()
        if self._watch:
            await self._watch
        if self._uploader is None or self._gateways is None:
            return
        try:
            async with asyncio.timeout(self._pace.close):
                if self._journal.wrote:
                    await self._seal(anchor=True)
                if self._sealed:
                    await self._send()
        except (StateError, TimeoutError):  # why is on disk, for `agentkit status`
            log.warning("%s", (await self.standing()).sentences()[0])
        await self._path.close()
        await self._gateways.close()

    # -- the sealed log --------------------------------------------------------------------------

    async def checkpoint(self, *, stable: bool = False) -> BackupStatus:
        """Seal everything now and have it taken; with `stable`, wait until it is there for good.

        Raises StoreUnavailable when nobody takes it, the signed bytes stay in the outbox; or when
        its head cannot be anchored.
        """
        if self._uploader is None:
            return await self.standing()
        await self._seal()
        await self._send()
        while stable and (await self.confirm()).pending:
            await asyncio.sleep(self._pace.look)
            await self._send()
        return await self.standing()

    async def fee(self) -> Fee | None:
        """Return what uploads cost, None when there are none."""
        return await self._path.fee() if self._uploader is not None else None

    async def check_alone(self) -> None:
        """Before the first purchase of this life: nobody else goes on with this wallet's state.

        Raises StateForked.  Where no gateway answers nobody can tell, and that is only logged; a
        head anchor is moved on first, and StoreUnavailable raised where it cannot be.
        """
        if self._gateways is not None and not (self._was_alone and self._forked is None):
            await self._alone(self._gateways)
            if not self._was_alone:
                log.warning("no gateway can tell whether another machine uses this wallet")
        if self._anchoring is not None and not self._anchoring.held:
            await self._hold(self._anchoring)

    async def find_others(self) -> bool:
        """Look whether another machine goes on with this wallet's state; writes nothing.

        Returns whether a gateway could tell.  Raises StateForked.
        """
        if self._gateways is None:
            return False
        await self._alone(self._gateways)
        if self._anchoring is not None:
            await self._anchoring.check()
        return self._was_alone

    async def _hold(self, anchoring: Anchoring) -> None:
        async with anchoring.turn:
            if not anchoring.held:
                await self._send()  # what an earlier process left, the head that it chose too
                await self._seal(anchor=True, anyway=True)
                await self._send()

    async def _alone(self, gateways: Gateways) -> None:
        """Raise StateForked once another machine was found, and from then on."""
        if self._shared:
            return
        if self._forked is None:
            try:
                async with asyncio.timeout(ALONE_SECONDS):
                    await check_alone(self._signer, gateways, self._journal)
                self._was_alone = True
            except StateForked as forked:
                if self._test and not forked.after:
                    log.warning("%s; test money only, so both go on", forked)
                    self._was_alone = self._shared = True
                    return
                log.error("%s; %s", forked, forked.hint)  # noqa: TRY400  # no traceback for people
                self._forked = forked
            except (StoreUnavailable, TimeoutError):
                return  # whether it can be posted shows when it is
        if self._forked:
            raise self._forked

    async def standing(self) -> BackupStatus:
        """Return how much of the journal is on Arweave."""
        return await self._journal.commit(look)

    async def confirm(self) -> BackupStatus:
        """Ask how deep the segments lie, and note it; raises StateError."""
        if self._uploader is not None:
            await self._confirmer.look()
        return await self.standing()

    # -- inside ----------------------------------------------------------------------------------

    async def _seal(self, *, anchor: bool = False, anyway: bool = False) -> None:
        """Seal everything; with `anchor`, and when it is time, a head over all of it too."""
        known = self._anchoring
        if known is not None:
            await known.prepare()

        def work(tx: JournalTransaction) -> int:
            if known is not None:
                known.choose(tx, now=anchor, anyway=anyway)
            return seal_all(tx, self._signer)

        if await self._journal.commit(work):
            if not self._sealed:
                log.info(self.sealed_with)
            self._sealed = True

    async def _seal_regularly(self) -> None:
        """Seal, send, anchor and confirm whenever one of them is due, until the memory closes."""
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.look):
                    await self._woken.wait()
            if self._closing:
                return
            for step in (
                *(self._seal_if_due, self._send_if_due),
                *(self._anchor_if_due, self._confirm_if_due),
            ):
                try:
                    await step()
                except StateError:  # told by the uploader; the next look tries again
                    continue
                except AgentKitError as error:  # of the signer, most likely
                    self._tell(error)

    def _tell(self, wrong: AgentKitError) -> None:
        """Log what keeps the journal from being sealed, once."""
        if str(wrong) != self._told:
            self._told = str(wrong)
            log.warning("the journal cannot be sealed: %s", wrong)

    async def _seal_if_due(self) -> None:
        if not self._journal.wrote:
            return
        if self._woken.is_set() or await self._journal.commit(is_due):
            self._woken.clear()
            await self._seal()

    async def _send(self) -> None:
        """Hand everything over, if nobody else went on with this wallet's state meanwhile."""
        if self._uploader is not None and self._gateways is not None:
            await self._alone(self._gateways)
            if self._anchoring is not None:
                await self._anchoring.check()
            await self._uploader.send()
            if self._anchoring is not None:
                await self._anchoring.finish()

    async def _send_if_due(self) -> None:
        if self._uploader is not None and await self._uploader.is_due():
            await self._send()

    async def _anchor_if_due(self) -> None:
        if self._anchoring is not None and await self._anchoring.is_due():
            await self._seal(anchor=True)
            await self._send()

    async def _confirm_if_due(self) -> None:
        if time.monotonic() - self._confirmed > self._pace.confirm:
            self._confirmed = time.monotonic()
            await self._confirmer.look()
