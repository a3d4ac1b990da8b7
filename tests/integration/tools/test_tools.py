"""The LangChain chat model and tools: what they spend, and on which loop they run."""

import asyncio
import json
import re
import subprocess
import sys
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from support.timing import limit

from agentkit.agent import Agent
from agentkit.errors import ConfigError, OverBudget
from agentkit.money import Money
from agentkit.planner import policy
from agentkit.tools import ChatAgentKit, FetchPaid, toolkit

MODEL = "smollm2-135m"
GRAPH = {
    "name": "asked",
    "nodes": [
        {
            "kind": "infer",
            "name": "greet",
            "model": MODEL,
            "prompt": "Greet the sea in one line.",
            "max_tokens": 12,
        }
    ],
}


def chat(agent: Agent, **more: Any) -> ChatAgentKit:
    return ChatAgentKit(
        model=MODEL, agent=agent, max_tokens=8, policy=policy.allow("native"), **more
    )


def paid(message: AIMessage) -> int:
    return Money.parse(message.response_metadata["agentkit"]["paid"]).units


async def spent(agent: Agent) -> int:
    return (await agent.balances()).spent.units


async def test_every_call_is_priced_paid_and_has_its_receipt(open_agent: Any) -> None:
    async with open_agent() as agent:
        answer = await chat(agent).ainvoke("Is the sea {wet}? Say yes.")
        about = answer.response_metadata["agentkit"]
        assert answer.content
        assert about["standing"] == "paid"
        assert about["receipt"]["attempt"]["run"] == about["run"]
        assert paid(answer) == await spent(agent) > 0
        assert answer.usage_metadata
        assert answer.usage_metadata["output_tokens"] <= 8
        assert [row.state for row in await agent.runs()] == ["done"]


async def test_calls_from_other_threads_run_on_the_agents_loop(open_agent: Any) -> None:
    async with open_agent() as agent:
        model = chat(agent)
        answer = await asyncio.to_thread(model.invoke, [HumanMessage("Hello.")])
        other = await asyncio.to_thread(lambda: asyncio.run(model.ainvoke("Hello.")))
        assert paid(answer) + paid(other) == await spent(agent)
        with pytest.raises(ConfigError, match="wait for itself") as raised:
            model.invoke("Hello.")
        assert "ainvoke" in raised.value.hint


async def test_the_budget_is_for_the_life_of_the_object(open_agent: Any) -> None:
    """A call frees what it did not use, and the sum never comes above the budget."""
    async with open_agent() as agent:
        plan = await agent.plan(chat(agent)._graph([HumanMessage("Hello.")], None), balance=False)
        model = chat(agent, budget=str(Money(3 * plan.at_most.units, agent.network.currency)))
        answers = []
        with pytest.raises(OverBudget) as raised:
            while len(answers) < 60:
                answers.append(await model.ainvoke("Hello."))
        assert len(answers) > 3  # more calls than at mosts would fit
        total = sum(paid(answer) for answer in answers)
        assert 2 * plan.at_most.units < total <= 3 * plan.at_most.units
        assert total == await spent(agent)
        assert raised.value.limit == "budget"


async def test_calls_at_once_share_the_budget(open_agent: Any) -> None:
    async with open_agent() as agent:
        plan = await agent.plan(chat(agent)._graph([HumanMessage("Hello.")], None), balance=False)
        model = chat(agent, budget=str(plan.at_most))  # room for one at a time
        outcomes = await asyncio.gather(
            *(model.ainvoke("Hello.") for _ in range(4)), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {AIMessage, OverBudget}
        assert await spent(agent) <= plan.at_most.units


async def test_planning_is_free_and_running_takes_an_id(open_agent: Any) -> None:
    async with open_agent() as agent:
        planning, running = toolkit(agent)
        told = await planning.ainvoke({"graph": GRAPH, "budget": "0.01 USDC"})
        assert "greet" in told
        assert await spent(agent) == 0
        assert await agent.runs() == []
        plan_id = re.fullmatch(r"plan_id: (\w+)\n.*", told, re.DOTALL).group(1)  # type: ignore[union-attr]
        done = await running.ainvoke({"plan_id": plan_id})
        assert "'greet'" in done
        once = await spent(agent)
        assert once > 0
        again = await running.ainvoke({"plan_id": plan_id})  # a plan is run once
        assert "make one with plan_jobs" in again
        assert await spent(agent) == once


async def test_what_a_model_asks_wrongly_is_told_and_not_bought(open_agent: Any) -> None:
    async with open_agent() as agent:
        planning, running = toolkit(agent)
        assert "there is no plan" in await running.ainvoke({"plan_id": "made up"})
        for budget in ("lots", "0.01", "", "-1 USDC"):
            told = await planning.ainvoke({"graph": GRAPH, "budget": budget})
            assert "is not an amount" in told
            assert "USDC" in told
        for graph, budget, word in (
            (GRAPH, "0.000001 USDC", "raise budget"),
            ({**GRAPH, "nodes": []}, "1 USDC", "no nodes"),
            ({"name": "x", "nodes": [{"kind": "spend"}]}, "1 USDC", "kind"),
        ):
            assert word in await planning.ainvoke({"graph": graph, "budget": budget})
        with pytest.raises(Exception, match="plan_id"):
            await running.ainvoke({"graph": GRAPH})
        assert await spent(agent) == 0


async def test_a_model_fetches_within_the_budget_that_a_person_set(
    open_agent: Any, network: Any
) -> None:
    url = network.nodes["fast"] + "/v1/chat/completions"
    question = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    call = {"url": url, "method": "POST", "body": question}
    async with open_agent() as agent:
        tool = FetchPaid(agent=agent, budget="0.05 USDC")
        assert "budget" not in tool.args
        told = await tool.ainvoke(call)
        assert re.match(r"status 200, paid 0\.0+[1-9][0-9]* USDC\n", told)
        once = await spent(agent)
        assert once > 0
        poor = FetchPaid(agent=agent, budget="0.000001 USDC")
        assert "budget" in await poor.ainvoke(call)
        assert "url" in await tool.ainvoke({"url": "file:///etc/passwd"})
        assert await spent(agent) == once


@pytest.mark.usefixtures("own_folder")
def test_without_an_agent_the_default_one_is_used() -> None:
    """Synchronous, asynchronous, and inside a running loop: always one and the same agent."""
    code = (
        "import asyncio, json\n"
        "import agentkit as ak\n"
        "from agentkit.tools import ChatAgentKit, FetchPaid, toolkit\n"
        f"model = ChatAgentKit(model={MODEL!r}, max_tokens=4)\n"
        "answers = [model.invoke('Hi.'), asyncio.run(model.ainvoke('Hi.'))]\n"
        "async def inside():\n"
        "    return [model.invoke('Hi.'), await model.ainvoke('Hi.')]\n"
        "answers += asyncio.run(inside())\n"
        f"graph = json.loads({json.dumps(GRAPH)!r})\n"
        "told = toolkit()[0].invoke({'graph': graph, 'budget': '1 USDC'})\n"
        "assert told.startswith('plan_id'), told\n"
        "runs = {run.run for run in ak.status()}\n"
        "assert runs == {a.response_metadata['agentkit']['run'] for a in answers}, runs\n"
        "assert len(runs) == 4\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=limit(90))
