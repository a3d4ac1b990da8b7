"""Search over notes and facts: by words, or by vectors from an embedding model."""

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
"""Returns one vector for each text, all of one length."""

K1 = 1.2
"""BM25's k1: how soon a further occurrence of a word adds nothing to the score."""

B = 0.75
"""BM25's b: how much long texts are scored down, from 0 (not at all) to 1."""

WORDS = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Match:
    """A note or fact that a search found; scores of different searches are not comparable."""

    score: float
    row: r.Note | r.Fact

    @property
    def text(self) -> str:
        """The text of the note, or the fact as `key: value`."""
        return text_of(self.row)


def text_of(row: r.Note | r.Fact) -> str:
    """Return a note's text, or a fact's key and value."""
    if isinstance(row, r.Note):
        return row.text
    value = row.value if isinstance(row.value, str) else json.dumps(row.value, ensure_ascii=False)
    return f"{row.name}: {value}"


async def search_words(rows: Sequence[r.Note | r.Fact], text: str, k: int) -> list[Match]:
    """Return the `k` best rows that share words with `text`, the newer first of equal ones."""
    texts = [_searched_text(row) for row in rows]
    scores = await asyncio.to_thread(bm25_scores, texts, text)
    scored = [Match(score, row) for score, row in zip(scores, rows, strict=True) if score > 0]
    return _best(scored, k)


def bm25_scores(texts: Sequence[str], query: str) -> list[float]:
    """Return the BM25 score of each text for the words of `query`; 0 if it has none of them.

    The formula is Okapi BM25 with Lucene's weight for rare words
    (https://en.wikipedia.org/wiki/Okapi_BM25).
    """
    word_counts = [Counter(_words(text)) for text in texts]
    lengths = [counts.total() for counts in word_counts]
    mean_length = sum(lengths) / max(1, len(lengths)) or 1.0

    rarity: dict[str, float] = {}
    for word in set(_words(query)):
        text_count = sum(word in counts for counts in word_counts)
        if text_count:
            absent = len(texts) - text_count
            rarity[word] = math.log(1 + (absent + 0.5) / (text_count + 0.5))

    scores = []
    for counts, length in zip(word_counts, lengths, strict=True):
        damping = K1 * (1 - B + B * length / mean_length)
        score = sum(
            weight * counts[word] * (K1 + 1) / (counts[word] + damping)
            for word, weight in rarity.items()
        )
        scores.append(score)
    return scores


def _words(text: str) -> list[str]:
    return WORDS.findall(text.casefold())


def _searched_text(row: r.Note | r.Fact) -> str:
    """Return the text in which words are searched: for a note with its topic."""
    return f"{row.topic} {row.text}" if isinstance(row, r.Note) else text_of(row)


def _best(scored: list[Match], k: int) -> list[Match]:
    """Return the `k` best matches, the newer first of equal ones."""
    return sorted(scored, key=lambda match: (-match.score, -match.row.at))[: max(0, k)]


async def search_vectors(
    rows: Sequence[r.Note | r.Fact], text: str, k: int, *, embed: Embed, folder: Path
) -> list[Match]:
    """Return the `k` rows whose vectors are most similar to that of `text`, best first."""
    texts = [text_of(row) for row in rows]
    scores = await cosine_scores(texts, text, embed=embed, folder=folder)
    scored = [Match(score, row) for score, row in zip(scores, rows, strict=True)]
    return _best(scored, k)


async def cosine_scores(
    texts: Sequence[str], query: str, *, embed: Embed, folder: Path
) -> list[float]:
    """Return the cosine between the vector of each text and that of `query`.

    Vectors are cached in `folder`; only the query and texts without a cached vector are sent to
    `embed`.  Raises what `embed` raises, and ProtocolBroken if its answer is not vectors.
    """
    # Imports numpy, which an agent that only searches by words does not need.
    from agentkit.memory.knowledge.vectors import Vectors

    if not texts:
        return []
    vectors = await Vectors(folder, name_of(embed)).of([*texts, query], embed)
    text_vectors = vectors[:-1]
    query_vector = vectors[-1]
    return [float(score) for score in text_vectors @ query_vector]


def name_of(embed: Embed) -> str:
    """Return the name under which vectors of an embedding are cached.

    It is `embed.name` if it has one, else the module and name of the function or class.
    """
    name = getattr(embed, "name", None)
    if isinstance(name, str):
        return name
    named = embed if hasattr(embed, "__qualname__") else type(embed)
    return f"{named.__module__}:{named.__qualname__}"
