"""Deposits into lanes: signed once, durable before they leave, drawn by the server."""

from __future__ import annotations

import secrets
import time

from agentkit.errors import InsufficientFunds, ProtocolBroken
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.channel_messages import ChannelConfig
from agentkit.keys.messages import ReceiveAuthorization
from agentkit.keys.signer import Signer
from agentkit.market.attempt import Attempt
from agentkit.market.batch_settlement import (
    ERC3009_COLLECTOR,
    MAX_DELAY,
    MIN_DELAY,
    Config,
    DepositFields,
    DepositPayload,
    Drawing,
    Erc3009,
    SignedVoucher,
    VoucherPayload,
)
from agentkit.market.chain import ChainClient, Network
from agentkit.market.offer import Offer
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments.balance import check_unpromised, token_balance
from agentkit.payments.budget import Exposure
from agentkit.payments.channels import contract
from agentkit.payments.channels.lane_networks import lanes_on
from agentkit.payments.x402.proof import is_used

DEPOSIT_LASTS = 900
"""Seconds within which a deposit has to be drawn."""


class LaneDeposits:
    """Fills the lanes of one wallet."""

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        *,
        exposure: Exposure,
    ) -> None:
        """Sign deposits with `signer`, within `exposure`."""
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network = network
        self._exposure = exposure

    async def put(self, offer: Offer, need: Money, attempt: Attempt) -> None:
        """Sign a deposit into a free lane with an offer's payee, if none holds enough.

        Enough for `need`, within the run's hold, and at least for the attempt.  Raises
        InsufficientFunds, OverBudget.
        """
        balance = await token_balance(self._chain, self._network, self._signer.address)

        def sign(tx: Transaction) -> None:
            lane = self._lane_to_fill(tx, offer)
            missing = attempt.at_most.units - lane.spendable
            if missing <= 0:
                return
            if lane.deposit:
                raise InsufficientFunds("a deposit into the channel is still under way")
            units = self._wanted(tx, offer, attempt, need=need, missing=missing)
            check_unpromised(tx, self._network, balance, units)
            self._sign(tx, lane, units)

        await self._journal.commit(sign)

    async def reconcile(self) -> None:
        """Write down which deposits the chain shows as drawn, or as never to be drawn.

        One has expired once a final block is past its time; until then it may still be drawn.
        """
        lanes = await self._journal.commit(lambda tx: lanes_on(tx, self._network))
        waiting = [lane for lane in lanes if lane.deposit]
        if not waiting:
            return
        depth = max(self._network.finality, 1)
        final_block = max(0, await self._chain.head() - depth + 1)
        # Read before the authorizations, so that a use between the two reads is seen as a use.
        final_time = await self._chain.time(final_block)
        for lane in waiting:
            nonce = contract.erc3009_nonce(bytes.fromhex(lane.channel), int(lane.salt, 16))
            used = await is_used(self._chain, self._network, self._signer.address, nonce)
            if used or final_time >= lane.valid_before:
                await self._end(lane, drawn=used)

    # -- inside ----------------------------------------------------------------------------------

    def _lane_to_fill(self, tx: Transaction, offer: Offer) -> r.Lane:
        """Return a free lane of an offer's payee, a new one if all others are busy."""
        known = lanes_on(tx, self._network, offer.payee)
        lanes = [lane for lane in known if lane.open and not lane.closing]
        free = sorted(
            (lane for lane in lanes if lane.is_free), key=lambda lane: (-lane.spendable, lane.lane)
        )
        if free:
            return free[0]
        if len(lanes) >= max(offer.lanes, 1):
            raise InsufficientFunds(f"all channels with {offer.label} are busy")
        taken = [lane.lane for lane in known]
        return self._open(tx, offer, number=max(taken, default=-1) + 1)

    def _open(self, tx: Transaction, offer: Offer, *, number: int) -> r.Lane:
        """Write a new lane down.

        Its salt follows from the key, the journal, the payee and the number: two machines with one
        key do not share a channel.  Raises ProtocolBroken for terms that the contract refuses.
        """
        terms = offer.channel
        delay, authorizer = terms.get("withdrawDelay"), str(terms.get("receiverAuthorizer", ""))
        if not isinstance(delay, int) or not MIN_DELAY <= delay <= MAX_DELAY:
            raise ProtocolBroken("the withdraw delay that it asks for is not one of the contract")
        info = f"x402 lane {tx.instance} {self._network.id} {offer.payee} {number}"
        config = ChannelConfig(
            payer=self._signer.address,
            payer_authorizer=self._signer.address,
            receiver=offer.payee,
            receiver_authorizer=authorizer,
            token=self._network.token,
            withdraw_delay=delay,
            salt=self._signer.derive(info),
        )
        channel = config.id(self._network.settlement_domain).hex()
        opened = e.LaneOpened(
            channel=channel,
            provider=offer.provider,
            provider_node=offer.provider_node,
            payee=offer.payee,
            lane=number,
            config=Config.of(config).document(),
        )
        tx.append(e.WALLET, opened)
        lane = tx.get(r.Lane, channel)
        if lane is None:
            raise ProtocolBroken("the channel was not written")
        return lane

    def _wanted(
        self, tx: Transaction, offer: Offer, attempt: Attempt, *, need: Money, missing: int
    ) -> int:
        """Return how much to deposit: one deposit for many requests, within hold and exposure.

        `missing` is what the attempt itself lacks; the server names what it would like as well.
        """
        hold = tx.get(r.Hold, attempt.run)
        unreserved = hold.left.units - hold.reserved.units if hold else 0
        usual = int(str(offer.channel.get("minDeposit", "0")))
        share = need.units // max(offer.lanes, 1)
        wanted = max(missing, min(max(usual, share), max(unreserved, missing)))
        return self._exposure.within(tx, offer.payee, wanted, least=missing)

    def _sign(self, tx: Transaction, lane: r.Lane, units: int) -> None:
        """Sign a deposit and write it down, before it leaves; it can land once."""
        # A count would not do: after a restore the same number may have been signed before.
        salt = secrets.randbits(256)
        authorization = ReceiveAuthorization(
            payer=self._signer.address,
            payee=ERC3009_COLLECTOR,
            units=units,
            valid_before=int(time.time()) + DEPOSIT_LASTS,
            nonce=contract.erc3009_nonce(bytes.fromhex(lane.channel), salt),
        )
        signature = self._signer.sign_authorization(self._network.token_domain, authorization)
        signed = e.DepositSigned(
            channel=lane.channel,
            amount=Money(units, self._network.currency),
            salt=f"0x{salt:064x}",
            valid_before=authorization.valid_before,
            signature="0x" + signature.hex(),
        )
        tx.append(e.WALLET, signed)

    async def _end(self, lane: r.Lane, *, drawn: bool) -> None:
        """Write down what became of a deposit, and what is in the channel now."""
        amount = Money(lane.deposit, self._network.currency)
        on_chain = await contract.channel_on(self._chain, bytes.fromhex(lane.channel))
        ended = e.DepositEnded(
            channel=lane.channel, amount=amount, drawn=drawn, balance=on_chain.balance
        )

        def write(tx: Transaction) -> None:
            stored = tx.get(r.Lane, lane.channel)
            if stored and stored.salt == lane.salt:  # nobody else has written it meanwhile
                tx.append(e.WALLET, ended)

        await self._journal.commit(write)


def payload_of(lane: r.Lane) -> VoucherPayload | DepositPayload:
    """Return a lane's newest voucher as it is sent, with the deposit that the server lacks.

    One that answered a request which came with it has the deposit, or it worked for nothing.
    """
    config = Config.model_validate(lane.config)
    voucher = SignedVoucher(
        channel_id="0x" + lane.channel,
        max_claimable_amount=str(lane.promised),
        signature=lane.signature,
    )
    if not lane.deposit or lane.taken:
        return VoucherPayload(channel_config=config, voucher=voucher)
    drawing = Erc3009(
        valid_after="0",
        valid_before=str(lane.valid_before),
        salt=lane.salt,
        signature=lane.authorization,
    )
    deposit = DepositFields(
        amount=str(lane.deposit), authorization=Drawing(erc3009_authorization=drawing)
    )
    return DepositPayload(channel_config=config, voucher=voucher, deposit=deposit)
