"""The payer's half: the price of one task locked before it is done, paid when it was accepted.

quote (signed by the provider) -> open, on chain -> the task is done -> Accept, signed -> settled
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from agentkit.errors import (
    InsufficientFunds,
    ProtocolBroken,
    SettlementFailed,
)
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import (
    Accept,
    Authorization,
    address_word,
    recover,
    typed_digest,
)
from agentkit.keys.signer import Signer
from agentkit.market.attempt import Attempt, Message, Payment, Result
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.market.offer import Offer, Pays
from agentkit.market.plan import Fee
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Transaction, Wanted
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.budget import Exposure, paid_before
from agentkit.payments.channels.terms import token_balance
from agentkit.payments.escrow import terms
from agentkit.payments.escrow.terms import NOBODY, Job
from agentkit.payments.gas import gas_fee
from agentkit.payments.sender import Sender

OPEN_GAS = 160_000
"""What opening a job costs at most, for the gas row of a plan."""

NONCE_BYTES = 24
"""How much of a job's id is the nonce of the authorization that opens it; zeros follow."""

LEFT_SECONDS = 30
"""A quote that expires sooner than this is asked for anew."""

LONGEST = timedelta(days=30).total_seconds()
"""Windows beyond this are refused, as the contract does."""

LEAST_JUDGE, LEAST_ARBITER = 900, 86_400
"""Seconds that a payer wants for saying no, and an arbiter for deciding."""

MOST_DEFAULT_BPS = 5000
"""What a payee may keep of a disputed price where the arbiter is silent, in 1/10000."""


class EscrowRail:
    """Pays for one task at a time out of escrow; see `market.seams.Rail`.

    `arbiter`, the zero address for none, is who decides when a result is refused.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        sender: Sender,
        *,
        arbiter: str = NOBODY,
        exposure: Exposure | None = None,
    ) -> None:
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network = network
        self._sender = sender
        self._arbiter = arbiter
        self._exposure = exposure or Exposure()
        self._searched = False
        self._asked: dict[str, Attempt] = {}
        sender.on_final["escrow"] = self._opened
        sender.on_final["settle"] = self._settled

    @property
    def name(self) -> str:
        return "escrow"

    @property
    def pays(self) -> Pays:
        return "on_delivery"

    async def quote(self, offers: Sequence[Offer], amounts: Sequence[Money]) -> Sequence[Fee]:
        pairs = zip(offers, amounts, strict=True)
        jobs = sum(-(-amount.units // max(offer.at_most.units, 1)) for offer, amount in pairs)
        return [await gas_fee(self._chain, self._network, jobs * OPEN_GAS, "open escrow")]

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        """Ask for the attempt's quote, or open what was quoted; one after the other."""
        await self._sender.recover()
        attempt = wanted.attempt
        await self._search(attempt)
        known = await self._row(attempt.id)
        if known and known.state == "quoted":
            known = await self._as_on_chain(known)
        if known is None or await self._is_stale(known):
            self._asked[attempt.id] = attempt
            return [self._quote_please(offer, attempt)]
        if known.state == "quoted":
            await self._open(known, wanted)
        return []

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        known = tx.get(r.Escrow, attempt.id)
        if known is None or known.state != "open":
            raise InsufficientFunds(f"no money is in escrow for attempt {attempt.id[:12]}")
        return Payment(rail=self.name, body={"escrow": known.job})

    def settle(
        self, tx: Transaction, attempt: Attempt, result: Result
    ) -> tuple[Receipt, Sequence[Message]]:
        known = tx.get(r.Escrow, attempt.id)
        if known is None or known.state in ("quoted", "closed"):
            raise SettlementFailed(f"no money is in escrow for attempt {attempt.id[:12]}")
        if result.price > attempt.at_most:
            raise SettlementFailed(f"{result.price} is above the at most of {attempt.at_most}")
        if paid_before(tx, attempt.id) is None:
            known = self._accept(tx, known, attempt, result)
        receipt = Receipt.of(attempt, result, at=tx.now)
        return receipt, [self._about(known, "accept")]

    def release(self, tx: Transaction, attempt: Attempt, *, uncertain: bool) -> bool:
        """Say that what is locked may still go to the payee, until its word or time frees it."""
        known = tx.get(r.Escrow, attempt.id)
        return known is not None and known.state == "open"

    async def balance(self) -> dict[str, Money]:
        rows = await self._journal.commit(_alive)
        locked: dict[str, Money] = {}
        for row in rows:
            name = f"escrow with {row.label}"
            locked[name] = locked.get(name, self._network.currency.zero()) + row.price
        return locked

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        """Ask providers to take what was accepted, and to give the rest back."""
        await self._search()
        for row in await self._journal.commit(_in_doubt):
            await self._as_on_chain(row)
        now = time.time()

        def work(tx: Transaction) -> list[Message]:
            for row in filter(partial(_came_to_nothing, tx), tx.every(r.Escrow)):
                tx.append(e.WALLET, e.Unreserved(attempt=row.attempt))
            known = [row for row in _alive(tx) if now - row.at >= idle]
            ended = [row for row in known if row.accept or not _is_under_way(tx, row)]
            return [self._about(row, "settle" if row.accept else "refund") for row in ended]

        return await self._journal.commit(work)

    async def insist(self, message: Message) -> str:
        """Do what the contract lets the payer do alone; returns what, in words, or ""."""
        known = await self._row(str(message.body.get("attempt")))
        if known is None:
            return ""
        job = Job.read(known.job)
        state, due = await terms.state_of(self._chain, self._network, job.id(self._network))
        late = time.time() > due
        steps = {
            (terms.FUNDED, True): ("refundUndelivered", "refunded, nothing was delivered in time"),
            (terms.DISPUTED, True): ("expireDispute", "divided as quoted, the arbiter was silent"),
        }
        if (state, late) in steps:
            verb, words = steps[state, late]
            data = job.call(f"{verb}({terms.QUOTE})")
            await self._sender.send(f"settle:{known.attempt}:{verb}", self._network.escrow, data)
            return words
        if state in (terms.PAID, terms.REFUNDED):
            return await self._take_end(known, job)
        if state == terms.SUBMITTED and not late and not known.accept:
            return await self._dispute(known, job)
        until = time.strftime("%Y-%m-%d %H:%M", time.localtime(due))
        return f"locked until {until}" if state in (terms.FUNDED, terms.DISPUTED) else ""

    async def finish(self, answer: Message) -> None:
        match answer.verb:
            case "quoted":
                await self._take_quote(answer)
            case "settled":
                await self._take_settled(answer)
            case "released":
                await self._take_back(answer)

    # -- inside ----------------------------------------------------------------------------------

    async def _row(self, attempt: str) -> r.Escrow | None:
        return await self._journal.commit(lambda tx: tx.get(r.Escrow, attempt))

    async def _is_stale(self, known: r.Escrow) -> bool:
        """Whether a quote cannot be opened any more, and never was."""
        if known.state != "quoted":
            return False
        sent = await self._journal.commit(lambda tx: tx.get(r.EvmTransaction, _intent(known)))
        if sent is not None:
            return sent.final and not sent.succeeded
        return time.time() > Job.read(known.job).quote.quote_expiry - LEFT_SECONDS

    def _quote_please(self, offer: Offer, attempt: Attempt) -> Message:
        body = {
            "attempt": attempt.id,
            "task": attempt.task,
            "payer": self._signer.address,
            "arbiter": self._arbiter,
            "price": attempt.at_most.units,
            "seconds": offer.eta,
        }
        return Message(
            rail=self.name,
            provider=attempt.provider,
            provider_node=attempt.provider_node,
            verb="quote",
            body=body,
        )

    async def _take_quote(self, answer: Message) -> None:
        """Store a quote if it is what was asked for: nothing else is ever opened."""
        attempt = self._asked.pop(str(answer.body.get("attempt")), None)
        if attempt is None:
            raise ProtocolBroken("it quotes what nobody asked for", provider=answer.provider)
        try:
            job = Job.read(answer.body)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise ProtocolBroken("its quote cannot be read", provider=attempt.label) from error
        reason = self._unlike(job, attempt)
        if reason:
            raise ProtocolBroken(f"its quote {reason}", provider=attempt.label)
        quoted = e.EscrowQuoted(
            attempt=attempt.id,
            id=job.id(self._network).hex(),
            provider=attempt.provider,
            provider_node=attempt.provider_node,
            payee=attempt.payee,
            price=attempt.at_most,
            job=job.document(),
        )
        await self._journal.commit(lambda tx: tx.append(e.WALLET, quoted))

    def _unlike(self, job: Job, attempt: Attempt) -> str:
        """Return how a quote differs from what was asked for, "" when it does not."""
        quote, now = job.quote, time.time()
        longest = max(quote.judge_window, quote.arbiter_window)
        checks = (
            (quote.payer.lower() != self._signer.address.lower(), "is for another payer"),
            (quote.provider.lower() != attempt.payee.lower(), "pays somebody else"),
            (quote.token.lower() != self._network.token.lower(), "is in another token"),
            (quote.price != attempt.at_most.units, f"is not over {attempt.at_most}"),
            (quote.arbiter.lower() != self._arbiter.lower(), "names another arbiter"),
            (quote.task_id != bytes.fromhex(attempt.id), "is for another attempt"),
            (quote.spec_hash != bytes.fromhex(attempt.task), "is for another task"),
            (not now < quote.deliver_by < now + LONGEST, "is to be delivered at an odd time"),
            (longest > LONGEST, "asks for odd windows"),
            (quote.quote_expiry < now, "has expired"),
            (quote.quote_expiry > now + LONGEST, "lasts too long"),
            (not job.is_signed(self._network), "is not signed by its payee"),
            (quote.judge_window < LEAST_JUDGE, "leaves no time to judge"),
            (quote.arbiter_window < LEAST_ARBITER, "leaves no time to the arbiter"),
            (quote.default_bps > MOST_DEFAULT_BPS, "keeps more than half without the arbiter"),
        )
        return next((reason for wrong, reason in checks if wrong), "")

    async def _open(self, known: r.Escrow, wanted: Wanted) -> None:
        """Lock the price, once: the authorization's nonce is the job's own id.

        From here on the payee may get it without our word, so it is reserved in the transaction
        that signs.  Whoever else brings our opening to the chain first has opened it all the same.
        """
        held = await token_balance(self._chain, self._network, self._signer.address)
        if known.price.units > held:
            raise InsufficientFunds(
                f"{known.price} are to be locked, and the wallet holds"
                f" {Money(held, self._network.currency)}"
            )
        job = Job.read(known.job)
        authorization = Authorization(
            payer=self._signer.address,
            payee=self._network.escrow,
            units=job.quote.price,
            valid_before=job.quote.quote_expiry,
            nonce=job.id(self._network)[:NONCE_BYTES].ljust(32, b"\0"),
        )
        given = self._signer.sign_authorization(self._network.token_domain, authorization)
        until = authorization.valid_before
        data = job.call(terms.OPEN, *abi.vrs(job.signature), until, *abi.vrs(given))
        units = known.price.units

        def check(tx: Transaction) -> None:
            wanted.reserve(tx)
            self._exposure.within(tx, known.payee, units, least=units)

        try:
            await self._sender.send(_intent(known), self._network.escrow, data, check=check)
        except SettlementFailed:
            if (await self._as_on_chain(known)).state == "quoted":
                raise

    async def _as_on_chain(self, known: r.Escrow) -> r.Escrow:
        """Book a job that is open on the chain, whoever opened it, and return it as it stands."""
        job = bytes.fromhex(known.id)
        state, _ = await terms.state_of(self._chain, self._network, job)
        if state:
            await self._journal.commit(partial(_book_open, attempt=known.attempt, job=known.id))
        return await self._row(known.attempt) or known

    def _opened(self, tx: Transaction, intent: str, receipt: ChainReceipt) -> None:
        """Book what the contract says it has locked."""
        attempt, job = intent.split(":")[1:3]
        wanted = (abi.OPENED, bytes.fromhex(job))
        for log in receipt.logs:
            if log.address.lower() == self._network.escrow.lower() and log.topics[:2] == wanted:
                return _book_open(tx, attempt, job)
        raise SettlementFailed(f"transaction {receipt.transaction} opened no escrow")

    def _accept(
        self, tx: Transaction, known: r.Escrow, attempt: Attempt, result: Result
    ) -> r.Escrow:
        """Give our word for a result, once."""
        job = Job.read(known.job).id(self._network)
        accept = Accept(job, result.price.units, bytes.fromhex(result.digest))
        signature = self._signer.sign_accept(self._network.escrow_domain, accept)
        accepted = e.EscrowAccepted(
            attempt=attempt.id,
            amount=result.price,
            result=result.digest,
            signature=signature.hex(),
        )
        tx.append(e.WALLET, accepted)
        return tx.get(r.Escrow, attempt.id) or known

    def _about(self, known: r.Escrow, verb: str) -> Message:
        """Return a message about a job; it proves its payer by what only the payer has signed."""
        job = Job.read(known.job).id(self._network)
        nothing = Accept(job, 0, bytes(32))
        proof = self._signer.sign_accept(self._network.escrow_domain, nothing)
        body: dict[str, Any] = {**known.job, "attempt": known.attempt}
        if known.accept:
            body |= {"pay": known.paid, "result": known.result, "accept": known.accept}
        else:
            body |= {"proof": proof.hex()}
        return Message(
            rail=self.name,
            provider=known.provider,
            provider_node=known.provider_node,
            verb=verb,
            body=body,
        )

    async def _take_settled(self, answer: Message) -> None:
        """Book a settlement that the provider brought to the chain, as the chain tells it."""
        known = await self._row(str(answer.body.get("attempt")))
        if known is None:
            raise ProtocolBroken("it settles what nobody bought", provider=answer.provider)
        receipt = await self._chain.receipt(str(answer.body.get("transaction")))
        job = Job.read(known.job).id(self._network)
        if receipt is None or terms.settled_in(receipt, self._network, job) is None:
            raise ProtocolBroken("the chain does not show it", provider=answer.provider)
        await self._journal.commit(partial(self._close, known=known, receipt=receipt))

    async def _take_end(self, known: r.Escrow, job: Job) -> str:
        """Book a job that came to its end without us, from the contract's own log of it."""
        wanted: list[bytes | None] = [abi.SETTLED, job.id(self._network)]
        head = await self._chain.head()
        logs = await self._chain.logs(self._network.escrow, wanted, 0, head)
        receipt = await self._chain.receipt(logs[-1].transaction) if logs else None
        if receipt is None:
            raise ProtocolBroken("the chain does not show its end", provider=known.provider)
        await self._journal.commit(partial(self._close, known=known, receipt=receipt))
        return "its end was found on the chain"

    async def _search(self, attempt: Attempt | None = None) -> None:
        """After a restore, find what was opened beyond the last seal: it is on the chain.

        An opening carries its quote, so what was locked for an attempt is not locked again, and
        comes back.
        """
        restored = await self._journal.commit(lambda tx: tx.get(r.Restoration, "newest"))
        if restored is None or self._searched:
            return
        wanted: list[bytes | None] = [abi.OPENED, None, address_word(self._signer.address)]
        head = await self._chain.head()
        for log in await self._chain.logs(self._network.escrow, wanted, 0, head):
            job = Job.of_call(await self._chain.data_of(log.transaction))
            if job and job.id(self._network) == log.topics[1]:
                await self._journal.commit(partial(self._take_found, job=job, attempt=attempt))
        self._searched = True

    def _take_found(self, tx: Transaction, job: Job, attempt: Attempt | None) -> None:
        """Write down a job that the books lack; one for each attempt, as only one is opened."""
        found = job.quote.task_id.hex()
        if tx.get(r.Escrow, found):
            return
        rows: list[r.Escrow | r.Channel | Attempt] = [*tx.every(r.Escrow), *tx.every(r.Channel)]
        rows += [attempt] if attempt else []
        whose = next((row for row in rows if row.payee == job.quote.provider), None)
        quoted = e.EscrowQuoted(
            attempt=found,
            id=job.id(self._network).hex(),
            provider=whose.provider if whose else "",
            provider_node=whose.provider_node if whose else "",
            payee=job.quote.provider,
            price=Money(job.quote.price, self._network.currency),
            job=job.document(),
        )
        tx.append(e.WALLET, quoted)
        _book_open(tx, found, quoted.id)

    async def _take_back(self, answer: Message) -> None:
        """Bring the provider's word that it delivered nothing to the chain."""
        known = await self._row(str(answer.body.get("attempt")))
        if known is None or known.state != "open":
            return
        job = Job.read(known.job)
        nothing = Accept(job.id(self._network), 0, bytes(32))
        try:
            word = bytes.fromhex(str(answer.body.get("release")))
        except ValueError:
            word = b""
        digest = typed_digest(self._network.escrow_domain, nothing)
        if recover(digest, word).lower() != job.quote.provider.lower():
            raise ProtocolBroken("its word is not signed by it", provider=answer.provider)
        data = terms.accept_call(job, nothing, word)
        await self._sender.send(f"settle:{known.attempt}:refund", self._network.escrow, data)

    async def _dispute(self, known: r.Escrow, job: Job) -> str:
        """Refuse what was submitted and not accepted, where somebody can decide."""
        if job.quote.arbiter == NOBODY:
            return "submitted without our word, and nobody was named to decide"
        data = job.call(f"dispute({terms.QUOTE},bytes32)", bytes(32))
        await self._sender.send(f"dispute:{known.attempt}", self._network.escrow, data)
        return "disputed; the arbiter decides"

    def _settled(self, tx: Transaction, intent: str, receipt: ChainReceipt) -> None:
        known = tx.get(r.Escrow, intent.split(":")[1])
        if known:
            self._close(tx, known, receipt)

    def _close(self, tx: Transaction, known: r.Escrow, receipt: ChainReceipt) -> None:
        """Book the end of a job once."""
        job = Job.read(known.job).id(self._network)
        found = terms.settled_in(receipt, self._network, job)
        current = tx.get(r.Escrow, known.attempt)
        if found is None:
            raise SettlementFailed(f"transaction {receipt.transaction} settled nothing")
        if current and current.state != "closed":
            paid, refunded = (Money(units, self._network.currency) for units in found)
            closed = e.EscrowClosed(attempt=known.attempt, paid=paid, refunded=refunded)
            tx.append(e.WALLET, closed)
            self._end_reservation(tx, known, paid)

    def _end_reservation(self, tx: Transaction, known: r.Escrow, paid: Money) -> None:
        """Count what went to the payee without our word as spent, and the rest as free again."""
        reservation = tx.get(r.Reservation, known.attempt)
        if reservation is None or reservation.standing != "open":
            return
        ended = (
            e.Spent(
                attempt=known.attempt, provider=known.provider, amount=paid, standing="uncertain"
            )
            if paid
            else e.Unreserved(attempt=known.attempt)
        )
        tx.append(e.WALLET, ended)


def _intent(known: r.Escrow) -> str:
    """Return the intent under which a quoted job is opened; another quote is another job."""
    return f"escrow:{known.attempt}:{known.id}"


def _book_open(tx: Transaction, attempt: str, job: str) -> None:
    """Write down once that a job is open."""
    known = tx.get(r.Escrow, attempt)
    if known and (known.id, known.state) == (job, "quoted"):
        tx.append(e.WALLET, e.EscrowOpened(attempt=attempt, amount=known.price))


def _in_doubt(tx: Transaction) -> list[r.Escrow]:
    """Return the quotes whose opening was signed and is not booked."""
    quoted = [row for row in tx.every(r.Escrow) if row.state == "quoted"]
    return [row for row in quoted if tx.get(r.EvmTransaction, _intent(row))]


def _came_to_nothing(tx: Transaction, row: r.Escrow) -> bool:
    """Whether money is reserved for a job that was never opened, and nobody wants any more."""
    known, sent = tx.get(r.Reservation, row.attempt), tx.get(r.EvmTransaction, _intent(row))
    never = row.state == "quoted" and (sent is None or (sent.final and not sent.succeeded))
    is_open = known is not None and known.standing == "open"
    return never and is_open and not _is_under_way(tx, row)


def _alive(tx: Transaction) -> list[r.Escrow]:
    """Return the jobs that hold money of ours."""
    return [row for row in tx.every(r.Escrow) if row.state in ("open", "accepted")]


def _is_under_way(tx: Transaction, row: r.Escrow) -> bool:
    """Whether the run of a job's attempt may still take its result."""
    known = tx.get(r.Reservation, row.attempt)
    run = tx.get(r.Run, known.run) if known else None
    return run is not None and run.state in ("running", "paused")
