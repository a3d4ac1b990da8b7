"""Prepaid credit: topped up on chain before, debited by the provider after each task."""

from __future__ import annotations

from collections.abc import Sequence

from agentkit.errors import InsufficientFunds, SettlementFailed
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import address_word
from agentkit.keys.signer import Signer
from agentkit.market.attempt import Attempt, Message, Payment, Result
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.market.offer import Offer, Pays
from agentkit.market.plan import Fee
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Transaction, Wanted
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.budget import Exposure
from agentkit.payments.channels.terms import token_balance
from agentkit.payments.sender import Sender

TRANSFER_GAS = 60_000
"""What a token transfer costs at most, for the gas row of a plan."""


class PrepaidRail:
    """Pays out of credit that a provider keeps for this wallet; see `market.seams.Rail`.

    A top-up counts once the provider has acknowledged the transfer that it saw on the chain.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        sender: Sender,
        *,
        exposure: Exposure | None = None,
    ) -> None:
        self._journal, self._chain, self._signer = journal, chain, signer
        self._network, self._sender = network, sender
        self._exposure = exposure or Exposure()
        sender.on_final["topup"] = self._check_transfer

    @property
    def name(self) -> str:
        return "prepaid"

    @property
    def pays(self) -> Pays:
        return "with_request"

    async def quote(self, offers: Sequence[Offer], amounts: Sequence[Money]) -> Sequence[Fee]:
        needs: dict[str, int] = {}
        for offer, amount in zip(offers, amounts, strict=True):
            needs[offer.payee] = needs.get(offer.payee, 0) + amount.units
        accounts = await self._journal.commit(lambda tx: tx.every(r.Account, "prepaid|"))
        free = {account.account: account.free for account in accounts}
        topups = sum(need > free.get(payee, 0) for payee, need in needs.items())
        if not topups:
            return []
        fees = await self._chain.fees()
        price = Money(
            topups * TRANSFER_GAS * (fees.max_fee + fees.max_tip) // 2, self._network.coin
        )
        at_most = Money(topups * TRANSFER_GAS * 2 * fees.max_fee, self._network.coin)
        return [Fee(name="gas", on="top up credit", price=price, at_most=at_most)]

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        await self._sender.recover()
        attempt = wanted.attempt

        def look(tx: Transaction) -> tuple[int, list[r.Tx]]:
            account = tx.get(r.Account, f"prepaid|{offer.payee}")
            hold = tx.get(r.Hold, attempt.run)
            most = min(need.units, hold.left.units - hold.reserved.units if hold else 0)
            free = account.free if account else 0
            missing, least = most - free, max(0, attempt.at_most.units - free)
            if missing > 0:
                missing = self._exposure.within(tx, offer.payee, missing, least)
            return missing, _unclaimed(tx, offer.payee)

        missing, unclaimed = await self._journal.commit(look)
        missing -= sum(_amount(row.intent) for row in unclaimed)
        if missing > 0:
            unclaimed.append(await self._top_up(offer.payee, missing))
        return [self._claim(offer, row.transaction) for row in unclaimed]

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        account = tx.get(r.Account, f"prepaid|{attempt.payee}")
        if account is None or account.free < 0:
            raise InsufficientFunds(f"the credit at {attempt.provider} is too small")
        return Payment(rail="prepaid")

    def settle(
        self, tx: Transaction, attempt: Attempt, result: Result
    ) -> tuple[Receipt, Sequence[Message]]:
        receipt = Receipt(
            attempt=attempt,
            standing="paid",
            amount=result.price,
            result=result.digest,
            usage=result.usage,
            evidence=result.evidence,
            at=tx.now,
        )
        return receipt, []

    def release(self, tx: Transaction, attempt: Attempt, *, uncertain: bool) -> bool:
        return False  # the provider's own figures say what it debited

    async def balance(self) -> dict[str, Money]:
        accounts = await self._journal.commit(lambda tx: tx.every(r.Account, "prepaid|"))
        currency = self._network.currency
        return {
            f"credit with {account.account}": Money(max(0, account.free), currency)
            for account in accounts
        }

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        return []  # credit stays with the provider until it is used

    async def insist(self, message: Message) -> str:
        return ""

    async def finish(self, answer: Message) -> None:
        if answer.verb != "credited":
            return
        transaction = str(answer.body.get("transaction", ""))

        def work(tx: Transaction) -> None:
            for row in _unclaimed(tx):
                if row.transaction == transaction:
                    amount = Money(_amount(row.intent), self._network.currency)
                    account = row.intent.split(":")[1]
                    tx.append(
                        e.WALLET,
                        e.CreditFunded(account=account, amount=amount, transaction=transaction),
                    )

        await self._journal.commit(work)

    # -- inside ----------------------------------------------------------------------------------

    async def _top_up(self, payee: str, units: int) -> r.Tx:
        """Transfer `units` to the provider, once for each top-up there was before."""
        currency = self._network.currency
        held = await token_balance(self._chain, self._network, self._signer.address)
        if units > held:
            raise InsufficientFunds(
                f"a top-up of {Money(units, currency)} is needed,"
                f" and the wallet holds {Money(held, currency)}"
            )
        before = await self._journal.commit(lambda tx: len(tx.every(r.Tx, f"topup:{payee}:")))
        intent = f"topup:{payee}:{before}:{units}"
        data = abi.encode("transfer(address,uint256)", payee, units)

        def still_next(tx: Transaction) -> None:
            if len(tx.every(r.Tx, f"topup:{payee}:")) != before:
                raise InsufficientFunds("another process of this wallet has topped up meanwhile")
            self._exposure.within(tx, payee, units, least=units)

        await self._sender.send(intent, self._network.token, data, check=still_next)
        row = await self._journal.commit(lambda tx: tx.get(r.Tx, intent))
        if row is None:
            raise SettlementFailed(f"the top-up {intent!r} was not written")
        return row

    def _check_transfer(self, tx: Transaction, intent: str, receipt: ChainReceipt) -> None:
        """Refuse to book a transfer that moved nothing: a success is the token's own log."""
        payee = address_word(intent.split(":")[1])
        for log in receipt.logs:
            same = log.address.lower() == self._network.token.lower()
            if same and log.topics[0] == abi.TRANSFER and log.topics[2] == payee:
                return
        raise SettlementFailed(f"transaction {receipt.transaction} transferred nothing")

    def _claim(self, offer: Offer, transaction: str) -> Message:
        return Message(
            rail="prepaid",
            provider=offer.provider,
            provider_node=offer.provider_node,
            verb="topup",
            body={"transaction": transaction, "payer": self._signer.address},
        )


def _unclaimed(tx: Transaction, payee: str = "") -> list[r.Tx]:
    """Return final top-ups that the provider has not acknowledged."""
    credited = {row.transaction for row in tx.every(r.Credited)}
    rows = tx.every(r.Tx, f"topup:{payee}")
    return [x for x in rows if x.final and x.succeeded and x.transaction not in credited]


def _amount(intent: str) -> int:
    return int(intent.rsplit(":", 1)[1])
