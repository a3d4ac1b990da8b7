"""The demo's two job graphs, and the functions that run on the agent's own machine."""

from __future__ import annotations

from pathlib import Path

from agentkit.artifacts import Dataset, Json, Text
from agentkit.cli.demo.rows import Input
from agentkit.graph.builder import JobGraph

TEXT_MODEL, EMBEDDING_MODEL = "smollm2-135m", "all-minilm-l6-v2"


def main_graph(source: Path, given: Input) -> JobGraph:
    """Ask one question in two ways, by a trained head and by a prompt, and compare."""
    graph = JobGraph("demo")
    rows = graph.data("rows", source=source)
    clean = graph.data(
        "clean",
        sql="select text, label from rows where length(text) >= 10 order by text",
        inputs={"rows": rows},
    )
    train, held = graph.split("parts", clean, at=0.75, seed=7)
    head = graph.train("head", base=EMBEDDING_MODEL, dataset=train, epochs=30)
    by_head = graph.infer("by-head", model=head, over=held, prompt="{text}", max_tokens=4)
    by_prompt = graph.infer(
        "by-prompt",
        model=TEXT_MODEL,
        over=held,
        style="complete",
        prompt=few_shot(given),
        max_tokens=5,
        stop=("\n",),
    )
    graph.local("report", compare, by_head, by_prompt)
    graph.infer("explain", model=TEXT_MODEL, prompt=_explain(given), max_tokens=160)
    return graph


def crash_graph(source: Path, given: Input) -> JobGraph:
    """A paid job long enough to be killed in, then a chat long enough to be killed in."""
    graph = JobGraph("crash")
    rows = graph.data("rows-again", source=source)
    head = graph.train("head-again", base=EMBEDDING_MODEL, dataset=rows, epochs=40)
    first = graph.infer("first", model=head, prompt=braced(given.rows[0]["text"]), max_tokens=4)
    graph.infer(
        "story",
        model=TEXT_MODEL,
        prompt="Write a long story about {label}.",
        inputs={"label": first},
        max_tokens=400,
    )
    return graph


def few_shot(given: Input) -> str:
    """Return a prompt with a few labelled examples and a gap for the text."""
    shown = "".join(f"{braced(row['text'])} => {braced(row['label'])}\n" for row in given.examples)
    return shown + "{text} =>"


def _explain(given: Input) -> str:
    text = braced(given.rows[0]["text"])
    return f"Explain in two plain sentences what this means:\n\n{text}"


def braced(text: str) -> str:
    """Return a text with its braces doubled, to stand in a prompt as it is."""
    return text.replace("{", "{{").replace("}", "}}")


def compare(by_head: Dataset, by_prompt: Dataset) -> Json:
    """Count how often the head and the prompt were right on rows that neither had seen."""
    heads, prompts = by_head.rows(), by_prompt.rows()
    return Json.dump(
        {
            "rows": len(heads),
            "by head": _right(heads, "by-head"),
            "by prompt": _right(prompts, "by-prompt"),
        }
    )


def _right(rows: list[dict[str, str]], column: str) -> int:
    return sum(row[column].strip().lower() == row["label"].strip().lower() for row in rows)


def first_words(text: Text) -> str:
    """Return the beginning of a text, for a line of a table."""
    return " ".join(text.text.split())[:160]
