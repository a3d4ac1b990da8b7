"""The whole way of a job over the embedded network: real chain, real models, real HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from support.processes import PROGRAMS
from support.timing import limit

from agentkit.artifacts import Dataset, Embedding, Json
from agentkit.cli.demo.sums import credit_books
from agentkit.embedded import discovery
from agentkit.errors import NoOffer, OverBudget, SettlementFailed
from agentkit.graph.builder import JobGraph
from agentkit.journal import records as r
from agentkit.market.allowance import Allowance
from agentkit.market.chain import SETTLEMENT
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.balance import token_balance
from agentkit.payments.channels import contract
from agentkit.payments.receipts import verify_on_chain
from agentkit.planner import policy
from agentkit.runtime.run import Run


def hello(**more: Any) -> JobGraph:
    graph = JobGraph("hello")
    graph.infer("greet", model="smollm2-135m", prompt="Greet the sea in one line.", **more)
    return graph


def rows_of(folder: Path, count: int) -> str:
    words = ["salt water", "a tall tree", "the night sky", "an old book"]
    rows = [{"text": f"{words[n % 4]} {n}", "label": words[n % 4][:3]} for n in range(count)]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def count_rows(rows: Dataset) -> Json:
    return Json.dump(len(rows.rows()))


async def executions(network: discovery.NetworkFile) -> dict[str, list[str]]:
    async with aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {network.token}"}
        async with session.get(f"{network.url}/executions", headers=headers) as answer:
            return await answer.json()  # type: ignore[no-any-return]


async def test_every_kind_of_node_runs_and_is_paid(open_agent: Any, tmp_path: Path) -> None:
    graph = JobGraph("all-kinds")
    rows = graph.data("rows", source=rows_of(tmp_path, 24))
    few = graph.data("few", sql="select * from rows order by text limit 16", inputs={"rows": rows})
    train, held = graph.split("parts", few, at=0.75)
    head = graph.train("head", base="all-minilm-l6-v2", dataset=train)
    said = graph.infer("said", model=head, over=held, prompt="{text}")
    vectors = graph.infer(
        "vectors", model="all-minilm-l6-v2", prompt="{text}", over=held, output=Embedding
    )
    sizes = graph.local("sizes", count_rows, said)
    answer = graph.infer(
        "pick", model="smollm2-135m", prompt="Is water wet?", output=Literal["yes", "no"]
    )
    async with open_agent() as agent:
        result = await agent.run(graph, budget="0.5 USDC")
        assert result[sizes].value == 4
        assert result[answer].value in ("yes", "no")
        assert {row["said"] for row in result[said].rows()} <= {"sal", "a t", "the", "an "}
        assert len(result[vectors].rows()[0]["vector"]) == 384
        assert {receipt.standing for receipt in result.receipts} == {"paid"}
        assert all(receipt.evidence.signature for receipt in result.receipts)


async def test_a_model_nobody_has_is_refused_with_every_reason(open_agent: Any) -> None:
    graph = JobGraph("unknown")
    graph.infer("greet", model="gpt-17", prompt="hello")
    async with open_agent() as agent:
        with pytest.raises(NoOffer, match="gpt-17") as raised:
            await agent.plan(graph, balance=False)
    assert {label.split("/")[0] for label, _ in raised.value.rejections} == {
        "native",
        "gaia",
        "hyperbolic",
    }


async def test_the_sums_hold_to_the_unit_on_the_chain(
    open_agent: Any, network: discovery.NetworkFile
) -> None:
    """What left the wallet is what the vouchers promised, read over RPC and not from our books."""
    async with open_agent() as agent:
        before = await token_balance(agent._parts.chain, agent.network, agent.address)
        first = await agent.run(hello(), budget="0.01 USDC", policy=policy.allow("native"))
        second = await agent.run(hello(max_tokens=20), policy=policy.allow("native"))
        assert await agent.close_channels() == {"native/thrifty": "closed"}
        after = await token_balance(agent._parts.chain, agent.network, agent.address)
        paid = (first.paid + second.paid).units
        assert before - after == paid > 0
        head = await agent._parts.chain.head()
        bundle = await agent.bundle()
        topics = [contract.CLAIMED, bytes.fromhex(bundle.channels[0].channel)]
        claimed = await agent._parts.chain.logs(SETTLEMENT, topics, 0, head)
        assert [abi.numbers(log.data)[0] for log in claimed] == [paid]
        assert (await agent.balances()).placed == {}
        assert await agent.check_receipts() == []
        less = bundle.channels[0].model_copy(update={"cumulative": paid - 1})
        short = bundle.model_copy(update={"channels": (less,)})
        wrong = await verify_on_chain(short, agent._parts.chain, agent.network)
        assert f"{paid} units were claimed and {paid - 1} promised" in wrong[0]


async def test_credit_is_topped_up_used_and_debited(
    open_agent: Any, network: discovery.NetworkFile
) -> None:
    async with open_agent() as agent:
        before = await token_balance(agent._parts.chain, agent.network, agent.address)
        plan = await agent.plan(hello(), policy=policy.allow("hyperbolic"))
        assert [fee.name for fee in plan.fees] == ["gas", "uploads"]
        result = await (await agent.start(plan)).result()
        books = await credit_books(network)
        assert result.receipts[0].attempt.rail == "prepaid"
        assert books["debits"][-1]["units"] == result.paid.units > 0
        assert books["topped_up"] - books["debited"] == books["left"] >= 0
        after = await token_balance(agent._parts.chain, agent.network, agent.address)
        assert before - after == 10_000, "a cent is the least that is credited"
        placed = (await agent.balances()).placed
        assert sum(amount.units for amount in placed.values()) == 10_000 - result.paid.units
        assert await agent.check_receipts() == []


async def test_what_the_real_service_does_not_have_is_not_there(
    network: discovery.NetworkFile,
) -> None:
    known = network.providers["hyperbolic"]
    headers = {"Authorization": f"Bearer {known['api_key']}", "User-Agent": "test"}
    url = known["url"].removesuffix("/v1")
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(f"{url}/billing/topup", json={"transaction": "0x"}) as answer:
            assert answer.status == 404
        async with session.get(f"{url}/billing/balance") as answer:
            assert answer.status == 404
        async with session.get(f"{url}/billing/get_current_balance") as answer:
            assert list(await answer.json()) == ["credits"]
        for wrong in ({}, {"address": "0x12"}, {"address": "0x" + "zz" * 20}):
            async with session.post(f"{url}/settings/crypto-address", json=wrong) as answer:
                assert answer.status == 400


async def test_gaia_counts_against_limits_and_moves_no_money(open_agent: Any) -> None:
    async with open_agent() as agent:
        before = await token_balance(agent._parts.chain, agent.network, agent.address)
        result = await agent.run(hello(), policy=policy.allow("gaia"))
        assert [receipt.standing for receipt in result.receipts] == ["billed elsewhere"]
        assert not result.paid
        assert result.billed_elsewhere.units > 0
        assert (await agent.balances()).spent == result.billed_elsewhere
        assert await token_balance(agent._parts.chain, agent.network, agent.address) == before
    limit = Allowance(total=Money.parse("0.000001 USDC"))
    async with open_agent(allowance=limit) as agent:
        with pytest.raises(OverBudget):
            await agent.run(hello(), policy=policy.allow("gaia"))


async def test_a_small_next_run_touches_no_chain(open_agent: Any, tmp_path: Path) -> None:
    """With a channel open, a client neither imports web3 nor waits for the chain."""
    async with open_agent() as agent:
        await agent.run(hello(), policy=policy.allow("native"))
        home, network_home = agent.settings.home, agent.settings.network_home
    code = (
        "import asyncio, sys\n"
        "from agentkit.agent import Agent\n"
        "from agentkit.graph.builder import JobGraph\n"
        "from agentkit.planner import policy\n"
        "async def main():\n"
        "    graph = JobGraph('hello')\n"
        "    graph.infer('greet', model='smollm2-135m', prompt='Greet the sea in one line.')\n"
        f"    async with Agent.from_config(home={str(home)!r}, network_home={str(network_home)!r})"
        " as agent:\n"
        "        result = await agent.run(graph, policy=policy.allow('native'))\n"
        "        assert result.paid.units > 0\n"
        "asyncio.run(main())\n"
        "assert 'web3' not in sys.modules and 'networkx' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=limit(60))


async def test_only_listed_providers_are_asked_for_money(open_agent: Any) -> None:
    async with open_agent(allowance=Allowance(providers=("gaia",))) as agent:
        plan = await agent.plan(hello(), balance=False)
        assert [offer.provider for offer in plan.nodes[0].offers] == ["gaia"]
        assert "allowance.providers" in plan.explain("greet")


async def test_a_native_job_outlives_its_client_and_is_not_done_again(
    open_agent: Any, network: discovery.NetworkFile, network_folder: Path, tmp_path: Path
) -> None:
    """The client is killed while the node works; resumed, it takes the answer that is there."""
    rows = rows_of(tmp_path, 400)
    child = subprocess.Popen(
        [sys.executable, str(PROGRAMS / "training_client.py"), str(tmp_path), rows],
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "AGENTKIT_NETWORK": str(network_folder),
            "PYTHONPATH": ":".join(sys.path),
        },
    )
    assert child.stdout
    run_id = child.stdout.readline().strip()
    attempt, _ = await running_job(open_agent, network, run_id)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    assert attempt in [a for log in (await executions(network)).values() for a in log]
    async with open_agent() as agent:
        result = await (await agent.resume(run_id)).result()
        logs = [a for log in (await executions(network)).values() for a in log]
        assert logs.count(attempt) == 1
        assert [r.attempt.id for r in result.receipts if r.attempt.node == "head"] == [attempt]


async def running_job(
    open_agent: Any, network: discovery.NetworkFile, run_id: str
) -> tuple[str, str]:
    """Wait until a node says that the run's training is running; return attempt and node URL."""
    async with open_agent() as agent, aiohttp.ClientSession() as session:
        while True:
            state = await agent.status(run_id)
            for purchase in state.purchases.values():
                for attempt in purchase.open.values():
                    if attempt.node != "head":
                        continue
                    url = network.nodes[attempt.provider_node]
                    async with session.get(f"{url}/jobs/{attempt.id}") as answer:
                        job = await answer.json()
                    if job.get("status", {}).get("state") == "running":
                        return attempt.id, url


@contextmanager
def lone_node(folder: Path, network_folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run one cheap native node in a process of its own; yields the process and its address."""
    script = PROGRAMS / "native_node.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder / "lone"), str(network_folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def test_a_node_killed_after_it_accepted_is_replaced_by_the_alternate(
    open_agent: Any, network: discovery.NetworkFile, network_folder: Path, tmp_path: Path
) -> None:
    with lone_node(tmp_path, network_folder) as (process, url):
        urls = [url, *network.nodes.values()]
        async with open_agent(providers={"native": {"urls": urls}}) as agent:
            graph = JobGraph("train")
            data = graph.data("rows", source=rows_of(tmp_path, 400))
            graph.train("head", base="all-minilm-l6-v2", dataset=data)
            plan = await agent.plan(graph, balance=False)
            assert plan.nodes[1].offers[0].provider_node == "lone"
            run = await agent.start(plan)
            attempt = await accepted_by(url, run)
            process.kill()
            result = await run.result()
            (receipt,) = result.receipts
            assert receipt.attempt.provider_node in ("fast", "thrifty")
            assert receipt.attempt.id != attempt
            assert receipt.standing == "paid"
            assert (await agent.balances()).spent == result.paid


async def accepted_by(url: str, run: Run) -> str:
    """Wait until the node at `url` says that it has the run's job, and return its attempt."""
    async with aiohttp.ClientSession() as session:
        while True:
            for purchase in run.status.purchases.values():
                for attempt in purchase.open.values():
                    async with session.get(f"{url}/jobs/{attempt.id}") as answer:
                        job = await answer.json()
                    if job.get("status", {}).get("state") in ("queued", "running"):
                        return attempt.id
            await asyncio.sleep(0.01)


async def test_parallel_nodes_top_up_once_and_never_beyond_the_hold(
    open_agent: Any, network: discovery.NetworkFile
) -> None:
    graph = JobGraph("parallel")
    for number in range(8):
        graph.infer(f"ask-{number}", model="smollm2-135m", prompt=f"Count to {number}.")
    async with open_agent() as agent:
        plan = await agent.plan(graph, policy=policy.allow("native"))
        assert [fee.name for fee in plan.fees] == ["uploads"], "the node's facilitator pays for gas"
        result = await (await agent.start(plan)).result()
        assert len(result.receipts) == 8
        channels = await agent._journal.commit(lambda tx: tx.every(r.Channel))
        assert 0 < sum(channel.deposited for channel in channels) <= plan.at_most.units
        assert await agent._journal.commit(lambda tx: tx.every(r.Total, "gas|")) == []


async def test_a_wallet_with_work_under_way_closes_no_channel(open_agent: Any) -> None:
    """And what is bought after a channel was closed is bought on a new one."""
    async with open_agent() as agent:
        await agent.run(hello(), policy=policy.allow("native"))
        rows = "".join(f"Count to {n}. " for n in range(60))
        busy = JobGraph("busy")
        busy.infer("count", model="smollm2-135m", prompt=rows, max_tokens=200)
        run = await agent.start(await agent.plan(busy, policy=policy.allow("native")))
        while not any(p.open for p in run.status.purchases.values()):
            await asyncio.sleep(0.01)
        with pytest.raises(SettlementFailed, match="open attempts") as raised:
            await agent.close_channels()
        assert "resume or cancel" in raised.value.hint
        await run.result()
        assert set((await agent.close_channels()).values()) == {"closed"}
        again = await agent.run(hello(), policy=policy.allow("native"))
        assert again.paid
        assert len((await agent.balances()).placed) == 1
