"""Finding notes and facts again: by words, or by vectors from an embedding model."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentkit.journal import records as r

Embed = Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]]
"""From texts to their vectors, one each, all of one length."""

SATURATION, LENGTHS = 1.2, 0.75
"""BM25's k1 and b: how soon a word more says nothing new, how much long texts are held back."""

WORDS = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Match:
    """A note or fact that a search found; scores compare within one search only."""

    score: float
    row: r.Note | r.Fact

    @property
    def text(self) -> str:
        """What was searched: the note, or the fact as `key: value`."""
        return text_of(self.row)


def text_of(row: r.Note | r.Fact) -> str:
    """Return a note's text, or a fact's key and value."""
    if isinstance(row, r.Note):
        return row.text
    value = row.value if isinstance(row.value, str) else json.dumps(row.value, ensure_ascii=False)
    return f"{row.name}: {value}"


async def by_words(rows: Sequence[r.Note | r.Fact], text: str, k: int) -> list[Match]:
    """Return the rows that share words with `text`, best first; the newer of two equals."""
    scores = await asyncio.to_thread(shared_words, list(map(_searched, rows)), text)
    scored = [Match(score, row) for score, row in zip(scores, rows, strict=True) if score > 0]
    return _best(scored, k)


def shared_words(texts: Sequence[str], asked: str) -> list[float]:
    """Return how well each text fits the words that are asked for (BM25); 0 for none of them."""
    bags = [Counter(_words(text)) for text in texts]
    sizes = [bag.total() for bag in bags]
    mean = sum(sizes) / max(1, len(sizes)) or 1.0
    holding = {word: sum(word in bag for bag in bags) for word in set(_words(asked))}
    weight = {
        word: math.log(1 + (len(bags) - n + 0.5) / (n + 0.5)) for word, n in holding.items() if n
    }
    scores = []
    for bag, size in zip(bags, sizes, strict=True):
        held = SATURATION * (1 - LENGTHS + LENGTHS * size / mean)
        terms = (w * bag[x] * (SATURATION + 1) / (bag[x] + held) for x, w in weight.items())
        scores.append(sum(terms))
    return scores


def _words(text: str) -> list[str]:
    return WORDS.findall(text.casefold())


def _searched(row: r.Note | r.Fact) -> str:
    """Return what words are looked for in: a note's topic counts too."""
    return f"{row.topic} {row.text}" if isinstance(row, r.Note) else text_of(row)


def _best(scored: list[Match], k: int) -> list[Match]:
    return sorted(scored, key=lambda match: (-match.score, -match.row.at))[: max(0, k)]


async def by_embedding(
    rows: Sequence[r.Note | r.Fact], text: str, k: int, embed: Embed, folder: Path
) -> list[Match]:
    """Return the rows whose vectors point most nearly where that of `text` does, best first."""
    scores = await alike(list(map(text_of, rows)), text, embed, folder)
    scored = [Match(score, row) for score, row in zip(scores, rows, strict=True)]
    return _best(scored, k)


async def alike(texts: Sequence[str], asked: str, embed: Embed, folder: Path) -> list[float]:
    """Return the cosine of each text's vector and that of `asked`.

    Only texts that were not embedded before are sent to `embed`, `asked` among them; vectors are
    kept in `folder`.  Raises what `embed` raises, and ProtocolBroken for vectors that are none.
    """
    from agentkit.memory.knowledge.vectors import (
        Vectors,  # and numpy, which nothing else here needs
    )

    if not texts:
        return []
    known = await Vectors(folder, name_of(embed)).of([*texts, asked], embed)
    return [float(score) for score in known[:-1] @ known[-1]]


def name_of(embed: Embed) -> str:
    """Return what vectors of an embedding are kept under."""
    given = getattr(embed, "name", None)
    if isinstance(given, str):
        return given
    kind = embed if hasattr(embed, "__qualname__") else type(embed)
    return f"{kind.__module__}:{kind.__qualname__}"
