"""A seller over channels to be killed: it sells chats, and dies by SIGKILL once, at a given step.

python x402_channel_seller.py FOLDER FACILITATOR RPC TOKEN PORT WHERE    prints `sells` once it
listens.  WHERE is one of `WHERE` below, or "never".  FOLDER/works has a line for each chat.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from agentkit.market.x402 import Payment402, Requirement, Settled, Verified
from agentkit.payments.x402.remote import Facilitation
from support.channel_market import SELLER_KEY, Work, channel_shop
from support.x402_market import PATH, World, answer, network_at

WHERE = ("asked", "deposited", "worked", "charged", "ordered", "refunded")
CHARGE = 600


class Fate:
    """Kills this process at one step, the first time that any process comes to it."""

    def __init__(self, folder: Path, where: str) -> None:
        self.where, self.mark = where, folder / "killed"

    def comes_to(self, step: str) -> None:
        if step == self.where and not self.mark.exists():
            self.mark.write_text(step)
            os.kill(os.getpid(), signal.SIGKILL)


class Deadly:
    """A facilitator before and after whose work the process may die."""

    def __init__(self, inner: Facilitation, fate: Fate) -> None:
        self.inner, self.fate = inner, fate

    async def verify(self, payment: Payment402, requirement: Requirement) -> Verified:
        return await self.inner.verify(payment, requirement)

    async def settle(self, payment: Payment402, requirement: Requirement) -> Settled:
        kind = cast("Any", payment).payload.type
        steps = {"deposit": ("asked", "deposited"), "refund": ("ordered", "refunded")}
        before, after = steps.get(kind, ("", ""))
        self.fate.comes_to(before)
        settled = await self.inner.settle(payment, requirement)
        self.fate.comes_to(after)
        return settled

    async def most_claims(self) -> int:
        return await self.inner.most_claims()

    async def close(self) -> None:
        await self.inner.close()


class Chats(Work):
    """Answers chats, and writes down that it did."""

    def __init__(self, folder: Path, fate: Fate) -> None:
        super().__init__(charge=CHARGE)
        self.folder, self.fate = folder, fate

    async def handle(self, request: web.Request) -> web.Response:
        with (self.folder / "works").open("a") as works:
            works.write("one\n")
        self.chat = lambda number: answer("an answer")
        response = await super().handle(request)
        self.fate.comes_to("worked")
        return response


async def main(folder: Path, facilitator: str, rpc: str, token: str, port: int, where: str) -> None:
    fate = Fate(folder, where)
    world = World(network_at(rpc, token), cast("Any", None), cast("Any", None), 0)
    async with channel_shop(
        world,
        folder,
        facilitator,
        key=SELLER_KEY,
        work=Chats(folder, fate),
        path=PATH,
        wrap=lambda inner: Deadly(inner, fate),
        port=port,
    ) as shop:
        repeat = shop.seller._repeat

        async def charged(*arguments: Any) -> Any:
            fate.comes_to("charged")
            return await repeat(*arguments)

        shop.seller._repeat = charged  # type: ignore[method-assign,assignment]
        print("sells", flush=True)
        while True:
            await asyncio.sleep(0.3)
            await shop.claiming.watch()


if __name__ == "__main__":
    folder, facilitator, rpc, token, port, where = sys.argv[1:]
    asyncio.run(main(Path(folder), facilitator, rpc, token, int(port), where))
