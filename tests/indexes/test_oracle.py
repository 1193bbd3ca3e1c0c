"""The retriever answers what an exact oracle does, whatever the trends, the query and the filters."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from indexes.concepts import FLOOR
from indexes.embedder import Embedder, Vectors
from indexes.publishing import publish
from indexes.relevance import SAME
from indexes.retriever import TrendRetriever
from indexes.snapshot import open_newest
from tests.fakes import NOW, HashEmbedder, make_trend
from tests.indexes.oracle import ConceptTexts, Oracle, concepts_of
from trendrag.types import Trend, TrendFilters

MAX_AGE = timedelta(hours=72)
CLOSE = 1e-5
"""What float32 may be off by; nothing is claimed of trends that are nearer than that to a limit or to each other."""

WORDS = ("latte", "art", "snow", "kayak", "night", "goat", "yoga", "chess", "lluvia", "perro", "Kaffee", "Hund", "the")
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
QUERIES = st.lists(TEXTS, min_size=1, max_size=3).map(", ".join)
SEVERAL = st.lists(TEXTS, min_size=1, max_size=3).map(tuple)
REGIONS = st.sampled_from([None, "US", "DE"])
CATEGORIES = st.lists(st.sampled_from(["food", "sports", "pets"]), max_size=2, unique=True).map(tuple)


class SignedEmbedder(HashEmbedder):
    """As its parent, but each word is a direction of its own: cosines below 0, and hardly two that are equal."""

    dim = 12
    _directions = np.random.default_rng(7).standard_normal((HashEmbedder.dim, dim))

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = HashEmbedder().embed(texts) @ self._directions
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)


@st.composite
def some_trends(draw: st.DrawFn) -> list[Trend]:
    """Up to 12, some that say the same as another; ids say nothing of their order."""
    numbers = draw(st.permutations(range(draw(st.integers(0, 12)))))
    return [
        make_trend(
            draw(TEXTS),
            id=f"id-{number}",
            aliases=draw(st.lists(TEXTS, max_size=1)),
            summary=draw(st.just("") | TEXTS),
            region=draw(REGIONS),
            language=draw(st.sampled_from(["und", "en", "es", "de"])),
            categories=draw(CATEGORIES),
            scenes=draw(st.just(()) | SEVERAL),
            score=draw(st.sampled_from([0.0, 0.5, 0.5, 1.0])),
            last_seen=NOW - timedelta(hours=draw(st.sampled_from([0, 1, 30, 71, 72, 73, 200]))),
            first_seen=NOW - timedelta(days=9),
        )
        for number in numbers
    ]


FILTERS = st.builds(
    TrendFilters,
    region=REGIONS,
    language=st.sampled_from([None, None, "en", "es"]),
    categories=st.just(()) | CATEGORIES,
)

CONCEPTS = st.lists(st.tuples(SEVERAL, SEVERAL), max_size=6)


@given(
    trends=some_trends(),
    query=QUERIES,
    filters=FILTERS,
    texts=st.just([]) | CONCEPTS,
    embedder=st.sampled_from([HashEmbedder(), SignedEmbedder()]),
    sample=st.booleans(),
    k=st.integers(1, 8),
    threshold=st.sampled_from([0.0, 0.0, 0.05, 0.5]),
)
def test_the_answer_is_the_oracles(
    trends: list[Trend],
    query: str,
    filters: TrendFilters,
    texts: list[ConceptTexts],
    embedder: Embedder,
    sample: bool,
    k: int,
    threshold: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    oracle = Oracle(trends, embedder, texts, k, threshold, None if sample else MAX_AGE, NOW)
    assume(clear(oracle, query, filters))
    folder = tmp_path_factory.mktemp("snapshots")
    publish(folder, trends, embedder, origin="sample" if sample else "live", recorded_at=NOW, now=NOW, keep=1)
    concepts = concepts_of(texts, embedder) if texts else None
    retriever = TrendRetriever(
        folder, embedder, k=k, threshold=threshold, max_age=MAX_AGE, concepts=concepts, now=lambda: NOW
    )
    found = retriever.search(open_newest(folder, embedder), query, filters)
    expected = oracle.answer(query, filters)
    assert [hit.trend for hit in found.trends] == [hit.trend.model_copy(update={"scenes": ()}) for hit in expected]
    assert [hit.score for hit in found.trends] == pytest.approx([hit.score for hit in expected], abs=CLOSE)
    assert [hit.similarity for hit in found.trends] == pytest.approx([hit.similarity for hit in expected], abs=CLOSE)
    assert (found.reason is None) == bool(expected)


def clear(oracle: Oracle, query: str, filters: TrendFilters) -> bool:
    """Whether nothing hangs on the last digits, but for what is equal: that is settled by id."""
    rated = oracle.rated(query, filters)
    pairs = list(combinations(rated, 2))
    return not (
        any(abs(hit.chance - oracle.threshold) < CLOSE for hit in rated)
        or any(0 < abs(one.score - other.score) < CLOSE for one, other in pairs)
        or any(abs(oracle.alike(one.trend, other.trend) - SAME) < CLOSE for one, other in pairs)
        # The weight of a concept is steepest where it begins.
        or any(abs(near - FLOOR) < 0.01 for hit in rated for near in oracle.nearness(hit.trend))
    )
