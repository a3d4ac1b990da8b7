"""Claims what a seller charged over channels, before a payer could take it back.

A voucher that is not claimed reserves nothing on the chain: once a payer's withdrawal ends, its
money is gone.  So withdrawals are watched, and claimed first.  A claim moves nothing yet; one
settlement moves all that was claimed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from agentkit.errors import ProtocolBroken, ProviderError, StateError
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.channel_messages import ClaimBatch
from agentkit.keys.signer import Signer
from agentkit.market.batch_settlement import (
    MAX_ROWS,
    ClaimPayload,
    Config,
    FacilitatorOrder,
    SettlePayload,
)
from agentkit.market.chain import SETTLEMENT, ChainClient, Network
from agentkit.payments.channels import contract
from agentkit.payments.channels.mirror import ChannelMirror
from agentkit.payments.channels.refunds import Refunds, claim_of, requirement_of
from agentkit.payments.x402.remote import Facilitation

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClaimPolicy:
    """When a channel is claimed: at `units` unclaimed, or `seconds` after its last charge.

    Nothing is claimed below `least` units, unless a withdrawal runs: it would not be worth the gas.
    `rows` is how many claims go into one call.
    """

    units: int = 1_000_000
    seconds: float = 3600.0
    least: int = 1
    rows: int = MAX_ROWS

    def is_due(self, channel: r.SoldChannel, now: float) -> bool:
        """Return whether a channel has to be claimed now."""
        if not channel.unclaimed:
            return False
        if channel.withdrawing:
            return True
        is_old = now - channel.used >= self.seconds
        return channel.unclaimed >= self.units or (is_old and channel.unclaimed >= self.least)


@dataclass(frozen=True, slots=True)
class Earnings:
    """What a seller earned over channels, in base units.

    `at_risk` is charged and not claimed on channels whose payers withdraw; the first of these
    withdrawals can end at `until`, in unix seconds.
    """

    charged: int = 0
    claimed: int = 0
    at_risk: int = 0
    until: int = 0

    @classmethod
    def of(cls, channels: Sequence[r.SoldChannel]) -> Earnings:
        """Return the sums over a seller's channels."""
        risky = [channel for channel in channels if channel.withdrawing and channel.unclaimed]
        return cls(
            charged=sum(channel.charged for channel in channels),
            claimed=sum(channel.total_claimed for channel in channels),
            at_risk=sum(channel.unclaimed for channel in risky),
            until=min((_end_of_withdrawal(channel) for channel in risky), default=0),
        )


class Claiming:
    """Claims on a seller's channels, and has what was claimed paid out to `payee`."""

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        network: Network,
        facilitator: Facilitation,
        signer: Signer,
        *,
        payee: str,
        delay: int,
        policy: ClaimPolicy,
        mirror: ChannelMirror,
    ) -> None:
        """Sign claims with `signer`; `delay` is the withdraw delay of its channels, in seconds.

        `mirror` is the one with which the same channels are sold.
        """
        self._journal = journal
        self._chain = chain
        self._network = network
        self._facilitator = facilitator
        self._signer = signer
        self._mirror = mirror
        self._refunds = Refunds(journal, network, facilitator, signer)
        self._required = requirement_of(network, payee, signer.address, delay)
        self._payee = payee
        self._policy = policy
        self._seen_block: int | None = None

    async def watch(self) -> None:
        """Do what is due: see withdrawals, claim, finish refunds, and have the claims paid out."""
        if not await self.channels():
            return
        await self._see_withdrawals()
        now = time.time()
        await self._claim([c for c in await self.channels() if self._policy.is_due(c, now)])
        await self._finish_refunds()
        await self._settle()

    async def claim_all(self) -> None:
        """Claim whatever is charged, and have it paid out, as before a seller goes away."""
        if not await self.channels():
            return
        await self._see_withdrawals()
        await self._claim([channel for channel in await self.channels() if channel.unclaimed])
        await self._settle()

    async def channels(self) -> list[r.SoldChannel]:
        """Return every channel that this seller was ever paid on."""
        return await self._journal.commit(lambda tx: tx.every(r.SoldChannel))

    # -- inside ----------------------------------------------------------------------------------

    async def _see_withdrawals(self) -> None:
        """Read the channels again whose payers have begun to withdraw since the last look.

        The first look reads all with something to claim: withdrawals may have begun while this
        process was not there.
        """
        head = await self._chain.head()
        sold = {channel.channel: channel for channel in await self.channels()}
        if self._seen_block is None:
            changed = {name for name, channel in sold.items() if channel.unclaimed}
        else:
            logs = await self._chain.logs(
                SETTLEMENT, [contract.WITHDRAW_INITIATED], self._seen_block + 1, head
            )
            changed = {log.topics[1].hex() for log in logs if len(log.topics) > 1} & set(sold)
        all_read = True
        for name in changed:
            all_read = await self._read(sold[name]) and all_read
        if all_read:  # else the next look begins at the same block, and reads them
            self._seen_block = head

    async def _finish_refunds(self) -> None:
        """Order refunds again that were signed and that the chain does not show yet.

        Where nothing is left, its payer has taken it alone.
        """
        for channel in await self.channels():
            if not channel.refunding or channel.balance <= channel.charged:
                continue
            try:
                await self._refunds.send(channel)
            except (StateError, ProviderError) as error:  # one must not keep all others waiting
                log.warning("a refund of channel %s: %s", channel.channel[:12], error)
            await self._read(channel)

    async def _claim(self, channels: Sequence[r.SoldChannel]) -> None:
        """Claim on channels, so many in one call as the policy allows."""
        # The first withdrawal that can end is claimed first.
        in_order = sorted(channels, key=lambda c: (_end_of_withdrawal(c) or 2**63, c.channel))
        if not in_order:
            return
        rows = min(self._policy.rows, await self._facilitator.most_claims())
        for at in range(0, len(in_order), rows):
            await self._claim_batch(in_order[at : at + rows])

    async def _claim_batch(self, channels: Sequence[r.SoldChannel]) -> None:
        """Claim on channels in one call; if it fails, in two halves, so that one bad row is alone.

        A facilitator may also refuse a call that is too large for it.
        """
        claims = [claim_of(channel) for channel in channels]
        signature = self._signer.sign_claims(
            self._network.settlement_domain, ClaimBatch.of(claim.row for claim in claims)
        )
        payload = ClaimPayload(
            claims=[claim.wire() for claim in claims],
            claim_authorizer_signature="0x" + signature.hex(),
        )
        problem = await self._problem_with(payload)
        if not problem:
            for channel in channels:
                await self._read(channel)
        elif len(channels) > 1:
            half = len(channels) // 2
            await self._claim_batch(channels[:half])
            await self._claim_batch(channels[half:])
        else:
            log.warning("channel %s cannot be claimed: %s", channels[0].channel[:12], problem)
            await self._read(channels[0])

    async def _problem_with(self, payload: ClaimPayload) -> str:
        """Order a claim, and return why the facilitator does not carry it out, "" if it does."""
        order = FacilitatorOrder.of(self._required, payload)
        try:
            settled = await self._facilitator.settle(order, self._required)
        except ProtocolBroken as error:  # such as that the request is too large
            return str(error)
        return "" if settled.success else settled.error_reason or "no reason"

    async def _settle(self) -> None:
        """Have all that was claimed paid out, if it is worth the gas."""
        claimed, settled = await contract.unsettled_on(
            self._chain, self._payee, self._network.token
        )
        if claimed - settled < max(1, self._policy.least):
            return
        payload = SettlePayload(receiver=self._payee, token=self._network.token)
        done = await self._facilitator.settle(
            FacilitatorOrder.of(self._required, payload), self._required
        )
        if not done.success:
            log.warning("what was claimed is not paid out: %s", done.error_reason)

    async def _read(self, channel: r.SoldChannel) -> bool:
        """Mirror a channel, and return whether the chain could be asked."""
        config = Config.model_validate(channel.config)
        try:
            await self._mirror.read(bytes.fromhex(channel.channel), config)
        except (StateError, ProviderError) as error:
            log.warning("channel %s: %s", channel.channel[:12], error)
            return False
        return True


def _end_of_withdrawal(channel: r.SoldChannel) -> int:
    """Return when a payer may take its money back, in unix seconds; 0 without a withdrawal."""
    if not channel.withdrawing:
        return 0
    return channel.withdraw_requested_at + int(channel.config["withdrawDelay"])
