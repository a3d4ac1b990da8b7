"""The payment books of a provider node: one for channels, one for escrow."""

from __future__ import annotations

from typing import Any

from agentkit.errors import Refused
from agentkit.market.attempt import Message
from agentkit.market.seams import Transaction
from agentkit.payments.channels.book import VoucherBook
from agentkit.payments.escrow.book import EscrowBook
from agentkit.payments.legacy import LegacyBook
from agentkit.providers.wire import Submission


class PaymentBooks:
    """The books of a node.

    `escrow` is None if its network has no escrow contract; `legacy` closes the channels that
    earlier versions were paid on.
    """

    def __init__(
        self, channels: VoucherBook, escrow: EscrowBook | None, legacy: LegacyBook
    ) -> None:
        self._channels = channels
        self._escrow = escrow
        self._legacy = legacy

    @property
    def rails(self) -> tuple[str, ...]:
        """The payment rails that the node accepts, the preferred one first."""
        return ("channel", "escrow") if self._escrow and self._escrow.sells else ("channel",)

    async def admit(self, submission: Submission) -> str:
        """Check that a task will be paid, and return the id of its channel or escrowed job.

        Raises Refused with the reason.
        """
        payment = submission.payment
        if "escrow" not in payment:
            return await self._channels.admit(
                payment, submission.attempt, submission.task.digest, submission.at_most
            )
        return await self._escrow_book().admit(
            payment, submission.attempt, submission.task.digest, submission.at_most
        )

    def check_window(self, tx: Transaction, payer: str) -> None:
        """Raise RateLimited while a payer owes too much on channels, work under way included."""
        self._channels.check_window(tx, payer)

    async def take(self, message: Message) -> Message:
        """Take a message of a payment rail and return the answer; raises Refused."""
        match message.rail:
            case "channel":
                verb, body = await self._take_channel(message.verb, message.body)
            case "escrow":
                verb, body = await self._take_escrow(message.verb, message.body)
            case _:
                raise Refused(f"this node is not paid by {message.rail!r}")
        return message.model_copy(update={"verb": verb, "body": body})

    async def look(self) -> None:
        """See by which rails the node can sell now; `watch` does so, too."""
        if self._escrow:
            await self._escrow.look()

    async def watch(self) -> None:
        """Claim payments before they expire; the node calls this regularly."""
        await self._legacy.watch()
        if self._escrow:
            await self._escrow.watch()

    # -- inside ----------------------------------------------------------------------------------

    async def _take_channel(self, verb: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Take a message of the channel rail; returns the verb and the body of the answer."""
        match verb:
            case "voucher":
                await self._channels.take(body)
                return "acknowledged", {}
            case "best":
                return "best", await self._channels.best(body)
            case "deposit":
                return "deposited", await self._channels.deposit(body)
            case "close":
                book = self._legacy if self._legacy.knows(body) else self._channels
                return "closed", await book.close(body)
        raise Refused(f"the channel rail has no message {verb!r}")

    async def _take_escrow(self, verb: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Take a message of the escrow rail; returns the verb and the body of the answer."""
        book = self._escrow_book()
        match verb:
            case "quote":
                return "quoted", book.quote(body)
            case "accept":
                await book.accept(body)
                return "acknowledged", {}
            case "settle":
                return "settled", await book.settle(body)
            case "refund":
                return "released", await book.give_back(body)
        raise Refused(f"the escrow rail has no message {verb!r}")

    def _escrow_book(self) -> EscrowBook:
        if self._escrow is None:
            raise Refused("this node is not paid out of escrow")
        return self._escrow
