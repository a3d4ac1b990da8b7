"""Questions to a model: one, or one for every row of a table.

The life of an `infer` node, from top to bottom: its outputs are sized from the rows of `over`; a
spec says how many tokens a question takes, and how many questions there are; providers price that
without seeing the prompt; once the inputs are there, the prompt is filled in and each question is a
task; an answer is checked against `output`; and the answers of a mapped node become a column beside
its rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentkit.artifacts import Artifact, Dataset, Embedding, Json, Reply, Text
from agentkit.errors import WrongInput
from agentkit.graph.nodes import InferNode
from agentkit.json_schemas import is_small, unsupported_in
from agentkit.kinds import questions
from agentkit.kinds.artifact_checks import (
    as_table,
    empty_output,
    schema_mismatch,
    unreadable_output,
)
from agentkit.kinds.kind import BoughtKind, ChatRequirements, Inputs
from agentkit.kinds.replies import fault_in_reply
from agentkit.kinds.sizes import (
    BYTES_PER_TOKEN,
    GUESS,
    GUESSED,
    TEMPLATE_TOKENS,
    EstimateContext,
    Size,
    Sizes,
    size_of,
)
from agentkit.market.offer import Offer
from agentkit.market.task import Load, Task, TaskSpec
from agentkit.tables import ColumnType

COUNTED = "rows counted, text as four bytes a token"
"""The basis of the load of a node whose rows are those of a local file."""


class Infer(BoughtKind[InferNode]):
    """Asks a model; with `over`, once for every row, filling `{column}`s in."""

    node_type = InferNode

    def models(self, node: InferNode) -> tuple[str, ...]:
        """Return the model that is asked, unless it is one that an earlier node trains."""
        return (node.model,) if isinstance(node.model, str) else ()

    # -- planning --------------------------------------------------------------------------------

    def sizes(self, node: InferNode, sizes: Sizes, context: EstimateContext) -> tuple[Size, ...]:
        """Return the size of one answer, or of the rows with an answer added to each."""
        answer = BYTES_PER_TOKEN * node.max_tokens
        if not node.over:
            return (Size(1, answer),)
        over = size_of(sizes, node.over)
        mapped = replace(
            over,
            rows=min(over.rows, node.max_items),
            row_bytes=over.row_bytes + answer,
            usual_bytes=over.usual + answer // 2,
            columns=over.columns and over.columns | {node.adds},
            table=over.table and {**over.table, node.adds: "nested"},
            sql_types=_sql_types_with_answers(node, over),
        )
        return (mapped,)

    def spec(self, node: InferNode, sizes: Sizes) -> TaskSpec:
        """Return the spec; raises WrongInput for rows or a schema that cannot be asked about."""
        over = size_of(sizes, node.over) if node.over else Size(1, 0, bound=True)
        _check_rows(node, over)
        _check_schema(node)

        inputs = [
            (size_of(sizes, ref), questions.uses_of(node, name))
            for name, ref in node.inputs.items()
        ]
        columns = max(1, questions.count_of_columns(node))
        written = questions.bytes_as_written(node)
        longest = written + sum(size.row_bytes * uses for size, uses in inputs)
        longest += over.row_bytes * columns
        usual = written + sum(size.usual * uses for size, uses in inputs) + over.usual * columns
        slack = 1 if over.bound and not inputs else 2

        items = 1
        if node.over:
            items = min(node.max_items, over.rows) if over.bound else node.max_items
        return TaskSpec(
            node=node,
            load=infer_load(longest, node, slack, usual=usual),
            items=items,
            likely=min(items, over.rows),
            basis=COUNTED if over.exact else GUESSED,
            spread=GUESS,
        )

    def question(self, node: InferNode) -> dict[str, Any]:
        """Return the model, or that it is one which was trained; and whether vectors are wanted."""
        model = node.model if isinstance(node.model, str) else ""
        output = "embedding" if node.output == "embedding" else ""
        return {"model": model, "trained": not model, "output": output}

    def chat_requirements(self, node: InferNode) -> ChatRequirements:
        """Return the model and the form of its answer: every node of this kind is a prompt."""
        model = node.model if isinstance(node.model, str) else ""
        if node.output == "embedding":
            return ChatRequirements(model, "embedding")
        return ChatRequirements(model, "json" if isinstance(node.output, dict) else "text")

    def pricing_key(self, node: InferNode, load: Load) -> str:
        """Return the key of all questions of one load to one model, whatever they say."""
        unsaid: dict[str, Any] = {"prompt": "", "messages": (), "tools": (), "inputs": {}}
        unsaid |= {"tool_choice": "auto", "seed": None, "over": None, "column": None}
        model = node.model if isinstance(node.model, str) else ""
        return super().pricing_key(node.model_copy(update={**unsaid, "model": model}), load)

    def unfit(self, node: InferNode, load: Load, offer: Offer) -> str:
        """Say that the model reads fewer tokens than are expected, if the offer says how many."""
        tokens = load.expected.get("input", 0) + load.most.get("output", 0)
        if offer.context and tokens > offer.context:
            return (
                f"takes {offer.context} tokens, question and answer, and about {tokens} are"
                " expected"
            )
        return ""

    # -- buying ----------------------------------------------------------------------------------

    def items(self, node: InferNode, inputs: Inputs) -> Sequence[Mapping[str, Any]] | None:
        """Return the rows of `over`, each of which is a question of its own; None without it."""
        if not node.over:
            return None
        rows = as_table(inputs["over"]).rows()
        _check_columns(node, {column for row in rows for column in row})
        _check_count(node, len(rows))
        return rows

    def skips_failed_items(self, node: InferNode) -> bool:
        """Return whether rows that fail for good are left out of the table."""
        return node.on_error == "skip"

    def task(self, node: InferNode, inputs: Inputs, item: Any = None) -> Task:
        """Return the question, for one row of `over` if the node has it."""
        question = questions.filled(node, inputs, item)
        params: dict[str, Any] = {
            "model": node.model if isinstance(node.model, str) else "",
            **question,
            "style": node.style,
            "max_tokens": node.max_tokens,
            "temperature": node.temperature,
            "stop": list(node.stop),
            "schema": node.output if isinstance(node.output, dict) else None,
        }
        if node.output == "embedding":
            params["output"] = "embedding"
        params |= questions.asked_beside(node)
        model = {"model": inputs["model"]} if "model" in inputs else {}
        return Task("infer", params, infer_load(questions.bytes_of(node, question), node), model)

    def outputs(self, node: InferNode) -> tuple[type[Artifact], ...]:
        """Return the type of one answer: for a mapped node that is not the type of its table."""
        if node.output == "embedding":
            return (Embedding,)
        if node.tools:
            return (Reply,)
        return (Json,) if node.output else (Text,)

    def is_quick_to_check(self, node: InferNode, size: int) -> bool:
        """Return whether the answer is small; a schema may take long for less than text does."""
        if isinstance(node.output, dict):
            return is_small(size, node.output)
        return super().is_quick_to_check(node, size)

    def fault_in(self, node: InferNode, outputs: Sequence[Artifact]) -> str:
        """Say how the answer does not fit the schema in `output`, or cannot be read."""
        if isinstance(node.output, dict):
            return empty_output(outputs) or schema_mismatch(outputs[0], node.output)
        if node.tools:
            return empty_output(outputs) or fault_in_reply(outputs[0].read(), node)
        return empty_output(outputs) or unreadable_output(outputs)

    def gather(
        self,
        node: InferNode,
        inputs: Inputs,
        items: Sequence[Mapping[str, Any]],
        answers: Mapping[int, Artifact],
    ) -> tuple[Artifact, ...]:
        """Return the rows with each one's answer in the column that the node adds.

        Rows without an answer are left out.
        """
        rows = [
            {**row, node.adds: _value_of(answers[number])}
            for number, row in enumerate(items)
            if number in answers
        ]
        table = Embedding if node.output == "embedding" else Dataset
        if rows:
            return (table.dump(rows),)
        added: ColumnType = "text" if node.output is None and not node.tools else "nested"
        return (table.dump((), {**as_table(inputs["over"]).columns, node.adds: added}),)


def infer_load(text: int, node: InferNode, slack: int = 1, *, usual: int | None = None) -> Load:
    """Return the load of one question of at most `text` bytes, `usual` ones expected.

    `slack` widens an assumed size.  A prompt has no more tokens than bytes.
    """
    expected = {"request": 1, "input": (text if usual is None else usual) // BYTES_PER_TOKEN + 1}
    most = {"request": 1, "input": text * slack + TEMPLATE_TOKENS}
    if node.output != "embedding":
        expected["output"] = max(1, node.max_tokens // 2)
        most["output"] = node.max_tokens
    return Load(expected=expected, most=most)


def _sql_types_with_answers(node: InferNode, over: Size) -> Mapping[str, str] | None:
    """Return the SQL types of a mapped table: its answers are text, or of a type nobody knows."""
    if over.sql_types is None or node.output is not None or node.tools:
        return None
    return {**over.sql_types, node.adds: "VARCHAR"}


# -- what is refused -----------------------------------------------------------------------------


def _check_rows(node: InferNode, over: Size) -> None:
    """Refuse while planning what the run would find out about the rows."""
    _check_columns(node, over.table or ())
    if over.exact:
        _check_count(node, over.rows)
    if not over.columns:
        return  # nobody knows them, or each row has others: the run finds out
    missing = node.placeholders() - set(node.inputs) - over.columns
    if missing:
        raise WrongInput(
            f"the prompt of node {node.name!r} names {{{min(missing)}}}, and not every row has it",
            hint=f"name one of: {', '.join(sorted(over.columns))}",
        )


def _check_columns(node: InferNode, columns: Collection[str]) -> None:
    """Raise WrongInput where a node would overwrite a column, or where a name means two things."""
    if node.adds in columns:
        other = 'set column="..." to another name'
        if node.output == "embedding":
            other = f"rename the column {node.adds!r} with a data node before"
        raise WrongInput(
            f"node {node.name!r} would overwrite the column {node.adds!r} of its rows with its"
            " answers",
            hint=other,
        )
    ambiguous = node.placeholders() & set(node.inputs) & set(columns)
    if ambiguous:
        name = min(ambiguous)
        raise WrongInput(
            f"{{{name}}} in the prompt of node {node.name!r} is an input and a column of its rows",
            hint=f"give the input another name than {name!r}",
        )


def _check_count(node: InferNode, count: int) -> None:
    if count > node.max_items:
        raise WrongInput(
            f"node {node.name!r} maps over {count} rows, and max_items is {node.max_items}",
            hint=f"set max_items={count}, or take fewer rows",
        )


def _check_schema(node: InferNode) -> None:
    """Refuse a pattern that providers refuse, because its match can take for ever."""
    unsupported = unsupported_in(node.output) if isinstance(node.output, dict) else ""
    if unsupported:
        raise WrongInput(
            f"the schema of node {node.name!r} cannot be used: {unsupported}",
            hint="say it with enum, minLength or a plain pattern, and the rest in verify=",
        )


# -- answers ------------------------------------------------------------------------------------


def _value_of(answer: Artifact) -> Any:
    """Return an answer as the value of a column."""
    match answer:
        case Json():
            return answer.value
        case Embedding():
            return answer.rows()[0]["vector"]
        case _:
            return answer.read().decode()
