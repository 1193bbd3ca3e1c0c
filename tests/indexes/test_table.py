"""What a query finds in a snapshot's arrays is what the plain formula says, trend by trend."""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from indexes import concepts as module
from indexes.concepts import Concept, Concepts, make_concepts
from indexes.lexical import K1, B, words
from indexes.products import inner_products
from indexes.publishing import publish, published
from indexes.relevance import LEXICAL_HALF
from indexes.snapshot import Snapshot, open_newest, open_snapshot
from indexes.table import SCENE_DISCOUNT, Table, clauses, passes
from tests.fakes import NOW, HashEmbedder, make_trend
from tests.indexes.test_segments import worlds
from trendrag.types import SnapshotInfo, Trend, TrendFilters

EMBEDDER = HashEmbedder()
# No trend is equally near to two texts of one: of such a tie the mean would leave one out.
KNOWN = (
    Concept(id="chess", about=("chess night", "chess"), scenes=("knight takes grandpa smirks", "a board in the park")),
    Concept(id="light", about=("lantern night",), scenes=("lights over the river", "paper and candles")),
    Concept(id="coffee", about=("latte art", "latte", "coffee"), scenes=("milk in a cup",)),
)
QUERIES = (
    "latte night in the park",
    "grandpa smirks, knight takes again, and milk in a cup",
    "art",
    "nothing of the kind",
)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "read_concepts", lambda: KNOWN)


def follow(directory: Path, trends: Sequence[Trend], hours: int, concepts: Concepts | None) -> SnapshotInfo:
    return publish(
        directory,
        trends,
        EMBEDDER,
        before=published(directory, EMBEDDER),
        origin="live",
        recorded_at=NOW,
        now=NOW + timedelta(hours=hours),
        keep=9,
        concepts=concepts,
    )


# --- the plain formula


def cosine(trend: Trend, query: str) -> float:
    text = f"{trend.phrase}. {trend.summary}" if trend.summary else trend.phrase
    one, other = EMBEDDER.embed([text, query])
    return float(one @ other)


def bm25(trends: Sequence[Trend], query: str) -> list[float]:
    counts = [Counter(words(" ".join((trend.phrase, *trend.aliases, trend.summary)))) for trend in trends]
    mean = max(sum(each.total() for each in counts) / max(len(counts), 1), 1.0)
    scores = []
    for each in counts:
        score = 0.0
        for word in set(words(query)):
            having = sum(word in other for other in counts)
            idf = math.log(1 + (len(counts) - having + 0.5) / (having + 0.5))
            score += idf * each[word] * (K1 + 1) / (each[word] + K1 * (1 - B + B * each.total() / mean))
        scores.append(score)
    return scores


def bridge(trend: Trend, query: str) -> float:
    """Beyond the mean of photos at large, which all scenes stand for where there are so few."""
    scenes = [scene for concept in KNOWN for scene in concept.scenes]
    return best(trend, [query, *clauses(query)]) - sum(best(trend, [scene]) for scene in scenes) / len(scenes)


def best(trend: Trend, asked: Sequence[str]) -> float:
    def near(texts: Sequence[str], others: Sequence[str]) -> float:
        """The nearest of ``texts``, by the mean of its best two cosines with ``others``."""
        found = EMBEDDER.embed(texts) @ EMBEDDER.embed(others).T
        return max(float(np.sort(each)[-2:].mean()) for each in found)

    said = [trend.phrase, *([f"{trend.phrase}. {trend.summary}"] if trend.summary else [])]
    found: list[float] = []
    for concept in KNOWN:
        weight = max(0.0, (near(said, concept.about) - module.FLOOR) / (1 - module.FLOOR)) ** module.EXPONENT
        found.append(near(asked, concept.scenes) * weight)
    return max(found, default=0.0)


def agrees(snapshot: Snapshot, trends: Sequence[Trend], concepts: Concepts) -> None:
    assert {trend.id: trend for trend in snapshot.trends} == {trend.id: trend for trend in trends}
    table = Table(snapshot, concepts)
    for query in QUERIES:
        found = table.signals(query, EMBEDDER)
        assert found.bridge is not None
        own = list(snapshot.trends)
        assert found.cosine.tolist() == pytest.approx([cosine(trend, query) for trend in own], abs=1e-5)
        raw = bm25(own, query)
        assert found.lexical.tolist() == pytest.approx([each / (each + LEXICAL_HALF) for each in raw], abs=1e-5)
        # An about's cosine is one or near to nothing by a rounding, which the root makes more of.
        assert found.bridge.tolist() == pytest.approx([bridge(trend, query) for trend in own], abs=1e-3)


@given(worlds(), st.sampled_from(["kept", "made late", "never kept"]))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
def test_signals_are_what_the_plain_formula_says(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[Trend]], links: str
) -> None:
    directory = tmp_path_factory.mktemp("snapshots")
    concepts = make_concepts(EMBEDDER, directory / "models")
    for hour, trends in enumerate(rounds):
        late = links == "made late" and hour < len(rounds) - 1
        kept = None if late or links == "never kept" else concepts
        info = follow(directory, trends, hour, kept)
        snapshot = open_snapshot(directory / info.id, EMBEDDER)
        assert all((concepts.digest in part.links) == (kept is not None) for part in snapshot.parts)
        agrees(snapshot, trends, concepts)


def test_links_of_other_concepts_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trends = [make_trend("chess night"), make_trend("latte art", summary="milk and coffee")]
    follow(tmp_path, trends, 0, make_concepts(EMBEDDER, tmp_path / "models"))
    monkeypatch.setattr(module, "read_concepts", lambda: KNOWN[::-1])
    others = make_concepts(EMBEDDER, tmp_path / "models")
    agrees(open_newest(tmp_path, EMBEDDER), trends, others)
    info = follow(tmp_path, trends, 1, others)  # what is there stays, but for its links
    snapshot = open_snapshot(tmp_path / info.id, EMBEDDER)
    assert [set(part.links) for part in snapshot.parts] == [{others.digest}]
    agrees(snapshot, trends, others)


# --- filters


@st.composite
def labelled(draw: st.DrawFn) -> list[Trend]:
    return [
        make_trend(
            f"trend {number}",
            language=draw(st.sampled_from(["en", "de", "und"])),
            region=draw(st.sampled_from([None, "GB", "US"])),
            categories=tuple(draw(st.lists(st.sampled_from(["sports", "food"]), max_size=2))),
        )
        for number in range(draw(st.integers(0, 6)))
    ]


@given(
    labelled(),
    st.builds(
        TrendFilters,
        region=st.sampled_from([None, "GB", "US", "DE"]),
        language=st.sampled_from([None, "en", "de", "und", "fr"]),
        categories=st.lists(st.sampled_from(["sports", "food", "news"]), max_size=2).map(tuple),
    ),
)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_filters_let_through_what_the_rule_does(
    tmp_path_factory: pytest.TempPathFactory, trends: list[Trend], filters: TrendFilters
) -> None:
    directory = tmp_path_factory.mktemp("snapshots")
    follow(directory, trends, 0, None)
    follow(directory, trends[1:], 1, None)
    snapshot = open_newest(directory, EMBEDDER)
    found = Table(snapshot, None).passing(filters, None).tolist()
    assert found == [passes(trend, filters) for trend in snapshot.trends]


@pytest.mark.parametrize("shape", [(0, 5), (1, 0), (1, 7), (3, 1500)])
def test_inner_products_are_numpys(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    one, other = (rng.normal(size=(count, 16)).astype(np.float32) for count in shape)
    assert inner_products(one, other) == pytest.approx(one @ other.T, abs=1e-5)


@pytest.mark.parametrize("kept", [True, False])
def test_scenes_count_less_than_what_a_trend_says_and_link_it_to_nothing(tmp_path: Path, kept: bool) -> None:
    concepts = make_concepts(EMBEDDER, tmp_path)
    plain = [make_trend("tea"), make_trend("goat yoga", summary="on a lawn"), make_trend("lantern night")]
    scenes = ("lights over the river", "lantern night")
    staged = [plain[0], plain[1].model_copy(update={"scenes": scenes}), plain[2]]
    found = []
    for name, trends in (("plain", plain), ("staged", staged)):
        follow(tmp_path / name, trends, 0, concepts if kept else None)
        table = Table(open_newest(tmp_path / name, EMBEDDER), concepts)
        found.append(table.signals("lights over the river", EMBEDDER))
        assert [len(vectors) for vectors in table.vectors_of([0, 1, 2]).values()] == [1, 2, 1]
    without, with_scenes = found
    assert without.bridge is not None
    assert with_scenes.bridge is not None
    assert without.bridge.max() > 0
    assert with_scenes.bridge.tolist() == without.bridge.tolist()
    assert with_scenes.cosine.tolist() == pytest.approx([without.cosine[0], 1 - SCENE_DISCOUNT, without.cosine[2]])
