"""Suites that implementations of the seams pass; subclass one and give it the fixture it names.

For example::

    class TestMine(ProviderConformance):
        @pytest.fixture
        async def desk(self):
            yield Desk(...)
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from agentkit.artifacts import Artifact, Blob, Text
from agentkit.errors import (
    InsufficientFunds,
    LeaseLost,
    PaymentError,
    ProtocolBroken,
    Refused,
    StateCorrupt,
    StoreUnavailable,
)
from agentkit.graph.builder import JobGraph
from agentkit.graph.nodes import NodeBase
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.kinds.registry import bought_kind
from agentkit.market.attempt import Attempt, Message, Payment, Result, purchase_id
from agentkit.market.offer import Offer, charge
from agentkit.market.receipt import Receipt
from agentkit.market.seams import (
    ArtifactStore,
    Ledger,
    Provider,
    Rail,
    Transaction,
    Verifier,
    Wanted,
)
from agentkit.market.task import Task
from agentkit.money import Money
from agentkit.runtime.attempt.funding import FUNDINGS


@dataclass(frozen=True)
class Desk:
    """A provider, a rail that pays it and the books: what the suites buy with.

    `model` is one that the provider serves.
    """

    provider: Provider
    rail: Rail
    journal: Journal
    ledger: Ledger
    model: str
    run: str = "r0"

    def node(self, **changes: Any) -> NodeBase:
        """Return a small question."""
        graph = JobGraph("desk")
        fields = {"model": self.model, "prompt": "Say hello.", "max_tokens": 8, **changes}
        graph.infer("ask", **fields)
        return graph.freeze().by_name["ask"]

    async def offer(self, node: NodeBase) -> Offer:
        """Return the provider's first offer for a question that the desk's rail can pay."""
        spec = bought_kind(node).spec(node, {})
        offers = await self.provider.offers(spec)
        name = self.rail.name
        offer = next((o for o in offers if name == o.rail or name in o.rails), offers[0])
        return offer.paid_by(name) if name in offer.rails else offer

    async def open(
        self, node: NodeBase, offer: Offer, n: int = 0, purchase: str = ""
    ) -> tuple[Task, Attempt, Payment]:
        """Hold, fund and reserve, as the runtime does before it submits."""
        task = bought_kind(node).task(node, {})
        attempt = Attempt.at(
            purchase or purchase_id(self.run, secrets.token_hex(8)),
            n,
            offer,
            run=self.run,
            item=None,
            task=task.digest,
            at_most=charge(offer.at_most.asset, offer.rates, offer.most(task.load)),
        )
        await self.journal.commit(lambda tx: self.ledger.hold(tx, self.run, attempt.at_most, None))
        return task, attempt, await self._reserved(offer, attempt)

    async def _reserved(self, offer: Offer, attempt: Attempt) -> Payment:
        """Reserve an attempt in the budget and on the rail, funding the rail where it must be."""

        def work(tx: Transaction) -> Payment:
            self.ledger.reserve(tx, attempt)
            return self.rail.reserve(tx, attempt)

        wanted = Wanted(attempt, lambda tx: self.ledger.reserve(tx, attempt))
        for _ in range(FUNDINGS):
            try:
                return await self.journal.commit(work)
            except InsufficientFunds:
                for message in await self.rail.fund(offer, attempt.at_most, wanted):
                    await self.rail.finish(await self.provider.carry(message))
        return await self.journal.commit(work)

    async def settle(self, attempt: Attempt, result: Result) -> Receipt:
        """Pay for a result and tell the provider."""

        def work(tx: Transaction) -> tuple[Receipt, list[Message]]:
            receipt, messages = self.rail.settle(tx, attempt, result)
            self.ledger.spend(tx, attempt, receipt.amount, receipt.standing)
            return receipt, list(messages)

        receipt, messages = await self.journal.commit(work)
        for message in messages:
            await self.rail.finish(await self.provider.carry(message))
        return receipt

    async def account(self, attempt: Attempt) -> r.Account:
        """Return where the rail stands with the attempt's payee."""
        key = f"{attempt.rail}|{attempt.payee or attempt.provider}"
        found = await self.journal.commit(lambda tx: tx.get(r.Account, key))
        assert found, f"no account {key}"
        return found


class ProviderConformance:
    """What every provider keeps to; give it the fixture `desk`."""

    async def test_it_says_its_own_name(self, desk: Desk) -> None:
        info = await desk.provider.describe()
        assert info.name == desk.provider.name
        assert info.up

    async def test_offers_hold_for_a_while_at_a_price_within_at_most(self, desk: Desk) -> None:
        offer = await desk.offer(desk.node())
        assert offer.provider == desk.provider.name
        assert offer.rail == desk.rail.name
        assert offer.pays == desk.rail.pays
        assert offer.price <= offer.at_most
        assert offer.expires > time.time()
        assert offer.finds == (await desk.provider.describe()).finds
        assert (await desk.offer(desk.node())).terms == offer.terms

    async def test_what_it_cannot_do_is_refused_with_a_reason(self, desk: Desk) -> None:
        with pytest.raises(Refused) as refused:
            await desk.offer(desk.node(model="no-such-model"))
        assert "no-such-model" in str(refused.value)

    async def test_it_delivers_what_it_counted_at_its_own_rates(self, desk: Desk) -> None:
        node = desk.node()
        offer = await desk.offer(node)
        task, attempt, payment = await desk.open(node, offer)
        await desk.provider.submit(task, offer, attempt, payment)
        result = await desk.provider.result(attempt)
        (output,) = result.outputs
        assert isinstance(output, Text)
        assert output.text
        owed = charge(offer.at_most.asset, offer.rates, result.usage)
        # Over a channel a server may charge less than its price: what a request came to.
        assert result.price == owed or (offer.channel and result.price < owed)
        assert result.price <= attempt.at_most
        receipt = await desk.settle(attempt, result)
        assert receipt.amount == result.price

    async def test_what_became_of_an_attempt_can_be_asked_or_it_says_not(self, desk: Desk) -> None:
        node = desk.node()
        offer = await desk.offer(node)
        task, attempt, payment = await desk.open(node, offer)
        if not offer.finds:
            with pytest.raises(ProtocolBroken):
                await desk.provider.find(attempt)
            return
        assert await desk.provider.find(attempt) is None
        with pytest.raises(LeaseLost):
            await desk.provider.status(attempt)
        await desk.provider.submit(task, offer, attempt, payment)
        first = await desk.provider.result(attempt)
        found = await desk.provider.find(attempt)
        assert found
        assert found.state == "done"
        await desk.provider.submit(task, offer, attempt, payment)  # the same attempt, the same job
        assert (await desk.provider.result(attempt)).digest == first.digest
        await desk.settle(attempt, first)

    async def test_cancelling_what_is_not_there_is_no_error(self, desk: Desk) -> None:
        node = desk.node()
        _, attempt, _ = await desk.open(node, await desk.offer(node))
        await desk.provider.cancel(attempt.model_copy(update={"id": "ab" * 32}))


class RailConformance:
    """What every rail keeps to; give it the fixture `desk`."""

    async def test_what_is_settled_is_spent_and_the_rest_is_free_again(self, desk: Desk) -> None:
        node = desk.node()
        offer = await desk.offer(node)
        task, attempt, payment = await desk.open(node, offer)
        held = await desk.account(attempt)
        assert held.reserved == attempt.at_most
        await desk.provider.submit(task, offer, attempt, payment)
        receipt = await desk.settle(attempt, await desk.provider.result(attempt))
        after = await desk.account(attempt)
        assert after.spent == held.spent + receipt.amount
        assert not after.reserved

    async def test_an_attempt_is_settled_once(self, desk: Desk) -> None:
        node = desk.node()
        offer = await desk.offer(node)
        task, attempt, payment = await desk.open(node, offer)
        await desk.provider.submit(task, offer, attempt, payment)
        result = await desk.provider.result(attempt)
        await desk.settle(attempt, result)
        before = await desk.account(attempt)
        with suppress(PaymentError):  # refused or without effect
            await desk.settle(attempt, result)
        assert await desk.account(attempt) == before

    async def test_more_than_its_at_most_is_never_paid(self, desk: Desk) -> None:
        node = desk.node()
        offer = await desk.offer(node)
        task, attempt, payment = await desk.open(node, offer)
        await desk.provider.submit(task, offer, attempt, payment)
        result = await desk.provider.result(attempt)
        dear = replace(result, price=attempt.at_most + Money(1, attempt.at_most.asset))
        with pytest.raises(PaymentError, match=r"at most|exhausted"):
            await desk.settle(attempt, dear)
        await desk.settle(attempt, result)

    async def test_a_released_attempt_costs_nothing(self, desk: Desk) -> None:
        """It stays reserved only where its payee could draw the money all the same."""
        node = desk.node()
        _, attempt, _ = await desk.open(node, await desk.offer(node))
        before = await desk.account(attempt)

        def work(tx: Transaction) -> bool:
            may_be_drawn = desk.rail.release(tx, attempt, uncertain=False)
            if not may_be_drawn:
                desk.ledger.unreserve(tx, attempt)
            return may_be_drawn

        may_be_drawn = await desk.journal.commit(work)
        after = await desk.account(attempt)
        assert after.spent == before.spent
        assert after.reserved == (before.reserved if may_be_drawn else before.reserved.asset.zero())


class StoreConformance:
    """What every artifact store keeps to; give it the fixture `store`.

    A store that keeps no files under `tmp_path` overrides the fixture `damage`: a function that has
    its next answers wrong by a byte.
    """

    @pytest.fixture
    def damage(self, tmp_path: Path) -> Callable[[Artifact], None]:
        def changed(put: Artifact) -> None:
            for file in tmp_path.rglob(put.digest):
                file.write_bytes(b"Some bytes")

        return changed

    async def test_what_was_put_comes_back(self, store: ArtifactStore) -> None:
        for data in (b"", b"x", bytes(300_000)):
            put = await store.put(Blob.of(data))
            assert any(at.startswith(f"{store.scheme}:") for at in put.locators)
            again = await store.get(Blob(put.digest, put.size, put.media_type, put.locators))
            assert again.read() == data

    async def test_what_was_never_put_is_not_there(self, store: ArtifactStore) -> None:
        with pytest.raises(StoreUnavailable):
            await store.get(Blob("00" * 32, 1, ""))

    async def test_a_flipped_byte_is_caught(
        self, store: ArtifactStore, damage: Callable[[Artifact], None]
    ) -> None:
        put = await store.put(Blob.of(b"some bytes"))
        damage(put)
        with pytest.raises(StateCorrupt):
            (await store.get(Blob(put.digest, put.size, "", put.locators))).read()


@dataclass(frozen=True)
class Case:
    """What a verifier is shown: the suite tells it a good result and a bad one."""

    verifier: Verifier
    task: Task
    good: Result
    bad: Result


class VerifierConformance:
    """What every verifier keeps to; give it the fixture `case`."""

    async def test_it_passes_what_is_good_and_not_what_is_bad(self, case: Case) -> None:
        assert case.verifier.accepts(case.good.evidence) is True
        good = await case.verifier.verify(case.task, case.good, case.good.evidence)
        bad = await case.verifier.verify(case.task, case.bad, case.bad.evidence)
        assert good.outcome == "pass"
        assert bad.outcome == "fail"
        assert bad.reason, "a refusal says why"

    async def test_it_says_the_same_twice(self, case: Case) -> None:
        for result in (case.good, case.bad):
            verdicts = [
                await case.verifier.verify(case.task, result, result.evidence) for _ in range(2)
            ]
            assert verdicts[0] == verdicts[1]

    async def test_nonsense_is_no_pass_and_no_error(self, case: Case) -> None:
        (output,) = case.good.outputs
        for data in (b"", b"\xff\xfe", b"[" * 5000, b"null"):
            nonsense = replace(case.good, outputs=(type(output).of(data),))
            verdict = await case.verifier.verify(case.task, nonsense, nonsense.evidence)
            assert verdict.outcome in ("fail", "unsure")
