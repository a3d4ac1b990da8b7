"""Does each kind of call in the pool's slots."""

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
from agentkit.kinds.questions import MESSAGE_TOKENS
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
"""The most tokens that a chat template adds."""

_MOST_BYTES_PER_TOKEN = 16
"""No text has more bytes per token on average, so a longer prompt is refused without counting."""


class CallWork:
    """Does one call.

    `begin` is called once, right before a child gets the first part of the work.  `declared` is
    the load that the payer declared, None for a call that is not charged by its load.
    """

    def __init__(self, slots: Slots, begin: Callable[[], None], declared: Units | None) -> None:
        self._slots = slots
        self._begin = begin
        self._declared = declared
        self._meter = Meter(allowance(declared, slots.limits))

    async def do(self, params: InferParams | TrainParams | QueryParams, inputs: Inputs) -> Done:
        """Do the call and return its outputs and usage; raises what `Pool.run` does."""
        done = await self._do_by_kind(params, inputs)
        return replace(done, cpu_ms=self._meter.cpu_ms)

    async def _do_by_kind(
        self, params: InferParams | TrainParams | QueryParams, inputs: Inputs
    ) -> Done:
        """Do the call on the kind of slot that it needs."""
        match params:
            case TrainParams():
                return await self._train(params, inputs)
            case QueryParams():
                return await self._query(params, inputs)
            case InferParams() if "model" in inputs:
                return await self._classify(params, inputs["model"])
            case InferParams(output="embedding"):
                return await self._embed_prompt(params)
            case InferParams():
                return await self._generate(params)

    async def _generate(self, params: InferParams) -> Done:
        """Answer a prompt with a text model."""
        path, body = await asyncio.to_thread(text.request, params)
        model = _model(params.model, "text")
        async with self._slots.llamas(model).take() as llama:
            await llama.core()
            self._begin()
            await self._check_tokens(llama, text.read_by_model(params))
            answer = await llama.ask(path, body, self._meter)
        output = await asyncio.to_thread(text.artifact, params, answer)
        return Done(
            outputs=(output,),
            usage=text.usage(answer),
            model=model.name,
            finish_reason=text.finish_reason(params, answer, output),
        )

    async def check_fits(self, params: InferParams) -> None:
        """Raise Refused for a prompt longer than its model reads; see `Pool.check_fits`.

        Only a prompt whose bytes leave it open is counted in tokens, because that needs a slot.
        """
        model = model_file(params.model)
        queue = self._slots.llamas(model)
        queue.check_room()
        read = text.read_by_model(params)
        size = len(read.encode())
        marks = _TEMPLATE_BYTES + MESSAGE_TOKENS * len(params.messages)
        if size + marks <= model.context:
            return  # a token has at least one byte
        if size > model.context * _MOST_BYTES_PER_TOKEN:
            raise Refused(
                f"the prompt has {size} bytes, and {model.name} reads {model.context} tokens"
            )
        async with queue.take() as llama:
            await llama.core()
            tokens = await llama.count_tokens(read, self._meter)
        if tokens + marks > model.context:
            raise Refused(f"the prompt has {tokens} tokens, and {model.name} reads {model.context}")

    async def _check_tokens(self, llama: Llama, *prompts: str) -> None:
        """Raise Refused for prompts with more tokens than declared, before the model reads them."""
        if not tokens_may_exceed(prompts, self._declared):
            return
        token_counts = [await llama.count_tokens(prompt, self._meter) for prompt in prompts]
        total = sum(token_counts)
        declared = (self._declared or {}).get("input", 0)
        if total > declared:
            raise Refused(f"the prompt has {total} tokens, and its load declares {declared}")

    async def _embed_prompt(self, params: InferParams) -> Done:
        """Return the embedding of a prompt."""
        model = _model(params.model, "embedding")
        vectors, tokens = await self._embed(model, [params.prompt or ""], charged_by_token=True)
        output = Embedding.dump([{"vector": vectors[0]}])
        return Done(outputs=(output,), usage={"input": tokens}, model=model.name)

    async def _embed(
        self, model: ModelFile, texts: list[str], *, charged_by_token: bool, bounded: bool = True
    ) -> tuple[list[list[float]], int]:
        """Return the vectors of texts and the tokens read.

        Texts that are not charged by the token are rows of a dataset, whose number was checked.
        `bounded` is false for a caller that has a slot already; see `SlotQueue.take`.
        """
        async with self._slots.llamas(model).take(bounded=bounded) as llama:
            await llama.core()
            self._begin()
            if charged_by_token:
                await self._check_tokens(llama, *texts)
            return await embed(llama, texts, self._meter)

    async def _classify(self, params: InferParams, trained: Artifact) -> Done:
        """Classify a prompt with a trained head, which reads the prompt's embedding."""
        require("local", "numpy")
        document = trained.read()
        base = _model(head.base_of(document), "embedding")
        async with self._slots.workers.take() as worker:
            with worker.room() as room:
                head_path = room / "head"
                await asyncio.to_thread(head_path.write_bytes, document)
                vectors, tokens = await self._embed(
                    base, [params.prompt or ""], charged_by_token=True, bounded=False
                )
                label = await worker.do(
                    {"task": "predict", "head": str(head_path), "vector": vectors[0]}, self._meter
                )
        output = Text.of(label.encode())
        return Done(outputs=(output,), usage={"input": tokens, "output": 1}, model=base.name)

    async def _train(self, params: TrainParams, inputs: Inputs) -> Done:
        """Train a head on the embeddings of a dataset's texts."""
        require("local", "numpy")
        if params.method != "head":
            raise Refused(f"there is no method {params.method!r} here, only 'head'")
        base = _model(params.base, "embedding")
        async with self._slots.workers.take() as worker:
            # Read only now that a slot is free, so that one dataset is in memory at a time.
            texts, labels = await asyncio.to_thread(_examples, params, inputs)
            with worker.room() as room:
                vectors, _ = await self._embed(base, texts, charged_by_token=False, bounded=False)
                await asyncio.to_thread(_write_vectors, room / "vectors", vectors)
                await worker.do(_fit_request(params, labels, room), self._meter)
                document = await asyncio.to_thread((room / "head").read_bytes)
        output = Model.of(document, head.MEDIA_TYPE)
        usage = {"row": len(texts) * params.epochs}
        return Done(outputs=(output,), usage=usage, model=base.name)

    async def _query(self, params: QueryParams, inputs: Inputs) -> Done:
        """Run a query over the input tables in a worker."""
        require("data", "duckdb")
        async with self._slots.workers.take() as worker:
            with worker.room() as room:
                size = await asyncio.to_thread(_write_tables, room, inputs)
                await worker.start()
                self._begin()
                # Half of the slot's memory for DuckDB; Python and the result need the rest.
                memory_mib = self._slots.limits.memory_mib // 2
                request = _query_request(params, inputs, room, memory_mib=memory_mib)
                answer = await worker.do(request, self._meter)
                rows = await asyncio.to_thread((room / "rows").read_bytes)
        table = Dataset.of(rows) if rows else Dataset.dump((), answer["columns"])
        return Done(outputs=(table,), usage={"byte": size}, model="")


def _model(name: str, makes: str) -> ModelFile:
    """Return a model of the catalogue; raises Refused for one that makes something else."""
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
    """Return the texts and labels of the input `dataset`; raises Refused."""
    if "dataset" not in inputs:
        raise Refused("training needs the input 'dataset'", of_task=True)
    try:
        rows = _table("dataset", inputs["dataset"]).rows()
    except ValueError as error:
        raise Refused(f"the dataset is not JSON Lines: {error}", of_task=True) from error
    return head.examples(rows, params.text, params.label)


def _write_vectors(path: Path, vectors: list[list[float]]) -> None:
    """Write vectors to a file of float32, one after another, as `head.fit` reads them."""
    with path.open("wb") as file:
        for vector in vectors:
            array.array("f", vector).tofile(file)


def _fit_request(params: TrainParams, labels: list[str], room: Path) -> dict[str, Any]:
    """Return the request to a worker for a training; see `head.fit`."""
    return {
        "task": "fit",
        "vectors": str(room / "vectors"),
        "labels": labels,
        "base": params.base,
        "epochs": params.epochs,
        "seed": params.seed,
        "out": str(room / "head"),
    }


def _write_tables(room: Path, inputs: Inputs) -> int:
    """Write the input tables to `0.jsonl`, `1.jsonl` and so on; return their bytes together.

    The files are numbered because an input's name may not be a safe file name.
    """
    total_size = 0
    for number, (name, artifact) in enumerate(inputs.items()):
        _copy(_table(name, artifact), room / f"{number}.jsonl")
        total_size += artifact.size
    return total_size


def _copy(artifact: Artifact, path: Path) -> None:
    """Copy an artifact to a file part by part; raises Refused if it does not have its digest.

    An input may have been on disk for days since it was checked on arrival.
    """
    hasher = hashlib.sha256()
    with artifact.open() as source, path.open("wb") as target:
        while part := source.read(1 << 20):
            hasher.update(part)
            target.write(part)
    if hasher.hexdigest() != artifact.digest:
        raise Refused(f"the input {artifact.digest[:12]} does not hash to its own name")


def _query_request(
    params: QueryParams, inputs: Inputs, room: Path, *, memory_mib: int
) -> dict[str, Any]:
    """Return the request to a worker for a query; see `sql.query`."""
    return {
        "task": "query",
        "sql": params.sql,
        "tables": {name: str(room / f"{number}.jsonl") for number, name in enumerate(inputs)},
        "empty": {
            name: dict(decode_columns(table.media_type))
            for name, table in inputs.items()
            if not table.size
        },
        "folder": str(room),
        "memory_mib": memory_mib,
        "out": str(room / "rows"),
    }
