"""Doubles and builders that several ingest tests share."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from ingest.book.keeping import Times
from ingest.fetcher import Fetched
from ingest.observation import Intake, Kind, Observation, Origin
from ingest.pipeline import Decision, decide
from ingest.safety import Gate
from ingest.safety_rules import Vocabulary
from ingest.sources import parse_sources
from ingest.sources.base import Source
from ingest.store import ObservationStore
from trendrag.errors import FetchError

NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
TIMES = Times(half_life=timedelta(hours=12), max_age=timedelta(hours=72))
GATE = Gate(Vocabulary.built_in(), None)
"""By the vocabulary alone."""


def decided(store: ObservationStore, now: datetime) -> Decision:
    """What all that is in the store comes to with default settings, decided from the start."""
    return decide(
        store.latest(now - TIMES.max_age),
        store.points(now - TIMES.needed),
        GATE,
        None,
        now=now,
        half_life=TIMES.half_life,
        max_age=TIMES.max_age,
    )


class CannedFetcher:
    """``ingest.fetcher.Fetcher`` that serves what it was given, at the time that it was given."""

    def __init__(self, answers: Mapping[str, bytes | FetchError], at: datetime = NOW) -> None:
        self.answers = dict(answers)
        self.at = at
        self.asked: list[str] = []
        self.sent: dict[str, Mapping[str, str]] = {}

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Fetched:
        self.asked.append(url)
        self.sent[url] = dict(headers or {})
        answer = self.answers.get(url, FetchError(f"{url} can't be reached"))
        if isinstance(answer, FetchError):
            raise answer
        return Fetched(answer, {}, url, self.at)


def source(text: str) -> Source:
    return parse_sources("[[source]]\n" + text, "the test's sources")[0]


def seen(
    title: str,
    kind: Kind = "phrase",
    *,
    source: str = "a",
    family: str = "fam-a",
    at: datetime = NOW,
    news: Sequence[str] = (),
    volume: int | None = None,
    region: str | None = None,
    language: str = "en",
) -> Observation:
    """One observation, made the way that parsers make it."""
    intake = Intake(Origin(source, "test", family, family.title(), at, region, language, ("life",)))
    evidence = [found for headline in news for found in intake.evidence(headline)]
    intake.add(kind, title, volume=volume, evidence=evidence)
    (observation,) = intake.parsed().observations
    return observation
