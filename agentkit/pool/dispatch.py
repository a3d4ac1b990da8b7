"""What each kind of call does with the slots."""

from __future__ import annotations

import array
import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentkit.artifacts import Artifact, Dataset, Embedding, Model, Table, Text
from agentkit.errors import Refused
from agentkit.market.task import Units
from agentkit.pool import head, text
from agentkit.pool.declared import allowance, tokens_may_exceed
from agentkit.pool.embedding import embed
from agentkit.pool.extras import require
from agentkit.pool.llama import Llama
from agentkit.pool.meter import Meter
from agentkit.pool.models import CATALOGUE, ModelFile, model_file
from agentkit.pool.request import Done, InferParams, QueryParams, TrainParams
from agentkit.pool.slots import Slots
from agentkit.tables import decode_columns

Inputs = Mapping[str, Artifact]

_TEMPLATE_BYTES = 64
"""Tokens that a chat template adds at most."""

_MOST_BYTES_PER_TOKEN = 16
"""A prompt that is longer than that on average is refused without counting its tokens."""


class Work:
    """One call at work; it calls `begin` once, right before a child gets the first of it.

    `declared` is what it may come to, None where it is not paid for by that.
    """

    def __init__(self, slots: Slots, begin: Callable[[], None], declared: Units | None) -> None:
        self._slots = slots
        self._begin = begin
        self._declared = declared
        self._meter = Meter(allowance(declared, slots.limits))

    async def do(self, params: InferParams | TrainParams | QueryParams, inputs: Inputs) -> Done:
        """Return what a call made; raises what `Pool.run` does."""
        return replace(await self._done(params, inputs), cpu_ms=self._meter.cpu_ms)

    async def _done(self, params: InferParams | TrainParams | QueryParams, inputs: Inputs) -> Done:
        """Do a task by its kind, on the sort of slot that the kind needs."""
        match params:
            case TrainParams():
                return await self._train(params, inputs)
            case QueryParams():
                return await self._query(params, inputs)
            case InferParams() if "model" in inputs:
                return await self._label(params, inputs["model"])
            case InferParams(output="embedding"):
                return await self._vector(params)
            case InferParams():
                return await self._text(params)

    async def _text(self, params: InferParams) -> Done:
        """Answer a prompt with a text model."""
        path, body = await asyncio.to_thread(text.request, params)
        model = _model(params.model, "text")
        async with self._slots.llamas(model).take() as llama:
            await llama.core()
            self._begin()
            await self._check_tokens(llama, params.prompt)
            answer = await llama.ask(path, body, self._meter)
        made = await asyncio.to_thread(text.artifact, params, answer)
        return Done((made,), text.usage(answer), model.name)

    async def check_fits(self, params: InferParams) -> None:
        """Refuse a prompt longer than its model reads; see `Pool.check_fits`."""
        model = model_file(params.model)
        line = self._slots.llamas(model)
        line.check_room()
        size = len(params.prompt.encode())
        if size + _TEMPLATE_BYTES <= model.context:
            return  # a token is a byte at least
        if size > model.context * _MOST_BYTES_PER_TOKEN:
            raise Refused(
                f"the prompt has {size} bytes, and {model.name} reads {model.context} tokens"
            )
        async with line.take() as llama:
            await llama.core()
            tokens = await llama.count_tokens(params.prompt, self._meter)
        if tokens + _TEMPLATE_BYTES > model.context:
            raise Refused(f"the prompt has {tokens} tokens, and {model.name} reads {model.context}")

    async def _check_tokens(self, llama: Llama, *prompts: str) -> None:
        """Refuse a prompt longer than declared before the model reads it."""
        if not tokens_may_exceed("".join(prompts), self._declared):
            return
        counts = [await llama.count_tokens(prompt, self._meter) for prompt in prompts]
        most = (self._declared or {}).get("input", 0)
        if sum(counts) > most:
            raise Refused(f"the prompt has {sum(counts)} tokens, and its load declares {most}")

    async def _vector(self, params: InferParams) -> Done:
        model = _model(params.model, "embedding")
        vectors, tokens = await self._embed(model, [params.prompt], question=True)
        return Done((Embedding.dump([{"vector": vectors[0]}]),), {"input": tokens}, model.name)

    async def _embed(
        self, model: ModelFile, texts: list[str], *, question: bool, bounded: bool = True
    ) -> tuple[list[list[float]], int]:
        """Embed texts; those of a `question` are paid for by the token, others by the row."""
        async with self._slots.llamas(model).take(bounded=bounded) as llama:
            await llama.core()
            self._begin()
            if question:
                await self._check_tokens(llama, *texts)
            return await embed(llama, texts, self._meter)

    async def _label(self, params: InferParams, trained: Artifact) -> Done:
        """Classify a prompt with a head that the task brings, on the vector of its base model."""
        require("local", "numpy")
        document = trained.read()
        base = _model(head.base_of(document), "embedding")
        async with self._slots.workers.take() as worker:
            with worker.room() as room:
                path = room / "head"
                await asyncio.to_thread(path.write_bytes, document)
                (vector,), tokens = await self._embed(
                    base, [params.prompt], question=True, bounded=False
                )
                label = await worker.do(
                    {"task": "predict", "head": str(path), "vector": vector}, self._meter
                )
        return Done((Text.of(label.encode()),), {"input": tokens, "output": 1}, base.name)

    async def _train(self, params: TrainParams, inputs: Inputs) -> Done:
        """Train a head on the vectors of the dataset's texts."""
        require("local", "numpy")
        if params.method != "head":
            raise Refused(f"there is no method {params.method!r} here, only 'head'")
        base = _model(params.base, "embedding")
        async with self._slots.workers.take() as worker:
            # Within the turn, so that one dataset is in memory at a time.
            texts, labels = await asyncio.to_thread(_examples, params, inputs)
            with worker.room() as room:
                vectors, _ = await self._embed(base, texts, question=False, bounded=False)
                await asyncio.to_thread(_write_vectors, room / "vectors", vectors)
                await worker.do(_fit(params, labels, room), self._meter)
                document = await asyncio.to_thread((room / "head").read_bytes)
        made = Model.of(document, head.MEDIA_TYPE)
        return Done((made,), {"row": len(texts) * params.epochs}, base.name)

    async def _query(self, params: QueryParams, inputs: Inputs) -> Done:
        """Run a query over the input tables in a worker."""
        require("data", "duckdb")
        async with self._slots.workers.take() as worker:
            with worker.room() as room:
                size = await asyncio.to_thread(_lay_out, room, inputs)
                await worker.start()
                self._begin()
                memory_mib = self._slots.limits.memory_mib // 2
                answer = await worker.do(_statement(params, inputs, room, memory_mib), self._meter)
                rows = await asyncio.to_thread((room / "rows").read_bytes)
        table = Dataset.of(rows) if rows else Dataset.dump((), answer["columns"])
        return Done((table,), {"byte": size}, "")


def _model(name: str, makes: str) -> ModelFile:
    model = model_file(name)
    if model.makes != makes:
        fitting = [other.name for other in CATALOGUE.values() if other.makes == makes]
        raise Refused(f"{name} makes {model.makes}s; for {makes} use {', '.join(fitting)}")
    return model


def _table(name: str, artifact: Artifact) -> Table:
    if not isinstance(artifact, Table):
        raise Refused(f"the input {name!r} is a {artifact.kind}, not a table", of_task=True)
    return artifact


def _examples(params: TrainParams, inputs: Inputs) -> tuple[list[str], list[str]]:
    if "dataset" not in inputs:
        raise Refused("training needs the input 'dataset'", of_task=True)
    try:
        rows = _table("dataset", inputs["dataset"]).rows()
    except ValueError as error:
        raise Refused(f"the dataset is not JSON Lines: {error}", of_task=True) from error
    return head.examples(rows, params.text, params.label)


def _write_vectors(path: Path, vectors: list[list[float]]) -> None:
    with path.open("wb") as file:
        for vector in vectors:
            array.array("f", vector).tofile(file)


def _fit(params: TrainParams, labels: list[str], room: Path) -> dict[str, Any]:
    """Return what a worker is asked to do for a training."""
    return {
        "task": "fit",
        "vectors": str(room / "vectors"),
        "labels": labels,
        "base": params.base,
        "epochs": params.epochs,
        "seed": params.seed,
        "out": str(room / "head"),
    }


def _lay_out(room: Path, inputs: Inputs) -> int:
    """Write each table to a file called after its place, and return the bytes in all."""
    total = 0
    for number, (name, artifact) in enumerate(inputs.items()):
        _copy(_table(name, artifact), room / f"{number}.jsonl")
        total += artifact.size
    return total


def _copy(artifact: Artifact, path: Path) -> None:
    """Write an artifact to a file piece by piece; raises Refused unless it is what its name says.

    It is checked again here, because it may have lain on a disk for days.
    """
    total = hashlib.sha256()
    with artifact.open() as source, path.open("wb") as target:
        while part := source.read(1 << 20):
            total.update(part)
            target.write(part)
    if total.hexdigest() != artifact.digest:
        raise Refused(f"the input {artifact.digest[:12]} does not hash to its own name")


def _statement(params: QueryParams, inputs: Inputs, room: Path, memory_mib: int) -> dict[str, Any]:
    """Return what a worker is asked to do for a query."""
    return {
        "task": "query",
        "sql": params.sql,
        "tables": {name: str(room / f"{n}.jsonl") for n, name in enumerate(inputs)},
        "empty": {
            name: dict(decode_columns(table.media_type))
            for name, table in inputs.items()
            if not table.size
        },
        "folder": str(room),
        "memory_mib": memory_mib,
        "out": str(room / "rows"),
    }
