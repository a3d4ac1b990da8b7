"""Plans on fakes: who is chosen, what is left out and why, which limits hold."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.drawn_cases import cases
from support.toy_market import toy, usdc

from agentkit.artifacts import Embedding
from agentkit.errors import (
    ConfigError,
    NoOffer,
    OverBudget,
    PastDeadline,
    PlanError,
    PlanExpired,
    Refused,
    Unavailable,
    WrongInput,
)
from agentkit.graph.builder import JobGraph
from agentkit.market.allowance import Allowance
from agentkit.market.offer import Offer
from agentkit.market.plan import Plan
from agentkit.market.task import TaskSpec
from agentkit.money import Money
from agentkit.planner import policy
from agentkit.planner.candidates import Candidate, longest_path
from agentkit.planner.planner import check_fresh, make_plan
from agentkit.planner.request import Wish
from agentkit.planner.selection import choose
from agentkit.runtime import run as runs
from agentkit.testing.fakes import USDC, FakeProvider


def chain(length: int = 3) -> JobGraph:
    graph = JobGraph("chain")
    ref = graph.infer("n0", model="m", prompt="start")
    for number in range(1, length):
        ref = graph.infer(f"n{number}", model="m", prompt="{x}", inputs={"x": ref})
    return graph


class Odd(FakeProvider):
    """A provider whose offers are changed before they are handed over."""

    def __init__(self, name: str, folder: Path, **changes: object) -> None:
        super().__init__(name, folder)
        self.changes = changes

    async def offers(self, spec: TaskSpec) -> list[Offer]:
        return [o.model_copy(update=self.changes) for o in await super().offers(spec)]


class Broken(FakeProvider):
    """A provider that raises when it is asked for offers."""

    def __init__(self, name: str, folder: Path, error: Exception) -> None:
        super().__init__(name, folder)
        self.error = error

    async def offers(self, spec: TaskSpec) -> list[Offer]:
        raise self.error


async def test_the_cheapest_is_chosen_and_the_others_are_alternates(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        plan = await market.plan(chain())
        for node in plan.nodes:
            assert [offer.provider for offer in node.offers] == ["one", "two"]
            assert node.at_most == node.alternates[0].at_most
        assert plan.at_most == usdc("0") + sum((n.at_most for n in plan.nodes), usdc("0"))  # type: ignore[arg-type]
        assert plan.price < plan.at_most
        assert market.executions == []


async def test_the_table_has_every_node_and_the_totals(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        plan = await market.plan(chain(), budget="0.5")
        text = str(plan)
        assert f"plan {plan.id[:6]} · chain · 3 nodes" in text
        assert text.count("one") >= 3
        assert "of 0.50 USDC" in text
        assert "held on run" in text
        told = plan.explain("n1")
        assert "chosen, paid by toy" in told
        assert "alternate 1" in told
        with pytest.raises(PlanError, match="'gone'"):
            plan.explain("gone")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"price": Money.parse("1 ETH"), "at_most": Money.parse("1 ETH")}, "priced in ETH"),
        ({"at_most": usdc("0")}, "at most is below the price"),
        ({"eta": float("nan")}, "ETA is nan"),
        ({"eta": -1.0}, "ETA is -1.0"),
        ({"expires": 1.0}, "already expired"),
        ({"rail": "barter"}, "barter"),
    ],
)
async def test_absurd_offers_are_left_out_with_the_reason(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    odd = Odd("odd", tmp_path / "odd", **changes)
    good = FakeProvider("good", tmp_path / "good", factor=50)
    async with toy(tmp_path, odd=odd, good=good) as market:
        plan = await market.plan(chain(1))
        assert [offer.provider for offer in plan.nodes[0].offers] == ["good"]
        assert reason in plan.explain("n0")
    async with toy(tmp_path, odd=odd) as market:
        with pytest.raises(NoOffer, match=reason) as raised:
            await market.plan(chain(1))
        assert raised.value.exit_code == 3
        assert raised.value.rejections


@pytest.mark.parametrize(
    "error", [Unavailable("is down"), Refused("not today"), ConfigError("no key")]
)
async def test_a_provider_that_fails_does_not_fail_the_plan(
    tmp_path: Path, error: Exception
) -> None:
    broken = Broken("broken", tmp_path / "broken", error)
    good = FakeProvider("good", tmp_path / "good")
    async with toy(tmp_path, broken=broken, good=good) as market:
        plan = await market.plan(chain(1))
        assert str(error) in plan.explain("n0")


async def test_nobody_at_all_is_no_offer(tmp_path: Path) -> None:
    async with toy(tmp_path, only=FakeProvider("only", tmp_path / "only")) as market:
        market.providers.clear()
        with pytest.raises(NoOffer, match="'n0'"):
            await market.plan(chain(1))


# -- limits --------------------------------------------------------------------------------------


async def test_dear_alternates_are_dropped_to_fit_the_budget(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        generous = await market.plan(chain())
        least = sum((n.offer.at_most.units for n in generous.nodes if n.offer), 0)
        tight = await make_plan(chain().freeze(), market.market, Wish(budget=Money(least, USDC)))
        assert tight.at_most.units == least
        assert all(not node.alternates for node in tight.nodes)
        assert "break the budget" in tight.explain("n0")
        with pytest.raises(OverBudget) as raised:
            await make_plan(chain().freeze(), market.market, Wish(budget=Money(least - 1, USDC)))
        assert (raised.value.limit, raised.value.allowed) == ("budget", Money(least - 1, USDC))


async def test_the_smallest_limit_is_named(tmp_path: Path) -> None:
    allowance = Allowance(per_run=usdc("0.000001"))
    async with toy(tmp_path, allowance=allowance) as market:
        with pytest.raises(OverBudget) as raised:
            await market.plan(chain())
        assert raised.value.limit == "per_run"


async def test_time_is_bought_when_the_deadline_asks_for_it(tmp_path: Path) -> None:
    providers = {
        "slow": FakeProvider("slow", tmp_path / "slow", delay=10),
        "quick": FakeProvider("quick", tmp_path / "quick", delay=1, factor=5),
    }
    async with toy(tmp_path, **providers) as market:
        frozen = chain().freeze()
        relaxed = await make_plan(frozen, market.market, Wish(deadline=60))
        assert {n.offer.provider for n in relaxed.nodes if n.offer} == {"slow"}
        pressed = await make_plan(frozen, market.market, Wish(deadline=13))
        assert sorted(n.offer.provider for n in pressed.nodes if n.offer) == [
            "quick",
            "quick",
            "slow",
        ]
        with pytest.raises(PastDeadline) as raised:
            await make_plan(frozen, market.market, Wish(deadline=2))
        assert raised.value.earliest == pytest.approx(3.0)
        assert raised.value.path == ("n0", "n1", "n2")
        fast = await make_plan(frozen, market.market, Wish(objective="time"))
        assert {n.offer.provider for n in fast.nodes if n.offer} == {"quick"}


@pytest.mark.parametrize("deadline", [0, -5.0])
async def test_a_deadline_in_the_past_is_a_plan_error(tmp_path: Path, deadline: float) -> None:
    async with toy(tmp_path) as market:
        with pytest.raises(PlanError, match="in the past"):
            await make_plan(chain().freeze(), market.market, Wish(deadline=deadline))


# -- saving --------------------------------------------------------------------------------------


async def test_a_plan_reads_back_to_itself_and_runs(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        plan = await market.plan(chain())
        plan.save(tmp_path / "plan.json")
        assert Plan.load(tmp_path / "plan.json") == plan


async def test_a_changed_plan_is_refused(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        (await market.plan(chain())).save(tmp_path / "plan.json")
    document = json.loads((tmp_path / "plan.json").read_text())
    document["plan"]["budget"] = "900.00 USDC"
    (tmp_path / "changed.json").write_text(json.dumps(document))
    with pytest.raises(PlanError, match="was changed"):
        Plan.load(tmp_path / "changed.json")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(PlanError, match="is not a plan"):
        Plan.load(tmp_path / "other.json")
    with pytest.raises(PlanError, match="no file"):
        Plan.load(tmp_path / "gone.json")


async def test_an_old_plan_and_another_wallets_are_refused(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        plan = await market.plan(chain())
        with pytest.raises(PlanExpired):
            check_fresh(plan.model_copy(update={"expires": time.time() - 1}), market.market)
        with pytest.raises(PlanError, match="wallet"):
            check_fresh(plan.model_copy(update={"wallet": "0xother"}), market.market)
        check_fresh(plan, market.market)


async def test_a_missing_source_is_named(tmp_path: Path) -> None:
    graph = JobGraph("g")
    graph.data("rows", source="gone.jsonl")
    async with toy(tmp_path) as market:
        with pytest.raises(WrongInput, match=r"gone\.jsonl"):
            await market.plan(graph)


# -- policies ------------------------------------------------------------------------------------


async def offers(tmp_path: Path) -> list[Offer]:
    providers = {
        name: FakeProvider(name, tmp_path / name, factor=factor)
        for name, factor in (("cheap", 10), ("native", 11), ("dear", 40))
    }
    async with toy(tmp_path, **providers) as market:
        return list((await market.plan(chain(1))).nodes[0].offers)


async def test_policies_narrow_and_order(tmp_path: Path) -> None:
    found = await offers(tmp_path)

    def names(chosen: list[Offer]) -> list[str]:
        return [offer.provider for offer in chosen]

    assert names(policy.deny("che*")(found)) == ["native", "dear"]
    assert names(policy.allow("dear", "native")(found)) == ["native", "dear"]
    assert names(policy.prefer("native", within="10%")(found)) == ["native", "cheap", "dear"]
    assert names(policy.prefer("native", within="9%")(found)) == ["cheap", "native", "dear"]
    assert names((policy.deny("cheap") >> policy.prefer("dear", "900%"))(found)) == [
        "dear",
        "native",
    ]
    assert names((policy.allow("gone") | policy.allow("dear"))(found)) == ["dear"]
    assert policy.attested(found) == []
    assert policy.max_price("0 USDC")(found) == []
    own = policy.deny("dear") >> (lambda offers: offers[::-1])
    assert names(own(found)) == ["native", "cheap"]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("cheapest", "cheapest"),
        ("deny(a*, b) >> prefer(native, 10%)", "deny(a*, b) >> prefer(native, within=10%)"),
        ("allow(x) | fastest", "allow(x) | fastest"),
        ("prefer(native, within=5%)", "prefer(native, within=5%)"),
        ("max_price(0.1 USDC)", "max_price(0.10 USDC)"),
    ],
)
def test_policies_are_read_from_text(text: str, same: str) -> None:
    assert str(policy.parse(text)) == same


@pytest.mark.parametrize("text", ["", "cheapest(", "sell(x)", "deny()", "prefer(a, ten)", "a >> "])
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        policy.parse(text)
    assert raised.value.hint


# -- the solver ----------------------------------------------------------------------------------


@settings(max_examples=cases(60), deadline=None)
@given(data=st.data())
def test_a_solution_keeps_the_deadline_or_none_could(data: st.DataObject) -> None:
    """Against every possible choice: never late where a choice exists that is not."""
    count = data.draw(st.integers(1, 4))
    candidates = []
    for number in range(count):
        parents = tuple(f"n{p}" for p in range(number) if data.draw(st.booleans()))
        made = tuple(
            _offer(f"p{k}", data.draw(st.integers(1, 50)), data.draw(st.integers(1, 9)))
            for k in range(data.draw(st.integers(1, 3)))
        )
        made = tuple(sorted(made, key=lambda offer: offer.price.units))
        candidates.append(Candidate(f"n{number}", made, parents))
    deadline = data.draw(st.integers(1, 30))
    fastest = {c.name: min(c.offers, key=lambda o: o.eta) for c in candidates}
    possible = longest_path(candidates, fastest)[0] <= deadline
    try:
        chosen = choose(candidates, deadline).offers
    except PastDeadline as late:
        assert not possible
        assert late.earliest == pytest.approx(longest_path(candidates, fastest)[0])
    else:
        assert longest_path(candidates, chosen)[0] <= deadline


def _offer(provider: str, units: int, eta: int) -> Offer:
    return Offer(
        provider=provider,
        node="n",
        on="x",
        price=Money(units, USDC),
        at_most=Money(units, USDC),
        eta=eta,
        expires=0,
        rail="toy",
        pays="on_delivery",
        rates={},
    )


async def test_what_follows_from_counted_rows_is_known_before(tmp_path: Path) -> None:
    """Columns and rows go along the edges: splits, mapped nodes, vectors, an empty part."""
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": "b"}\n' * 8)
    async with toy(tmp_path) as market:
        graph = JobGraph("known")
        rows = graph.data("rows", source="rows.jsonl")
        most, rest = graph.split("parts", rows, at=0.75)
        said = graph.infer("said", model="m", over=most, prompt="{text}")
        graph.infer("again", model="m", over=said, prompt="{said} of {label}")
        vectors = graph.infer("v", model="m", over=rest, prompt="{text}", output=Embedding)
        graph.infer("near", model="m", over=vectors, prompt="{vector} {text}")
        all_of_it, none = graph.split("all", rows, at=0.99)
        graph.infer("nothing", model="m", over=none, prompt="{text}")
        plan = await market.plan(graph)
        items = {node.name: node.items for node in plan.nodes if node.offer}
        assert items == {"said": 6, "again": 6, "v": 2, "near": 2, "nothing": 1}
        result = await (await runs.start(market.means, plan)).result()
        assert len(result.receipts) == 16
        graph.infer("wrong", model="m", over=all_of_it, prompt="{said}")
        with pytest.raises(WrongInput, match=r"\{said\}") as raised:
            await market.plan(graph)
        assert "label, text" in raised.value.hint
