"""Fakes that are full citizens: a provider, a rail and a network with no process behind them.

They keep the protocols of the real ones and pass the same conformance suites.  The provider's
memory is a folder, so that it outlives a killed test process and counts what it did.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agentkit.artifacts import KINDS, Artifact, Dataset, Embedding, Json, Model, Reply, Text
from agentkit.errors import InsufficientFunds, LeaseLost, ProviderError
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.market.attempt import Attempt, JobStatus, Message, Payment, Result
from agentkit.market.chain import Network
from agentkit.market.offer import Offer, Pays, charge, priced
from agentkit.market.plan import Fee
from agentkit.market.receipt import Receipt
from agentkit.market.seams import ProviderInfo, Transaction, Wanted
from agentkit.market.task import Task, TaskSpec
from agentkit.money import Asset, Money, Rate
from agentkit.payments.budget import account_of

USDC = Asset.named("USDC").bind("eip155:31337", "erc20:0x" + "11" * 20)
ETH = Asset.named("ETH").bind("eip155:31337", "slip44:60")

NETWORK = Network(
    name="toy",
    chain_id=31337,
    rpc="",
    currency=USDC,
    coin=ETH,
    token="0x" + "11" * 20,
    token_name="USD Coin",  # noqa: S106  # the name of a currency
    token_version="1",  # noqa: S106
    channels="0x" + "22" * 20,
    test=True,
)
"""A network with nothing behind it, for tests that touch no chain."""

RATES = {
    unit: Rate.parse("1 USDC per 1M units").bind(USDC)
    for unit in ("request", "input", "output", "row", "byte")
}

Fault = Callable[[Task, Attempt], ProviderError | None]


class FakeProvider:
    """A provider that does every task by itself, at once or after `delay` seconds.

    `folder` holds one file per attempt it executed and a log line per execution; `fault` may
    return an error to raise instead of answering; `before` and `after` the work is counted.
    `answer` is what it delivers for a task.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        finds: bool = True,
        pays: Pays = "on_delivery",
        factor: int = 1,
        delay: float = 0.0,
        lanes: int = 8,
        lasts: float = 600.0,
    ) -> None:
        self._name, self._folder = name, folder
        self.finds = finds
        self.pays = pays
        self.delay = delay
        self.lanes = lanes
        self.lasts = lasts
        self.rates = {
            unit: Rate(rate.amount * factor, rate.per, rate.unit) for unit, rate in RATES.items()
        }
        self.before: Fault = lambda task, attempt: None
        self.after: Fault = lambda task, attempt: None
        self.answer: Callable[[Task], Artifact] = answer
        folder.mkdir(parents=True, exist_ok=True)

    # -- what tests ask --------------------------------------------------------------------------

    @property
    def executions(self) -> list[str]:
        """The attempts executed, one entry for each time, by whatever process."""
        log = self._folder / "executions.log"
        return log.read_text().split() if log.exists() else []

    # -- Provider --------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._name

    async def describe(self) -> ProviderInfo:
        return ProviderInfo(name=self.name, adapter="fake", finds=self.finds, label="a fake")

    async def offers(self, spec: TaskSpec) -> Sequence[Offer]:
        """Offer to do anything, at the fake's rates, for as long as `lasts` says."""
        price, at_most = priced(USDC, self.rates, spec.load)
        offer = Offer(
            provider=self.name,
            node=spec.node.name,
            on="fake",
            price=price,
            at_most=at_most,
            eta=max(self.delay, 0.01),
            lanes=self.lanes,
            expires=time.time() + self.lasts,
            rail="toy",
            pays=self.pays,
            rates=self.rates,
            finds=self.finds,
        )
        return [offer]

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        """Do the task at once, or after `delay`; `before` and `after` may raise instead."""
        self._raise(self.before(task, attempt))
        if self._read(attempt) is None:
            await asyncio.sleep(self.delay)
            self._execute(task, attempt)
        self._raise(self.after(task, attempt))
        return JobStatus(state="done")

    async def find(self, attempt: Attempt) -> JobStatus | None:
        return JobStatus(state="done") if self._read(attempt) else None

    async def status(self, attempt: Attempt) -> JobStatus:
        found = await self.find(attempt)
        if found is None:
            raise LeaseLost(provider=self.name)
        return found

    async def result(self, attempt: Attempt) -> Result:
        found = self._read(attempt)
        if found is None:
            raise LeaseLost(provider=self.name)
        return found

    async def cancel(self, attempt: Attempt) -> None:
        self._path(attempt).unlink(missing_ok=True)

    async def carry(self, message: Message) -> Message:
        return message.model_copy(update={"verb": f"{message.verb}ed"})

    async def close(self) -> None:
        return

    # -- inside ----------------------------------------------------------------------------------

    def _raise(self, fault: ProviderError | None) -> None:
        if fault:
            raise fault

    def _path(self, attempt: Attempt) -> Path:
        return self._folder / f"{attempt.id}.json"

    def _execute(self, task: Task, attempt: Attempt) -> None:
        """Do the task, log that it was done, and keep the result in a file of its own."""
        with (self._folder / "executions.log").open("a") as log:
            log.write(attempt.id + "\n")
        output = self.answer(task)
        usage = dict(task.load.expected)
        document = {
            "kind": output.kind,
            "data": output.read().decode(),
            "usage": usage,
            "price": charge(USDC, self.rates, usage).encode(),
        }
        draft = self._path(attempt).with_suffix(".draft")
        draft.write_text(json.dumps(document))
        draft.replace(self._path(attempt))

    def _read(self, attempt: Attempt) -> Result | None:
        path = self._path(attempt)
        if not path.exists():
            return None
        document = json.loads(path.read_text())
        output = KINDS[document["kind"]].of(document["data"].encode())
        return Result((output,), document["usage"], Money.parse(document["price"]))


def answer(task: Task) -> Artifact:
    """Return what the fakes deliver for a task: a function of the task alone."""
    return ANSWERS[task.kind](task)


def _trained(task: Task) -> Artifact:
    return Model.of(b'{"trained on":"%s"}' % task.inputs["dataset"].digest.encode())


def _queried(task: Task) -> Artifact:
    return Dataset.dump([{"sql": task.params["sql"]}])


def _answered(task: Task) -> Artifact:
    if task.params.get("output") == "embedding":
        return Embedding.dump([{"vector": [1.0, 0.0]}])
    if task.params.get("schema"):
        return Json.dump(_example(task.params["schema"]))
    said = f"answer to: {_asked(task.params)}"
    if "tools" in task.params:
        return Reply.dump({"role": "assistant", "content": said})
    return Text.of(said.encode())


def _asked(params: dict[str, Any]) -> str:
    """Return the question of a task: its prompt, or all that was said."""
    if "prompt" in params:
        return str(params["prompt"])
    return "\n".join(f"{said['role']}: {said['content']}" for said in params["messages"])


ANSWERS: dict[str, Callable[[Task], Artifact]] = {
    "infer": _answered,
    "train": _trained,
    "data": _queried,
}
"""What the fakes do, by kind of task; a test of another kind adds its own."""


def _example(schema: dict[str, Any]) -> Any:
    """Return some value that fits a simple JSON schema."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {key: _example(part) for key, part in schema.get("properties", {}).items()}
    return {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "array": []}.get(
        schema.get("type", "")
    )


class ToyRail:
    """A rail with no money behind it: `purse` is what it may promise, None for no end."""

    def __init__(self, pays: Pays = "on_delivery", purse: Money | None = None) -> None:
        self._pays, self._purse = pays, purse
        self.charged: list[str] = []

    @property
    def name(self) -> str:
        return "toy"

    @property
    def pays(self) -> Pays:
        return self._pays

    async def quote(self, offers: Sequence[Offer], amounts: Sequence[Money]) -> Sequence[Fee]:
        return []

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        raise InsufficientFunds(f"the toy purse holds {self._purse}")

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        account = tx.get(r.Account, f"toy|{account_of(attempt)}")
        used = account.spent + account.reserved if account else attempt.at_most.asset.zero()
        if self._purse is not None and used > self._purse:
            raise InsufficientFunds
        return Payment(rail="toy")

    def settle(
        self, tx: Transaction, attempt: Attempt, result: Result
    ) -> tuple[Receipt, Sequence[Message]]:
        tx.append(e.WALLET, e.Extra(owner="toy", version=1, json_text=attempt.id))
        receipt = Receipt.of(attempt, result, at=tx.now)
        return receipt, []

    def release(self, tx: Transaction, attempt: Attempt, *, uncertain: bool) -> bool:
        return False

    async def balance(self) -> dict[str, Money]:
        return {}

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        return []

    async def insist(self, message: Message) -> str:
        return ""

    async def finish(self, answer: Message) -> None:
        return
