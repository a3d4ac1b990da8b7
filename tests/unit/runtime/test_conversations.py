"""Conversations and tools through a whole run: what is asked, what comes back, what is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.toy_market import toy

import agentkit as ak
from agentkit.artifacts import Artifact
from agentkit.errors import RunPaused, UnknownInput
from agentkit.market.attempt import Attempt, Result, result_digest
from agentkit.market.task import Task
from agentkit.testing.fakes import FakeProvider

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"a": 1}'}}


def weather(city: str) -> str:
    """Return the weather in a city."""
    return f"{city}: rain"


def calling(task: Task) -> Artifact:
    return ak.Reply.dump({"role": "assistant", "content": None, "tool_calls": [CALL]})


class Telling(FakeProvider):
    """A fake that also says which model answered, and why it stopped."""

    finish_reason = "stop"

    async def result(self, attempt: Attempt) -> Result:
        told: dict[str, Any] = {"model": "m-2026", "finish_reason": self.finish_reason}
        return Result(**{**vars(await super().result(attempt)), **told})


async def test_names_are_filled_in_where_they_stand(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = ak.JobGraph("g")
        name = graph.infer("name", model="m", prompt="a name")
        told = graph.infer(
            "told",
            model="m",
            messages=[ak.system("be brief"), ak.user("greet {name}")],
            inputs={"name": name},
        )
        result = await market.run(graph)
        assert result[told].text == ("answer to: system: be brief\nuser: greet answer to: a name")


async def test_a_reply_can_be_read_by_the_next_node(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = ak.JobGraph("g")
        call = graph.infer("call", model="m", prompt="Rain?", tools=[weather])
        graph.infer("next", model="m", prompt="{call}", inputs={"call": call})
        market.providers["one"].answer = lambda task: (
            calling(task) if "tools" in task.params else ak.Text.of(str(task.params).encode())
        )
        result = await market.run(graph)
        (made,) = result[call].tool_calls
        assert (made.name, made.arguments) == ("weather", {"a": 1})
        assert "c1" in result["next"].read().decode()


async def test_a_mapped_node_gives_each_rows_message(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = ak.JobGraph("g")
        (tmp_path / "rows.jsonl").write_text('{"city": "Rome"}\n{"city": "Oslo"}\n')
        rows = graph.data("rows", source="rows.jsonl")
        each = graph.infer("each", model="m", prompt="{city}", over=rows, tools=[weather])
        result = await market.run(graph)
        assert [row["each"]["content"] for row in result[each].rows()] == [
            "answer to: Rome",
            "answer to: Oslo",
        ]


async def test_a_reply_that_breaks_its_word_is_not_paid(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        for provider in market.providers.values():
            provider.answer = lambda task: ak.Reply.dump({"role": "assistant", "content": "No."})
        graph = ak.JobGraph("g")
        graph.infer("call", model="m", prompt="Rain?", tools=[weather], tool_choice="required")
        with pytest.raises(RunPaused, match="the reply calls no tool"):
            await market.run(graph)
        assert market.rail.charged == []


async def test_a_result_says_how_an_answer_came_about(tmp_path: Path) -> None:
    teller = Telling("one", tmp_path / "one")
    teller.finish_reason = "length"
    async with toy(tmp_path, one=teller) as market:
        graph = ak.JobGraph("g")
        ask = graph.infer("ask", model="m", prompt="p")
        graph.local("here", lambda: 1)
        result = await market.run(graph)
        receipt = result.receipt(ask)
        assert (receipt.model, receipt.finish_reason) == ("m-2026", "length")
        assert receipt.truncated
        assert receipt.usage
        assert result.truncated == {"ask": (None,)}
        assert result.data()["truncated"] == {"ask": [None]}
        with pytest.raises(UnknownInput, match="nothing was bought for node 'here'"):
            result.receipt("here")


async def test_a_result_says_which_rows_were_cut(tmp_path: Path) -> None:
    teller = Telling("one", tmp_path / "one")
    teller.finish_reason = "length"
    async with toy(tmp_path, one=teller) as market:
        (tmp_path / "rows.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
        graph = ak.JobGraph("g")
        each = graph.infer(
            "each", model="m", prompt="{n}", over=graph.data("r", source="rows.jsonl")
        )
        result = await market.run(graph)
        assert sorted(result.truncated["each"], key=str) == [0, 1]
        assert result.receipt(each, item=1).attempt.item == 1
        with pytest.raises(UnknownInput, match="row 2 of node 'each'"):
            result.receipt(each, item=2)


async def test_what_was_bought_twice_has_the_receipt_of_what_is_kept(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = ak.JobGraph("g")
        ask = graph.infer("ask", model="m", prompt="p", verify=ak.verify.redundant(2, of=2))
        result = await market.run(graph)
        assert len(result.receipts) == 2
        assert result.receipt(ask).result == result_digest([result[ask].digest])
