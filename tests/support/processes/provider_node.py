"""A provider node in a process of its own: the agent is killed, the node lives on and counts.

python provider_node.py FOLDER NAME LANES DELAY    serves until it is killed; its port stands in a
file

A request is a pickled (verb, arguments), an answer a pickled (error, value); one a connection.
"""

import asyncio
import json
import os
import pickle
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agentkit import errors
from agentkit.errors import ProviderError, RateLimited, Unavailable
from agentkit.market.attempt import Attempt, JobStatus, Message, Payment, Result
from agentkit.market.offer import Offer
from agentkit.market.seams import ProviderInfo
from agentkit.market.task import Task, TaskSpec
from agentkit.testing.fakes import FakeProvider
from support.timing import limit


class Work(FakeProvider):
    """What the node does: so many tasks at once, and no more; every step is a line of its log."""

    def __init__(self, name: str, folder: Path, *, lanes: int, delay: float) -> None:
        super().__init__(name, folder, lanes=lanes, delay=delay)
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._now = 0

    def _note(self, what: str, attempt: Attempt) -> None:
        line = {"what": what, "attempt": attempt.id, "purchase": attempt.purchase, "now": self._now}
        with (self._folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        known = await self.find(attempt)
        if known:
            self._note("repeated", attempt)
            return known
        if self._now >= self.lanes:
            self._note("refused", attempt)
            raise RateLimited("all lanes are taken")
        self._now += 1
        self._note("accepted", attempt)
        self._jobs[attempt.id] = asyncio.create_task(self._do(task, attempt))
        return JobStatus(state="queued")

    async def _do(self, task: Task, attempt: Attempt) -> None:
        await asyncio.sleep(self.delay)
        self._execute(task, attempt)
        self._now -= 1
        self._note("finished", attempt)

    async def find(self, attempt: Attempt) -> JobStatus | None:
        if self._read(attempt):
            return JobStatus(state="done")
        return JobStatus(state="running") if attempt.id in self._jobs else None

    async def result(self, attempt: Attempt) -> Result:
        if attempt.id in self._jobs:
            await asyncio.shield(self._jobs[attempt.id])
        return await super().result(attempt)

    async def cancel(self, attempt: Attempt) -> None:
        """Note it and do nothing: who has begun ends what he is at."""
        self._note("called off", attempt)


async def serve(work: Work, folder: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read()
        if asked:  # its agent was not killed just now
            writer.write(pickle.dumps(await said(*pickle.loads(asked))))
        writer.close()
        with suppress(OSError):  # nor since
            await writer.wait_closed()

    async def said(verb: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
        try:
            return "", await getattr(work, verb)(*arguments)
        except ProviderError as wrong:
            return type(wrong).__name__, str(wrong)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = folder / "port.draft"
    port.write_text(str(server.sockets[0].getsockname()[1]))
    port.replace(folder / "port")
    await server.serve_forever()


class Away(FakeProvider):
    """The adapter for such a node; `log` is what the node wrote down."""

    async def _ask(self, verb: str, *arguments: Any) -> Any:
        try:
            port = int((self._folder / "port").read_text())
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as wrong:
            raise Unavailable("cannot be reached", provider=self.name) from wrong
        try:
            writer.write(pickle.dumps((verb, arguments)))
            writer.write_eof()
            data = await reader.read()
        except OSError as wrong:
            raise Unavailable("the line broke", provider=self.name, unknown=True) from wrong
        finally:
            writer.close()
        if not data:
            raise Unavailable("no answer came", provider=self.name, unknown=True)
        error, value = pickle.loads(data)
        if error:
            raise getattr(errors, error)(value, provider=self.name)
        return value

    async def describe(self) -> ProviderInfo:
        return await self._ask("describe")  # type: ignore[no-any-return]

    async def offers(self, spec: TaskSpec) -> Sequence[Offer]:
        return await self._ask("offers", spec)  # type: ignore[no-any-return]

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        return await self._ask("submit", task, offer, attempt, payment)  # type: ignore[no-any-return]

    async def find(self, attempt: Attempt) -> JobStatus | None:
        return await self._ask("find", attempt)  # type: ignore[no-any-return]

    async def result(self, attempt: Attempt) -> Result:
        return await self._ask("result", attempt)  # type: ignore[no-any-return]

    async def cancel(self, attempt: Attempt) -> None:
        await self._ask("cancel", attempt)

    async def carry(self, message: Message) -> Message:
        return await self._ask("carry", message)  # type: ignore[no-any-return]

    # -- what tests ask --------------------------------------------------------------------------

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every step of every task, in order."""
        log = self._folder / "log.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def count(self, what: str) -> Counter[str]:
        """Return how often each purchase was `accepted`, `refused`, `finished`..."""
        return Counter(line["purchase"] for line in self.log if line["what"] == what)

    @property
    def highest(self) -> int:
        """The most tasks that were under way at once."""
        return max((line["now"] for line in self.log), default=0)


def start(
    folder: Path, name: str, *, lanes: int = 8, delay: float = 0.02
) -> subprocess.Popen[bytes]:
    """Start a node and wait until it can be asked."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "port").unlink(missing_ok=True)
    command = [sys.executable, __file__, str(folder), name, str(lanes), str(delay)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment)
    until = time.monotonic() + limit(30)
    while not (folder / "port").exists():
        assert process.poll() is None and time.monotonic() < until, "the node did not start"
        time.sleep(0.01)
    return process


@contextmanager
def running(folder: Path, name: str = "node", **how: Any) -> Any:
    """Have a node run for a while; yields (its adapter, its process)."""
    process = start(folder, name, **how)
    try:
        yield Away(name, folder), process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    place, who, how_many, how_long = sys.argv[1:]
    node = Work(who, Path(place), lanes=int(how_many), delay=float(how_long))
    asyncio.run(serve(node, Path(place)))
