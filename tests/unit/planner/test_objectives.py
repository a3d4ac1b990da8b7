"""Plans that weigh: objectives, limits, egress, lanes, what is left of a run, and what they say."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.drawn_cases import cases
from support.toy_market import Toy, toy, usdc

from agentkit.errors import (
    CyclicGraph,
    NoOffer,
    OverBudget,
    PastDeadline,
    PlanError,
    Refused,
    RunPaused,
)
from agentkit.graph.builder import JobGraph
from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.nodes import InferNode, Needs
from agentkit.graph.refs import InputRef
from agentkit.kinds.infer import infer_load
from agentkit.market.models import ALIASES, names_of
from agentkit.market.offer import Offer
from agentkit.market.plan import Plan
from agentkit.market.task import Load, TaskSpec
from agentkit.money import Money, Rate
from agentkit.planner import policy
from agentkit.planner.candidates import Candidate, timeline
from agentkit.planner.costs import ranked
from agentkit.planner.estimate import Measured, measured_in, sizes_of, spec_of
from agentkit.planner.planner import make_plan
from agentkit.planner.remaining import Rest, rest_of
from agentkit.planner.request import Wish, is_objective
from agentkit.planner.selection import choose
from agentkit.providers.openai import GAIA, EndpointSettings, OpenAI
from agentkit.runtime import history
from agentkit.runtime import run as runs
from agentkit.testing.fakes import NETWORK, USDC, FakeProvider


class Odd(FakeProvider):
    """A provider whose offers are changed before they are handed over; it counts questions."""

    changes: dict[str, object]
    asked = 0

    async def offers(self, spec: TaskSpec) -> Sequence[Offer]:
        self.asked += 1
        return [o.model_copy(update=self.changes) for o in await super().offers(spec)]


def ladder(folder: Path, count: int = 4, **changes: object) -> dict[str, FakeProvider]:
    """Return providers p0, p1, …: each faster than the one before, and dearer."""
    made: dict[str, FakeProvider] = {}
    for n in range(count):
        made[f"p{n}"] = Odd(f"p{n}", folder / f"p{n}", factor=1 + n, delay=10 / (1 + n))
        made[f"p{n}"].changes = changes  # type: ignore[attr-defined]
    return made


def line(length: int) -> FrozenGraph:
    graph = JobGraph("line")
    ref = graph.infer("n0", model="m", prompt="start")
    for number in range(1, length):
        ref = graph.infer(f"n{number}", model="m", prompt="{x}", inputs={"x": ref})
    return graph.freeze()


def recomputed(plan: Plan) -> tuple[int, int, float]:
    """Add a plan up from its offers alone: price, at most without alternates, finish."""
    price = sum(n.offer.price.units * n.items for n in plan.nodes if n.offer)
    least = sum(n.offer.at_most.units * n.items for n in plan.nodes if n.offer)
    ends: dict[str, float] = {}
    for node in plan.nodes:
        ready = max((ends[p] for p in plan.graph.parents[node.name]), default=0.0)
        ends[node.name] = ready + (node.offer.seconds(node.items) if node.offer else 0.2)
    return price, least, max(ends.values())


async def plan_of(market: Toy, wish: Wish, graph: FrozenGraph | None = None) -> Plan:
    return await make_plan(graph or line(5), market.market, wish)


# -- objectives ----------------------------------------------------------------------------------


async def test_every_deadline_gets_the_cheapest_choice_in_time(tmp_path: Path) -> None:
    """On a line each node's price and time are known, so the best can be enumerated."""
    async with toy(tmp_path, **ladder(tmp_path)) as market:
        base = [n.offers for n in (await plan_of(market, Wish())).nodes]
        for deadline in (13.0, 17.0, 25.0, 40.0, 51.0):
            plan = await plan_of(market, Wish(deadline=deadline))
            price, _, finish = recomputed(plan)
            assert finish <= deadline
            assert (plan.price.units, plan.eta) == (price, pytest.approx(finish))
            states: dict[float, int] = {0.0: 0}
            for offers in base:
                grown: dict[float, int] = {}
                for seconds, cost in states.items():
                    for offer in offers:
                        key = round(seconds + offer.eta, 6)
                        grown[key] = min(grown.get(key, 10**9), cost + offer.price.units)
                states = grown
            best = min(cost for seconds, cost in states.items() if seconds <= deadline + 1e-6)
            assert price == best
            assert plan.bound == plan.price


async def test_least_time_is_bought_within_the_budget(tmp_path: Path) -> None:
    async with toy(tmp_path, **ladder(tmp_path)) as market:
        cheapest = await plan_of(market, Wish())
        soonest = await plan_of(market, Wish(objective="time"))
        assert soonest.eta == pytest.approx(12.5)
        last = math.inf
        for share in (0, 0.5, 1):
            low, high = (recomputed(p)[1] for p in (cheapest, soonest))
            budget = Money(round(low + share * (high - low)), USDC)
            plan = await plan_of(market, Wish(budget=budget, objective="time"))
            assert plan.at_most <= budget
            assert plan.eta <= last
            last = plan.eta
        assert last == pytest.approx(12.5)
        with pytest.raises(PastDeadline):
            await plan_of(market, Wish(objective="time", deadline=12.0))


async def test_a_weight_lies_between_cost_and_time(tmp_path: Path) -> None:
    async with toy(tmp_path, **ladder(tmp_path)) as market:
        plans = [await plan_of(market, Wish(objective=w)) for w in (0, 0.2, 0.5, 0.8, 1)]
        assert [p.eta for p in plans] == sorted((p.eta for p in plans), reverse=True)
        assert [p.price for p in plans] == sorted(p.price for p in plans)
        assert plans[0].eta > plans[2].eta > plans[4].eta


def fork() -> FrozenGraph:
    """Return a line of four nodes, and one beside it that nothing waits for."""
    graph = JobGraph.thaw(line(4))
    graph.infer("side", model="m", prompt="start")
    return graph.freeze()


def placed(plan: Plan) -> list[str]:
    return [node.offer.provider for node in plan.nodes if node.offer]


@pytest.mark.parametrize(
    ("objective", "weight"),
    [("cost", 0.0), (0, 0.0), (0.0, 0.0), (0.25, 0.25), (1, 1.0), (1.0, 1.0), ("time", 1.0)],
)
def test_an_objective_is_a_weight_between_cost_and_time(
    objective: str | float, weight: float
) -> None:
    assert is_objective(objective)
    assert Wish(objective=objective).weight == weight


@pytest.mark.parametrize(
    "objective", [-0.01, 1.01, 2, math.nan, math.inf, "speed", "0.5", "", None, True, False]
)
def test_anything_else_is_no_objective(objective: object) -> None:
    """True is 1 to Python, and whoever passes it did not mean the least time."""
    assert not is_objective(objective)


async def test_the_numbers_0_and_1_plan_as_cost_and_time_do(tmp_path: Path) -> None:
    async with toy(tmp_path, **ladder(tmp_path)) as market:
        for number, name in ((0, "cost"), (1, "time")):
            for chosen in (None, policy.fastest, policy.prefer("p1", within="900%")):
                by_number = await plan_of(market, Wish(objective=number, policy=chosen), fork())
                by_name = await plan_of(market, Wish(objective=name, policy=chosen), fork())
                assert placed(by_number) == placed(by_name)
                assert by_number.eta == by_name.eta


@pytest.mark.parametrize("weight", [0, 0.01, 0.3, 0.5, 0.8, 0.99, 1])
@pytest.mark.parametrize(
    ("first", "chosen"),
    [
        ("p0", policy.cheapest),
        ("p3", policy.fastest),
        ("p0", policy.prefer("p0", within="900%")),
        ("p1", policy.prefer("p1", within="900%")),
        ("p2", policy.deny("p0") >> policy.prefer("p2", within="900%")),
    ],
    ids=str,
)
async def test_what_a_policy_prefers_is_taken_at_every_weight(
    tmp_path: Path, weight: float, first: str, chosen: policy.Policy
) -> None:
    """Between 0 and 1 a faster offer was taken; at 1 a cheaper one, off the longest path."""
    async with toy(tmp_path, **ladder(tmp_path)) as market:
        plan = await plan_of(market, Wish(objective=weight, policy=chosen), fork())
        assert placed(plan) == [first] * 5


@pytest.mark.parametrize("weight", [0, 0.5, 1])
async def test_a_deadline_comes_before_what_a_policy_prefers(tmp_path: Path, weight: float) -> None:
    preferred = policy.prefer("p1", within="900%")
    async with toy(tmp_path, **ladder(tmp_path)) as market:
        wish = Wish(objective=weight, policy=preferred, deadline=11.0)
        plan = await plan_of(market, wish, fork())
        assert plan.eta <= 11
        with pytest.raises(PastDeadline) as raised:
            await plan_of(market, replace(wish, deadline=9.0), fork())
        assert raised.value.earliest == pytest.approx(10), "the fastest offers need 2.5 s each"


@pytest.mark.parametrize("weight", [0.3, 1])
async def test_a_policy_that_only_narrows_leaves_the_weight_to_choose(
    tmp_path: Path, weight: float
) -> None:
    async with toy(tmp_path, **ladder(tmp_path)) as market:
        narrowed = await plan_of(
            market, Wish(objective=weight, policy=policy.deny("none*")), fork()
        )
        plain = await plan_of(market, Wish(objective=weight), fork())
        assert placed(narrowed) == placed(plain)
        assert len(set(placed(plain))) > 1


async def test_a_quantile_leaves_room_for_slow_answers(tmp_path: Path) -> None:
    async with toy(tmp_path, **ladder(tmp_path)) as market:
        even = await plan_of(market, Wish(deadline=40))
        sure = await plan_of(market, Wish(deadline=40, risk=0.9))
        assert recomputed(sure)[2] < recomputed(even)[2]
        assert sure.eta <= 40
        assert "90% of cases" in str(sure)
        with pytest.raises(PastDeadline):
            await plan_of(market, Wish(deadline=14, risk=0.9))


async def test_tries_that_fail_cost_time_and_money(tmp_path: Path) -> None:
    async with toy(tmp_path, **ladder(tmp_path, 2)) as market:
        assert (await plan_of(market, Wish(deadline=6), line(1))).eta == 5
        shaky = replace(market.market, reputations={"p1": 0.5})
        with pytest.raises(PastDeadline) as raised:
            await make_plan(line(1), shaky, Wish(deadline=6))
        assert raised.value.earliest == 10
        doubtful = replace(market.market, reputations={"p0": 0.4})
        plan = await make_plan(line(1), doubtful, Wish())
        assert [o.provider for o in plan.nodes[0].offers] == ["p1", "p0"]


# -- what the plan says --------------------------------------------------------------------------


async def test_the_text_says_how_near_the_best_and_what_time_is_worth(tmp_path: Path) -> None:
    async with toy(tmp_path, **ladder(tmp_path)) as market:
        relaxed = await plan_of(market, Wish())
        assert "optimal · held on run" in str(relaxed)
        assert "later saves" not in str(relaxed)
        assert relaxed.saved_by(3600) == usdc("0")
        pressed = await plan_of(market, Wish(deadline=30, budget=usdc("1")))
        assert "a second later saves about 0.0000" in str(pressed)
        assert "USDC more ends it about" in str(pressed)
        later = await plan_of(market, Wish(deadline=40))
        saved = pressed.price - later.price
        assert pressed.saved_by(10).units == pytest.approx(saved.units, rel=0.5)
        loose = pressed.model_copy(update={"bound": Money(pressed.price.units - 100, USDC)})
        assert "optimal within 15.2% (bound 0.000656)" in str(loose)


async def test_explain_has_every_offer_and_why_it_is_where_it_is(tmp_path: Path) -> None:
    async with toy(tmp_path, **ladder(tmp_path, 7)) as market:
        chosen = policy.deny("p6") >> policy.max_price("0.0038 USDC") >> policy.cheapest
        told = (await plan_of(market, Wish(policy=chosen, deadline=30))).explain("n1")
        for name in (f"p{n}" for n in range(7)):
            assert f"\n{name} " in told
        assert "left out: policy deny(p6)" in told
        assert "left out: policy max_price(0.0038 USDC)" in told
        assert "left out: ranks behind the 3 alternates that are kept" in told
        assert "estimated: 1 request, " in told
        assert "±50% (sizes assumed" in told


async def test_diff_names_the_nodes_that_change_and_the_totals(tmp_path: Path) -> None:
    async with toy(tmp_path, **ladder(tmp_path)) as market:
        slow = await plan_of(market, Wish())
        fast = await plan_of(market, Wish(objective="time"))
        told = slow.diff(fast)
        assert told.startswith(f"plan {slow.id[:6]} -> {fast.id[:6]}")
        assert told.count("p0 on fake") == 5
        assert "p3 on fake" in told
        assert "+300.0%" in told
        assert "50s -> 12s" in told
        assert slow.diff(slow).count("\n") == 2
        shorter = await plan_of(market, Wish(), line(4))
        assert "n4" in slow.diff(shorter)


async def test_a_plan_with_all_it_says_reads_back(tmp_path: Path) -> None:
    async with toy(tmp_path, **ladder(tmp_path)) as market:
        plan = await plan_of(market, Wish(deadline=30, risk=0.8, objective=0.5))
        plan.save(tmp_path / "plan.json")
        again = Plan.load(tmp_path / "plan.json")
        assert again == plan
        assert (again.second, again.path, again.bound) == (plan.second, plan.path, plan.bound)


async def test_alternates_are_ranked_by_price_and_time(tmp_path: Path) -> None:
    """Where a second is dear, the faster offer steps in before the cheaper one."""
    async with toy(tmp_path, **ladder(tmp_path)) as market:
        relaxed = await plan_of(market, Wish())
        assert [o.provider for o in relaxed.nodes[0].offers] == ["p0", "p1", "p2", "p3"]
        node = Candidate(
            "n",
            relaxed.nodes[0].offers,
            (),
            costs=(1.0, 2.0, 3.0, 4.0),
            seconds=(10.0, 5.0, 3.0, 2.0),
        )
        assert [o.provider for o in ranked(node, node.offers[1], 10.0)] == ["p3", "p2", "p0"]
        assert [o.provider for o in ranked(node, node.offers[1], 0.0)] == ["p0", "p2", "p3"]


# -- limits --------------------------------------------------------------------------------------


async def test_a_dearer_choice_is_taken_when_its_worst_case_is_what_fits(tmp_path: Path) -> None:
    risky, sure = (Odd(name, tmp_path / name, factor=f) for name, f in (("risky", 1), ("sure", 2)))
    risky.changes, sure.changes = {"at_most": usdc("0.9")}, {}
    async with toy(tmp_path, risky=risky, sure=sure) as market:
        assert (await plan_of(market, Wish())).nodes[0].offers[0].provider == "risky"
        plan = await plan_of(market, Wish(budget=usdc("1")))
        assert plan.at_most <= usdc("1")
        assert sum(n.offer.provider == "risky" for n in plan.nodes if n.offer) <= 1
        cheapest = await plan_of(market, Wish())
        assert plan.bound == cheapest.price < plan.price


async def test_an_impossible_budget_says_what_would_make_it_possible(tmp_path: Path) -> None:
    async with toy(tmp_path, **ladder(tmp_path)) as market:
        least = recomputed(await plan_of(market, Wish()))[1]
        with pytest.raises(OverBudget) as raised:
            await plan_of(market, Wish(budget=Money(least - 1, USDC)))
        assert f"raise budget to at least {Money(least, USDC)}" in raised.value.hint
        assert "or drop nodes from the graph ('n" in raised.value.hint
        with pytest.raises(OverBudget) as raised:
            await plan_of(market, Wish(budget=Money(least, USDC), deadline=20))
        assert "or set deadline to 50 s or more" in raised.value.hint
        again = await plan_of(market, Wish(budget=Money(least, USDC), deadline=50.5))
        assert again.at_most.units == least


async def test_an_impossible_deadline_names_the_path_and_the_earliest_end(tmp_path: Path) -> None:
    graph = JobGraph("two")
    long = graph.infer("a1", model="m", prompt="start")
    long = graph.infer("a2", model="m", prompt="{x}", inputs={"x": long})
    short = graph.infer("b", model="m", prompt="start")
    graph.infer("end", model="m", prompt="{x} {y}", inputs={"x": long, "y": short})
    async with toy(tmp_path, **ladder(tmp_path)) as market:
        with pytest.raises(PastDeadline) as raised:
            await plan_of(market, Wish(deadline=5), graph.freeze())
        assert raised.value.path == ("a1", "a2", "end")
        assert raised.value.earliest == pytest.approx(7.5)
        await plan_of(market, Wish(deadline=raised.value.earliest), graph.freeze())


# -- egress and lanes ----------------------------------------------------------------------------


async def test_data_that_leaves_a_provider_is_priced_and_waited_for(tmp_path: Path) -> None:
    """Without egress the two nodes go to different providers; with it both stay at one."""
    graph = JobGraph("g")
    long = "word " * 100
    first = graph.infer("first", model="m", prompt=long, max_tokens=1)
    graph.infer("then", model="m", prompt="{x}", inputs={"x": first}, max_tokens=100)
    one, two = (Odd(n, tmp_path / n) for n in ("one", "two"))
    cheap, dear = (Rate.parse(f"{n} USDC per 1M tokens").bind(USDC) for n in (1, 3))
    free = Rate.parse("0 USDC per 1M tokens").bind(USDC)
    one.rates = {"request": free, "input": cheap, "output": dear}
    two.rates = {"request": free, "input": dear, "output": cheap}
    one.changes = two.changes = {}
    async with toy(tmp_path, one=one, two=two) as market:
        apart = await plan_of(market, Wish(), graph.freeze())
        assert [n.offer.provider for n in apart.nodes if n.offer] == ["one", "two"]
        assert [fee.name for fee in apart.fees] == []
        one.changes = two.changes = {
            "egress": Rate.parse("1 USDC per 1K bytes").bind(USDC),
            "bandwidth": 10.0,
        }
        together = await plan_of(market, Wish(), graph.freeze())
        assert len({n.offer.provider for n in together.nodes if n.offer}) == 1
        fee = together.fees[0]
        assert (fee.name, fee.price.units) == ("egress", 0)
        assert fee.at_most.units > 0
        nodes = sum(n.at_most.units for n in together.nodes if n.at_most)
        assert together.at_most.units == nodes + fee.at_most.units
        with pytest.raises(OverBudget):
            await plan_of(market, Wish(budget=Money(nodes, USDC)), graph.freeze())


async def test_nodes_wait_for_a_providers_lanes(tmp_path: Path) -> None:
    graph = JobGraph("wide")
    for number in range(6):
        graph.infer(f"n{number}", model="m", prompt="p")
    one = FakeProvider("one", tmp_path / "one", delay=10, lanes=2)
    two = FakeProvider("two", tmp_path / "two", delay=10, lanes=4, factor=3)
    async with toy(tmp_path, one=one, two=two) as market:
        assert (await plan_of(market, Wish(), graph.freeze())).eta == 30
        plan = await plan_of(market, Wish(deadline=15), graph.freeze())
        assert plan.eta == 10
        taken = [n.offer.provider for n in plan.nodes if n.offer]
        assert (taken.count("one"), taken.count("two")) == (2, 4)


@settings(max_examples=cases(40), deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_plan_on_lanes_is_late_and_none_is_refused_that_the_fastest_offers_keep(
    seed: int,
) -> None:
    draw = random.Random(seed)
    lanes = [draw.randint(1, 4) for _ in range(3)]
    candidates = [
        Candidate(
            f"n{n}",
            tuple(
                offer(f"p{k}", draw.randint(1, 50), draw.randint(1, 5), lanes[k]) for k in (0, 1, 2)
            ),
            tuple({f"n{draw.randrange(n)}" for _ in range(draw.randint(0, 2))} if n else ()),
            items=draw.choice([1, 1, 3]),
        )
        for n in range(draw.randint(1, 25))
    ]
    fastest = {c.name: min(c.offers, key=lambda o: o.eta) for c in candidates}
    finish = timeline(candidates, fastest).finish
    deadline = finish * draw.uniform(0.6, 1.5)
    try:
        chosen = choose(candidates, deadline)
    except PastDeadline as late:
        assert deadline < finish
        assert late.earliest > deadline
    else:
        assert chosen.times.finish <= deadline
        assert chosen.bound <= chosen.cost * (1 + 1e-9)


def offer(provider: str, units: int, eta: float, lanes: int) -> Offer:
    amount = Money(units, USDC)
    return Offer(
        provider=provider,
        node="n",
        on="x",
        price=amount,
        at_most=amount,
        eta=eta,
        lanes=lanes,
        expires=0,
        rail="toy",
        pays="on_delivery",
        rates={},
    )


async def test_a_lie_about_capacity_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n' * 100)
    graph = JobGraph("mapped")
    rows = graph.data("rows", source="rows.jsonl")
    graph.infer("each", model="m", prompt="{text}", over=rows)
    liar = Odd("liar", tmp_path / "liar", delay=10)
    liar.changes = {"lanes": 10**9}
    async with toy(tmp_path, liar=liar) as market:
        plan = await plan_of(market, Wish(), graph.freeze())
        assert plan.node("each").offers[0].lanes == 64
        assert plan.eta == pytest.approx(20.2)
        liar.changes = {"lanes": 0}
        with pytest.raises(NoOffer, match="works on 0 purchases at once"):
            await plan_of(market, Wish(), graph.freeze())


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"expires": 1.0}, "already expired"),
        ({"expires": math.nan}, "already expired"),
        ({"eta": math.nan}, "ETA is nan"),
        ({"eta": math.inf}, "ETA is inf"),
        ({"at_most": Money(10**19, USDC)}, "absurd"),
        ({"at_most": Money.parse("1 ETH")}, "at most is in ETH"),
        ({"lanes": -4}, "works on -4"),
        ({"bandwidth": -1.0}, "bandwidth is -1.0"),
        ({"bandwidth": math.nan}, "bandwidth is nan"),
        ({"egress": Rate.parse("1 ETH per 1M bytes")}, "egress in another asset"),
    ],
)
async def test_a_bad_offer_is_left_out_and_alone_it_is_no_offer(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    bad = Odd("bad", tmp_path / "bad")
    bad.changes = changes
    good = FakeProvider("good", tmp_path / "good", factor=9)
    async with toy(tmp_path, bad=bad, good=good) as market:
        plan = await plan_of(market, Wish(deadline=60))
        assert {n.offer.provider for n in plan.nodes if n.offer} == {"good"}
        assert reason in plan.explain("n0")
    async with toy(tmp_path, bad=bad) as market:
        with pytest.raises(NoOffer) as raised:
            await plan_of(market, Wish(deadline=60))
        assert reason in dict(raised.value.rejections)["bad"]
        assert raised.value.hint.startswith("run `agentkit providers`")
        assert market.executions == []


async def test_an_offer_that_cannot_do_the_node_is_left_out(tmp_path: Path) -> None:
    graph = JobGraph("train")
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": "b"}\n')
    rows = graph.data("rows", source="rows.jsonl")
    needs = Needs(gpu="A100-80GB", vram=80)
    graph.train("tune", base="m", dataset=rows, method="lora", needs=needs)
    graph.infer("ask", model="m", prompt="p" * 1000, max_tokens=100)
    able = {"gpu": "A100-80GB", "vram": 80, "tuning": ("lora", "head"), "context": 4096}
    odd = Odd("odd", tmp_path / "odd")
    good = Odd("good", tmp_path / "good", factor=9)
    good.changes = able
    said: list[tuple[dict[str, object], str, str]] = [
        ({"gpu": "H100-80GB"}, "tune", "runs on H100-80GB, not on A100-80GB"),
        ({"gpu": ""}, "tune", "runs on no GPU that it names, not on A100-80GB"),
        ({"vram": 40}, "tune", "has 40 GB of GPU memory, and 80 are needed"),
        ({"tuning": ("head",)}, "tune", "trains by head, not by lora"),
        ({"context": 256}, "ask", "takes 256 tokens, question and answer, and about 351"),
    ]
    async with toy(tmp_path, odd=odd, good=good) as market:
        for changes, node, reason in said:
            odd.changes = able | changes
            plan = await plan_of(market, Wish(), graph.freeze())
            assert reason in plan.explain(node)
        odd.changes = able
        plan = await plan_of(market, Wish(), graph.freeze())
        assert {n.offer.provider for n in plan.nodes if n.offer} == {"odd"}


@pytest.mark.parametrize(
    ("wish", "error", "hint"),
    [
        (Wish(deadline=-1), PlanError, "set a deadline"),
        (Wish(deadline=math.nan), PlanError, "set a deadline"),
        (Wish(budget=Money.parse("1 ETH")), PlanError, "set budget in USDC"),
        (Wish(objective="speed"), PlanError, "set objective"),
        (Wish(objective=math.nan), PlanError, "set objective"),
        (Wish(objective=2), PlanError, "set objective"),
        (Wish(risk=1.0), PlanError, "set risk=0.9"),
        (Wish(deadline=0.001), PastDeadline, "set deadline to 1 s"),
        (Wish(budget=Money(1, USDC)), OverBudget, "raise budget to at least"),
    ],
)
async def test_a_wish_that_cannot_be_is_a_plan_error(
    tmp_path: Path, wish: Wish, error: type[PlanError], hint: str
) -> None:
    async with toy(tmp_path) as market:
        with pytest.raises(error) as raised:
            await plan_of(market, wish)
        assert raised.value.hint.startswith(hint)
        assert raised.value.exit_code == 3
        assert market.executions == []


def test_a_graph_that_waits_for_itself_is_refused_before_anybody_is_asked() -> None:
    nodes = tuple(
        InferNode(
            name=name, kind="infer", model="m", prompt="{x}", inputs={"x": InputRef(node=other)}
        )
        for name, other in (("a", "b"), ("b", "a"))
    )
    with pytest.raises(CyclicGraph, match="a"):
        FrozenGraph.build("loop", nodes)


async def test_nodes_that_are_the_same_are_asked_for_once(tmp_path: Path) -> None:
    graph = JobGraph("many")
    for number in range(500):
        graph.infer(f"n{number:03}", model="m", prompt=f"say {number:03}")
    graph.infer("other", model="m", prompt="say 000", max_tokens=5)
    odd = Odd("odd", tmp_path / "odd")
    odd.changes = {}
    async with toy(tmp_path, odd=odd) as market:
        plan = await plan_of(market, Wish(), graph.freeze())
        assert odd.asked == 2
        assert [n.offer.node for n in plan.nodes if n.offer] == [n.name for n in plan.nodes]
        assert plan.node("other").price < plan.node("n000").price  # type: ignore[operator]


@pytest.mark.lengthy
async def test_fifty_thousand_nodes_are_placed(tmp_path: Path) -> None:
    """In time, and where some must be faster: by the solver, within seconds."""
    async with toy(tmp_path, **ladder(tmp_path, 2)) as market:
        offers = (await plan_of(market, Wish())).nodes[0].offers
    roomy = tuple(o.model_copy(update={"lanes": 10**6}) for o in offers)
    candidates = [
        Candidate(f"n{n}", roomy, (f"n{n - 1000}",) if n >= 1000 else (), costs=(1.0, 2.0))
        for n in range(50_000)
    ]
    began = time.perf_counter()
    chosen = choose(candidates, 400.0)
    assert timeline(candidates, chosen.offers).finish <= 400
    assert chosen.cost == pytest.approx(70_000, rel=0.02)
    assert chosen.bound <= 70_000
    assert time.perf_counter() - began < 60


# -- what is left of a run -----------------------------------------------------------------------


async def test_what_is_left_of_a_run_is_planned_from_its_plan(tmp_path: Path) -> None:
    """A node that nobody does pauses the run; the new plan is of the rest, net of what is gone."""
    graph = line(4)
    one = FakeProvider("one", tmp_path / "one")
    two = FakeProvider("two", tmp_path / "two", factor=2)
    down = {"n2"}
    for provider in (one, two):
        provider.before = lambda task, attempt: Refused("no") if attempt.node in down else None
    async with toy(tmp_path, one=one, two=two) as market:
        plan = await make_plan(graph, market.market, Wish(budget=usdc("1")))
        run = await runs.start(market.means, plan)
        with pytest.raises(RunPaused):
            await run.result()
        state = await history.read(market.journal, run.id)
        rest = rest_of(state)
        assert rest.done == {"n0", "n1"}
        assert rest.spent == sum(r.amount.units for r in state.receipts) > 0
        again = await make_plan(graph, market.market, Wish(budget=usdc("1")), rest=rest)
        assert [bool(n.offer) for n in again.nodes] == [False, False, True, True]
        assert again.price < plan.price
        assert "it is done" in again.explain("n0")
        left = Money(rest.spent + again.at_most.units, USDC)
        tight = await make_plan(graph, market.market, Wish(budget=left), rest=rest)
        assert tight.at_most == again.at_most
        with pytest.raises(OverBudget):
            await make_plan(graph, market.market, Wish(budget=Money(rest.spent, USDC)), rest=rest)
        down.clear()
        before = len(market.executions)
        result = await (await runs.resume(market.means, run.id, plan=again)).result()
        assert set(result.artifacts) == {"n0", "n1", "n2", "n3"}
        assert len(market.executions) == before + 2


async def test_items_that_are_done_need_no_money_and_no_time(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n' * 40)
    graph = JobGraph("mapped")
    rows = graph.data("rows", source="rows.jsonl")
    graph.infer("each", model="m", prompt="{text}", over=rows)
    one = FakeProvider("one", tmp_path / "one", delay=10, lanes=4)
    async with toy(tmp_path, one=one) as market:
        whole = await plan_of(market, Wish(), graph.freeze())
        each = whole.node("each").offers[0]
        rest = Rest(whole, frozenset({"rows"}), {"each": 30}, spent=each.price.units * 30)
        again = await make_plan(
            graph.freeze(),
            market.market,
            Wish(budget=Money(rest.spent + each.at_most.units * 10, USDC), deadline=30.5),
            rest=rest,
        )
        assert again.price == each.price * 10
        assert (whole.eta, again.eta) == (pytest.approx(100.2), pytest.approx(30))
        with pytest.raises(OverBudget):
            short = Wish(budget=Money(rest.spent + each.at_most.units * 10 - 1, USDC))
            await make_plan(graph.freeze(), market.market, short, rest=rest)


# -- estimates -----------------------------------------------------------------------------------


def test_what_a_run_measured_comes_before_what_is_assumed(tmp_path: Path) -> None:
    graph = line(2)
    sizes = sizes_of(graph, tmp_path)
    guessed = spec_of(graph.nodes[1], sizes)
    assert (guessed.load.expected["output"], guessed.spread) == (32, 0.5)
    known = {"n1": Measured(graph.nodes[1], "r1", {"input": 9.2, "output": 7.4}, 0.1)}
    told = spec_of(graph.nodes[1], sizes, known)
    assert told.load.expected == {"request": 1, "input": 9, "output": 7}
    assert told.load.most == guessed.load.most
    assert (told.basis, told.spread) == ("measured in run r1", 0.1)
    other = {"n1": replace(known["n1"], node=graph.nodes[0])}
    assert spec_of(graph.nodes[1], sizes, other) == guessed
    huge = {"n1": replace(known["n1"], units={"input": 1e9, "output": 1e9})}
    assert spec_of(graph.nodes[1], sizes, huge).load.expected["output"] == 64


async def test_measured_means_and_spread_come_from_the_receipts(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    graph = JobGraph("mapped")
    rows = graph.data("rows", source="rows.jsonl")
    graph.infer("each", model="m", prompt="{text}", over=rows)
    async with toy(tmp_path, one=FakeProvider("one", tmp_path / "one")) as market:
        result = await market.run(graph)
    first, second = result.receipts
    receipts = (
        first.model_copy(update={"usage": {"input": 10, "output": 2}}),
        second.model_copy(update={"usage": {"input": 30, "output": 4}}),
    )
    known = measured_in("r9", result.plan.graph, receipts)["each"]
    assert (known.units, known.run) == ({"input": 20, "output": 3}, "r9")
    assert known.spread == pytest.approx(0.5)


def test_usual_rows_are_expected_and_the_longest_is_the_most(tmp_path: Path) -> None:
    lines = ['{"text": "%s"}' % ("x" * n) for n in (4, 4, 4, 400)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    graph = JobGraph("g")
    rows = graph.data("rows", source="rows.jsonl")
    graph.infer("each", model="m", prompt="{text}", over=rows)
    frozen = graph.freeze()
    spec = spec_of(frozen.by_name["each"], sizes_of(frozen, tmp_path))
    assert spec.load.expected["input"] < 40
    assert spec.load.most["input"] > 400
    assert spec.basis.startswith("rows counted")


# -- policies ------------------------------------------------------------------------------------


async def test_the_order_of_a_policy_is_kept_by_the_solver(tmp_path: Path) -> None:
    """Preferred comes first though it is dearer, unless the deadline forbids it."""
    async with toy(tmp_path, **ladder(tmp_path)) as market:
        mine = policy.prefer("p1", within="100%")
        plan = await plan_of(market, Wish(policy=mine))
        assert [o.provider for o in plan.nodes[0].offers] == ["p1", "p0", "p2", "p3"]
        assert plan.bound == plan.price
        easy = await plan_of(market, Wish(policy=mine, deadline=60))
        assert {n.offer.provider for n in easy.nodes if n.offer} == {"p1"}
        hasty = await plan_of(market, Wish(policy=mine, deadline=20))
        assert recomputed(hasty)[2] <= 20
        last = await plan_of(market, Wish(policy=lambda offers: offers[::-1]))
        assert {n.offer.provider for n in last.nodes if n.offer} == {"p3"}
        quick = await plan_of(market, Wish(policy=policy.fastest))
        assert {n.offer.provider for n in quick.nodes if n.offer} == {"p3"}


async def test_spread_puts_the_best_of_different_providers_first(tmp_path: Path) -> None:
    async with toy(tmp_path, **ladder(tmp_path, 3)) as market:
        offers = list((await plan_of(market, Wish())).nodes[0].offers)
    twice = [offers[0], offers[0].model_copy(update={"on": "b"}), *offers[1:]]
    names = [(o.provider, o.on) for o in policy.spread(2)(twice)]
    assert names == [("p0", "fake"), ("p1", "fake"), ("p0", "b"), ("p2", "fake")]
    assert str(policy.parse("deny(p9) >> spread(3)")) == "deny(p9) >> spread(3)"


def test_models_are_known_by_the_names_in_the_table_and_no_others() -> None:
    names = names_of("llama-3.1-8b")
    assert names[0] == "llama-3.1-8b"
    assert "meta-llama/Llama-3.1-8B-Instruct" in names
    assert set(names_of("meta-llama/Llama-3.1-8B-Instruct")) == set(names)
    for unknown in ("llama-3.1-8b-tuned", "LLAMA-3.1-8B", "llama-3.1", "m", ""):
        assert names_of(unknown) == (unknown,)
    every = [name for line in ALIASES for name in line]
    assert len(every) == len(set(every))


async def test_an_adapter_finds_a_model_by_another_of_its_names() -> None:
    """Only names that are configured count: one that merely looks alike is refused."""
    prices = {"input": Rate.parse("1 USDC per 1M tokens")} | {
        "output": Rate.parse("1 USDC per 1M tokens")
    }

    class Listed(OpenAI):
        async def _models(self, *, fresh: bool = False) -> Mapping[str, int]:
            return {"theirs-8b": 8192}

    account = EndpointSettings(
        prices=prices, models={"meta-llama/Llama-3.1-8B-Instruct": "theirs-8b"}
    )
    adapter = Listed("gaia", "http://127.0.0.1:9/v1", NETWORK, GAIA, account)
    for name, served in (("llama-3.1-8b", True), ("llama-3.1-70b", False), ("llama-3.1", False)):
        node = InferNode(name="n", kind="infer", model=name, prompt="p")
        spec = TaskSpec(node=node, load=infer_load(1, node))
        if served:
            (offer,) = await adapter.offers(spec)
            assert (offer.model, offer.context) == ("theirs-8b", 8192)
        else:
            with pytest.raises(Refused, match="no name is known here") as raised:
                await adapter.offers(spec)
            assert raised.value.hint.startswith("set providers.gaia.models.")
    await adapter.close()


def test_saved_plans_stay_small_and_plain() -> None:
    spec = TaskSpec(
        node=InferNode(name="n", kind="infer", model="m", prompt="p"),
        load=Load(expected={"request": 1}, most={"request": 1}),
    )
    assert "spread" not in json.loads(spec.encode())
