"""Documents whose bytes and digests no later version may change; see README.md.

    python tests/homes/documents.py tests/homes/documents

It writes what the code on the path makes of fixed inputs: graphs as JSON, TOML and Mermaid with
their digests; the size of each node's work; tasks, questions and submissions as they travel; the
ids of purchases and attempts; a plan file; receipts.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from agentkit.artifacts import Dataset, Embedding, Json, Model, Text
from agentkit.graph import verify
from agentkit.graph.builder import JobGraph
from agentkit.graph.codec import encode, save, to_mermaid
from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.nodes import canonical
from agentkit.kinds.registry import bought_kind
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt, Evidence, purchase_id
from agentkit.market.offer import Offer
from agentkit.market.receipt import Receipt
from agentkit.market.task import Task, TaskSpec
from agentkit.money import Asset, Money, Rate
from agentkit.planner.estimate import sizes_of, spec_of
from agentkit.planner.planner import make_plan
from agentkit.planner.request import Market, Wish
from agentkit.providers import wire
from agentkit.testing.fakes import NETWORK, FakeProvider, ToyRail

USDC = Asset.named("USDC").bind("eip155:31337", "erc20:0x" + "11" * 20)
WALLET = "0x" + "aa" * 20
ROWS = [{"text": f"row {n}", "label": "ab"[n % 2], "n": n} for n in range(12)]


def every_kind() -> FrozenGraph:
    """Return a graph that has each kind of node, and what nodes may carry."""
    graph = JobGraph("every-kind")
    rows = graph.data("rows", source="rows.jsonl")
    pinned = graph.data("pinned", source="rows.jsonl", sha256="ab" * 32)
    few = graph.data("few", sql="select text, label from rows limit 5", inputs={"rows": rows})
    first, rest = graph.split("halves", few, at=0.5, seed=3)
    tuned = graph.train(
        "tuned", base="minilm-l6", dataset=first, method="head", epochs=3, retries=1
    )
    graph.infer("mapped", model="smollm2-135m", over=rest, prompt="Topic of {text}?", max_items=7)
    schema = {"type": "object", "properties": {"colour": {"type": "string"}}}
    said = graph.infer(
        "said",
        model="smollm2-135m",
        prompt="A colour, {{as JSON}}.",
        output=schema,
        max_tokens=9,
        temperature=0.5,
        stop=["\n"],
        verify=[verify.schema(schema), verify.redundant(2, of=3)],
        cache=True,
        approve=True,
        timeout=30.0,
        on_unknown="rebuy",
    )
    graph.infer("vectors", model="minilm-l6", over=rows, prompt="{text}", output=Embedding)
    graph.infer(
        "labels", model=tuned, over=pinned, prompt="{text}", column="topic", on_error="skip"
    )
    size = graph.local("size", len, few)
    graph.infer(
        "told", model="smollm2-135m", prompt="Say {it}.", inputs={"it": said}, when=size.above(2)
    )
    return graph.freeze()


def texts(graph: FrozenGraph) -> dict[str, Any]:
    """Return every way in which a graph is written down."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.toml"
        save(graph, path)
        toml = path.read_text()
        save(graph, path.with_suffix(".json"))
        written = path.with_suffix(".json").read_text()
    return {
        "digest": graph.digest,
        "shape": graph.shape,
        "document": canonical(encode(graph)).decode(),
        "dump": graph.model_dump_json(),
        "json": written,
        "toml": toml,
        "mermaid": to_mermaid(graph),
        "identities": {node.name: canonical(node.identity()).decode() for node in graph.nodes},
    }


def specs_of(graph: FrozenGraph) -> list[TaskSpec]:
    """Return the work of each node that providers do, rows being those of `ROWS`."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rows.jsonl").write_bytes(Dataset.dump(ROWS).read())
        sizes = sizes_of(graph, Path(folder))
    bought = ("few", "tuned", "mapped", "said", "vectors", "labels", "told")
    return [spec_of(graph.by_name[name], sizes) for name in bought]


def tasks_of(graph: FrozenGraph) -> dict[str, Task]:
    """Return the task of each node that providers do, its inputs resolved."""
    table, row = Dataset.dump(ROWS), ROWS[1]
    tuned = {"model": Model.of(b'{"weights":[]}')}
    inputs: dict[str, tuple[Any, ...]] = {
        "few": ({"rows": table},),
        "tuned": ({"dataset": table},),
        "mapped": ({"over": table}, row),
        "said": ({},),
        "vectors": ({"over": table}, row),
        "labels": ({"over": table, **tuned}, row),
        "told": ({"it": Json.dump({"colour": "blue"})},),
    }
    nodes = {name: graph.by_name[name] for name in inputs}
    return {name: bought_kind(node).task(node, *inputs[name]) for name, node in nodes.items()}


def mapped_tables(graph: FrozenGraph) -> dict[str, str]:
    """Return the digests of the tables that answers are gathered in."""
    table = Dataset.dump(ROWS)
    answers = dict.fromkeys(range(len(ROWS)), Text.of(b"sea"))
    digests = {}
    for name in ("mapped", "labels"):
        node = graph.by_name[name]
        (gathered,) = bought_kind(node).gather(node, {"over": table}, table.rows(), answers)
        digests[name] = gathered.digest
    return digests


def offer_of(node: str) -> Offer:
    """Return an offer with every field set."""
    return Offer(
        provider="native",
        provider_node="thrifty",
        node=node,
        on="smollm2-135m",
        price=Money(1200, USDC),
        at_most=Money(3400, USDC),
        eta=1.5,
        lanes=4,
        expires=2_000_000_000.0,
        rail="toy",
        pays="on_delivery",
        payee="0x" + "dd" * 20,
        rates={"input": Rate.parse("0.10 USDC per 1M tokens").bind(USDC)},
        finds=True,
    )


def travelling(graph: FrozenGraph, tasks: dict[str, Task]) -> dict[str, Any]:
    """Return what goes over the wire, and the ids that both sides derive."""
    attempts = {
        name: Attempt.at(
            purchase_id("r0000001", name, 3, 1),
            2,
            offer_of(name),
            run="r0000001",
            item=3,
            task=task.digest,
            at_most=Money(3400, USDC),
        )
        for name, task in tasks.items()
    }
    return {
        "questions": {spec.node.name: wire.question(spec) for spec in specs_of(graph)},
        "tasks": {n: wire.WireTask.of(task).model_dump_json() for n, task in tasks.items()},
        "task digests": {name: task.digest for name, task in tasks.items()},
        "purchases": {n: purchase_id("r0000001", n, None, 0) for n in tasks},
        "attempts": {n: attempt.encode() for n, attempt in attempts.items()},
    }


def receipt_of(attempt: Attempt) -> Receipt:
    """Return a receipt with every field set."""
    return Receipt(
        attempt=attempt,
        standing="paid",
        amount=Money(900, USDC),
        result="7" * 64,
        usage={"input": 12, "output": 3},
        evidence=Evidence(signer="0x" + "dd" * 20, signature="55" * 65, reference="an id"),
        at=1_700_000_000.5,
    )


def build() -> dict[str, Any]:
    """Return everything that this version makes of the fixed inputs."""
    graph = every_kind()
    tasks = tasks_of(graph)
    wired = travelling(graph, tasks)
    receipts = [
        receipt_of(Attempt.model_validate_json(text)) for text in wired["attempts"].values()
    ]
    return {
        "graph": texts(graph),
        "specs": {spec.node.name: spec.encode() for spec in specs_of(graph)},
        "wire": wired,
        "mapped": mapped_tables(graph),
        "receipts": [receipt.encode() for receipt in receipts],
    }


async def plan_file(folder: Path) -> str:
    """Return a plan file of a market of fakes, as text."""
    graph = JobGraph("planned")
    said = graph.infer("said", model="m", prompt="hello", verify=verify.redundant(2, of=2))
    graph.infer("more", model="m", prompt="{it}", inputs={"it": said})
    providers = {
        name: FakeProvider(name, folder / name, factor=n) for n, name in enumerate("abc", start=1)
    }
    market = Market(NETWORK, dict(providers), {"toy": ToyRail()}, Allowance(), WALLET, folder)
    plan = await make_plan(graph.freeze(), market, Wish(budget=Money(10**6, USDC)))
    plan.save(folder / "plan.json")
    return (folder / "plan.json").read_text()


def main(out: Path) -> None:
    out.mkdir(exist_ok=True)
    text = json.dumps(build(), indent=1, sort_keys=True, ensure_ascii=False)
    (out / "documents.json").write_text(text + "\n")
    with tempfile.TemporaryDirectory() as folder:
        (out / "plan.json").write_text(asyncio.run(plan_file(Path(folder))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
