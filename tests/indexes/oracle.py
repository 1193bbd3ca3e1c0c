"""What ``TrendRetriever`` must answer: docs/retrieval.md once more, trend by trend in float64, with no index at all.

It shares with the retriever only what is data (coefficients, limits) and how texts are read (words, clauses, glosses).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.concepts import BACKGROUND, EXPONENT, FLOOR, NEAREST, Concepts
from indexes.embedder import Embedder
from indexes.gloss import gloss
from indexes.lexical import K1, B, words
from indexes.relevance import LEXICAL_HALF, SAME, WITH_CONCEPTS, WITHOUT_CONCEPTS
from indexes.retriever import LOOKED_AT
from indexes.table import SCENE_DISCOUNT, clauses
from trendrag.text import normal_form
from trendrag.types import Trend, TrendFilters

Wide = npt.NDArray[np.float64]
ConceptTexts = tuple[tuple[str, ...], tuple[str, ...]]
"""How trends on it are named, how photos that fit it are described."""


@dataclass(frozen=True)
class Hit:
    trend: Trend
    similarity: float
    chance: float
    score: float


@dataclass(frozen=True)
class Oracle:
    """``max_age`` is None for a sample, which is never too old."""

    trends: Sequence[Trend]
    embedder: Embedder
    concepts: Sequence[ConceptTexts]
    k: int
    threshold: float
    max_age: timedelta | None
    now: datetime

    def answer(self, query: str, filters: TrendFilters) -> tuple[Hit, ...]:
        fitting = [hit for hit in self.rated(query, filters) if hit.chance >= self.threshold]
        fitting.sort(key=lambda hit: (-hit.score, hit.trend.id))
        kept: list[Hit] = []
        for hit in fitting[: LOOKED_AT * self.k]:
            if not any(self._same(hit.trend, other.trend) for other in kept):
                kept.append(hit)
        return tuple(kept[: self.k])

    def rated(self, query: str, filters: TrendFilters) -> list[Hit]:
        """All trends that the filters and the age let through."""
        return [self._rated(query, trend) for trend in self.trends if self._passes(trend, filters)]

    def alike(self, one: Trend, other: Trend) -> float:
        """The cosine of their nearest vectors."""
        return float((self._vectors(_texts(one)) @ self._vectors(_texts(other)).T).max())

    def nearness(self, trend: Trend) -> list[float]:
        """How near the trend is to each concept."""
        vectors = self._vectors(_texts(trend))
        return [_two_best(vectors @ self._vectors(about).T) for about, _ in self.concepts]

    def _passes(self, trend: Trend, filters: TrendFilters) -> bool:
        if self.max_age is not None and trend.last_seen < self.now - self.max_age:
            return False
        if filters.region and trend.region not in {None, filters.region}:
            return False
        if filters.language and trend.language not in {"und", filters.language}:
            return False
        return not filters.categories or any(each in trend.categories for each in filters.categories)

    def _rated(self, query: str, trend: Trend) -> Hit:
        whole = [query, *([english] if (english := gloss(query)) else [])]
        texts = _texts(trend)
        compared = texts[1:] or texts
        asked = self._vectors(whole)
        cosine = float((self._vectors(compared) @ asked.T).max())
        if trend.scenes:
            cosine = max(cosine, float((self._vectors(trend.scenes) @ asked.T).max()) - SCENE_DISCOUNT)
        bm25 = max(self._bm25(text, trend) for text in whole)
        lexical = bm25 / (bm25 + LEXICAL_HALF)
        weights, bridge = WITHOUT_CONCEPTS, 0.0
        if self.concepts:
            whole = [*whole, *(part for text in whole for part in clauses(text))]
            weights, bridge = WITH_CONCEPTS, self._bridge(whole, trend) - self._common(trend)
        logit = weights.bias + weights.cosine * cosine + weights.lexical * lexical + weights.bridge * bridge
        chance = 1 / (1 + math.exp(-logit))
        left = 1.0 if self.max_age is None else (trend.last_seen - self.now + self.max_age) / self.max_age
        rank = (0.9 + 0.1 * trend.score) * (0.95 + 0.05 * min(max(left, 0.0), 1.0))
        return Hit(trend, cosine, chance, chance * rank)

    def _bm25(self, text: str, trend: Trend) -> float:
        documents = [Counter(words(" ".join((each.phrase, *each.aliases, each.summary)))) for each in self.trends]
        mean = max(sum(each.total() for each in documents) / len(documents), 1.0)
        own = documents[self.trends.index(trend)]
        found = 0.0
        for word in set(words(text)) & own.keys():
            having = sum(word in each for each in documents)
            idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            found += idf * own[word] * (K1 + 1) / (own[word] + K1 * (1 - B + B * own.total() / mean))
        return found

    def _common(self, trend: Trend) -> float:
        """The mean bridge to photos at large: all scenes, as long as there are no more than are taken for these."""
        scenes = [scene for _, each in self.concepts for scene in each]
        assert len(scenes) <= BACKGROUND
        return sum(self._bridge([scene], trend) for scene in scenes) / len(scenes)

    def _bridge(self, texts: Sequence[str], trend: Trend) -> float:
        asked = self._vectors(texts)
        links: list[tuple[float, float]] = []
        for near, (_, scenes) in zip(self.nearness(trend), self.concepts, strict=True):
            weight = min(max((near - FLOOR) / (1 - FLOOR), 0.0), 1.0) ** EXPONENT
            links.append((near, weight * _two_best(asked @ self._vectors(scenes).T)))
        return max(product for _, product in sorted(links, reverse=True)[:NEAREST])

    def _same(self, one: Trend, other: Trend) -> bool:
        return bool(_names(one) & _names(other)) or self.alike(one, other) >= SAME

    def _vectors(self, texts: Sequence[str]) -> Wide:
        return self.embedder.embed(texts).astype(np.float64)


def _texts(trend: Trend) -> list[str]:
    """What is embedded of a trend; the first is left out of the comparison with the query where there are others."""
    about = f"{trend.phrase}. {trend.summary}" if trend.summary else trend.phrase
    return [trend.phrase, *([about] if trend.summary else []), *([it] if (it := gloss(about, trend.language)) else [])]


def _two_best(cosines: Wide) -> float:
    """Of each row the mean of the two best; of these the best."""
    return float(np.sort(cosines, axis=1)[:, -2:].mean(axis=1).max())


def _names(trend: Trend) -> set[Any]:
    return {normal_form(name).replace(" ", "") for name in (trend.phrase, *trend.aliases)} - {""}


def concepts_of(texts: Sequence[ConceptTexts], embedder: Embedder) -> Concepts:
    about, scenes = ([each[side] for each in texts] for side in (0, 1))
    starts = [np.cumsum([0, *map(len, side)])[:-1].astype(np.int64) for side in (about, scenes)]
    vectors = [embedder.embed([text for each in side for text in each]) for side in (about, scenes)]
    return Concepts(vectors[0], starts[0], vectors[1], starts[1])
