"""The payer's rail by x402 `batch-settlement`: requests are charged to channels with their servers.

A server serves one request of a channel at a time, so each concurrent attempt has a lane: a channel
of its own.  The voucher of an attempt promises what is charged so far and the attempt's at most,
and is in the journal before it can leave.  So whatever process dies, an attempt is paid by the same
voucher, and after a lost answer the server is asked, with a voucher over nothing, what it charged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentkit.errors import (
    InsufficientFunds,
    NotAllowed,
    ProtocolBroken,
    SettlementFailed,
)
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.journal.subjects.channel_payments import RAIL
from agentkit.keys.channel_messages import ChannelVoucher
from agentkit.keys.signer import Signer
from agentkit.market.attempt import Attempt, Message, Payment, Result
from agentkit.market.batch_settlement import (
    Config,
    RefundPayload,
    SignedVoucher,
    VoucherPayload,
)
from agentkit.market.chain import ChainClient, Network
from agentkit.market.offer import Offer, Pays
from agentkit.market.plan import Fee
from agentkit.market.rail_names import chain_of
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Fate, Transaction, Wanted
from agentkit.money import Money
from agentkit.payments.balance import own_amount
from agentkit.payments.budget import Exposure
from agentkit.payments.channels import contract
from agentkit.payments.channels.lane_deposits import LaneDeposits, payload_of
from agentkit.payments.channels.lane_ends import LaneEnds
from agentkit.payments.channels.lane_networks import is_on, lanes_on
from agentkit.payments.channels.lane_states import stated_by
from agentkit.payments.channels.terms import waiting_until
from agentkit.payments.sender import Sender


class LaneRail:
    """Pays with the request, out of channels; see `market.seams.Rail` and `AskableRail`."""

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        sender: Sender,
        *,
        exposure: Exposure | None = None,
        name: str = RAIL,
    ) -> None:
        """Make the rail of one wallet on `network`; without `exposure` deposits have no limit."""
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network = network
        self._domain = network.settlement_domain
        self._deposits = LaneDeposits(
            journal, chain, signer, network, exposure=exposure or Exposure()
        )
        self._name = name
        self._ends = LaneEnds(journal, chain, network, sender)

    @property
    def name(self) -> str:
        return self._name

    @property
    def pays(self) -> Pays:
        return "with_request"

    async def quote(self, offers: Sequence[Offer], amounts: Sequence[Money]) -> Sequence[Fee]:
        """Return no fee: the server's facilitator pays for the gas of deposits."""
        return []

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        """Sign a deposit where no lane has enough; it leaves with the request.

        A lane in doubt is asked for first: then its state is the message that is returned.
        """
        await self._deposits.reconcile()
        lanes = await self._journal.commit(lambda tx: self._lanes_with(tx, offer.payee))
        doubtful = [lane for lane in lanes if lane.doubtful and not lane.attempt]
        if doubtful and not any(lane.is_free for lane in lanes):
            return [self._question(lane) for lane in doubtful]
        await self._deposits.put(offer, need, wanted.attempt)
        return []

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        """Return the attempt's payment, the same each time; `again` says it may have left before.

        Raises InsufficientFunds when no lane is free and filled, NotAllowed to pay oneself.
        """
        if attempt.payee.lower() == self._signer.address.lower():
            raise NotAllowed("a payment to this wallet itself buys nothing")
        lane = lane_of(tx, attempt)
        if lane is not None:
            return self._payment(lane, again=True)
        free = (
            lane
            for lane in self._lanes_with(tx, attempt.payee)
            if lane.is_free and lane.spendable >= attempt.at_most.units
        )
        lane = next(free, None)
        if lane is None:
            raise InsufficientFunds(f"no channel with {attempt.payee} is free and holds enough")
        return self._payment(self._promise(tx, lane, attempt), again=False)

    def settle(
        self, tx: Transaction, attempt: Attempt, result: Result
    ) -> tuple[Receipt, Sequence[Message]]:
        """Book what the server charged for a verified result; raises SettlementFailed."""
        lane = lane_of(tx, attempt)
        if lane is None:
            raise SettlementFailed(f"nothing was promised for attempt {attempt.id[:12]}")
        if result.price > attempt.at_most:
            raise SettlementFailed(f"{result.price} is above the at most of {attempt.at_most}")
        charged = e.LaneCharged(
            channel=lane.channel, attempt=attempt.id, charge=self._own(result.price)
        )
        tx.append(e.WALLET, charged)
        return Receipt.of(attempt, result, at=tx.now), []

    def release(self, tx: Transaction, attempt: Attempt, *, uncertain: bool) -> bool:
        """Free the attempt's lane; returns False, as what was promised lies in the channel.

        Where nobody knows whether it was charged, the server is asked before the lane is used.
        """
        lane = lane_of(tx, attempt)
        if lane is None:
            return False
        charge = self.charged(tx, attempt) if uncertain else None
        if charge is not None:
            event: e.LaneCharged | e.LaneFreed = e.LaneCharged(
                channel=lane.channel, attempt=attempt.id, charge=self._own(charge)
            )
        else:
            event = e.LaneFreed(channel=lane.channel, attempt=attempt.id, doubtful=uncertain)
        tx.append(e.WALLET, event)
        return False

    # -- what became of an attempt ---------------------------------------------------------------

    async def questions(self, attempt: Attempt) -> Sequence[Message]:
        """Return the message that asks the server what it charged on an attempt's lane."""
        lane = await self._journal.commit(lambda tx: lane_of(tx, attempt))
        return [self._question(lane)] if lane else []

    async def lookup(self, attempt: Attempt) -> Fate:
        """Return whether an attempt was charged, by what the server stated last.

        What became of deposits is read from the chain first.
        """
        await self._deposits.reconcile()
        lane = await self._journal.commit(lambda tx: lane_of(tx, attempt))
        if lane is None:
            return "unpaid"
        if lane.stated < 0:
            return "open"
        return "paid" if lane.stated > lane.charged else "unpaid"

    def charged(self, tx: Transaction, attempt: Attempt) -> Money | None:
        """Return what the server says it charged for an attempt, None where it was not asked.

        Never more than the attempt could cost.
        """
        lane = lane_of(tx, attempt)
        if lane is None or lane.stated < 0:
            return None
        charge = min(max(0, lane.stated - lane.charged), attempt.at_most.units)
        return Money(charge, attempt.at_most.asset)

    async def finish(self, answer: Message) -> None:
        """Take a server's answer to a question or a refund; both are checked."""
        match answer.verb:
            case "state":
                await self._take_state(answer)
            case "refunded":
                await self._ends.book_end(str(answer.body.get("channel", "")))

    # -- money that is left ----------------------------------------------------------------------

    async def balance(self) -> dict[str, Money]:
        """Return what is not charged yet on each open lane."""
        await self._deposits.reconcile()
        lanes = await self._journal.commit(lambda tx: lanes_on(tx, self._network))
        currency = self._network.currency
        return {
            self._label(lane): Money(max(0, lane.spendable), currency)
            for lane in lanes
            if lane.open
        }

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        """Return the messages that ask for what lanes idle for `idle` seconds have left.

        Raises SettlementFailed when an attempt is still open on one of them.
        """
        return await self._close_lanes(lambda lane, now: now - lane.used >= idle)

    async def leave(self, payee: str) -> Sequence[Message]:
        """Return the messages that ask one payee for what our lanes with it have left.

        Raises SettlementFailed when an attempt is still open on one of them.
        """
        return await self._close_lanes(lambda lane, _: lane.payee == payee)

    async def insist(self, message: Message) -> str:
        """Take the rest of a lane back through the contract alone, step by step."""
        return await self._ends.withdraw(str(message.body["channel"]))

    # -- inside ----------------------------------------------------------------------------------

    async def _close_lanes(self, wanted: Callable[[r.Lane, float], bool]) -> Sequence[Message]:
        """Stop buying over the open lanes that are wanted at this time, and ask for their rest."""
        await self._deposits.reconcile()

        def stop_buying(tx: Transaction) -> list[Message]:
            chosen = [
                lane for lane in lanes_on(tx, self._network) if lane.open and wanted(lane, tx.now)
            ]
            return [self._ask_back(tx, lane) for lane in chosen]

        return await self._journal.commit(stop_buying)

    def _promise(self, tx: Transaction, lane: r.Lane, attempt: Attempt) -> r.Lane:
        """Sign the voucher of an attempt, and write it down before it can leave."""
        ceiling = lane.charged + attempt.at_most.units
        promised = e.LanePromised(
            channel=lane.channel,
            attempt=attempt.id,
            at_most=self._own(attempt.at_most),
            ceiling=ceiling,
            signature=self._signature(lane, ceiling),
        )
        tx.append(e.WALLET, promised)
        return tx.get(r.Lane, lane.channel) or lane

    def _payment(self, lane: r.Lane, *, again: bool) -> Payment:
        body = {"payload": payload_of(lane).document(), "again": again}
        return Payment(rail=self.name, body=body)

    def _signature(self, lane: r.Lane, ceiling: int) -> str:
        voucher = ChannelVoucher(bytes.fromhex(lane.channel), ceiling)
        return "0x" + self._signer.sign_channel_voucher(self._domain, voucher).hex()

    def _question(self, lane: r.Lane) -> Message:
        """Return the message that asks what a lane is charged: a voucher over nothing.

        It is signed, because a seller shows a channel's state to nobody but its payer.
        """
        payload = VoucherPayload(
            channel_config=Config.model_validate(lane.config),
            voucher=SignedVoucher(
                channel_id="0x" + lane.channel,
                max_claimable_amount="0",
                signature=self._signature(lane, 0),
            ),
        )
        return self._message(lane, "state", payload.document())

    def _ask_back(self, tx: Transaction, lane: r.Lane) -> Message:
        """Stop buying over a lane, and return the message that asks for what it has left."""
        if lane.attempt:
            raise SettlementFailed(
                f"a channel with {lane.label} still has an open attempt",
                hint="resume or cancel the runs that `agentkit status` lists first",
            )
        if not lane.closing:
            left = Money(max(0, lane.spendable), self._network.currency)
            tx.append(e.WALLET, e.LaneClosing(channel=lane.channel, amount=left))
        payload = RefundPayload(
            channel_config=Config.model_validate(lane.config),
            voucher=SignedVoucher(
                channel_id="0x" + lane.channel,
                max_claimable_amount=str(lane.charged),
                signature=self._signature(lane, lane.charged),
            ),
        )
        return self._message(lane, "refund", payload.document())

    def _message(self, lane: r.Lane, verb: str, payload: object) -> Message:
        return Message(
            rail=self.name,
            provider=lane.provider,
            provider_node=lane.provider_node,
            verb=verb,
            body={"channel": lane.channel, "attempt": lane.attempt, "payload": payload},
        )

    async def _take_state(self, answer: Message) -> None:
        """Book what a server says it charged; our own signature has to stand beside it.

        Raises ProtocolBroken for what cannot be, and for another server's channel.
        """
        channel = str(answer.body.get("channel", ""))
        lane = await self._journal.commit(lambda tx: tx.get(r.Lane, channel))
        sender = (answer.provider, answer.provider_node)
        is_own = lane is not None and is_on(lane, self._network)
        if lane is None or not is_own or (lane.provider, lane.provider_node) != sender:
            raise ProtocolBroken("it speaks of a channel that is not its own")
        on_chain = await contract.channel_on(self._chain, bytes.fromhex(channel))
        proved = stated_by(
            answer.body,
            bytes.fromhex(channel),
            on_chain,
            domain=self._domain,
            payer=self._signer.address,
        )
        stated = e.LaneStated(
            channel=channel,
            charged=proved.charged,
            signed=proved.signed,
            balance=on_chain.balance,
        )
        asked_about = answer.body.get("attempt")  # None by an adapter that does not say

        def write(tx: Transaction) -> None:
            stored = tx.get(r.Lane, channel)
            # Another process may have asked, too, and be using the lane by now: this is older.
            if stored and asked_about in (None, stored.attempt):
                tx.append(e.WALLET, stated)

        await self._journal.commit(write)

    def _lanes_with(self, tx: Transaction, payee: str) -> list[r.Lane]:
        """Return the lanes with a payee over which something may be bought, in their order."""
        lanes = lanes_on(tx, self._network, payee)
        return [lane for lane in lanes if lane.open and not lane.closing]

    def _own(self, amount: Money) -> Money:
        """Return an amount of the budget in this network's currency."""
        return own_amount(self.name, amount, self._network)

    def _label(self, lane: r.Lane) -> str:
        """Return how people tell a lane, with when its rest can be taken if that was asked for."""
        where = f" on {self._network.name}" if chain_of(self.name) else ""
        label = f"{lane.label}, lane {lane.lane}{where}"
        return f"{label}, {waiting_until(lane.until)}" if lane.until else label


def lane_of(tx: Transaction, attempt: Attempt) -> r.Lane | None:
    """Return the lane that an attempt occupies, None where it has none, or it is over."""
    row = tx.get(r.LaneOfAttempt, attempt.id)
    lane = tx.get(r.Lane, row.channel) if row else None
    return lane if lane and lane.attempt == attempt.id else None
