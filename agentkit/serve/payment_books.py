"""Where a provider node is paid: one book for each way of paying that it takes."""

from __future__ import annotations

from typing import Any

from agentkit.errors import Refused
from agentkit.market.attempt import Message
from agentkit.market.seams import Transaction
from agentkit.payments.channels.book import VoucherBook
from agentkit.payments.escrow.book import EscrowBook
from agentkit.providers.wire import Submission


class Till:
    """The books of a node; `escrow` is None where its network has no such contract."""

    def __init__(self, channels: VoucherBook, escrow: EscrowBook | None) -> None:
        self._channels, self._escrow = channels, escrow

    @property
    def rails(self) -> tuple[str, ...]:
        """What the node can be paid by, what it likes best first."""
        return ("channel", "escrow") if self._escrow else ("channel",)

    async def admit(self, submission: Submission) -> str:
        """Check that a task would be paid, and return the id of its channel or job in escrow.

        Raises Refused with the reason.
        """
        payment, most = submission.payment, submission.at_most
        if "escrow" not in payment:
            return await self._channels.admit(payment, most)
        return await self._book().admit(payment, submission.attempt, submission.task.digest, most)

    def check_window(self, tx: Transaction, payer: str) -> None:
        """Raise RateLimited while a payer of channels owes, or may come to owe, too much."""
        self._channels.check_window(tx, payer)

    async def take(self, message: Message) -> Message:
        """Take a rail's message and return the answer; raises Refused."""
        takes = {"channel": self._take_channel, "escrow": self._take_escrow}.get(message.rail)
        if takes is None:
            raise Refused(f"this node is not paid by {message.rail!r}")
        verb, body = await takes(message.verb, message.body)
        return message.model_copy(update={"verb": verb, "body": body})

    async def watch(self) -> None:
        """Do what keeps time from taking what was earned; called again and again."""
        await self._channels.watch()
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
            case "close":
                return "closed", await self._channels.close(body)
        raise Refused(f"the channel rail has no message {verb!r}")

    async def _take_escrow(self, verb: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Take a message of the escrow rail; returns the verb and the body of the answer."""
        book = self._book()
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

    def _book(self) -> EscrowBook:
        if self._escrow is None:
            raise Refused("this node is not paid out of escrow")
        return self._escrow
