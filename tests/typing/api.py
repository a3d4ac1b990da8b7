"""What an editor must accept and refuse: checked by `mypy --strict`, never run.

An unused `type: ignore` is an error too, so each one below proves that the mistake is seen.
"""

from datetime import timedelta
from typing import Any, Literal, assert_type

from langchain_core.tools import StructuredTool

import agentkit as ak
from agentkit.tools import once

graph = ak.JobGraph("typed")
rows = graph.data("rows", source="rows.jsonl")
assert_type(rows, ak.Ref[ak.Dataset])
train, held = graph.split("parts", rows, at=0.9, seed=7)
assert_type(train, ak.Ref[ak.Dataset])
tuned = graph.train("tune", base="smollm2-135m", dataset=train, needs=ak.Needs(gpu="A100-80GB"))
assert_type(tuned, ak.Ref[ak.Model])
assert_type(graph.infer("one", model=tuned, prompt="hello"), ak.Ref[ak.Text])
assert_type(
    graph.infer("pick", model="m", prompt="wet?", output=Literal["yes", "no"]), ak.Ref[ak.Json]
)
assert_type(graph.infer("each", model="m", prompt="{text}", over=held), ak.Ref[ak.Dataset])
assert_type(
    graph.infer("vectors", model="m", prompt="{text}", over=held, output=ak.Embedding),
    ak.Ref[ak.Embedding],
)

talk = [ak.system("s"), ak.user("u")]
assert_type(graph.infer("said", model="m", messages=talk, seed=7), ak.Ref[ak.Text])
assert_type(graph.infer("called", model="m", messages=talk, tools=[len]), ak.Ref[ak.Reply])
assert_type(graph.infer("rows-said", model="m", messages=talk, over=held), ak.Ref[ak.Dataset])
assert_type(
    graph.infer("rows-called", model="m", messages=talk, over=held, tools=[len]),
    ak.Ref[ak.Dataset],
)
graph.infer("misspelt", model="m", messages=talk, temprature=0.5)  # type: ignore[call-overload]
graph.infer("dated", model="m", messages=["Hi"])  # type: ignore[list-item]


def count(table: ak.Dataset) -> ak.Json:
    return ak.Json.dump(len(table.rows()))


assert_type(graph.local("count", count, held), ak.Ref[ak.Json])
report = graph.infer("report", model="m", prompt="how good?", output=dict)
assert_type(
    graph.infer("sorry", model="m", prompt="sorry", when=report.below(0.8, key="accuracy")),
    ak.Ref[ak.Text],
)
assert_type(
    graph.infer("more", model="m", prompt="{text}", over=held, when=[report.equals(None)]),
    ak.Ref[ak.Dataset],
)
report.holds(lambda value: bool(value))

main = ak.JobGraph("main")
included = main.include(graph, prefix="a.", bind={"rows": main.data("mine", source="x.csv")})
assert_type(included[tuned], ak.Ref[ak.Model])
assert_type(included[train], ak.Ref[ak.Dataset])
assert_type(included["tune"], ak.Ref[Any])
main.infer("last", model=included[tuned], prompt="hello")


async def look(url: str) -> bytes:
    return url.encode()


async def looked() -> None:
    assert_type(await once(look, key="k")("https://example.org"), bytes)
    await once(look, key="k")(7)  # type: ignore[arg-type]


once(look)  # type: ignore[call-overload]  # a function needs a key
assert_type(once(StructuredTool.from_function(coroutine=look)), StructuredTool)

main.infer("e", model=included[rows], prompt="p")  # type: ignore[index]
held.below(0.8)  # type: ignore[misc]
report.below(None)  # type: ignore[arg-type]
report.equals([1])  # type: ignore[arg-type]
main.include(rows)  # type: ignore[arg-type]
graph.train("a", base="m", dataset=tuned)  # type: ignore[arg-type]
graph.infer("b", model=rows, prompt="p")  # type: ignore[arg-type]
graph.split("c", tuned, at=0.5)  # type: ignore[arg-type]
graph.local("d", count, tuned)  # type: ignore[arg-type]
ak.Money.parse(0.05)  # type: ignore[arg-type]


async def plan_and_run() -> None:
    async with ak.Agent.from_config() as agent:
        plan = await agent.plan(graph, budget="25 USDC", deadline=timedelta(hours=6))
        run = await agent.start(plan)
        async for event in run.events():
            print(event)
        result = await run.result()
        assert_type(result[tuned], ak.Model)
        assert_type(result.paid, ak.Money)
        weighed = await agent.plan(graph, objective=0.3, risk=0.9, effort="high", run=run.id)
        assert_type(weighed.bound, ak.Money | None)
        assert_type(weighed.diff(plan), str)
        assert_type(weighed.saved_by(60), ak.Money)
        await agent.plan(graph, budget=25.0)  # type: ignore[arg-type]
        await agent.plan(graph, effort="huge")  # type: ignore[arg-type]
